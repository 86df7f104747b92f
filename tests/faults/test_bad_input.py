"""Wrong input, through the command line: exit 2, place and remedy, no traceback, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamafarm.cli.main import main

ROW = {"question": "What is it?", "answer": "It is this."}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMAFARM_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def refused(
    here: Path, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run `train` on the tiny model with exit code 2 expected: what it said."""

    def run(*arguments: str, base: str | None = str(tiny_model_dir)) -> str:
        model = ["--base-model", base] if base else []
        code = main(["train", *arguments, *model, "--output", str(here / "run")])
        said = capfd.readouterr().err
        assert code == 2, said
        assert said.startswith("error: ") or "\nerror: " in said
        assert "Traceback" not in said
        assert "hint:" in said
        assert not (here / "run" / "run.json").exists()
        return said

    return run


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_missing_file_is_named_with_the_nearest_one(refused: Any, here: Path) -> None:
    write_rows(here / "questions.jsonl", [ROW] * 5)
    said = refused("--dataset", "question.jsonl")
    assert "question.jsonl" in said
    assert "questions.jsonl" in said


def test_an_empty_file_is_refused(refused: Any, here: Path) -> None:
    (here / "data.jsonl").write_text("")
    assert "data.jsonl" in refused("--dataset", "data.jsonl")


def test_one_row_cannot_be_split(refused: Any, here: Path) -> None:
    write_rows(here / "data.jsonl", [ROW])
    assert "1 row" in refused("--dataset", "data.jsonl")


def test_rows_without_an_answer_are_listed_by_line(refused: Any, here: Path) -> None:
    rows = [ROW, {"question": "a"}, ROW, {"question": "b", "answer": ""}, ROW]
    write_rows(here / "data.jsonl", rows)
    said = refused("--dataset", "data.jsonl")
    assert "data.jsonl:2" in said
    assert "data.jsonl:4" in said


def test_a_broken_line_in_the_middle_is_named(refused: Any, here: Path) -> None:
    lines = [json.dumps({**ROW, "question": f"q{i}"}) for i in range(9)]
    lines[4] = '{"question": "x", "answer": '
    (here / "data.jsonl").write_text("\n".join(lines))
    said = refused("--dataset", "data.jsonl")
    assert "data.jsonl:5" in said
    assert "--skip-bad-rows" in said


def test_skip_bad_rows_goes_on_and_counts(
    here: Path, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({**ROW, "question": f"q{i}"}) for i in range(12)]
    lines[4] = "{broken"
    (here / "data.jsonl").write_text("\n".join(lines))
    arguments = ["--dataset", "data.jsonl", "--base-model", str(tiny_model_dir)]
    arguments += ["--set", "max_steps=1", "--output", str(here / "run"), "--skip-bad-rows"]
    assert main(["train", *arguments]) == 0, capfd.readouterr().err
    report = json.loads((here / "run" / "run.json").read_text())["data"]
    assert [row["source"]["line"] for row in report["dropped"]] == [5]
    assert report["train"]["rows"] + report["eval"]["rows"] == 11


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named_with_how_to_convert_it(
    refused: Any, here: Path, encoding: str
) -> None:
    text = json.dumps({"question": "Wo tut es weh?", "answer": "Am Fuß."}, ensure_ascii=False)
    (here / "data.jsonl").write_bytes("\n".join([text] * 4).encode(encoding))
    said = refused("--dataset", "data.jsonl")
    assert "data.jsonl" in said
    assert "iconv" in said


def test_an_unknown_strategy_gets_the_nearest_name(refused: Any, here: Path) -> None:
    (here / "strategies.yaml").write_text(
        "medical_v2:\n  components: {fine_tuner: {type: pytorch}}\n"
    )
    said = refused("--strategy", "medicl_v2", base=None)
    assert "medical_v2" in said


def test_every_fault_of_a_strategy_is_told_at_once(refused: Any, here: Path) -> None:
    (here / "strategies.yaml").write_text(
        "s:\n  components:\n    fine_tuner:\n      type: pytorch\n      config:\n"
        "        training_args:\n          num_train_epoch: 3\n          eval_strategy: step\n"
        "        method: {r: 0}\n"
    )
    said = refused("--strategy", "s", base=None)
    for line in (7, 8, 9):
        assert f"strategies.yaml:{line}" in said


def test_a_bad_device_a_bad_model_and_a_missing_file_are_told_together(
    refused: Any, here: Path
) -> None:
    said = refused("--dataset", "absent.jsonl", "--set", "device=cuda", base="./no-such-model")
    assert "cuda" in said
    assert "no-such-model" in said
    assert "absent.jsonl" in said


def test_an_unreachable_model_says_how_to_get_it_offline(refused: Any, here: Path) -> None:
    write_rows(here / "data.jsonl", [ROW, {**ROW, "question": "b"}])
    said = refused("--dataset", "data.jsonl", base="nobody/nothing-1b")
    assert "hf download nobody/nothing-1b" in said


def test_a_model_without_a_template_trains_with_a_notice(
    here: Path, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import shutil

    base = here / "base"
    shutil.copytree(tiny_model_dir, base, ignore=shutil.ignore_patterns("chat_template*"))
    config = json.loads((base / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    write_rows(here / "data.jsonl", [{**ROW, "question": f"q{i}"} for i in range(8)])
    arguments = ["--dataset", "data.jsonl", "--base-model", str(base), "--set", "max_steps=1"]
    assert main(["train", *arguments, "--output", str(here / "run")]) == 0
    assert "template" in capfd.readouterr().err
    assert (here / "run" / "final_model" / "chat_template.jinja").read_text()


def test_a_template_that_fails_names_the_row(
    refused: Any, here: Path, tiny_model_dir: Path
) -> None:
    import shutil

    base = here / "base"
    shutil.copytree(tiny_model_dir, base)
    (base / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    write_rows(here / "data.jsonl", [{**ROW, "question": f"q{i}"} for i in range(8)])
    said = refused("--dataset", "data.jsonl", base=str(base))
    assert "roles must alternate" in said


def test_rows_longer_than_the_limit_are_counted_and_listed(
    here: Path, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [{**ROW, "question": f"q{i}"} for i in range(10)]
    rows[3]["answer"] = "word " * 100
    write_rows(here / "data.jsonl", rows)
    arguments = ["--dataset", "data.jsonl", "--base-model", str(tiny_model_dir)]
    arguments += ["--set", "max_steps=1", "--set", "max_seq_length=64"]
    assert main(["train", *arguments, "--output", str(here / "run")]) == 0
    report = json.loads((here / "run" / "run.json").read_text())["data"]
    assert [row["source"]["line"] for row in report["truncated"]] == [4]
    assert report["truncated"][0]["trained_tokens_cut"] > 0
    assert "data.jsonl:4" in capfd.readouterr().err


def test_an_output_directory_with_something_in_it_is_left_alone(
    here: Path, tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_rows(here / "data.jsonl", [{**ROW, "question": f"q{i}"} for i in range(8)])
    (here / "run").mkdir()
    (here / "run" / "thesis.txt").write_text("years of work")
    arguments = ["--dataset", "data.jsonl", "--base-model", str(tiny_model_dir)]
    assert main(["train", *arguments, "--output", str(here / "run")]) == 2
    assert "thesis.txt" in capfd.readouterr().err
    assert [p.name for p in (here / "run").iterdir()] == ["thesis.txt"]
