"""One file into STEM_train.jsonl, STEM_eval.jsonl and, if asked for, STEM_test.jsonl: record by
record, JSONL byte for byte.

The file is read twice, once to find out what belongs together and once to copy, so that its records
are never held.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from llamafarm.data.clean import fields_key
from llamafarm.data.compressed import without_compression
from llamafarm.data.formats import RowSpec, to_conversation
from llamafarm.data.readers import RowSource, display_name, open_source
from llamafarm.data.records import ROW_HINT, BadRow, FaultList, Item, Record
from llamafarm.data.report import MAX_NAMED, DroppedRow
from llamafarm.data.rows import RowRef
from llamafarm.data.split import (
    EvalPercent,
    SplitRequest,
    SplitSize,
    read_eval_percent,
    split_rows,
)
from llamafarm.data.survey import (
    RowFacts,
    Surveyor,
    facts_of,
    facts_of_fields,
    groups_of,
    near_duplicates,
)
from llamafarm.errors import DataError, OutputError, Problem, RunError, UserError, count_of
from llamafarm.files import append_stream, fsync_directory

DEFAULT_EVAL_PERCENT = 10.0
_FIELDS_NAMED = 10


@dataclass(frozen=True, slots=True)
class SplitResult:
    """What was written. fraction: share of rows asked for on the eval side.

    dropped: the first MAX_NAMED rows that were left out; dropped_rows: all of them; test_file:
    None where no test side was asked for.
    """

    train_file: Path
    eval_file: Path
    train_rows: int
    eval_rows: int
    fraction: float
    seed: int
    dropped: tuple[DroppedRow, ...]
    warnings: tuple[str, ...]
    notices: tuple[str, ...]
    test_file: Path | None = None
    test_rows: int = 0
    dropped_rows: int = 0


def datasplit(
    path: Path,
    *,
    eval_percent: EvalPercent | str | None = None,
    eval_rows: int | None = None,
    test_percent: EvalPercent | str | None = None,
    test_rows: int | None = None,
    stable: bool = False,
    group_by: str | None = None,
    stratify_by: str | None = None,
    seed: int = 42,
    output_dir: Path | None = None,
    skip_bad_rows: bool = False,
) -> SplitResult:
    """Split a data file into two or three JSONL files, beside it unless output_dir says otherwise.

    eval_percent: DEFAULT_EVAL_PERCENT where neither it nor eval_rows is given; group_by,
    stratify_by: fields of the rows. stable: adding rows to the file later moves no old one.

    The same rows as a run with the same sizes and seed puts on each side; existing outputs are
    replaced, all of them or none. Raises DataError for a file that cannot be read or split,
    OutputError when an output cannot be written, UserError for settings that contradict each other.
    """
    held_out = _Sizes(
        _Size("eval", _default_percent(eval_percent, eval_rows), eval_rows),
        _Size("test", test_percent, test_rows),
        stable,
    )
    held_out.check()
    source = open_source(path)
    outputs = _output_paths(path, output_dir, with_test=held_out.test.is_given)
    labels = _Labels(group_by, stratify_by)
    with _scratch() as folder, _surveyor(folder, labels) as surveyor:
        found = _read(source, surveyor, labels, skip_bad_rows)
        survey = surveyor.finish()
        request, notices = held_out.request(len(survey), seed)
        groups = groups_of(survey, np.arange(len(survey)), near_duplicates(survey))
    parts = split_rows(
        groups,
        request,
        strata=survey.stratum,
        stable_keys=survey.normal,
        name=lambda row: str(RowRef(source.name, int(survey.line[row]))),
    )
    _write_set(outputs, source, survey.position, parts.sides)
    counts = parts.counts
    told = (*_unknown_warning(found, source.name), *_left_over(path, outputs))
    return SplitResult(
        train_file=outputs[0],
        eval_file=outputs[1],
        train_rows=counts[0],
        eval_rows=counts[1],
        fraction=request.eval.fraction or counts[1] / len(survey),
        seed=seed,
        dropped=tuple(found.dropped),
        warnings=(*parts.warnings, *told),
        notices=(*source.notices, *notices, *parts.notices, *_group_notice(groups)),
        test_file=outputs[2] if len(outputs) > 2 else None,
        test_rows=counts[2],
        dropped_rows=found.dropped_rows,
    )


def _default_percent(
    percent: EvalPercent | str | None, rows: int | None
) -> EvalPercent | str | None:
    return DEFAULT_EVAL_PERCENT if percent is None and rows is None else percent


@dataclass(frozen=True, slots=True)
class _Size:
    """What one side is to hold, as it was asked for. side: eval or test."""

    side: str
    percent: EvalPercent | str | None
    rows: int | None

    @property
    def is_given(self) -> bool:
        return self.percent is not None or self.rows is not None

    def read(self, total: int) -> tuple[SplitSize, str]:
        """The size for so many rows, and a notice where it needs one."""
        if self.rows is not None:
            return SplitSize(rows=self.rows), ""
        fraction, notice = read_eval_percent(self.percent or 0, total, f"--{self.side}-percent")
        return SplitSize(fraction), notice

    def check(self, stable: bool) -> None:
        """Raises UserError for settings that exclude each other."""
        if self.percent is not None and self.rows is not None:
            raise UserError(
                f"--{self.side}-percent and --{self.side}-rows exclude each other",
                hint="leave one of them out",
            )
        if stable and str(self.percent).strip().lower() == "auto":
            raise UserError(
                f"--stable and --{self.side}-percent auto exclude each other: auto depends on how "
                "many rows there are",
                hint=f"name a percentage: --{self.side}-percent 10",
            )


@dataclass(frozen=True, slots=True)
class _Sizes:
    eval: _Size
    test: _Size
    stable: bool

    def check(self) -> None:
        """What can be told before the file is read. Raises UserError."""
        for size in (self.eval, self.test):
            if size.is_given:
                size.check(self.stable)
        self.request(rows=1, seed=0)

    def request(self, rows: int, seed: int) -> tuple[SplitRequest, list[str]]:
        """How so many rows are to be split, and what a person may want to know of it."""
        held_out, notice = self.eval.read(rows)
        test, test_notice = self.test.read(rows) if self.test.is_given else (None, "")
        notices = [text for text in (notice, test_notice) if text]
        return SplitRequest(held_out, test, seed, stable=self.stable), notices


@dataclass(frozen=True, slots=True)
class _Labels:
    """Fields by which rows are grouped and stratified."""

    group_by: str | None
    stratify_by: str | None

    def asked(self) -> list[tuple[str, str]]:
        """Flags with the fields that they name."""
        flags = (("--group-by", self.group_by), ("--stratify-by", self.stratify_by))
        return [(flag, name) for flag, name in flags if name is not None]

    def of(self, record: Record) -> tuple[str, str] | BadRow:
        """A record's group and stratum, empty where not asked for."""
        problems = tuple(
            Problem(
                f'the row has no "{name}", which {flag} asks for',
                where=str(record.source),
                hint=f"give every row that field, or leave out {flag}",
            )
            for flag, name in self.asked()
            if record.fields.get(name) is None
        )
        if problems:
            return BadRow(record.source, problems)
        group = str(record.fields[self.group_by]) if self.group_by else ""
        stratum = str(record.fields[self.stratify_by]) if self.stratify_by else ""
        return group, stratum


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """An empty directory for what does not fit into memory."""
    try:
        with tempfile.TemporaryDirectory(prefix="llamafarm-") as folder:
            yield Path(folder)
    except OSError as fault:
        raise RunError(
            f"{tempfile.gettempdir()} cannot be written to: {fault.strerror or fault}",
            hint="set TMPDIR to a directory with more room",
        ) from fault


