from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llamafarm.data.documents.found import FoundRow, json_line, shape_of
from llamafarm.data.documents.inputs import find_inputs
from llamafarm.data.documents.ledger import Ledger
from llamafarm.data.documents.read_file import encoding_of, rows_of
from llamafarm.data.documents.request import RowShape
from llamafarm.data.documents.row_files import ENDS_TRIMMED, UNUSABLE
from llamafarm.data.documents.text_repair import MOJIBAKE
from llamafarm.errors import DataError

from .made_files import write
from .made_rows import MOST, Read


def read(path: Path) -> Read:
    (file,) = find_inputs([path]).files
    ledger = Ledger()
    of_file = ledger.of_file("x", file.unit)
    rows = list(rows_of(file, encoding_of(file), MOST, path.parent, of_file))
    return Read([], rows, ledger)


def written(row: FoundRow, shape: RowShape = "alpaca") -> Any:
    return json.loads(json_line(row, *shape_of(row, shape)))


def read_json_row(tmp_path: Path, fields: dict[str, object]) -> FoundRow:
    (row,) = read(write(tmp_path / "rows.jsonl", json.dumps(fields))).rows
    return row


@pytest.mark.parametrize(
    ("fields", "alpaca"),
    [
        (
            {"question": "Why?", "answer": "So."},
            {"instruction": "Why?", "input": "", "output": "So."},
        ),
        (
            {"instruction": "Add", "input": "1 2", "output": "3", "system": "Be brief."},
            {"instruction": "Add", "input": "1 2", "output": "3", "system": "Be brief."},
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            {"instruction": "a", "input": "", "output": "b"},
        ),
        (
            {"prompt": "a", "completion": "b", "topic": "x", "n": [1]},
            {"instruction": "a", "input": "", "output": "b", "topic": "x", "n": [1]},
        ),
        (
            {"question": "Why?", "answer": "So.", "response": "Or so.", "prompt": " Why? "},
            {"instruction": "Why?", "input": "", "output": "So.", "response": "Or so."},
        ),
        (
            {"question": "How warm?", "answer": "It is 25 degrees warm.", "response": "25 degrees"},
            {
                "instruction": "How warm?",
                "input": "",
                "output": "It is 25 degrees warm.",
                "response": "25 degrees",
            },
        ),
        ({"text": "Only text."}, {"text": "Only text."}),
    ],
)
def test_rows_of_known_formats_become_alpaca_and_keep_their_other_fields(
    tmp_path: Path, fields: dict[str, object], alpaca: dict[str, object]
) -> None:
    assert written(read_json_row(tmp_path, fields)) == alpaca


def test_rows_become_messages_where_these_are_wanted(tmp_path: Path) -> None:
    row = read_json_row(tmp_path, {"instruction": "Add", "input": "1 2", "output": "3"})
    assert written(row, "messages") == {
        "messages": [
            {"role": "user", "content": "Add\n\n1 2"},
            {"role": "assistant", "content": "3"},
        ]
    }


@pytest.mark.parametrize(
    "others",
    [
        {"output": "another"},
        {"instruction": 5},
        {"Output": "another"},
        {"reflection": "no", "corrected": "yes"},
        {"history": [["x", "y"]]},
    ],
)
def test_other_fields_that_would_change_an_alpaca_row_stay_beside_its_messages(
    tmp_path: Path, others: dict[str, object]
) -> None:
    fields: dict[str, object] = {"question": "a", "choices": ["b", "c"], "solution": "b"}
    row = read_json_row(tmp_path, {**fields, **others})
    assert written(row) == {
        "messages": [
            {"role": "user", "content": "a\n\n- b\n- c"},
            {"role": "assistant", "content": "b"},
        ],
        **others,
    }
    again = read_json_row(tmp_path, written(row))
    assert [m.content for m in again.messages] == [m.content for m in row.messages]


def test_a_field_of_another_row_never_replaces_what_the_row_says() -> None:
    row = FoundRow("row", 1, text="Own.", extra={"text": "Other.", "id": 1})
    assert written(row) == {"text": "Own.", "id": 1}


