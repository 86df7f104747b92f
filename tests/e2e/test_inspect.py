"""`llamafarm inspect` with the real model's tokenizer, from the command line to its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llamafarm.cli.main import main
from tests.cli.conftest import Done
from tests.data.rows_on_disk import qa, write_jsonl

Run = Callable[..., Done]


@pytest.fixture
def llamafarm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*argv: str) -> Done:
        code = main(argv)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def test_a_clean_file_is_described_and_passes(llamafarm: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", map(qa, range(40)))
    done = llamafarm("inspect", "data.jsonl", "--preview", "1")
    assert done.code == 0, done.err
    lines = [line.strip() for line in done.out.splitlines()]
    facts = dict(line.split("  ", 1) for line in lines if "  " in line)
    assert facts["data"].strip() == "qa; 10 % of 40 rows: 4 evaluation rows, drawn with seed 42"
    assert facts["rows"].strip() == "40 read, 40 kept, 0 left out"
    assert facts["end token"].strip() == "trained after 40 of 40 answers"
    assert facts["leakage"].strip() == "none in 4 evaluation rows"
    assert "⟦It is the number 0.<|im_end|>⟧" in done.out


def test_an_evaluation_file_that_training_rows_give_away_is_refused(
    llamafarm: Run, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "train.jsonl", map(qa, range(40)))
    write_jsonl(tmp_path / "eval.jsonl", map(qa, range(38, 60)))
    command = ("inspect", "train.jsonl", "--eval-dataset", "eval.jsonl")
    done = llamafarm(*command)
    assert done.code == 3
    assert "error: the training rows give away 2 of 22 evaluation rows: 2 exact" in done.err
    assert "eval.jsonl:1  says the same as train.jsonl:39" in done.err
    assert "leakage" in done.out
    assert llamafarm(*command, "--allow-leakage").code == 0


@pytest.mark.parametrize("command", ["train", "setup"])
def test_training_and_its_check_refuse_the_same(
    command: str, llamafarm: Run, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "train.jsonl", map(qa, range(40)))
    write_jsonl(tmp_path / "eval.jsonl", map(qa, range(38, 60)))
    strategy = tmp_path / "s.yaml"
    strategy.write_text(
        "mine:\n  components: {fine_tuner: {type: pytorch, config: null}}\n"
        "  dataset: {train_file: train.jsonl, eval_file: eval.jsonl}\n"
    )
    argv = [command, *(["--strategy-file"] if command == "train" else []), "s.yaml"]
    argv += ["--strategy", "mine"]
    done = llamafarm(*argv)
    assert done.code == 3, done.err
    assert "the training rows give away 2 of 22 evaluation rows" in done.err
    assert not (tmp_path / "fine_tuned_models").exists()


def test_setup_goes_on_where_leaks_are_allowed(llamafarm: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", map(qa, range(40)))
    write_jsonl(tmp_path / "eval.jsonl", map(qa, range(38, 60)))
    (tmp_path / "s.yaml").write_text(
        "mine:\n  components: {fine_tuner: {type: pytorch, config: null}}\n"
        "  dataset: {train_file: train.jsonl, eval_file: eval.jsonl, allow_leakage: true}\n"
    )
    done = llamafarm("setup", "s.yaml", "--verify-only")
    assert done.code == 0, done.err
    assert "dataset.allow_leakage" in done.out
    assert "the loss on them looks better than it is" in done.out + done.err


def test_bad_rows_are_all_named(llamafarm: Run, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    write_jsonl(path, map(qa, range(5)))
    path.write_text(path.read_text() + '{"question": "Why?"}\n{"question": 3, "answer": "x"}\n')
    done = llamafarm("inspect", "data.jsonl")
    assert done.code == 2
    assert "data.jsonl:6" in done.err and "data.jsonl:7" in done.err
    assert llamafarm("inspect", "data.jsonl", "--skip-bad-rows").code == 0


def test_for_a_program_it_is_one_object(llamafarm: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", map(qa, range(40)))
    done = llamafarm("inspect", "data.jsonl", "--json", "--preview", "2")
    found = json.loads(done.out)
    assert found["ok"] is True and found["refused"] is None
    assert found["data"]["ledger"]["rows_in"] == 40
    assert found["data"]["train"]["rows"] == 36
    assert [len(row["pieces"]) for row in found["rows"]] == [3, 3]


def test_the_page_is_whole_and_loads_and_runs_nothing(llamafarm: Run, tmp_path: Path) -> None:
    rows = [*map(qa, range(30)), {"question": "<script>alert(1)</script>?", "answer": "<b>No</b>"}]
    write_jsonl(tmp_path / "data.jsonl", rows)
    done = llamafarm("inspect", "data.jsonl", "--preview", "40", "--html", "page.html")
    assert done.code == 0 and "written: page.html" in done.err
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    assert page.count("<mark>") == page.count("</mark>") >= 27
    assert page.rstrip().endswith("</html>")


def test_a_directory_of_named_files_is_understood(llamafarm: Run, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name, first in (("train", 0), ("valid", 100), ("test", 200)):
        write_jsonl(folder / f"{name}.jsonl", map(qa, range(first, first + 20)))
    done = llamafarm("inspect", "set")
    assert done.code == 0, done.err
    assert "train: set/train.jsonl, 20 rows" in done.out
    assert "eval: set/valid.jsonl, 20 rows" in done.out
    assert "test: set/test.jsonl, 20 rows" in done.out


def test_an_unknown_directory_says_what_it_holds(llamafarm: Run, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("one", "two"):
        write_jsonl(folder / f"{name}.jsonl", map(qa, range(20)))
    done = llamafarm("inspect", "set")
    assert done.code == 2
    assert "one.jsonl" in done.err and "two.jsonl" in done.err
