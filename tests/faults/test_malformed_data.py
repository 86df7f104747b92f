"""The corpus of malformed files: each is a named refusal, or a row that is left out by line and
reason. Never a traceback, never silent.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llamafarm.cli.main import main
from llamafarm.data.datasplit import datasplit
from llamafarm.data.prepare import conversations_of, prepare
from llamafarm.data.quality.observer import QualityObserver
from llamafarm.data.readers import RowSource, open_source
from llamafarm.data.records import MAX_LISTED, BadRow
from llamafarm.data.scan import GoodRow, Pipeline
from llamafarm.errors import DataError, UserError
from tests.data.rows_on_disk import request_for

from .malformed import encodings, file_system, json_lines, json_lists, packed, rows, splits, tables
from .malformed.case import Case, jsonl, row

_ALL = (
    *encodings.CASES,
    *json_lines.CASES,
    *json_lists.CASES,
    *tables.CASES,
    *packed.CASES,
    *rows.CASES,
    *file_system.CASES,
)
CASES = {case.name: case for case in _ALL}
SPLITS = {case.name: case for case in splits.CASES}
REPOSITORY = Path(__file__).parents[2]
LONGEST_REASON = 700
LARGE_BYTES = 100_000_000
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


REFUSED = [name for name, case in CASES.items() if case.refused]
READ = [name for name, case in CASES.items() if not case.refused]


def _bad_line(case: Case) -> bytes:
    """The second of three lines of JSONL, where it is the only bad one; empty in other cases."""
    if not isinstance(case.content, bytes) or case.file != "rows.jsonl" or case.changes:
        return b""
    return case.content.split(b"\n")[1] if (case.rows, [*case.bad]) == ((1, 3), [2]) else b""


BAD_LINES = {name: line for name, case in CASES.items() if (line := _bad_line(case))}
WITH_BAD_ROWS = [name for name, case in CASES.items() if case.bad and name not in BAD_LINES]
JSONL = [
    name
    for name, case in CASES.items()
    if not case.refused and case.file.lower().endswith(".jsonl")
]


@dataclass
class Seen:
    """What came of a file: lines of the rows, reason and hints of every bad row by line."""

    rows: list[int] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    findings: set[str] = field(default_factory=set)


def _read(source: RowSource, case: Case) -> Seen:
    """The file as one that is to be split, which is where labels are asked for."""
    request = request_for(Path(case.file), **case.changes)
    pipeline = Pipeline.of(request).labelled(request)
    seen = Seen()
    quality = QualityObserver(pii=False) if case.findings else None
    for item in source.items():
        found = pipeline.read(item)
        if isinstance(found, BadRow):
            assert found.source.line not in seen.bad
            assert {problem.where for problem in found.problems} == {str(found.source)}
            hints = dict.fromkeys(problem.hint for problem in found.problems)
            seen.bad[found.source.line] = f"{found.reason} {' '.join(hints)}"
        else:
            assert isinstance(found, GoodRow)
            seen.rows.append(found.conversation.source.line)
            if quality is not None:
                quality.see(found.conversation, "train")
    if quality is not None:
        seen.findings = {finding.kind for finding in quality.report().findings}
    return seen


def _made(name: str, directory: Path) -> Path:
    if name == "file: without permission" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    return CASES[name].make(directory)


def test_there_are_at_least_150_cases_and_each_has_a_name_of_its_own() -> None:
    assert len(CASES) == len(_ALL) >= 150


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_data_is_refused_by_name(name: str, tmp_path: Path) -> None:
    case, path = CASES[name], _made(name, tmp_path)
    request = request_for(path, skip_bad_rows=True, **case.changes)
    with pytest.raises(DataError) as caught:
        conversations_of(request, "train", most=0)
    text = caught.value.render()
    assert [words for words in case.refused if words not in text] == []
    assert caught.value.exit_code == 2
    assert "hint: " in text or "cannot be read: " in text or "is no file name" in text


@pytest.mark.parametrize("name", READ)
def test_every_row_of_a_bad_file_is_read_or_named_with_its_line(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    source = open_source(_made(name, tmp_path))
    seen = _read(source, case)
    assert seen.rows == list(case.rows)
    assert sorted(seen.bad) == sorted(case.bad)
    for line, words in case.bad.items():
        assert words in seen.bad[line]
        assert len(seen.bad[line]) < LONGEST_REASON
    assert [words for words in case.notices if words not in " ".join(source.notices)] == []
    assert set(case.findings) <= seen.findings


@pytest.mark.parametrize("name", WITH_BAD_ROWS)
def test_bad_rows_are_refused_together_with_their_lines(name: str, tmp_path: Path) -> None:
    case, path = CASES[name], _made(name, tmp_path)
    with pytest.raises(DataError) as caught:
        conversations_of(request_for(path, **case.changes), "train", most=0)
    assert caught.value.exit_code == 2
    assert "--skip-bad-rows" in caught.value.hint
    named = {int(p.where.rpartition(":")[2]) for p in caught.value.problems if p.where}
    assert named == set(sorted(case.bad)[:MAX_LISTED])


@pytest.mark.parametrize("name", JSONL)
def test_rows_read_and_refused_and_blank_lines_are_all_lines(name: str, tmp_path: Path) -> None:
    path = _made(name, tmp_path)
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    blank = sum(not line.strip() for line in lines)
    items = [item.source.line for item in open_source(path).items()]
    assert len(items) + blank == len(lines)
    assert items == [number for number, line in enumerate(lines, start=1) if line.strip()]


def test_a_row_that_is_cut_off_anywhere_is_refused_at_its_line(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": 'Wär\n"'}, {"role": "assistant", "content": "\U0001f600"}]
    path = tmp_path / "rows.jsonl"
    for ascii_only in (True, False):
        whole = json.dumps({"messages": turns}, ensure_ascii=ascii_only).encode()
        for length in range(1, len(whole)):
            path.write_bytes(jsonl(row(1)) + whole[:length])
            seen = _read(open_source(path), Case("cut off", whole))
            assert (seen.rows, list(seen.bad)) == ([1], [2]), whole[:length]


def test_one_file_of_all_bad_rows_trains_on_the_others_and_reports_each(
    tmp_path: Path, smollm2_tokenizer: Any
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        jsonl(*[part for i, line in enumerate(BAD_LINES.values()) for part in (row(i), line)])
    )
    ready = partial(prepare, tokenizer=smollm2_tokenizer, cache_dir=tmp_path / "cache")
    report = ready(request_for(path, skip_bad_rows=True)).report
    count = len(BAD_LINES)
    assert count >= 150
    assert report.ledger is not None
    assert (report.ledger.rows_in, report.ledger.rows_kept) == (2 * count, count)
    assert [bad.source.line for bad in report.dropped] == list(range(2, 2 * count + 1, 2))
    assert report.rows_dropped == count
    with pytest.raises(DataError, match=r"rows\.jsonl has [\d,]+ problems") as caught:
        ready(request_for(path))
    assert len(caught.value.problems) == MAX_LISTED + 1


def test_a_template_that_refuses_an_order_of_turns_names_the_row(
    tmp_path: Path, smollm2_tokenizer: Any
) -> None:
    template = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    turns = [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Hm?"}]
    odd = json.dumps({"messages": [*turns, {"role": "assistant", "content": "Yes."}]}).encode()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(row(1), odd, row(3), row(4)))
    ready = partial(prepare, tokenizer=smollm2_tokenizer, cache_dir=tmp_path / "cache")
    with pytest.raises(DataError, match="roles must alternate") as caught:
        ready(request_for(path, chat_template=template))
    assert [problem.where for problem in caught.value.problems] == [f"{path}:2"]
    report = ready(request_for(path, chat_template=template, skip_bad_rows=True)).report
    assert [(bad.source.line, bad.kind) for bad in report.dropped] == [
        (2, "refused by the chat template")
    ]


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_that_cannot_be_made_is_refused_or_warned_of(name: str, tmp_path: Path) -> None:
    case = SPLITS[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(case.content)
    if not case.refused:
        made = datasplit(path, **case.asked)
        assert case.warned in " ".join(made.warnings)
        assert made.train_rows + made.eval_rows == case.content.count(b"\n")
        assert min(made.train_rows, made.eval_rows) > 0
        return
    with pytest.raises(UserError) as caught:
        datasplit(path, **case.asked)
    text = caught.value.render()
    assert [words for words in case.refused if words not in text] == []
    assert caught.value.exit_code == 2
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def _row_of_100_mb(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"question": "Why?", "answer": "')
        for _ in range(LARGE_BYTES // 100_000):
            file.write(b"x" * 100_000)
        file.write(b'"}\n' + row(2))


def _nul(path: Path, size: int) -> None:
    """A line of NUL, which takes no room on the disk, and a row after it."""
    path.touch()
    os.truncate(path, size)
    with path.open("ab") as file:
        file.write(b"\n" + row(2))


def _bomb(path: Path) -> None:
    path.write_bytes(packed.bomb(path.suffix))


# file: how it is made, and what is said of it
LARGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "row.jsonl.gz": (_row_of_100_mb, "2 rows, 0 bad"),
    "nul.jsonl": (partial(_nul, size=LARGE_BYTES), "1 rows, 1 bad"),
    "long.jsonl": (partial(_nul, size=3 * LARGE_BYTES), "1 rows, 1 bad"),
    "bomb.jsonl.gz": (_bomb, "more than 1 GiB"),
    "bomb.jsonl.zst": (_bomb, "more than 1 GiB"),
}
MOST_MEMORY_BYTES = 5 * LARGE_BYTES
_READ_ALL = """
import sys
from collections import Counter
from pathlib import Path
from bench.deploy.child import peak_bytes
from llamafarm.data.readers import open_source
from llamafarm.data.scan import Pipeline
from llamafarm.errors import DataError
from tests.data.rows_on_disk import request_for

