"""`llamafarm prepare` and its script: what is asked of the API, printed and written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from llamafarm import api
from llamafarm.cli.main import run_function
from llamafarm.cli.prepare import SCRIPT_EXAMPLE, report_text, script
from llamafarm.data.documents.report import FileReport, Place, PrepareReport, Tally
from llamafarm.data.documents.request import PrepareRequest
from llamafarm.monitoring.events import Sink, WorkEvent

from .conftest import Done

Run = Callable[..., Done]
Fake = Callable[..., Mock]
GOLDEN = Path(__file__).parents[1] / "golden" / "cli"

REPORT = PrepareReport(
    output=Path("data.jsonl"),
    found=1_215,
    rows=1_206,
    shapes={"alpaca": 1_190, "text": 15, "messages": 1},
    files=(
        FileReport("faq.md", "Markdown", "UTF-8", {"question with answer": 12, "section": 3}, 12),
        FileReport("handbook.pdf", "PDF", "", {"text": 15}, 15),
        FileReport("old.csv", "CSV", "cp1252 (detected)", {"qa row": 1_184}, 1_178),
        FileReport("chat.txt", "text", "UTF-16 (byte order mark)", {"dialogue": 1}, 1),
        FileReport("empty.txt", "text", "UTF-8", {}, 0),
    ),
    changed=(
        Tally(
            "page headers, footers and page numbers removed",
            30,
            tuple(Place(f"handbook.pdf page {page}") for page in range(1, 21)),
        ),
        Tally("wrongly decoded characters repaired", 1, (Place("old.csv:40"),)),
    ),
    dropped=(
        Tally("says the same as an earlier row", 2, (Place("faq.md:40", "as faq.md:12"),) * 2),
        Tally("question without an answer", 1, (Place("faq.md:88", "And how long?"),)),
    ),
    notices=("raw: 1 file of other kinds not read: logo.png", "empty.txt: nothing found in it"),
)


def request_of(llamafarm: Run, fake_api: Fake, *argv: str) -> PrepareRequest:
    fake = fake_api("prepare_data", REPORT)
    done = llamafarm("prepare", *argv)
    assert done.code == 0, done.err
    request = fake.call_args.args[0]
    assert isinstance(request, PrepareRequest)
    return request


def test_what_is_not_typed_is_not_said(llamafarm: Run, fake_api: Fake) -> None:
    request = request_of(llamafarm, fake_api, "raw.txt", "--output", "data.jsonl")
    assert request == PrepareRequest((Path("raw.txt"),), Path("data.jsonl"))


def test_everything_that_is_typed_is_passed_on(llamafarm: Run, fake_api: Fake) -> None:
    flags = ["--format", "messages", "--min-chars", "5", "--max-chars", "900"]
    inputs = ["a.txt", "b", "--input", "c.pdf", "--input", "d.md"]
    switches = ["--keep-duplicates", "--overwrite"]
    request = request_of(llamafarm, fake_api, *inputs, "--output", "o.jsonl", *flags, *switches)
    assert request == PrepareRequest(
        inputs=(Path("a.txt"), Path("b"), Path("c.pdf"), Path("d.md")),
        output=Path("o.jsonl"),
        row_shape="messages",
        min_chars=5,
        max_chars=900,
        keep_duplicates=True,
        overwrite=True,
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["a.txt"], "missing option `--output`"),
        (["--output", "o"], "nothing says what to prepare"),
        (["a", "--output", "o", "--format", "alpacca"], "did you mean `alpaca`?"),
        (["a", "--output", "o", "--min-chars", "ten"], "expected a whole number of at least 1"),
        (["a", "--output", "o", "--max-chars", "0"], "expected a whole number of at least 1"),
        (["a", "--output", "o", "--inputs", "b"], "did you mean `--input`?"),
    ],
)
def test_a_line_that_cannot_be_read_says_what_is_expected(
    llamafarm: Run, fake_api: Fake, argv: Sequence[str], said: str
) -> None:
    fake = fake_api("prepare_data", REPORT)
    done = llamafarm("prepare", *argv)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    fake.assert_not_called()


NOTICES = """notice: raw: 1 file of other kinds not read: logo.png
notice: empty.txt: nothing found in it
"""


def test_the_report_looks_as_agreed_and_notices_go_to_stderr(
    llamafarm: Run, fake_api: Fake
) -> None:
    fake_api("prepare_data", REPORT)
    expected = (GOLDEN / "prepare.txt").read_text(encoding="utf-8")
    assert llamafarm("prepare", "raw", "--output", "data.jsonl") == Done(0, expected, NOTICES)


def test_twenty_places_are_shown_in_all_and_none_of_a_kind_is_left_out() -> None:
    many = tuple(Place(f"a.txt:{line}") for line in range(1, 21))
    tallies = tuple(Tally(f"reason {n}", 100, many) for n in range(3))
    shown = report_text(replace(REPORT, changed=(), dropped=tallies))
    assert shown.count("a.txt:") == 20
    assert shown.count("and 93 more") == 2
    assert shown.count("and 94 more") == 1


def test_more_than_twenty_files_are_counted() -> None:
    shown = report_text(replace(REPORT, files=REPORT.files * 10))
    assert "and 30 more files" in shown


def test_the_report_for_a_program_is_one_object(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("prepare_data", REPORT)
    done = llamafarm("prepare", "raw", "--output", "data.jsonl", "--json")
    value = json.loads(done.out)
    assert (value["rows"], value["output"], done.err) == (1_206, "data.jsonl", "")
    assert value["files"][0]["recognised"] == {"question with answer": 12, "section": 3}
    assert value["dropped"][0]["first"][0] == {"where": "faq.md:40", "detail": "as faq.md:12"}


def test_what_goes_on_is_told_to_the_progress(llamafarm: Run, fake_api: Fake) -> None:
    sinks: list[Sink] = []

    def prepare_data(request: Any, given: Sequence[Sink] = ()) -> PrepareReport:
        sinks.extend(given)
        for sink in given:
            sink.handle(WorkEvent(what="reading raw.txt", done=1, total=2))
        return REPORT

    fake_api("prepare_data", prepare_data)
    assert llamafarm("prepare", "raw.txt", "--output", "data.jsonl").code == 0
    assert len(sinks) == 1


def test_the_script_prepares_as_the_command_does(
    fake_api: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = fake_api("prepare_data", REPORT)
    argv = ["prepare_data.py", "--input", "raw_data.txt", "--output", "data.jsonl"]
    monkeypatch.setattr("sys.argv", argv)
    assert run_function(script, "prepare_data.py", SCRIPT_EXAMPLE) == 0
    assert fake.call_args.args[0] == PrepareRequest((Path("raw_data.txt"),), Path("data.jsonl"))
    assert "written" in capsys.readouterr().out


def test_the_script_has_every_flag_of_the_command() -> None:
    import inspect

    from llamafarm.cli.prepare import command

    command_flags = set(inspect.signature(command).parameters) - {"inputs"}
    assert set(inspect.signature(script).parameters) == command_flags


def test_files_are_prepared_from_the_command_line(llamafarm: Run, tmp_path: Path) -> None:
    raw, data = tmp_path / "raw.txt", tmp_path / "data.jsonl"
    raw.write_text("Q: What is it?\nA: A thing.\n", "utf-16")
    done = llamafarm("prepare", "--input", str(raw), "--output", str(data))
    assert (done.code, done.err) == (0, "")
    assert json.loads(data.read_text("utf-8"))["output"] == "A thing."
    again = llamafarm("prepare", str(raw), "--output", str(data))
    assert again.code == 2
    assert "hint: replace it with --overwrite" in again.err
    assert llamafarm("prepare", str(raw), "--output", str(data), "--overwrite").code == 0


def test_the_verb_takes_the_request_of_the_command() -> None:
    assert api.prepare_data.__annotations__["request"] == "PrepareRequest"
