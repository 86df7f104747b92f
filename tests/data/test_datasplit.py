from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamafarm.data.datasplit import SplitResult, datasplit
from llamafarm.errors import DataError, OutputError

from .rows_on_disk import qa, write_jsonl


def _split(path: Path, **options: object) -> SplitResult:
    return datasplit(path, **{"eval_percent": 10.0, "seed": 42, **options})  # type: ignore[arg-type]


def _records(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_a_file_becomes_two_beside_it(tmp_path: Path) -> None:
    result = _split(write_jsonl(tmp_path / "data.jsonl", map(qa, range(115))))
    assert result.train_file == tmp_path / "data_train.jsonl"
    assert result.eval_file == tmp_path / "data_eval.jsonl"
    assert (result.train_rows, result.eval_rows) == (103, 12)
    assert len(_records(result.train_file)) == 103
    assert len(_records(result.eval_file)) == 12


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.sampled_from([b"", b" ", b"\t"]),
            st.sampled_from([b"\n", b"\r\n"]),
        ),
        min_size=2,
        max_size=40,
    ),
    st.booleans(),
    st.floats(1, 90),
    st.integers(0, 1000),
)
def test_records_come_out_byte_for_byte_and_none_are_glued(
    tmp_path: Path,
    rows: list[tuple[int, bytes, bytes]],
    final_newline: bool,
    percent: float,
    seed: int,
) -> None:
    lines = [
        json.dumps(qa(n)).encode() + space + ending + (b"\n" if n % 7 == 0 else b"")
        for n, space, ending in rows
    ]
    content = b"".join(lines)
    path = tmp_path / "data.jsonl"
    path.write_bytes(content if final_newline else content.rstrip(b"\r\n"))
    result = _split(path, eval_percent=percent, seed=seed)
    source = [line for line in path.read_bytes().splitlines(keepends=True) if line.strip()]
    if not source[-1].endswith(b"\n"):
        source[-1] += b"\n"
    train, held_out = _records(result.train_file), _records(result.eval_file)
    assert sorted(train + held_out) == sorted(source)
    assert train and held_out
    position = iter(source)
    assert all(line in position for line in train)


def test_the_command_can_be_repeated(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(30)))
    first = _split(path)
    before = first.train_file.read_bytes(), first.eval_file.read_bytes()
    again = _split(path)
    assert (again.train_file.read_bytes(), again.eval_file.read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "data.jsonl",
        "data_eval.jsonl",
        "data_train.jsonl",
    ]


def test_an_output_never_replaces_the_input(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data_train.jsonl", map(qa, range(30)))
    link = tmp_path / "data.jsonl"
    link.symlink_to(path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="is the input itself"):
        _split(link)
    assert path.read_bytes() == before


def test_outputs_go_where_they_are_asked_to(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(30)))
    result = _split(path, output_dir=tmp_path / "new" / "folder")
    assert result.train_file == tmp_path / "new" / "folder" / "data_train.jsonl"
    assert result.train_file.is_file()


def test_an_output_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(30)))
    with pytest.raises(OutputError) as caught:
        _split(path, output_dir=path)
    assert "--output-dir" in caught.value.hint


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_other_formats_become_jsonl_with_the_same_rows_on_each_side(
    kind: str, tmp_path: Path
) -> None:
    rows = [qa(n) for n in range(40)]
    jsonl = _split(write_jsonl(tmp_path / "lines.jsonl", rows))
    path = tmp_path / f"data.{kind}"
    if kind == "csv":
        lines = ["question,answer", *(f"{r['question']},{r['answer']}" for r in rows)]
        path.write_text("\n".join(lines), "utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows), "utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    result = _split(path)
    for ours, theirs in (
        (result.train_file, jsonl.train_file),
        (result.eval_file, jsonl.eval_file),
    ):
        assert [json.loads(line) for line in _records(ours)] == [
            json.loads(line) for line in _records(theirs)
        ]


def test_dates_become_text_and_other_values_are_refused(tmp_path: Path) -> None:
    import datetime

    path = tmp_path / "data.parquet"
    day = datetime.date(2026, 11, 23)
    pq.write_table(pa.Table.from_pylist([{**qa(n), "day": day} for n in range(3)]), path)
    assert json.loads(_records(_split(path).eval_file)[0])["day"] == "2026-11-23"
    pq.write_table(pa.Table.from_pylist([{**qa(n), "raw": b"\0"} for n in range(3)]), path)
    with pytest.raises(DataError, match=r"raw \(bytes\)"):
        _split(path)


def test_bad_rows_are_refused_or_left_out_and_listed(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [json.dumps(qa(n)) for n in range(10)]
    path.write_text("\n".join([*rows[:4], '{"broken', *rows[4:]]), "utf-8")
    with pytest.raises(DataError, match=r"data\.jsonl:5"):
        _split(path)
    assert not (tmp_path / "data_train.jsonl").exists()
    result = _split(path, skip_bad_rows=True)
    assert result.train_rows + result.eval_rows == 10
    assert [row.source.line for row in result.dropped] == [5]


def test_one_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 row cannot be split"):
        _split(write_jsonl(tmp_path / "data.jsonl", [qa(1)]))


def test_rows_of_no_known_format_are_split_with_a_warning(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [{"x": n % 15} for n in range(30)])
    result = _split(path, eval_percent=20)
    sides = [
        {json.loads(line)["x"] for line in _records(f)}
        for f in (result.train_file, result.eval_file)
    ]
    assert not sides[0] & sides[1]
    assert "30 rows of" in result.warnings[-1]


def test_auto_and_fractions_are_told_in_a_notice(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(40)))
    assert _split(path, eval_percent="auto").eval_rows == 2
    assert _split(path, eval_percent="auto").notices == ("eval-percent auto: 5 % for 40 rows",)
    assert _split(path, eval_percent=0.25).eval_rows == 10