def _surveyor(folder: Path, labels: _Labels) -> Surveyor:
    return Surveyor(
        folder, grouped=labels.group_by is not None, stratified=labels.stratify_by is not None
    )


@dataclass(slots=True)
class _Found:
    """What the first pass is to tell beside the survey. unknown: rows that training would refuse,
    by reason; fields: names of the rows' fields, at most MAX_NAMED.
    """

    dropped: list[DroppedRow] = field(default_factory=list)
    dropped_rows: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    fields: dict[str, None] = field(default_factory=dict)

    def drop(self, bad: BadRow) -> None:
        self.dropped_rows += 1
        if len(self.dropped) < MAX_NAMED:
            self.dropped.append(DroppedRow(bad.source, bad.reason))

    def see(self, item: Item) -> None:
        if isinstance(item, Record) and len(self.fields) < MAX_NAMED:
            self.fields.update(dict.fromkeys(item.fields))


def _read(source: RowSource, surveyor: Surveyor, labels: _Labels, skip_bad_rows: bool) -> _Found:
    """The first pass: every fault, and of each good row what splitting needs."""
    found = _Found()
    faults = FaultList(source.name)
    for position, item in enumerate(source.items()):
        found.see(item)
        labelled = _labelled(item, labels)
        if not isinstance(labelled, BadRow):
            record, group, stratum = labelled
            surveyor.add(
                _facts(record, found.unknown),
                source=0,
                position=position,
                line=record.source.line,
                group=group,
                stratum=stratum,
            )
        elif skip_bad_rows:
            found.drop(labelled)
        else:
            faults.add(labelled)
    _check_fields(source.name, labels, found)
    faults.raise_if_any()
    if not len(surveyor):
        raise _no_rows(source.name, found)
    return found


