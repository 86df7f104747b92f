from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamafarm.data.cache import (
    ArrowRows,
    SideWriter,
    arrow_path,
    arrow_paths,
    entry_key,
    fingerprint_of,
    read_entry,
    write_manifest,
)
from llamafarm.data.report import DataReport, DroppedRow, LengthSummary, SourceFile, TruncatedRow
from llamafarm.data.rows import RowRef
from llamafarm.data.token_row import TokenRow
from llamafarm.data.tokenized import ListRows

SOURCE = RowRef("r.jsonl", 2)
REPORT = DataReport(
    data_format="qa",
    files=(SourceFile("r.jsonl", "00", 3, "train"),),
    train=LengthSummary(3, 9, 4, 2, 3, 4, 4),
    eval=None,
    split="none",
    template="t",
    truncated=(TruncatedRow(SOURCE, 9, 5),),
    dropped=(DroppedRow(SOURCE, "why — ä"),),
    warnings=("w",),
    notices=(),
    fingerprint="ff",
)


def _row(line: int, ids: list[int]) -> TokenRow:
    trained = np.array([i % 2 == 1 for i in range(len(ids))])
    return TokenRow(
        RowRef("r.jsonl", line), np.array(ids, np.int32), trained, f"q{line}", f"ä{line}"
    )


FILES = ["q.jsonl", "r.jsonl"]
ROWS = [_row(line, list(range(line, 3 * line + 1))) for line in range(1, 40)]


def _write(path: Path, batches: list[list[TokenRow]]) -> str:
    writer = SideWriter(path, FILES)
    for batch in batches:
        writer.write(batch)
    writer.finish()
    writer.close()
    return fingerprint_of([path])


def _entry(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    fingerprint = _write(arrow_path(folder, "train"), [ROWS[:7], [], ROWS[7:8], ROWS[8:]])
    write_manifest(folder, {"train": fingerprint}, REPORT)
    return folder


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    entry = _entry(tmp_path)
    rows = ArrowRows(arrow_paths(entry, "train"), FILES, "")
    assert len(rows) == len(ROWS)
    for i, row in enumerate(ROWS):
        assert rows.input_ids(i).dtype == np.int32
        assert rows.input_ids(i).tolist() == row.input_ids.tolist()
        assert rows.trained(i).tolist() == row.trained.tolist()
        assert rows.source(i) == row.source
        assert rows.conversation_text(i) == (row.prompt, row.answer)
    assert rows.lengths().tolist() == [len(row.input_ids) for row in ROWS]
    assert rows.trained_counts().tolist() == [int(row.trained.sum()) for row in ROWS]


def test_rows_of_several_parts_are_one_list(tmp_path: Path) -> None:
    for part, rows in enumerate((ROWS[:10], ROWS[10:11], ROWS[11:])):
        _write(arrow_path(tmp_path, "train", part), [rows])
    rows = ArrowRows(arrow_paths(tmp_path, "train"), FILES, "")
    assert [rows.source(i) for i in range(len(rows))] == [row.source for row in ROWS]
    assert rows.lengths().tolist() == [len(row.input_ids) for row in ROWS]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="maps are read from /proc")
def test_a_part_is_mapped_only_when_a_row_of_it_is_read(tmp_path: Path) -> None:
    def mapped() -> list[str]:
        maps = Path("/proc/self/maps").read_text().splitlines()
        return sorted({line.split("/")[-1] for line in maps if str(tmp_path) in line})

    for part in range(3):
        _write(arrow_path(tmp_path, "train", part), [ROWS[:10]])
    rows = ArrowRows(arrow_paths(tmp_path, "train"), FILES, "")
    assert len(rows) == len(rows.lengths()) == len(rows.trained_counts()) == 30
    assert mapped() == []
    rows.input_ids(12)
    assert mapped() == ["train-00001.arrow"]


def test_the_fingerprint_is_that_of_the_same_rows_in_memory(tmp_path: Path) -> None:
    one = _write(tmp_path / "one.arrow", [ROWS])
    many = _write(tmp_path / "many.arrow", [[row] for row in ROWS])
    listed = ListRows([(row.input_ids.tolist(), row.trained.tolist()) for row in ROWS])
    assert one == many == listed.fingerprint


def test_arrays_may_be_changed_without_changing_the_cache(tmp_path: Path) -> None:
    entry = _entry(tmp_path)
    rows = ArrowRows(arrow_paths(entry, "train"), FILES, "")
    rows.input_ids(3)[:] = 0
    rows.trained(3)[:] = True
    assert rows.input_ids(3).tolist() == ROWS[3].input_ids.tolist()
    assert rows.trained(3).tolist() == ROWS[3].trained.tolist()


@pytest.mark.parametrize("row", [-1, 39, 10_000])
def test_rows_beyond_the_end_are_an_index_error(row: int, tmp_path: Path) -> None:
    rows = ArrowRows(arrow_paths(_entry(tmp_path), "train"), FILES, "")
    with pytest.raises(IndexError):
        rows.input_ids(row)


def test_rows_can_be_sent_to_another_process(tmp_path: Path) -> None:
    rows = ArrowRows(arrow_paths(_entry(tmp_path), "train"), FILES, "abc")
    again = pickle.loads(pickle.dumps(rows))
    assert again.fingerprint == "abc"
    assert again.input_ids(20).tolist() == ROWS[20].input_ids.tolist()
    assert again.source(0) == rows.source(0)


def test_a_side_without_rows_is_empty(tmp_path: Path) -> None:
    _write(tmp_path / "none.arrow", [])
    rows = ArrowRows([tmp_path / "none.arrow"], FILES, "")
    assert len(rows) == 0
    assert rows.lengths().tolist() == [] and rows.trained_counts().tolist() == []


def test_the_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = read_entry(_entry(tmp_path))
    assert manifest is not None
    assert manifest.report == REPORT


def test_an_entry_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_entry(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda e: (e / "manifest.json").unlink(),
        lambda e: (e / "manifest.json").write_bytes(b""),
        lambda e: (e / "manifest.json").write_bytes(b'{"files": {}}'),
        lambda e: (e / "train-00000.arrow").unlink(),
        lambda e: (e / "train-00000.arrow").write_bytes(
            (e / "train-00000.arrow").read_bytes()[:-10]
        ),
        lambda e: (e / "train-00000.arrow").write_bytes(
            bytes([b ^ (i == 500) for i, b in enumerate((e / "train-00000.arrow").read_bytes())])
        ),
    ],
    ids=["no manifest", "empty manifest", "wrong manifest", "no file", "cut file", "one bit"],
)
def test_a_damaged_entry_is_none(damage: Callable[[Path], object], tmp_path: Path) -> None:
    entry = _entry(tmp_path)
    damage(entry)
    assert read_entry(entry) is None


def test_the_key_depends_on_every_part() -> None:
    base = entry_key({"a": 1, "b": [1, 2]})
    assert base == entry_key({"b": [1, 2], "a": 1})
    assert len({base, entry_key({"a": 2, "b": [1, 2]}), entry_key({"a": 1, "b": [2, 1]})}) == 3
