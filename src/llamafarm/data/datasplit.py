"""One file into STEM_train.jsonl and STEM_eval.jsonl, record by record, JSONL byte for byte."""

from __future__ import annotations

import datetime
import decimal
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llamafarm.data.clean import content_key, fields_key
from llamafarm.data.formats import RowSpec, to_conversation
from llamafarm.data.readers import RowSource, display_name, open_source
from llamafarm.data.records import ROW_HINT, BadRow, FaultList, Record
from llamafarm.data.report import DroppedRow
from llamafarm.data.split import EvalPercent, Split, read_eval_percent, split_records
from llamafarm.errors import DataError, OutputError, Problem, count_of
from llamafarm.files import write_bytes_atomic


@dataclass(frozen=True, slots=True)
class SplitResult:
    """What was written. fraction: share of rows asked for on the eval side."""

    train_file: Path
    eval_file: Path
    train_rows: int
    eval_rows: int
    fraction: float
    seed: int
    dropped: tuple[DroppedRow, ...]
    warnings: tuple[str, ...]
    notices: tuple[str, ...]


def datasplit(
    path: Path,
    *,
    eval_percent: EvalPercent | str,
    seed: int,
    output_dir: Path | None = None,
    skip_bad_rows: bool = False,
) -> SplitResult:
    """Split a data file into two JSONL files, beside it unless output_dir says otherwise.

    The same rows as a run with the same share and seed puts on each side; existing outputs are
    replaced. Raises DataError for a file that cannot be read or split, OutputError when an output
    cannot be written.
    """
    source = open_source(path)
    records, dropped = _read(source, skip_bad_rows)
    fraction, notice = read_eval_percent(eval_percent, len(records))
    keys, unknown = _keys(records)
    parts = split_records(keys, fraction, seed)
    outputs = _output_paths(path, output_dir)
    _write_pair(outputs, records, parts)
    return SplitResult(
        *outputs,
        len(parts.train),
        len(parts.eval),
        fraction,
        seed,
        tuple(dropped),
        (*parts.warnings, *_unknown_warning(unknown, source.name)),
        (*source.notices, *([notice] if notice else [])),
    )


def _read(source: RowSource, skip_bad_rows: bool) -> tuple[list[Record], list[DroppedRow]]:
    records: list[Record] = []
    dropped: list[DroppedRow] = []
    faults = FaultList(source.name)
    for item in source.items():
        if isinstance(item, Record):
            records.append(item)
        elif skip_bad_rows:
            dropped.append(DroppedRow(item.source, item.reason))
        else:
            faults.add(item)
    faults.raise_if_any()
    if not records:
        raise DataError(f"{source.name} has no rows", hint=ROW_HINT)
    return records, dropped


def _keys(records: Iterable[Record]) -> tuple[list[bytes], Counter[str]]:
    """What each record says, and how many records training would refuse, by reason."""
    spec = RowSpec()
    keys: list[bytes] = []
    unknown: Counter[str] = Counter()
    for record in records:
        parsed = to_conversation(record, spec)
        if isinstance(parsed, BadRow):
            unknown[parsed.reason] += 1
            keys.append(fields_key(record.fields))
        else:
            keys.append(content_key(parsed[0]))
    return keys, unknown


def _unknown_warning(unknown: Counter[str], name: str) -> tuple[str, ...]:
    if not unknown:
        return ()
    reason, _ = unknown.most_common(1)[0]
    return (
        f"{count_of(unknown.total(), 'row')} of {name} cannot be trained on as they are: {reason}",
    )


def _output_paths(path: Path, output_dir: Path | None) -> tuple[Path, Path]:
    folder = path.parent if output_dir is None else output_dir
    outputs = folder / f"{path.stem}_train.jsonl", folder / f"{path.stem}_eval.jsonl"
    for output in outputs:
        if output.exists() and output.samefile(path):
            raise OutputError(
                f"the output {display_name(output)} is the input itself",
                hint="give another directory with --output-dir",
            )
    return outputs


def _write_pair(outputs: tuple[Path, Path], records: list[Record], parts: Split) -> None:
    """Both files, or an error.

    An old train file goes first: it must never stand beside a new eval file.
    """
    train_path, eval_path = outputs
    train, held_out = (
        b"".join(_line(records[row]) for row in side) for side in (parts.train, parts.eval)
    )
    try:
        train_path.parent.mkdir(parents=True, exist_ok=True)
        train_path.unlink(missing_ok=True)
        write_bytes_atomic(eval_path, held_out)
        write_bytes_atomic(train_path, train)
    except OSError as fault:
        raise OutputError(
            f"{display_name(train_path.parent)} cannot be written to: {fault.strerror or fault}",
            hint="give another directory with --output-dir",
        ) from fault


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
