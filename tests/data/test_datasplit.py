from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamafarm.data.datasplit import SplitResult, datasplit
from llamafarm.errors import DataError, OutputError, UserError

from .rows_on_disk import qa, write_jsonl


def _split(path: Path, **options: object) -> SplitResult:
    return datasplit(path, **{"eval_percent": 10.0, "seed": 42, **options})  # type: ignore[arg-type]


def _records(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def _values(path: Path | None, field: str) -> list[object]:
    assert path is not None
    return [json.loads(line)[field] for line in _records(path)]


def _words(number: int, count: int = 30) -> list[str]:
    """Words that no other number has in this order."""
    drawn = random.Random(number)
    return [f"w{drawn.randrange(5000)}" for _ in range(count)]


def test_a_file_becomes_two_beside_it(tmp_path: Path) -> None:
    result = _split(write_jsonl(tmp_path / "data.jsonl", map(qa, range(115))))
    assert result.train_file == tmp_path / "data_train.jsonl"
    assert result.eval_file == tmp_path / "data_eval.jsonl"
    assert (result.train_rows, result.eval_rows) == (103, 12)
    assert len(_records(result.train_file)) == 103
    assert len(_records(result.eval_file)) == 12


def test_a_third_file_is_written_for_testing(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(200)))
    result = _split(path, test_percent=5)
    assert result.test_file == tmp_path / "data_test.jsonl"
    assert (result.train_rows, result.eval_rows, result.test_rows) == (170, 20, 10)
    written = [
        line
        for file in (result.train_file, result.eval_file, result.test_file)
        for line in _records(file)
    ]
    assert sorted(written) == sorted(_records(path))


def test_sides_may_be_given_as_counts(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(200)))
    result = _split(path, eval_percent=None, eval_rows=17, test_rows=3)
    assert (result.train_rows, result.eval_rows, result.test_rows) == (180, 17, 3)
    assert result.fraction == 17 / 200


@pytest.mark.parametrize(("asked", "rows"), [("robust", 30), ("research", 40), ("auto", 20)])
def test_shares_may_be_given_as_words(tmp_path: Path, asked: str, rows: int) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(200)))
    result = _split(path, eval_percent=asked)
    assert result.eval_rows == rows
    assert result.notices[0].startswith(f"eval-percent {asked}:")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.sampled_from([b"", b" ", b"\t"]),
            st.sampled_from([b"\n", b"\r\n"]),
        ),
        min_size=3,
        max_size=40,
    ),
    st.booleans(),
    st.booleans(),
    st.floats(1, 60),
    st.floats(1, 35) | st.none(),
    st.integers(0, 1000),
)
def test_records_come_out_byte_for_byte_and_none_are_glued(
    tmp_path: Path,
    rows: list[tuple[int, bytes, bytes]],
    byte_order_mark: bool,
    final_newline: bool,
    percent: float,
    test_percent: float | None,
    seed: int,
) -> None:
    lines = [
        json.dumps(qa(n)).encode() + space + ending + (b"\n" if n % 7 == 0 else b"")
        for n, space, ending in rows
    ]
    content = b"".join(lines)
    path = tmp_path / "data.jsonl"
    content = content if final_newline else content.rstrip(b"\r\n")
    path.write_bytes((b"\xef\xbb\xbf" if byte_order_mark else b"") + content)
    result = _split(path, eval_percent=percent, test_percent=test_percent, seed=seed)
    source = [line for line in content.splitlines(keepends=True) if line.strip()]
    if not source[-1].endswith(b"\n"):
        source[-1] += b"\n"
    files = [result.train_file, result.eval_file]
    files += [result.test_file] if result.test_file else []
    sides = [_records(file) for file in files]
    assert sorted(line for side in sides for line in side) == sorted(source)
    assert all(sides)
    for side in sides:
        position = iter(source)
        assert all(line in position for line in side)


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


def test_new_files_replace_all_old_ones(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(30)))
    for side in ("train", "eval", "test"):
        (tmp_path / f"data_{side}.jsonl").write_text("old")
    result = _split(path, test_percent=10)
    assert result.test_file is not None
    written = _records(result.train_file) + _records(result.eval_file) + _records(result.test_file)
    assert sorted(written) == sorted(_records(path))


def test_a_split_that_fails_leaves_the_old_files_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    rows = [{**qa(n), "raw": None if n < 29 else b"\0"} for n in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    old = {tmp_path / f"data_{side}.jsonl": f"old {side}" for side in ("train", "eval")}
    for file, text in old.items():
        file.write_text(text)
    with pytest.raises(DataError, match=r"raw \(bytes\)"):
        _split(path)
    assert {file: file.read_text() for file in old} == old
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "data.parquet",
        "data_eval.jsonl",
        "data_train.jsonl",
    ]


def test_an_output_that_is_a_directory_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(30)))
    (tmp_path / "data_eval.jsonl").mkdir()
    (tmp_path / "data_train.jsonl").write_text("old")
    with pytest.raises(OutputError, match="is a directory"):
        _split(path)
    assert (tmp_path / "data_train.jsonl").read_text() == "old"


def test_an_old_test_file_beside_two_new_ones_is_told(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(30)))
    assert not _split(path, test_percent=10).warnings
    (warning,) = _split(path).warnings
    assert "data_test.jsonl is not of this split" in warning
    assert (tmp_path / "data_test.jsonl").exists()


