"""Which row of which file is trained on, evaluated on, or left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llamafarm.data.readers import RowSource
from llamafarm.data.request import DataRequest
from llamafarm.data.scan import Pipeline, Scan, scan
from llamafarm.data.split import Split, split_records
from llamafarm.data.summary import format_name
from llamafarm.errors import count_of


@dataclass(frozen=True, slots=True)
class Layout:
    """Which row of which file goes to which side. sides: role → position in that file → side."""

    pipeline: Pipeline
    scans: Mapping[str, Scan]
    sides: Mapping[str, Mapping[int, str]]
    split: str
    warnings: tuple[str, ...]
    notices: tuple[str, ...]


def lay_out(request: DataRequest, sources: Mapping[str, RowSource]) -> Layout:
    """Read all files once and give every good row its side.

    sources: by role (train, eval, test). Raises DataError with all faults of a file.
    """
    pipeline = Pipeline.of(request)
    scans = {
        role: scan(source, pipeline, request, request.max_samples if role == "train" else None)
        for role, source in sources.items()
    }
    sides = {
        role: dict.fromkeys(found.positions, role)
        for role, found in scans.items()
        if role != "test"
    }
    warnings, notices = _overlap_warnings(scans), _scan_notices(request, scans)
    if not request.eval_wanted:
        return Layout(pipeline, scans, sides, "none: evaluation is off", warnings, notices)
    if "eval" in scans:
        text = f"evaluation rows from {scans['eval'].source.name}"
        unused = _unused_labels(request)
        return Layout(pipeline, scans, sides, text, (*warnings, *unused), notices)
    found = scans["train"]
    parts = _split(found, request)
    sides["train"] = {found.positions[row]: "train" for row in parts.train}
    sides["train"] |= {found.positions[row]: "eval" for row in parts.eval}
    text = f"{request.eval_fraction:.4g} of {count_of(len(found), 'row')}: {_drawn(request, parts)}"
    return Layout(pipeline, scans, sides, text, (*parts.warnings, *warnings), notices)


def _split(found: Scan, request: DataRequest) -> Split:
    return split_records(
        found.keys,
        request.eval_fraction,
        request.seed,
        groups=found.groups if request.group_by else None,
        strata=found.strata if request.stratify_by else None,
        shuffle=request.shuffle,
    )


def _drawn(request: DataRequest, parts: Split) -> str:
    how = f"drawn with seed {request.seed}" if request.shuffle else "the last ones"
    return f"{count_of(len(parts.eval), 'evaluation row')}, {how}"


def _unused_labels(request: DataRequest) -> list[str]:
    labels = {"group_by": request.group_by, "stratify_by": request.stratify_by}
    return [
        f"dataset.{name} has no effect: the evaluation rows are in a file of their own"
        for name, value in labels.items()
        if value
    ]


def _overlap_warnings(scans: Mapping[str, Scan]) -> tuple[str, ...]:
    """Rows that two files share: what was trained on cannot be evaluated on."""
    found: list[str] = []
    train = scans["train"]
    known = set(train.keys)
    for role in ("eval", "test"):
        if role in scans and (both := sum(key in known for key in scans[role].keys)):
            found.append(
                f"{scans[role].source.name} shares {count_of(both, 'row')} with "
                f"{train.source.name}: its loss will look better than it is"
            )
    return tuple(found)


def _scan_notices(request: DataRequest, scans: Mapping[str, Scan]) -> tuple[str, ...]:
    notices = [notice for found in scans.values() for notice in found.source.notices]
    for found in scans.values():
        if len(found.formats) > 1:
            notices.append(f"{found.source.name} mixes formats: {format_name(found.formats)}")
        if found.duplicates:
            notices.append(
                f"{count_of(found.duplicates, 'row')} of {found.source.name} repeat earlier ones; "
                "data_preprocessing.remove_duplicates leaves them out"
            )
    if request.max_samples is not None and len(scans["train"]) == request.max_samples:
        notices.append(f"max_samples: the first {request.max_samples:,} rows are used")
    if request.eval_location is not None and not request.eval_wanted:
        notices.append("the evaluation rows are not read: evaluation is off")
    if "test" in scans:
        name = scans["test"].source.name
        notices.append(f"{name} is kept apart: nothing is trained, chosen or stopped by it")
    return tuple(notices)
