"""Raw text becomes rows, rows are looked at before they are trained on, and rows that give the
evaluation away are refused.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from . import seed
from .typed import ROOT, Done, inputs_of, refusal_of, run_in_shell, type_in, write_rows

TWO_FILES = "train --train-dataset data_train.jsonl --eval-dataset data_eval.jsonl"
INSPECT = "inspect data_train.jsonl --eval-dataset data_eval.jsonl"
GIVEN_AWAY = "the training rows give away"
RAW = """\
Walks in fresh air do good at any age, and cost nothing.

Q: What is a fever?
A: A body temperature above the usual one.

Q: How much water should I drink?
A: About two litres a day.

User: Can I take a walk with a cold?
Assistant: A light walk is fine.
User: And run?
Assistant: Wait until you are well.
"""


def question(n: int, more: str = "") -> dict[str, str]:
    """A row of its own, long enough to be compared."""
    asked = f"How do I get to the house with the number {n} in the old town by foot"
    return {"question": f"{asked}{more}?", "answer": f"Take street {n}, then turn left twice."}


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """200 evaluation rows, of which training rows give away two: the share above which is 1 %."""
    write(tmp_path / "data_train.jsonl", [question(n) for n in range(40)])
    write(tmp_path / "data_eval.jsonl", [question(n) for n in (0, 1, *range(100, 298))])
    return tmp_path


@pytest.mark.slow
@pytest.mark.seed(94, 104, 107)
def test_step_1_of_the_workflow_runs_as_typed(tmp_path: Path) -> None:
    (tmp_path / "demos").mkdir()
    for name in ("prepare_data.py", "demos/create_data_split.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "raw_data.txt").write_text(RAW, "utf-8")
    done = run_in_shell(seed.PREPARE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "data.jsonl").read_text("utf-8").splitlines()
    assert [sorted(json.loads(line)) for line in lines] == [
        ["text"],
        ["input", "instruction", "output"],
        ["input", "instruction", "output"],
        ["messages"],
    ]
    done = run_in_shell(seed.SPLIT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sides = [(tmp_path / f"data_{side}.jsonl").read_text("utf-8") for side in ("train", "eval")]
    assert sorted("".join(sides).splitlines()) == sorted(lines)


@pytest.mark.seed(104)
def test_what_prepare_writes_is_trained_as_it_is(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "raw_data.txt").write_text(RAW, "utf-8")
    assert type_in("prepare raw_data.txt --output data.jsonl").code == 0
    report = inputs_of("train --dataset data.jsonl", "--base-model", str(model_dir)).data.report
    assert report.data_format == "mixed (alpaca 2, text 1, messages 1)"
    assert report.dropped == ()


@pytest.mark.seed(104)
def test_what_prepare_changes_and_drops_is_counted_with_its_place(tmp_path: Path) -> None:
    pair = RAW.split("\n\n")[1]
    raw = f"{RAW}\n{pair}\n".replace("two litres", "two\u200b litres")
    (tmp_path / "raw_data.txt").write_text(raw, "utf-8")
    done = type_in("prepare raw_data.txt --output data.jsonl --json")
    report = json.loads(done.out)
    assert (done.code, report["found"], report["rows"]) == (0, 5, 4)
    (dropped,) = report["dropped"]
    assert (dropped["what"], dropped["count"]) == ("says the same as an earlier row", 1)
    assert dropped["first"] == [{"where": "raw_data.txt:14", "detail": "as raw_data.txt:3"}]
    assert report["changed"][0]["first"][0]["where"] == "raw_data.txt:7"


@pytest.mark.seed(291)
@pytest.mark.parametrize("line", [TWO_FILES, INSPECT])
def test_rows_that_give_the_evaluation_away_are_not_trained_on(
    line: str, model_dir: Path, leaking: Path
) -> None:
    with (leaking / "data_eval.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(question(2)) + "\n")
    text = refusal_of(line, "--base-model", str(model_dir), code=3)
    assert f"{GIVEN_AWAY} 3 of 201 evaluation rows: 3 exact (at most 1 % may be)" in text
    assert re.search(r"data_eval\.jsonl:201 +says the same as data_train\.jsonl:3$", text, re.M)
    assert "--allow-leakage" in text


@pytest.mark.seed(291)
def test_one_percent_is_warned_of_and_trained(model_dir: Path, leaking: Path) -> None:
    warnings = inputs_of(TWO_FILES, "--base-model", str(model_dir)).data.report.warnings
    assert any(f"{GIVEN_AWAY} 2 of 200 evaluation rows" in text for text in warnings)


@pytest.mark.seed(291)
@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (question(5), "exact"),
        ({key: value.upper() for key, value in question(5).items()}, "normalised"),
        (question(5, " today"), "near"),
        ({**question(5), "answer": "Nobody has ever found it."}, "same prompt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_leak_is_refused(
    row: dict[str, str], kind: str, model_dir: Path, tmp_path: Path
) -> None:
    write(tmp_path / "data_train.jsonl", [question(n) for n in range(20)])
    write(tmp_path / "data_eval.jsonl", [*(question(n) for n in range(50, 60)), row])
    text = refusal_of(TWO_FILES, "--base-model", str(model_dir), code=3)
    assert f"{GIVEN_AWAY} 1 of 11 evaluation rows: 1 {kind} " in text
    assert re.search(r"data_eval\.jsonl:11 .* data_train\.jsonl:6\b", text)


@pytest.mark.seed(291)
def test_a_row_inside_a_longer_one_is_told_and_not_refused(model_dir: Path, tmp_path: Path) -> None:
    inner = question(5)
    whole = " ".join([*(question(n)["answer"] for n in range(30)), *inner.values()])
    write(tmp_path / "data_train.jsonl", [{"text": whole}, question(7)])
    write(tmp_path / "data_eval.jsonl", [{"text": " ".join(inner.values())}])
    warnings = inputs_of(TWO_FILES, "--base-model", str(model_dir)).data.report.warnings
    assert any(f"{GIVEN_AWAY} 1 of 1 evaluation row: 1 contained" in text for text in warnings)


@pytest.mark.seed(283, 291)
def test_the_rows_for_the_measurement_after_training_are_compared_too(
    model_dir: Path, tmp_path: Path
) -> None:
    write(tmp_path / "data.jsonl", [question(n) for n in range(40)])
    write(tmp_path / "holdout.jsonl", [question(n) for n in range(38, 48)])
    more = ("--base-model", str(model_dir), "--set", "dataset.test_file=holdout.jsonl")
    text = refusal_of("train --dataset data.jsonl", *more, code=3)
    assert "test rows" in text


@pytest.mark.seed(291)
@pytest.mark.parametrize("allowed", [["--allow-leakage"], ["--set", "dataset.allow_leakage=true"]])
def test_leaking_rows_are_trained_when_that_is_asked_for(
    allowed: list[str], model_dir: Path, tmp_path: Path
) -> None:
    for name in ("data_train.jsonl", "data_eval.jsonl"):
        write(tmp_path / name, [question(n) for n in range(10)])
    data = inputs_of(TWO_FILES, "--base-model", str(model_dir), *allowed).data
    assert any(GIVEN_AWAY in text for text in data.report.warnings)


@pytest.mark.seed(127, 291)
def test_setup_refuses_leaking_rows_as_train_does(model_dir: Path, tmp_path: Path) -> None:
    for name in ("data_train.jsonl", "data_eval.jsonl"):
        write(tmp_path / name, [question(n) for n in range(10)])
    text = seed.STRATEGIES.replace("# Your configuration", f"base_model: {model_dir}")
    (tmp_path / "strategies.yaml").write_text(text, "utf-8")
    done = type_in(seed.SETUP)
    assert done.code == 3
    assert f"{GIVEN_AWAY} 10 of 10 evaluation rows" in done.err
    assert type_in(seed.SETUP, "--allow-leakage").code == 0


@pytest.mark.seed(24, 279, 291)
def test_a_split_made_here_leaks_nothing(model_dir: Path, tmp_path: Path) -> None:
    """Every row is there three times over: equal, nearly equal, and with another answer."""
    rows = [
        row
        for n in range(20)
        for row in (question(n), question(n, " today"), {**question(n), "answer": "Ask."})
    ]
    write(tmp_path / "data.jsonl", rows)
    report = inputs_of("train --dataset data.jsonl", "--base-model", str(model_dir)).data.report
    (leaks,) = report.leakage
    assert (leaks.rows, leaks.leaked) == (6, 0)


@pytest.mark.seed(291)
def test_rows_that_cannot_be_parted_are_warned_of(model_dir: Path, tmp_path: Path) -> None:
    write(tmp_path / "data.jsonl", [question(1)] * 12)
    warnings = inputs_of("train --dataset data.jsonl", "--base-model", str(model_dir)).data.report
    assert any("all 12 rows say the same" in text for text in warnings.warnings)


def inspected(model_dir: Path, *more: str) -> Done:
    return type_in("inspect data.jsonl", "--base-model", str(model_dir), *more)


@pytest.mark.seed(291)
def test_inspect_accounts_for_every_row_and_token(model_dir: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl", 30)
    with (tmp_path / "data.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"question": "and?"}\n{"question": "and", "answer": "1"\n')
    report = json.loads(inspected(model_dir, "--skip-bad-rows", "--json").out)["data"]
    ledger = report["ledger"]
    assert (ledger["rows_in"], ledger["rows_kept"]) == (32, 30)
    assert sum(count["rows"] for count in ledger["dropped"]) == len(report["dropped"]) == 2
    sides = (report["train"], report["eval"])
    assert ledger["tokens"] == sum(side["total_tokens"] for side in sides)
    assert ledger["trained_tokens"] == sum(side["trained_tokens"] for side in sides)
    assert ledger["answers"] == ledger["answers_end_trained"] == 30


@pytest.mark.seed(291)
def test_inspect_marks_what_is_trained_and_nothing_else(model_dir: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl", 20)
    shown = re.findall("⟦(.+?)⟧", inspected(model_dir, "--preview", "3").out, re.DOTALL)
    assert len(shown) == 3
    assert all(re.fullmatch(r"It is \d+\.<\|im_end\|>\n?", text) for text in shown)


@pytest.mark.seed(291)
def test_inspect_writes_a_page_that_loads_nothing(model_dir: Path, tmp_path: Path) -> None:
    write(tmp_path / "data.jsonl", [question(n, " & <b>by tram</b>") for n in range(20)])
    assert inspected(model_dir, "--preview", "1", "--html", "page.html").code == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<mark>" in page and "&lt;b&gt;by tram" in page
    assert not re.search("<script|<link|<img|https?://", page)


@pytest.mark.seed(291)
@pytest.mark.parametrize("line", ["inspect data.jsonl", "train --dataset data.jsonl"])
def test_personal_data_is_told_before_the_first_step(
    line: str, model_dir: Path, tmp_path: Path
) -> None:
    rows = [question(n) for n in range(20)]
    rows[4] = {"question": "Whom do I ask?", "answer": "Write to jane.doe@mail.example.org."}
    write(tmp_path / "data.jsonl", rows)
    if line.startswith("inspect"):
        done = inspected(model_dir)
        text = done.out + done.err
    else:
        report = inputs_of(line, "--base-model", str(model_dir)).data.report
        text = "\n".join(report.warnings)
    assert "1 row holds an e-mail address" in text
    assert "data.jsonl:5" in text
    assert "jane.doe" not in text


@pytest.mark.seed(291)
def test_the_next_command_takes_the_rows_that_inspect_has_made(
    model_dir: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "data.jsonl", 20, first=7000)
    assert "kept in the cache" in inspected(model_dir).err
    notices = inputs_of("train --dataset data.jsonl", "--base-model", str(model_dir)).data.report
    assert any("taken from the cache" in text for text in notices.notices)
