"""Every command but train, setup and chat: what is asked of the API, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY, Mock

import pytest

from llamafarm.doctor import DoctorReport, Section
from llamafarm.errors import Problem
from llamafarm.evaluation.harness import TaskScore, TasksReport
from llamafarm.evaluation.report import (
    ComparedModel,
    EvaluationReport,
    ModelScores,
    Sample,
)
from llamafarm.strategy.loader import StrategyEntry, StrategyFile

from .conftest import Done
from .paired_rows import BETTER, SAME, WORSE

Run = Callable[..., Done]
Fake = Callable[..., Mock]
GOLDEN = Path(__file__).parents[1] / "golden" / "cli"

STRATEGIES = StrategyFile(
    Path("strategies.yaml"),
    (
        StrategyEntry("quick", "A quick one", "", "pytorch", True, 3),
        StrategyEntry("ollama_only", "", "Only inference", None, False, 30),
    ),
)
SCORES = ModelScores(
    loss=1.8391,
    perplexity=6.291,
    accuracy=0.6125,
    exact_match=0.1,
    rouge_l=0.4321,
    token_f1=0.45,
    generated_rows=2,
    samples=(
        Sample(
            "eval.jsonl:1", "What is a fever?", "A high temperature.", "It is\nheat.", False, 0.4
        ),
        Sample("eval.jsonl:2", "word " * 60, "B.", "B.", True, 1.0),
    ),
)
BASE = ModelScores(
    loss=2.231,
    perplexity=9.309,
    accuracy=0.55,
    exact_match=0.0,
    rouge_l=0.2,
    token_f1=0.22,
    generated_rows=2,
    samples=(
        Sample("eval.jsonl:1", "What is a fever?", "A high temperature.", "Dunno.", False, 0.0),
    ),
)


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8")


def test_list_strategies_names_what_can_be_trained(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("list_strategies", STRATEGIES)
    assert llamafarm("list-strategies", "--strategy-file", "strategies.yaml") == Done(
        0,
        (
            "strategies.yaml\n"
            "  quick        pytorch        A quick one\n"
            "  ollama_only  not trainable  Only inference\n"
        ),
        "",
    )
    fake.assert_called_once_with(Path("strategies.yaml"))


def test_list_strategies_lists_what_it_can_and_then_fails_on_a_faulty_file(
    llamafarm: Run, fake_api: Fake
) -> None:
    fault = Problem("expected a mapping", where="strategies.yaml:9", path="broken")
    fake_api("list_strategies", StrategyFile(STRATEGIES.path, STRATEGIES.entries, (fault,)))
    done = llamafarm("list-strategies")
    assert done.code == 2
    assert "quick" in done.out
    assert "strategies.yaml:9  broken" in done.err


def test_list_strategies_for_a_program_is_one_object(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("list_strategies", STRATEGIES)
    value = json.loads(llamafarm("list-strategies", "--json").out)
    assert value["path"] == "strategies.yaml"
    assert [s["id"] for s in value["strategies"]] == ["quick", "ollama_only"]


def test_generate_streams_the_answer(llamafarm: Run, fake_api: Fake) -> None:
    def answer(*_: object, on_text: Callable[[str], None], **__: object) -> str:
        on_text("Sixty to ")
        on_text("a hundred.")
        return "Sixty to a hundred."

    fake = fake_api("generate", answer)
    assert llamafarm("generate", "run", "What?") == Done(0, "Sixty to a hundred.\n", "")
    fake.assert_called_once_with("run", "What?", max_new_tokens=256, temperature=0.0, on_text=ANY)


def test_an_answer_cannot_steer_the_terminal(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("generate", lambda *_, on_text, **__: on_text("\x1b[2Jgone"))
    assert llamafarm("generate", "run", "What?").out == "\\x1b[2Jgone\n"


def test_generate_for_a_program_is_one_object(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("generate", "Sixty.")
    done = llamafarm(
        "generate", "run", "What?", "--json", "--max-new-tokens", "8", "--temperature", "0.7"
    )
    assert json.loads(done.out) == {"source": "run", "prompt": "What?", "text": "Sixty."}
    fake.assert_called_once_with("run", "What?", max_new_tokens=8, temperature=0.7, on_text=None)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--max-new-tokens", "0"], "--max-new-tokens  expected a whole number of at least 1"),
        (["--max-new-tokens", "x"], "--max-new-tokens  expected a whole number of at least 1"),
        (["--temperature", "-1"], "--temperature  expected a number of at least 0"),
        (["--temperature", "nan"], "--temperature  expected a number of at least 0"),
    ],
)
def test_generate_refuses_numbers_that_mean_nothing(
    llamafarm: Run, argv: list[str], text: str
) -> None:
    done = llamafarm("generate", "run", "What?", *argv)
    assert done.code == 2
    assert text in done.err


def test_evaluate_shows_one_model(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("evaluate", EvaluationReport("run", "eval.jsonl", 30, 900, SCORES))
    assert llamafarm("evaluate", "run", "--dataset", "eval.jsonl").out == golden("evaluate.txt")
    fake.assert_called_once_with(
        "run",
        Path("eval.jsonl"),
        compare_base=False,
        compare=(),
        metrics=(),
        allow_custom_metrics=False,
        sinks=ANY,
    )


def test_evaluate_shows_base_against_tuned(llamafarm: Run, fake_api: Fake) -> None:
    report = EvaluationReport("run", "eval.jsonl", 30, 900, SCORES, BASE, BETTER)
    fake = fake_api("evaluate", report)
    done = llamafarm("evaluate", "run", "--dataset", "eval.jsonl", "--compare-base")
    assert done.out == golden("evaluate_compare_base.txt")
    assert fake.call_args.kwargs["compare_base"] is True


def test_evaluate_puts_every_model_into_one_table(llamafarm: Run, fake_api: Fake) -> None:
    worse = replace(SCORES, loss=1.9, perplexity=6.686, samples=BASE.samples)
    export = ComparedModel("tuned-Q8_0", "t/tuned-Q8_0.gguf", 30, 900, SCORES, SAME)
    small = ComparedModel("tuned-Q4_K_M", "t/q4.gguf", 30, 900, worse, WORSE)
    report = EvaluationReport(
        "run",
        "eval.jsonl",
        30,
        900,
        SCORES,
        BASE,
        BETTER,
        compared=(export, small),
        warnings=("row 3 was cut",),
    )
    fake = fake_api("evaluate", report)
    argv = ["--compare-base", "--compare", "t/tuned-Q8_0.gguf", "--compare", "t/q4.gguf"]
    done = llamafarm("evaluate", "run", "--dataset", "eval.jsonl", *argv)
    assert done == Done(0, golden("evaluate_compare.txt"), "warning: row 3 was cut\n")
    assert fake.call_args.kwargs["compare"] == ("t/tuned-Q8_0.gguf", "t/q4.gguf")
    value = json.loads(llamafarm("evaluate", "run", "--dataset", "e", "--json").out)
    assert [model["name"] for model in value["compared"]] == ["tuned-Q8_0", "tuned-Q4_K_M"]
    assert value["compared"][1]["scores"]["loss"] == 1.9
    paired = value["compared"][1]["paired"]
    assert (paired["better"], paired["worse"], paired["same"]) == (2, 28, 0)
    assert paired["scores"] == [
        {
            "score": "loss",
            "paired": {
                "change": 0.061,
                "low": 0.04,
                "high": 0.08,
                "better": 2,
                "worse": 28,
                "same": 0,
                "verdict": "worse",
            },
        }
    ]


def test_evaluate_names_a_file_by_its_name(llamafarm: Run, fake_api: Fake) -> None:
    other = ComparedModel("b", "b.gguf", 30, 900, SCORES, SAME)
    report = EvaluationReport("a.gguf", "e.jsonl", 30, 900, SCORES, name="a", compared=(other,))
    fake_api("evaluate", report)
    lines = llamafarm("evaluate", "a.gguf", "--dataset", "e.jsonl").out.splitlines()
    assert lines[2].split() == ["a", "b"]
    assert "  a against b, on the same rows:" in lines
    assert any(line.endswith("30  no difference: every row is the same") for line in lines)


def test_evaluate_for_a_program_has_whole_samples(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("evaluate", EvaluationReport("run", "eval.jsonl", 30, 900, SCORES))
    value = json.loads(llamafarm("evaluate", "run", "--dataset", "e", "--json").out)
    assert value["tuned"]["samples"][1]["prompt"] == "word " * 60
    assert value["base"] is None


def test_evaluate_runs_tasks_instead_of_a_dataset(llamafarm: Run, fake_api: Fake) -> None:
    scores = (
        TaskScore("arc_easy", "acc", 0.4375, 0.0125, 2376, True),
        TaskScore("mine", "exact_match (get-answer)", 1.0, None, None, True),
    )
    fake = fake_api("evaluate_tasks", TasksReport("run", ("arc_easy", "m.yaml"), scores, "0.4.13"))
    done = llamafarm("evaluate", "run", "--tasks", "arc_easy, m.yaml", "--limit", "9")
    assert done.out.splitlines() == [
        "run, measured by lm-eval 0.4.13",
        "",
        "  arc_easy  acc                       0.4375  ± 0.0125  2,376 rows",
        "  mine      exact_match (get-answer)  1",
    ]
    fake.assert_called_once_with("run", ["arc_easy", "m.yaml"], limit=9)
    value = json.loads(llamafarm("evaluate", "run", "--tasks", "arc_easy", "--json").out)
    assert value["scores"][0]["standard_error"] == 0.0125


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "--dataset  is missing"),
        (["--dataset", "e", "--tasks", "t"], "--tasks  contradicts --dataset"),
        (["--tasks", "t", "--compare-base"], "--compare-base  has no effect together with --tasks"),
        (["--tasks", "t", "--metric", "m.f"], "--metric  has no effect together with --tasks"),
        (["--dataset", "e", "--limit", "3"], "--limit  only works together with --tasks"),
        (["--tasks", " ,"], "--tasks  names no task"),
        (["--tasks", "t", "--allow-custom-metrics"], "--allow-custom-metrics  has no effect"),
        (["--tasks", "t", "--limit", "0"], "--limit  expected a whole number of at least 1"),
    ],
)
def test_evaluate_refuses_what_does_not_go_together(
    llamafarm: Run, argv: list[str], text: str
) -> None:
    done = llamafarm("evaluate", "run", *argv)
    assert done.code == 2
    assert text in done.err


def test_evaluate_measures_metrics_that_are_allowed(llamafarm: Run, fake_api: Fake) -> None:
    scores = replace(SCORES, metrics={"mine.polite": 0.5})
    fake = fake_api("evaluate", EvaluationReport("run", "eval.jsonl", 30, 900, scores))
    argv = ["--metric", "mine.polite", "--allow-custom-metrics"]
    done = llamafarm("evaluate", "run", "--dataset", "eval.jsonl", *argv)
    assert ["mine.polite", "0.5"] in [line.split() for line in done.out.splitlines()]
    assert fake.call_args.kwargs["metrics"] == ("mine.polite",)
    assert fake.call_args.kwargs["allow_custom_metrics"] is True


def test_schema_is_json(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("schema", {"type": "object"})
    assert json.loads(llamafarm("schema").out) == {"type": "object"}


def test_doctor_says_how_to_get_what_is_missing(llamafarm: Run, fake_api: Fake) -> None:
    parts = (
        Section("torch", "ok", "2.13.0"),
        Section("tensorboard", "missing", "not installed", "pip install 'llamafarm[tensorboard]'"),
    )
    fake_api("doctor", DoctorReport(parts))
    assert llamafarm("doctor") == Done(
        0,
        (
            "  torch        ok       2.13.0\n"
            "  tensorboard  missing  not installed  pip install 'llamafarm[tensorboard]'\n"
        ),
        "",
    )
    assert json.loads(llamafarm("doctor", "--json").out)["sections"][0]["name"] == "torch"


def test_doctor_fails_when_a_needed_part_is_missing(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("doctor", DoctorReport((Section("peft", "fault", "not installed", "reinstall"),)))
    assert llamafarm("doctor").code == 1


@pytest.mark.parametrize("path", ["", "checkout", "nowhere"])
def test_doctor_tells_whether_the_converter_of_llama_cpp_is_there(
    llamafarm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "checkout" / "gguf-py" / "gguf").mkdir(parents=True)
    (tmp_path / "checkout" / "convert_hf_to_gguf.py").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("LLAMA_CPP_PATH", str(tmp_path / path) if path else "")
    done = llamafarm("doctor", "--json")
    (part,) = (s for s in json.loads(done.out)["sections"] if s["name"] == "llama.cpp converter")
    assert part["status"] == ("ok" if path == "checkout" else "missing")
    if path == "checkout":
        assert part["detail"] == str(tmp_path / "checkout")
    else:
        assert "LLAMA_CPP_PATH" in part["how_to_get"]
    assert done.code == 0


def test_evaluate_shows_a_score_that_only_one_of_two_models_has(
    llamafarm: Run, fake_api: Fake
) -> None:
    tuned = replace(SCORES, metrics={"mine.polite": 0.5})
    report = EvaluationReport("run", "eval.jsonl", 30, 900, tuned, base=SCORES)
    fake_api("evaluate", report)
    done = llamafarm("evaluate", "run", "--dataset", "eval.jsonl", "--compare-base")
    assert ["mine.polite", "0.5"] in [line.split() for line in done.out.splitlines()]
