"""Tasks of lm-evaluation-harness: what is asked of it, what is made of its answer, and one real
run where it is installed.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import ModelError, RunError, UserError
from llamafarm.evaluation.harness import TasksReport, evaluate_tasks, require_harness
from llamafarm.models.load import find_model_directory, load_finished_model

RESULTS = {
    "results": {
        "arc_easy": {"alias": "arc_easy", "acc,none": 0.5, "acc_stderr,none": 0.1},
        "mine": {"exact_match,get-answer": 1.0, "exact_match_stderr,get-answer": "N/A"},
    },
    "n-samples": {"arc_easy": {"original": 2376, "effective": 20}},
    "higher_is_better": {"arc_easy": {"acc": True}},
}
asked: dict[str, Any] = {}


class Manager:
    all_tasks = ("arc_easy", "arc_challenge", "hellaswag")

    def match_tasks(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name in self.all_tasks]


class Wrapped:
    def __init__(self, **values: Any) -> None:
        self.values = values


def module(name: str, **values: object) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(values)
    return made


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval as far as it is asked."""

    def simple_evaluate(**values: Any) -> dict[str, Any]:
        asked.clear()
        asked.update(values)
        return RESULTS

    parts = {
        "lm_eval": module("lm_eval", __version__="0.4.13", simple_evaluate=simple_evaluate),
        "lm_eval.tasks": module("lm_eval.tasks", TaskManager=Manager),
        "lm_eval.models": module("lm_eval.models"),
        "lm_eval.models.huggingface": module("lm_eval.models.huggingface", HFLM=Wrapped),
    }
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, name, part)


def run(*tasks: str, source: str = "run", limit: int | None = None) -> TasksReport:
    return evaluate_tasks(source, tasks, load=lambda name: (name, "tokenizer"), limit=limit)


@pytest.mark.usefixtures("harness")
def test_numbers_come_with_their_error_and_their_rows(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("task: mine\n")
    found = run("arc_easy", str(file), limit=20)
    first, second = found.scores
    assert (first.task, first.metric, first.value, first.standard_error) == (
        "arc_easy",
        "acc",
        0.5,
        0.1,
    )
    assert (first.rows, first.higher_is_better) == (20, True)
    assert (second.metric, second.standard_error, second.rows) == (
        "exact_match (get-answer)",
        None,
        None,
    )
    assert asked["tasks"] == ["arc_easy", str(file)]
    assert (asked["limit"], found.version) == (20, "0.4.13")
    assert asked["model"].values["pretrained"] == "run"


@pytest.mark.usefixtures("harness")
def test_every_task_that_is_not_there_is_named_before_the_model_is_loaded() -> None:
    with pytest.raises(UserError, match="2 tasks cannot be run") as fault:
        evaluate_tasks("run", ["arc_eazy", "none.yaml"], load=lambda _: pytest.fail("loaded"))
    unknown, absent = fault.value.problems
    assert unknown.hint.startswith("did you mean arc_easy")
    assert absent.message == "none.yaml is no file"


@pytest.mark.usefixtures("harness")
def test_a_task_that_fails_is_no_defect_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ConnectionError("the Hub\ncannot be reached")

    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", fail)
    with pytest.raises(RunError, match="lm-eval failed: ConnectionError: the Hub cannot be"):
        run("arc_easy")


@pytest.mark.usefixtures("harness")
def test_a_gguf_file_is_refused_with_what_to_name_instead(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="tasks are run in transformers"):
        run("arc_easy", source=str(tmp_path / "m.gguf"))


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match="needs the package lm-eval") as fault:
        require_harness()
    assert fault.value.hint == "install it with `pip install 'llamafarm[lm-eval]'`"


@pytest.mark.slow
def test_a_task_file_runs_without_the_network(tiny_model_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    rows = [{"q": f"{i} and {i} is", "choices": [str(2 * i), "cat"], "gold": 0} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sums.yaml").write_text(
        f"""\
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "rows.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
    )

    def load(name: str) -> tuple[Any, Any]:
        return load_finished_model(find_model_directory(name))

    found = evaluate_tasks(str(tiny_model_dir), [str(tmp_path / "sums.yaml")], load=load)
    (accuracy,) = found.scores
    assert (accuracy.task, accuracy.metric, accuracy.rows) == ("sums", "acc", 4)
    assert 0 <= accuracy.value <= 1
    assert accuracy.higher_is_better is True