def test_several_exchanges_are_messages_whatever_is_wanted(tmp_path: Path) -> None:
    turns = [{"from": name, "value": str(i)} for i, name in enumerate(["human", "gpt"] * 2)]
    row = read_json_row(tmp_path, {"conversations": turns, "id": 7})
    assert [m["role"] for m in written(row)["messages"]] == ["user", "assistant"] * 2
    assert written(row)["id"] == 7


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a", "chosen": "good", "rejected": "bad"},
        {"segments": [{"label": False, "text": "a"}, {"label": True, "text": "b"}]},
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "train": False},
                {"role": "user", "content": "c"},
                {"role": "assistant", "content": "d"},
            ]
        },
    ],
)
def test_rows_that_say_more_than_turns_are_kept_as_they_are(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    assert written(read_json_row(tmp_path, fields)) == fields


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": " a ", "chosen": "good ", "rejected": "bad"},
        {"segments": [{"label": False, "text": "a "}, {"label": True, "text": "b "}]},
    ],
)
def test_white_space_that_is_kept_is_not_said_to_be_removed(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    found = read(write(tmp_path / "rows.jsonl", json.dumps(fields)))
    assert written(found.rows[0]) == fields
    assert found.changed() == {}


def test_what_is_no_row_is_dropped_with_its_line_and_reason(tmp_path: Path) -> None:
    lines = [
        '{"question": "a", "answer": "b"}',
        "{broken",
        '{"question": "c"}',
        '{"other": 1}',
        "[]",
    ]
    found = read(write(tmp_path / "rows.jsonl", "\n".join(lines)))
    assert len(found.rows) == 1
    (tally,) = found.ledger.all_dropped()
    assert (tally.what, tally.count) == (UNUSABLE, 4)
    assert [place.where for place in tally.first] == ["x:2", "x:3", "x:4", "x:5"]
    assert all(place.detail for place in tally.first)


def test_texts_of_rows_are_repaired_and_the_line_is_named(tmp_path: Path) -> None:
    fields = {"question": "  CafÃ©? ", "answer": "SchÃ¶n.", "topic": "Ã¼ber"}
    found = read(write(tmp_path / "rows.jsonl", json.dumps(fields)))
    assert written(found.rows[0]) == {
        "instruction": "Café?",
        "input": "",
        "output": "Schön.",
        "topic": "über",
    }
    assert found.changed() == {MOJIBAKE: 1, ENDS_TRIMMED: 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("csv", 'question;answer\r\n"Größe?";"Sehr\r\nhoch; é"\r\n'),
        ("tsv", "question\tanswer\nGröße?\tSehr\u00e9\n"),
        ("jsonl", '{"question": "Größe?", "answer": "Sehr é"}\n'),
        ("json", '[{"question": "Größe?",\n "answer": "Sehr é"}]'),
    ],
)
def test_files_of_rows_are_read_in_any_encoding(
    tmp_path: Path, ending: str, text: str, encoding: str
) -> None:
    found = read(write(tmp_path / f"rows.{ending}", text, encoding))
    ((question, answer),) = found.pairs()
    assert question == "Größe?"
    assert answer.startswith("Sehr")
    assert answer.endswith("é")


def test_columns_that_only_contain_the_words_are_found(tmp_path: Path) -> None:
    text = "Id,Patient question,Doctor's answer\n1,Why?,So.\n2,What?,\n"
    found = read(write(tmp_path / "rows.csv", text))
    assert written(found.rows[0]) == {
        "instruction": "Why?",
        "input": "",
        "output": "So.",
        "Id": "1",
    }
    assert found.dropped() == {UNUSABLE: ["x:3"]}


def test_parquet_rows_are_read_with_their_dates(tmp_path: Path) -> None:
    import datetime

    table = pa.table({"question": ["a"], "answer": ["b"], "day": [datetime.date(2026, 1, 2)]})
    pq.write_table(table, tmp_path / "rows.parquet")
    (row,) = read(tmp_path / "rows.parquet").rows
    assert written(row)["day"] == "2026-01-02"


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    for name, text in (("a.json", "{broken"), ("b.parquet", "no parquet"), ("c.jsonl", "")):
        with pytest.raises(DataError, match=name[0]):
            read(write(tmp_path / name, text))
