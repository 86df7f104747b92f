"""From files to the file that is written, and what the report says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamafarm.data.documents.prepare import LEFT_OUT, NEARLY_SAME, SAME, prepare_data
from llamafarm.data.documents.report import PrepareReport
from llamafarm.data.documents.request import PrepareRequest
from llamafarm.errors import DataError, OutputError, UserError

from .made_files import write, write_pdf

FAQ = """# FAQ

**Q: What is a fever?**
**A:** A temperature above 38 degrees, most often because of an infection.

Q: And what helps against it?
A: Rest, enough to drink, and patience for a day or two.
"""
SENTENCE = "Whoever sleeps badly should go to bed at the same time every day of the week."


def prepare(*inputs: Path, output: Path | None = None, **options: Any) -> PrepareReport:
    target = output or inputs[0].parent / "out" / "data.jsonl"
    return prepare_data(PrepareRequest(inputs, target, **options))


def rows_of(report: PrepareReport) -> list[dict[str, Any]]:
    return [json.loads(line) for line in report.output.read_bytes().splitlines()]


def dropped(report: PrepareReport) -> dict[str, int]:
    return {tally.what: tally.count for tally in report.dropped}


def test_a_file_becomes_rows_of_jsonl(tmp_path: Path) -> None:
    report = prepare(write(tmp_path / "faq.md", FAQ))
    assert rows_of(report) == [
        {
            "instruction": "What is a fever?",
            "input": "",
            "output": "A temperature above 38 degrees, most often because of an infection.",
        },
        {
            "instruction": "And what helps against it?",
            "input": "",
            "output": "Rest, enough to drink, and patience for a day or two.",
        },
    ]
    assert (report.found, report.rows, report.shapes) == (2, 2, {"alpaca": 2})
    (file,) = report.files
    assert (file.kind, file.encoding) == ("Markdown", "UTF-8")
    assert file.recognised == {"question with answer": 2}


def test_the_output_is_utf8_with_a_final_newline_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    report = prepare(write(tmp_path / "a.txt", "Q: Größe?\nA: Sehr groß: 日本語.\n"))
    data = report.output.read_bytes()
    assert "Größe" in data.decode("utf-8")
    assert data.endswith(b"}\n")
    assert [path.name for path in report.output.parent.iterdir()] == ["data.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "out"]


def test_messages_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    report = prepare(write(tmp_path / "faq.md", FAQ), row_shape="messages")
    assert [list(row) for row in rows_of(report)] == [["messages"], ["messages"]]


def test_files_of_every_kind_are_read_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.txt", "User: Hello there\nAssistant: Good day\n", "utf-16")
    write(tmp_path / "in" / "b.html", "<h1>Topic</h1><p>Something to say about it.</p>")
    write(tmp_path / "in" / "c.csv", "question,answer\nWhat is this?,A table\n", "cp1252")
    write_pdf(tmp_path / "in" / "d.pdf", [["Just some text of a page, and nothing more."]])
    report = prepare(tmp_path / "in")
    assert [next(iter(row)) for row in rows_of(report)] == ["instruction"] * 3 + ["text"]
    assert [file.rows for file in report.files] == [1, 1, 1, 1]
    assert report.files[0].encoding == "UTF-16 (byte order mark)"


def test_repeated_rows_are_dropped_across_files_and_named_with_the_first(tmp_path: Path) -> None:
    first = write(tmp_path / "a.md", FAQ)
    again = write(tmp_path / "b.txt", FAQ.upper().replace("# FAQ", ""))
    near = write(tmp_path / "c.txt", FAQ.replace("# FAQ", "").replace("infection.", "infection!!"))
    report = prepare(first, again, near)
    assert report.rows == 2
    assert dropped(report) == {SAME: 3, NEARLY_SAME: 1}
    (same,) = [tally for tally in report.dropped if tally.what == SAME]
    assert same.first[0].where.endswith("b.txt:3")
    assert same.first[0].detail.endswith("a.md:3")


def test_repeated_rows_stay_where_that_is_wanted(tmp_path: Path) -> None:
    report = prepare(
        write(tmp_path / "a.md", FAQ), write(tmp_path / "b.md", FAQ), keep_duplicates=True
    )
    assert (report.rows, report.dropped) == (4, ())


def test_rows_outside_of_the_limits_are_dropped_and_named(tmp_path: Path) -> None:
    text = (
        "Q: Why?\nA: So.\n\nQ: What is it?\nA: "
        + "long " * 100
        + "\n\nQ: Is this kept?\nA: Yes, it is.\n"
    )
    report = prepare(write(tmp_path / "a.txt", text), min_chars=12, max_chars=200)
    assert [row["output"] for row in rows_of(report)] == ["Yes, it is."]
    assert dropped(report) == {"shorter than 12 characters": 1, "longer than 200 characters": 1}


def test_all_is_counted_and_twenty_are_listed(tmp_path: Path) -> None:
    text = (
        "".join(f"Q: No answer to number {n}\n\n" for n in range(50)) + "Q: One?\nA: Two of them.\n"
    )
    report = prepare(write(tmp_path / "a.txt", text))
    (tally,) = report.dropped
    assert (tally.count, len(tally.first)) == (50, 20)


def test_a_row_that_json_cannot_hold_is_dropped_with_its_reason(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {"question": ["What is it?"] * 2, "answer": ["a", "b"], "raw": [b"\x00", None]}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    report = prepare(tmp_path / "rows.parquet")
    assert [row["output"] for row in rows_of(report)] == ["b"]
    assert "bytes" in report.dropped[0].first[0].detail


def test_every_file_that_cannot_be_read_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    good = write(tmp_path / "a.txt", "Some good text to read.")
    bad = [write(tmp_path / name, "junk") for name in ("b.pdf", "c.docx", "d.json")]
    output = write(tmp_path / "data.jsonl", "old")
    with pytest.raises(DataError, match="3 inputs cannot be read") as caught:
        prepare(good, *bad, output=output, overwrite=True)
    shown = caught.value.render()
    assert all(path.name in shown for path in bad)
    assert output.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "\n \n"), ("b.html", "<nav>Home</nav>"), ("c.md", "# Heading only\n")],
)
def test_an_input_with_nothing_in_it_says_what_was_looked_for(
    tmp_path: Path, name: str, text: str
) -> None:
    with pytest.raises(DataError, match=r"nothing in .* can be trained on") as caught:
        prepare(write(tmp_path / name, text))
    assert "Q: and A: lines" in caught.value.hint


def test_an_input_of_which_nothing_is_left_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 dropped") as caught:
        prepare(write(tmp_path / "a.txt", "Q: One\n\nQ: Two\n"))
    assert [problem.where[-7:] for problem in caught.value.problems] == ["a.txt:1", "a.txt:3"]


def test_a_table_without_known_columns_says_what_a_row_looks_like(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 dropped") as caught:
        prepare(write(tmp_path / "a.csv", "name,price\nTea,3\n"))
    assert "name, price" in caught.value.problems[0].message
    assert "question" in caught.value.hint


def test_one_empty_file_among_others_is_a_notice(tmp_path: Path) -> None:
    report = prepare(write(tmp_path / "a.txt", ""), write(tmp_path / "b.md", FAQ))
    assert report.rows == 2
    assert report.notices[-1].endswith("a.txt: nothing found in it")


def test_limits_that_no_row_meets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no row has at least 100"):
        prepare(write(tmp_path / "a.txt", "x"), min_chars=100, max_chars=10)


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", FAQ)
    with pytest.raises(OutputError) as caught:
        prepare(path, output=path / "below" / "data.jsonl")
    assert "--output" in caught.value.hint


def test_an_output_whose_name_is_too_long_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", FAQ)
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        prepare(path, output=tmp_path / f"{'x' * 300}.jsonl")


def test_an_answer_with_much_white_space_is_written_whole(tmp_path: Path) -> None:
    poem = "\n".join(f"verse {n} of it{' ' * 60}" for n in range(20))
    report = prepare(write(tmp_path / "a.txt", f"Q: How does it go?\nA: {poem}\n"), max_chars=500)
    (row,) = rows_of(report)
    assert row["output"].endswith("verse 19 of it")
    assert report.dropped == ()


def test_a_question_with_much_white_space_is_written_whole(tmp_path: Path) -> None:
    text = "\n".join(f"Line {n} of it.{' ' * 60}" for n in range(20))
    report = prepare(write(tmp_path / "a.txt", f"Q: What is it?\n{text}\n"), max_chars=500)
    (row,) = rows_of(report)
    assert row["output"].endswith("Line 19 of it.")
    assert report.dropped == ()


def _preference(rejected: str) -> dict[str, object]:
    asked = "What should somebody do who has had a high fever for more than three days now?"
    return {"prompt": asked, "chosen": f"{SENTENCE} See a doctor.", "rejected": rejected}


def _called(city: str, days: int, call_id: str = "c1", **others: object) -> dict[str, object]:
    function = {"name": "weather", "arguments": {"in": city, "days": days}}
    call = {"id": call_id, "type": "function", "function": function}
    turns: list[dict[str, object]] = [
        {"role": "user", "content": f"What will it be like there? {SENTENCE}"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": SENTENCE, "tool_call_id": call_id},
        {"role": "assistant", "content": f"It will be so: {SENTENCE}"},
    ]
    return {"messages": turns, **others}


def _answers(first: bool, *, tools: object = ()) -> dict[str, object]:
    """first: whether the first of two answers is trained."""
    turns: list[dict[str, object]] = [
        {"role": "user", "content": f"What helps? {SENTENCE}"},
        {"role": "assistant", "content": SENTENCE, "train": first},
        {"role": "user", "content": f"What else? {SENTENCE}"},
        {"role": "assistant", "content": f"More sleep. {SENTENCE}"},
    ]
    return {"messages": turns, "tools": tools}


def _tool(name: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


def _pieces(label: bool, **others: object) -> dict[str, object]:
    pieces = [{"label": label, "text": SENTENCE}, {"label": True, "text": "Yes."}]
    return {"segments": pieces, **others}


@pytest.mark.parametrize(
    "rows",
    [
        [_preference("Wait."), _preference("Hope."), {**_preference("Wait."), "rejected": 5}],
        [_called("Bern", 1), _called("Rome", 1), _called("Bern", 2)],
        [_answers(False, tools=[]), _answers(True, tools=[_tool("a")])],
        [_answers(True, tools=[_tool("a")]), _answers(True, tools=[_tool("b")])],
        [_pieces(False), _pieces(True)],
    ],
)
def test_rows_kept_as_they_were_repeat_each_other_only_with_all_that_they_say(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    lines = [json.dumps(row) for row in rows]
    report = prepare(write(tmp_path / "a.jsonl", "\n".join([*lines, lines[0]])))
    assert rows_of(report) == rows
    assert dropped(report) == {SAME: 1}


@pytest.mark.parametrize(
    "rows",
    [
        [_preference("Wait for it."), _preference("wait  for it.\n")],
        [
            _preference("Wait."),
            {
                **_preference("Wait."),
                "rejected": [{"role": "assistant", "content": "WAIT.", "n": 1}],
            },
        ],
        [{"prompt_id": n, **_preference("Wait."), "score": n / 2} for n in range(3)],
        [_called("Bern", 1, id=1), _called("Bern", 1, id=2)],
        [_called("Bern", 1, "call_a"), _called("Bern", 1, "call_b")],
        [_called("Bern", 1), _called("Bern ", 1)],
        [_pieces(False, id="row one"), _pieces(False, id="row two")],
    ],
)
def test_rows_kept_as_they_were_say_the_same_whatever_their_ids_and_spaces(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    report = prepare(write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows)))
    assert rows_of(report) == rows[:1]
    assert dropped(report) == {SAME: len(rows) - 1}


def test_ids_are_no_text_of_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(_pieces(False, id="x" * 500)))
    assert prepare(path, max_chars=300).rows == 1


def test_rows_kept_as_they_were_may_nearly_repeat_each_other(tmp_path: Path) -> None:
    rows = [_preference("Wait."), _preference("Wait.")]
    rows[1]["chosen"] = f"{SENTENCE} See your doctor."
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    report = prepare(path)
    assert rows_of(report) == rows[:1]
    assert dropped(report) == {NEARLY_SAME: 1}


def test_a_field_that_no_shape_can_hold_is_named(tmp_path: Path) -> None:
    rows = [
        {"question": f"What is number {n}?", "answer": f"It is {n}.", "messages": "note", "id": n}
        for n in (1, 2)
    ]
    votes = {"chosen": 5, "rejected": 2}
    rows.append({"question": "Is it really so?", "answer": "No, never.", **votes, "id": 3})
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    report = prepare(path)
    assert [row["id"] for row in rows_of(report)] == [1, 2, 3]
    assert rows_of(report)[2]["chosen"] == 5
    lost = {tally.what: tally for tally in report.changed if tally.what.startswith(LEFT_OUT)}
    assert {what: tally.count for what, tally in lost.items()} == {
        f"{LEFT_OUT}: messages": 2,
        f"{LEFT_OUT}: rejected": 1,
    }
    assert lost[f"{LEFT_OUT}: messages"].first[0].where.endswith("a.jsonl:1")
    again = prepare(report.output, output=tmp_path / "again.jsonl")
    assert rows_of(again) == rows_of(report)


def test_inputs_are_never_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", FAQ, "utf-16")
    before = path.read_bytes()
    prepare(path)
    assert path.read_bytes() == before


def test_the_same_inputs_make_the_same_output(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", FAQ)
    first = prepare(path, output=tmp_path / "1.jsonl").output.read_bytes()
    assert prepare(path, output=tmp_path / "2.jsonl").output.read_bytes() == first


def test_what_is_written_can_be_prepared_again_without_a_change(tmp_path: Path) -> None:
    first = prepare(write(tmp_path / "a.md", FAQ))
    again = prepare(first.output, output=tmp_path / "again.jsonl")
    assert again.output.read_bytes() == first.output.read_bytes()
    assert (again.changed, again.dropped) == ((), ())


def test_what_is_written_is_read_by_training(tmp_path: Path) -> None:
    from llamafarm.data.formats import RowSpec, to_conversation
    from llamafarm.data.readers import open_source
    from llamafarm.data.records import Record

    dialogue = "User: Hello\nAssistant: Good day\nUser: Bye\nAssistant: See you\n"
    report = prepare(
        write(tmp_path / "a.md", FAQ),
        write(tmp_path / "b.txt", dialogue),
        write(tmp_path / "c.txt", "A text without a question."),
    )
    formats = []
    for item in open_source(report.output).items():
        assert isinstance(item, Record)
        parsed = to_conversation(item, RowSpec())
        assert isinstance(parsed, tuple)
        formats.append(parsed[1])
    assert formats == ["alpaca", "alpaca", "messages", "text"]


def test_what_is_done_is_told_while_it_is_done(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = write(tmp_path / "a.md", FAQ)
    request = PrepareRequest((path,), tmp_path / "data.jsonl")
    prepare_data(request, on_work=lambda *work: told.append(work))
    assert [what.split(" ")[0] for what, _, _ in told] == ["reading", "comparing"]