def _check_fields(name: str, labels: _Labels, found: _Found) -> None:
    """A field that no row has is one fault, not one a row."""
    problems = [
        Problem(f'no row has a field "{label}"', where=flag, hint=_field_hint(label, found.fields))
        for flag, label in labels.asked()
        if found.fields and label not in found.fields
    ]
    if problems:
        raise DataError(f"{name} has no field to split by", problems)


def _field_hint(label: str, fields: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(label, list(fields), n=1)
    if near:
        return f"did you mean {near[0]}?"
    return "its fields are " + ", ".join(islice(fields, _FIELDS_NAMED))


def _labelled(item: Item, labels: _Labels) -> tuple[Record, str, str] | BadRow:
    if isinstance(item, BadRow):
        return item
    found = labels.of(item)
    return found if isinstance(found, BadRow) else (item, *found)


def _facts(record: Record, unknown: Counter[str]) -> RowFacts:
    parsed = to_conversation(record, _SPEC)
    if isinstance(parsed, BadRow):
        unknown[parsed.reason] += 1
        return facts_of_fields(record.fields, fields_key(record.fields))
    return facts_of(parsed[0])


_SPEC = RowSpec()


def _no_rows(name: str, found: _Found) -> DataError:
    if not found.dropped_rows:
        return DataError(f"{name} has no rows", hint=ROW_HINT)
    reasons = [Problem(row.reason, where=str(row.source)) for row in found.dropped[:5]]
    return DataError(f"{name}: no row is left, all {found.dropped_rows:,} were dropped", reasons)


def _unknown_warning(found: _Found, name: str) -> Iterator[str]:
    if found.unknown:
        reason, _ = found.unknown.most_common(1)[0]
        rows = count_of(found.unknown.total(), "row")
        yield f"{rows} of {name} cannot be trained on as they are: {reason}"


def _group_notice(groups: NDArray[np.int64]) -> Iterator[str]:
    """What was held together, which nobody can see from the counts."""
    number = int(groups.max()) + 1
    if number < len(groups):
        yield (
            f"{len(groups):,} rows are {count_of(number, 'group')}: rows that say the same or "
            "nearly the same, answer one question or share a label stay on one side"
        )


def _output_paths(path: Path, output_dir: Path | None, *, with_test: bool) -> tuple[Path, ...]:
    """The training file, the evaluation file, and the test file if there is to be one."""
    folder = path.parent if output_dir is None else output_dir
    sides = ("train", "eval", "test") if with_test else ("train", "eval")
    outputs = tuple(folder / f"{_stem(path)}_{side}.jsonl" for side in sides)
    for output in outputs:
        if output.is_dir():
            raise OutputError(
                f"{display_name(output)} is a directory",
                hint="give another directory with --output-dir",
            )
        if output.exists() and output.samefile(path):
            raise OutputError(
                f"the output {display_name(output)} is the input itself",
                hint="give another directory with --output-dir",
            )
    return outputs


def _stem(path: Path) -> str:
    """`data` of data.jsonl and of data.jsonl.gz."""
    return without_compression(path).stem


def _left_over(path: Path, outputs: Sequence[Path]) -> Iterator[str]:
    other = outputs[0].with_name(f"{_stem(path)}_test.jsonl")
    if other not in outputs and other.exists():
        yield (
            f"{display_name(other)} is not of this split: its rows may be among those to train on"
        )


def _write_set(
    outputs: Sequence[Path],
    source: RowSource,
    positions: NDArray[np.uint32],
    sides: NDArray[np.int8],
) -> None:
    """The second pass."""
    folder = outputs[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _staged_set(outputs) as streams:
            for record, side in _planned(source, positions, sides):
                streams[side].write(_line(record))
    except OSError as fault:
        raise OutputError(
            f"{display_name(folder)} cannot be written to: {fault.strerror or fault}",
            hint="give another directory with --output-dir",
        ) from fault


@contextlib.contextmanager
def _staged_set(outputs: Sequence[Path]) -> Iterator[Sequence[BinaryIO]]:
    """Files to write into, which take the names of the outputs when the block ends without an
    error.

    Old outputs go first and the first name comes last: wherever it stands, the set is complete, and
    no old file ever stands beside a new one. An error before that leaves everything as it was.
    """
    stages = [path.with_name(f".tmp-{path.name}-{os.getpid()}") for path in outputs]
    try:
        with contextlib.ExitStack() as open_files:
            for stage in stages:
                stage.unlink(missing_ok=True)
            yield [open_files.enter_context(append_stream(stage)) for stage in stages]
        for output in outputs:
            output.unlink(missing_ok=True)
        for stage, output in reversed(list(zip(stages, outputs, strict=True))):
            stage.replace(output)
    finally:
        for stage in stages:
            stage.unlink(missing_ok=True)
    fsync_directory(outputs[0].parent)


def _planned(
    source: RowSource, positions: NDArray[np.uint32], sides: NDArray[np.int8]
) -> Iterator[tuple[Record, int]]:
    """The records at these positions, which ascend, with their sides."""
    planned = zip(positions.data, sides.data, strict=True)
    wanted, side = next(planned)
    for position, item in enumerate(source.items()):
        # A file that has changed since the first pass is told by the reader, at its end.
        if position == wanted and isinstance(item, Record):
            yield item, side
            wanted, side = next(planned, (-1, 0))


def _line(record: Record) -> bytes:
    """The record's own bytes; only a missing newline at the end of the file is added."""
    if record.raw:
        return record.raw if record.raw.endswith(b"\n") else record.raw + b"\n"
    return _to_json(record).encode("utf-8") + b"\n"


def _to_json(record: Record) -> str:
    try:
        return json.dumps(dict(record.fields), ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as fault:
        raise DataError(
            f"{record.source} holds a value that JSON cannot hold: {fault}",
            [Problem(_columns(record.fields), where=str(record.source))],
            hint="leave that column out of the file",
        ) from fault


def _columns(fields: Mapping[str, object]) -> str:
    return "columns: " + ", ".join(
        f"{name} ({type(value).__name__})" for name, value in fields.items()
    )


def _plain(value: object) -> str:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} values")