def test_a_file_that_changes_between_the_two_passes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamafarm.data import datasplit as room

    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(30)))
    split_rows = room.split_rows

    def while_the_file_changes(*args: object, **more: object) -> object:
        path.write_text("{}\n" + path.read_text())
        return split_rows(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "split_rows", while_the_file_changes)
    with pytest.raises(DataError, match="changed while it was read"):
        _split(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.jsonl"]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_becomes_plain_ones_of_the_same_stem(ending: str, tmp_path: Path) -> None:
    import zstandard

    plain = write_jsonl(tmp_path / "data.jsonl", map(qa, range(40)))
    pack = gzip.compress if ending == ".gz" else zstandard.ZstdCompressor().compress
    packed = tmp_path / "packed" / f"data.jsonl{ending}"
    packed.parent.mkdir()
    packed.write_bytes(pack(plain.read_bytes()))
    ours, theirs = _split(packed), _split(plain)
    assert ours.train_file == tmp_path / "packed" / "data_train.jsonl"
    assert ours.train_file.read_bytes() == theirs.train_file.read_bytes()
    assert ours.eval_file.read_bytes() == theirs.eval_file.read_bytes()


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


# What belongs together.


def test_near_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    rows = []
    for number in range(60):
        words = _words(number)
        changed = [*words[:10], f"other{number}", *words[11:]]
        for answer in (words, changed):
            question = {"question": " ".join(_words(1000 + number, 10))}
            rows.append({**question, "answer": " ".join(answer), "pair": number})
    random.Random(0).shuffle(rows)
    # The question alone would tell the pairs.
    rows = [{**row, "question": f"{row['question']} {i}"} for i, row in enumerate(rows)]
    result = _split(write_jsonl(tmp_path / "data.jsonl", rows), eval_percent=20, test_percent=20)
    assert (result.train_rows, result.eval_rows, result.test_rows) == (72, 24, 24)
    for file in (result.train_file, result.eval_file, result.test_file):
        assert set(Counter(_values(file, "pair")).values()) == {2}
    assert "120 rows are 60 groups" in result.notices[-1]


def test_rows_of_one_group_stay_on_one_side(tmp_path: Path) -> None:
    rows = [{**qa(n), "patient": f"p{n % 20}"} for n in range(100)]
    result = _split(write_jsonl(tmp_path / "data.jsonl", rows), group_by="patient")
    assert (result.train_rows, result.eval_rows) == (90, 10)
    assert set(Counter(_values(result.eval_file, "patient")).values()) == {5}


def test_strata_keep_their_shares(tmp_path: Path) -> None:
    rows = [{**qa(n), "topic": "heart" if n % 10 else "eye"} for n in range(200)]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    result = _split(path, stratify_by="topic", test_rows=40)
    assert Counter(_values(result.eval_file, "topic")) == {"heart": 18, "eye": 2}
    assert Counter(_values(result.test_file, "topic")) == {"heart": 36, "eye": 4}


def test_a_row_without_the_field_is_named_or_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{**qa(n), "topic": n % 3} for n in range(30)]
    rows[4]["topic"] = None
    del rows[7]["topic"]
    path = write_jsonl(tmp_path / "data.jsonl", rows)
    with pytest.raises(DataError) as caught:
        _split(path, stratify_by="topic")
    assert [p.where.rpartition(":")[2] for p in caught.value.problems] == ["5", "8"]
    assert "--stratify-by" in caught.value.problems[0].hint
    result = _split(path, stratify_by="topic", skip_bad_rows=True)
    assert [row.source.line for row in result.dropped] == [5, 8]
    assert result.dropped_rows == 2


def test_a_field_that_no_row_has_is_one_fault_with_the_nearest_name(tmp_path: Path) -> None:
    rows = [{**qa(n), "topic": n % 3} for n in range(30)]
    with pytest.raises(DataError) as caught:
        _split(write_jsonl(tmp_path / "data.jsonl", rows), group_by="topics", stratify_by="x")
    assert [(p.where, p.hint) for p in caught.value.problems] == [
        ("--group-by", "did you mean topic?"),
        ("--stratify-by", "its fields are question, answer, topic"),
    ]


# Stable splits.


def test_rows_added_to_the_file_move_no_old_row_of_a_stable_split(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(300)))
    options = {"stable": True, "eval_percent": 20, "test_percent": 10}
    before = _split(path, **options, output_dir=tmp_path / "before")
    write_jsonl(path, map(qa, range(450)))
    after = _split(path, **options, output_dir=tmp_path / "after")
    for file in ("train_file", "eval_file", "test_file"):
        old, new = (set(_values(getattr(result, file), "question")) for result in (before, after))
        assert old < new
    assert before.notices[0].startswith("stable: no old row changes sides")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"eval_rows": 5}, "--eval-percent and --eval-rows exclude each other"),
        ({"test_percent": 5, "test_rows": 5}, "--test-percent and --test-rows exclude each other"),
        ({"stable": True, "test_rows": 5}, "exactly 5 rows"),
        ({"stable": True, "eval_percent": "auto"}, "--stable and --eval-percent auto exclude"),
        ({"eval_percent": "ten"}, "--eval-percent must be a number"),
        ({"test_percent": 120}, "--test-percent must lie between"),
        ({"eval_percent": None, "eval_rows": 0}, "at least 1 row"),
        ({"eval_percent": 60, "test_percent": 50}, "take 110 % of the rows"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, options: dict[str, object], text: str
) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", map(qa, range(30)))
    with pytest.raises(UserError, match=text):
        _split(path, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.jsonl"]