path = Path(sys.argv[1])
pipeline = Pipeline.of(request_for(path))
before = peak_bytes()
try:
    found = Counter(type(pipeline.read(item)).__name__ for item in open_source(path).items())
    print(f"{found['GoodRow']} rows, {found['BadRow']} bad")
except DataError as refusal:
    print(refusal)
print(peak_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("name", LARGE)
def test_a_huge_line_and_a_bomb_take_bounded_memory(name: str, tmp_path: Path) -> None:
    make, said = LARGE[name]
    make(tmp_path / name)
    command = [sys.executable, "-c", _READ_ALL, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    *told, grown_bytes = done.stdout.splitlines()
    assert said in "\n".join(told)
    assert int(grown_bytes) < MOST_MEMORY_BYTES


# Shown by `inspect`: all of SHOWN are refused, and all of TAKEN are read but for their bad rows.
SHOWN = (
    "UTF-16 LE with BOM",
    "Latin-1 throughout",
    "a tail of NUL, as after a power cut",
    "an empty file",
    "a key of control characters twice",
    "10,000 lists",
    "list: cut off in a row",
    "table: a zip archive, as .xlsx is",
    "Parquet: cut in half",
    ".gz: cut in half",
    "messages: several faults at once",
    "labels: a row without the field",
    "file: a pipe",
    "file: a name with an escape sequence",
    "file: a name that is not UTF-8",
)
TAKEN = (
    "a tail of NUL, as after a power cut",
    "told: control characters of Latin-1",
    "qa: a name with an escape sequence",
)


@pytest.fixture
def inspect(
    tiny_model_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """Run `inspect` on a file: its exit code, and all that it said."""
    monkeypatch.setenv("LLAMAFARM_CACHE", str(tmp_path_factory.getbasetemp() / "inspect-cache"))
    monkeypatch.setenv("LLAMAFARM_STATE", str(tmp_path_factory.getbasetemp() / "inspect-state"))
    monkeypatch.setenv("COLUMNS", "100")

    def run(path: Path, *arguments: str) -> tuple[int, str]:
        code = main(["inspect", str(path), "--base-model", str(tiny_model_dir), *arguments])
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return run


def _settings(case: Case) -> list[str]:
    return [
        text for key, value in case.changes.items() for text in ("--set", f"dataset.{key}={value}")
    ]


@pytest.mark.parametrize("name", list(SHOWN))
def test_inspect_refuses_a_malformed_file_without_a_traceback(
    name: str, inspect: Any, tmp_path: Path
) -> None:
    code, said = inspect(_made(name, tmp_path), *_settings(CASES[name]))
    assert code == 2, said
    assert re.search(r"(?m)^error: ", said)
    assert "Traceback" not in said
    assert not _CONTROL.search(said)
    for line in sorted(CASES[name].bad)[:MAX_LISTED]:
        assert f":{line} " in said


@pytest.mark.parametrize("name", TAKEN)
def test_inspect_tells_what_it_left_out(name: str, inspect: Any, tmp_path: Path) -> None:
    case = CASES[name]
    code, said = inspect(_made(name, tmp_path), "--skip-bad-rows", *_settings(case))
    assert code == 0, said
    total, kept, bad = len(case.rows) + len(case.bad), len(case.rows), len(case.bad)
    assert f"{total} read, {kept} kept, {bad} left out" in said
    assert not _CONTROL.search(said)
