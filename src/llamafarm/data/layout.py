"""Which row of which file is trained on, evaluated on, or left alone; and what that gives away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llamafarm.data.formats import REJECTED_NOTICE
from llamafarm.data.leakage import find_leakage, leakage_warnings
from llamafarm.data.near.search import NEAR_SIMILARITY, RowPairs
from llamafarm.data.quality.observer import QualityObserver
from llamafarm.data.quality.report import QualityReport
from llamafarm.data.readers import RowSource
from llamafarm.data.records import Item, Record
from llamafarm.data.report import DropKind, DroppedRow, DuplicateCounts, LeakageReport
from llamafarm.data.request import DataRequest
from llamafarm.data.rows import RowRef
from llamafarm.data.scan import SIDES, FilePlan, Pipeline, Scan, scan
from llamafarm.data.split import (
    EVAL,
    TEST,
    TRAIN,
    Split,
    SplitRequest,
    SplitSize,
    read_eval_percent,
    split_rows,
)
from llamafarm.data.summary import format_name
from llamafarm.data.survey import (
    Rows,
    Survey,
    Surveyor,
    first_of_each,
    groups_of,
    near_duplicates,
)
from llamafarm.errors import DataError, Problem, count_of

Work = Callable[[str, int, int], None]
_UNUSED = -1


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One opened file or Hub split, and what it is for. weight: see request.WeightedFile; size: of
    the file in bytes, 0 where it is not known.
    """

    role: str
    source: RowSource
    weight: float = 1.0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Which row of which file goes to which side. plans: one a file, in the order of `files`."""

    files: tuple[OpenFile, ...]
    pipeline: Pipeline
    scans: tuple[Scan, ...]
    plans: tuple[FilePlan, ...]
    sides: tuple[str, ...]
    split: str
    warnings: tuple[str, ...]
    notices: tuple[str, ...]
    duplicates: DuplicateCounts
    leakage: tuple[LeakageReport, ...]
    quality: QualityReport


def lay_out(
    request: DataRequest, files: Sequence[OpenFile], scratch: Path, work: Work | None = None
) -> Layout:
    """Read all files once and give every good row its side.

    files: those of the training side first; scratch: an empty directory; work: told what is done,
    how much of it, of how much in all. Raises DataError with all faults of a file.
    """
    pipeline = Pipeline.of(request)
    quality = QualityObserver()
    tell = work or (lambda what, done, total: None)
    splits = _splits(request, files)
    grouped, stratified = request.group_by is not None, request.stratify_by is not None
    with Surveyor(
        scratch, grouped=splits and grouped, stratified=splits and stratified
    ) as surveyor:
        scans = tuple(
            scan(
                file.source,
                number,
                pipeline.labelled(request) if splits and file.role == "train" else pipeline,
                request,
                surveyor,
                quality,
                side=file.role,
                limit=request.max_samples if file.role == "train" else None,
                on_record=_read_counter(file, tell),
            )
            for number, file in enumerate(files)
        )
        survey = surveyor.finish()
        drawn = _draw(request, files, scans, survey, tell)
    return Layout(
        tuple(files),
        pipeline,
        scans,
        _plans(files, scans, survey, drawn.sides, request.seed),
        tuple(SIDES[side] for side in sorted(set(drawn.sides.tolist()) - {_UNUSED})),
        drawn.split,
        (*drawn.warnings, *leakage_warnings(drawn.leakage)),
        (*drawn.notices, *_scan_notices(request, files, scans)),
        drawn.duplicates,
        drawn.leakage,
        quality.report(),
    )


def _read_counter(file: OpenFile, tell: Work) -> Callable[[Item], None]:
    """Tells how much of a file is read: bytes of JSONL, else records of an unknown number."""
    what, total = f"reading {file.source.name}", file.size
    records = read = 0

    def on_record(item: Item) -> None:
        nonlocal records, read
        records += 1
        read += len(item.raw) if isinstance(item, Record) else 0
        if records % 1000 == 0:
            tell(what, min(read, total) if read else 0, total if read else 0)

    return on_record


@dataclass(frozen=True, slots=True)
class _Drawn:
    """sides: int8, one a row of the survey."""

    sides: npt.NDArray[np.int8]
    split: str
    warnings: tuple[str, ...]
    notices: tuple[str, ...]
    duplicates: DuplicateCounts
    leakage: tuple[LeakageReport, ...]


def _draw(
    request: DataRequest,
    files: Sequence[OpenFile],
    scans: Sequence[Scan],
    survey: Survey,
    tell: Work,
) -> _Drawn:
    roles = np.array([SIDES.index(file.role) for file in files], np.int8)
    sides = roles[survey.source]
    duplicates = _count_exact(survey, sides)
    if request.remove_duplicates:
        _remove_duplicates(survey, sides, scans)
    if request.max_samples is not None:
        beyond = np.flatnonzero(sides == TRAIN)[request.max_samples :]
        _count_unused(survey, scans, beyond, "beyond max_samples")
        sides[beyond] = _UNUSED
    pairs = near_duplicates(survey, lambda done, all_: tell("looking for near copies", done, all_))
    counts = DuplicateCounts(duplicates, _count_near(survey, sides, pairs), NEAR_SIMILARITY)
    parts = _split(request, files, scans, survey, sides, pairs) if _splits(request, files) else None
    if parts is not None:
        rows = np.flatnonzero(sides == TRAIN)
        sides[rows] = parts.sides
    names = [file.source.name for file in files]
    leakage = tuple(
        find_leakage(
            survey,
            SIDES[side],
            np.flatnonzero(sides == side),
            np.flatnonzero(sides == TRAIN),
            pairs,
            names,
            forced=parts is not None and side == EVAL,
            progress=lambda done, all_: tell("looking for contained rows", done, all_),
        )
        for side in (EVAL, TEST)
        if (sides == side).any()
    )
    warnings = () if parts is None else parts.warnings
    notices = () if parts is None else parts.notices
    return _Drawn(
        sides,
        _split_text(request, files, parts),
        (*warnings, *_unused_labels(request, files)),
        (*notices, *_duplicate_notices(request, counts)),
        counts,
        leakage,
    )


def _splits(request: DataRequest, files: Sequence[OpenFile]) -> bool:
    """Whether rows are split off the training rows."""
    return request.eval_wanted and not any(file.role == "eval" for file in files)


def _split(
    request: DataRequest,
    files: Sequence[OpenFile],
    scans: Sequence[Scan],
    survey: Survey,
    sides: npt.NDArray[np.int8],
    pairs: RowPairs,
) -> Split:
    rows = np.flatnonzero(sides == TRAIN)
    _check_enough(len(rows), files, scans)
    return split_rows(
        groups_of(survey, rows, pairs),
        split_request(request, len(rows)),
        strata=None if survey.stratum is None else survey.stratum[rows],
        stable_keys=survey.normal[rows],
        name=lambda row: _row_name(files, survey, int(rows[row])),
    )


def _check_enough(rows: int, files: Sequence[OpenFile], scans: Sequence[Scan]) -> None:
    """Raises DataError where rows that were left out are why there are too few to split."""
    left_out = [row for found in scans for row in found.dropped.named]
    if rows >= 2 or not left_out:
        return
    total = sum(found.dropped.counts.total() for found in scans)
    raise DataError(
        f"{files[0].source.name} cannot be split: {count_of(rows, 'row')} can be used, "
        f"{total:,} were left out",
        [Problem(row.reason, where=str(row.source)) for row in left_out[:5]],
        hint="correct these rows, or name an --eval-dataset of its own",
    )


def _row_name(files: Sequence[OpenFile], survey: Survey, row: int) -> str:
    return f"{files[int(survey.source[row])].source.name}:{int(survey.line[row])}"


def split_request(request: DataRequest, rows: int) -> SplitRequest:
    """How so many training rows are to be split."""
    if request.eval_rows is not None:
        size = SplitSize(rows=request.eval_rows)
    else:
        size = SplitSize(fraction=_eval_fraction(request, rows))
    return SplitRequest(
        size, seed=request.seed, shuffle=request.shuffle, stable=request.stable_split
    )


def _eval_fraction(request: DataRequest, rows: int) -> float:
    return read_eval_percent("auto", rows)[0] if request.eval_auto else request.eval_fraction


def _split_text(request: DataRequest, files: Sequence[OpenFile], parts: Split | None) -> str:
    if not request.eval_wanted:
        return "none: evaluation is off"
    if parts is None:
        name = next(file.source.name for file in files if file.role == "eval")
        return f"evaluation rows from {name}"
    if request.stable_split:
        how = f"by content and seed {request.seed}"
    else:
        how = f"drawn with seed {request.seed}" if request.shuffle else "the last ones"
    drawn = count_of(len(parts.eval), "evaluation row")
    if request.eval_rows is not None:
        return f"{drawn} of {len(parts.sides):,}, {how}"
    share = _eval_fraction(request, len(parts.sides))
    return f"{100 * share:.4g} % of {count_of(len(parts.sides), 'row')}: {drawn}, {how}"


def _count_exact(survey: Survey, sides: npt.NDArray[np.int8]) -> int:
    keys = survey.content[sides == TRAIN]
    return len(keys) - len(np.unique(keys))


def _count_near(survey: Survey, sides: npt.NDArray[np.int8], pairs: RowPairs) -> int:
    """A pair stands for all copies of its two rows."""
    _, copy_of = np.unique(survey.normal, return_inverse=True)
    trained = np.zeros(int(copy_of.max(initial=-1)) + 1, np.bool_)
    trained[copy_of[sides == TRAIN]] = True
    first, second = copy_of[pairs.first], copy_of[pairs.second]
    both = trained[first] & trained[second]
    near = np.union1d(first[both], second[both])
    return int((np.isin(copy_of, near) & (sides == TRAIN)).sum())


def _remove_duplicates(survey: Survey, sides: npt.NDArray[np.int8], scans: Sequence[Scan]) -> None:
    """Of equal rows of one side only the first is used."""
    for side in (TRAIN, EVAL, TEST):
        rows = np.flatnonzero(sides == side)
        keys = survey.content[rows]
        kept = first_of_each(keys)
        _, inverse = np.unique(keys, return_inverse=True)
        first_of = np.empty(int(inverse.max(initial=-1)) + 1, np.int64)
        first_of[inverse[kept]] = kept
        extra = np.setdiff1d(np.arange(len(rows)), kept)
        for place in extra.tolist():
            row, original = int(rows[place]), int(rows[first_of[inverse[place]]])
            found = scans[int(survey.source[row])]
            found.dropped.add(_duplicate(survey, scans, row, original))
        sides[rows[extra]] = _UNUSED


def _duplicate(survey: Survey, scans: Sequence[Scan], row: int, original: int) -> DroppedRow:
    source = scans[int(survey.source[row])].source.name
    other = scans[int(survey.source[original])].source.name
    line = int(survey.line[original])
    where = f"line {line}" if other == source else f"{other}:{line}"
    ref = RowRef(source, int(survey.line[row]))
    return DroppedRow(ref, f"says the same as {where}", "duplicate")


def _count_unused(survey: Survey, scans: Sequence[Scan], rows: Rows, kind: DropKind) -> None:
    """Rows that are counted, and not named: nothing is wrong with them."""
    for number, count in enumerate(np.bincount(survey.source[rows], minlength=len(scans)).tolist()):
        scans[number].dropped.counts[kind] += count


def _plans(
    files: Sequence[OpenFile],
    scans: Sequence[Scan],
    survey: Survey,
    sides: npt.NDArray[np.int8],
    seed: int,
) -> tuple[FilePlan, ...]:
    plans = []
    for number, (file, found) in enumerate(zip(files, scans, strict=True)):
        rows = slice(found.first, found.first + found.rows)
        used = sides[rows] != _UNUSED
        positions, side = survey.position[rows][used], sides[rows][used]
        repeats = np.ones(len(positions), np.int32)
        if file.weight != 1.0:
            trained = np.flatnonzero(side == TRAIN)
            repeats[trained] = _repeats(len(trained), file.weight, seed, number)
            found.dropped.counts["not drawn"] += int((repeats == 0).sum())
        plans.append(FilePlan(positions.copy(), side.copy(), repeats))
    return tuple(plans)


def _repeats(rows: int, weight: float, seed: int, number: int) -> npt.NDArray[np.int32]:
    """How often each of a file's rows is written: its whole part each, and the rest drawn."""
    whole = int(weight)
    extra = round((weight - whole) * rows)
    repeats = np.full(rows, whole, np.int32)
    repeats[np.random.default_rng([seed, number]).permutation(rows)[:extra]] += 1
    return repeats


def _unused_labels(request: DataRequest, files: Sequence[OpenFile]) -> list[str]:
    if _splits(request, files):
        return []
    labels = {"group_by": request.group_by, "stratify_by": request.stratify_by}
    why = "the evaluation rows are in a file of their own"
    why = why if request.eval_wanted else "evaluation is off"
    return [f"dataset.{name} has no effect: {why}" for name, value in labels.items() if value]


def _duplicate_notices(request: DataRequest, counts: DuplicateCounts) -> list[str]:
    notices = []
    if counts.exact and not request.remove_duplicates:
        notices.append(
            f"{count_of(counts.exact, 'row')} {_verb('repeat', counts.exact)} earlier ones; "
            "data_preprocessing.remove_duplicates leaves them out"
        )
    if counts.near:
        notices.append(
            f"{count_of(counts.near, 'row')} nearly {_verb('repeat', counts.near)} others "
            f"(similarity of {counts.similarity:g} and more)"
        )
    return notices


def _verb(verb: str, rows: int) -> str:
    return f"{verb}s" if rows == 1 else verb


def _scan_notices(
    request: DataRequest, files: Sequence[OpenFile], scans: Iterable[Scan]
) -> list[str]:
    scans = tuple(scans)
    notices = [notice for found in scans for notice in found.source.notices]
    for found in scans:
        if len(found.formats) > 1:
            notices.append(f"{found.source.name} mixes formats: {format_name(found.formats)}")
    if formats_of(scans)["preference"] and request.answers == "chosen":
        notices.append(REJECTED_NOTICE)
    notices += [_weight_notice(file) for file in files if file.weight != 1.0]
    trained = [found for file, found in zip(files, scans, strict=True) if file.role == "train"]
    if request.max_samples is not None and sum(f.rows for f in trained) >= request.max_samples:
        notices.append(f"max_samples: the first {request.max_samples:,} rows are used")
    if request.eval_location is not None and not request.eval_wanted:
        notices.append("the evaluation rows are not read: evaluation is off")
    for file in files:
        if file.role == "test":
            text = "is kept apart: nothing is trained, chosen or stopped by it"
            notices.append(f"{file.source.name} {text}")
    return notices


def _weight_notice(file: OpenFile) -> str:
    return f"{file.source.name} is mixed with weight {file.weight:g}"


def formats_of(scans: Iterable[Scan]) -> Counter[str]:
    """Rows by format over all files."""
    return sum((found.formats for found in scans), Counter[str]())


def check_weights(files: Sequence[OpenFile], plans: Sequence[FilePlan]) -> None:
    """Raises DataError for a weight that leaves nothing of a file to train on."""
    for file, plan in zip(files, plans, strict=True):
        if file.role == "train" and len(plan.positions) and not plan.rows:
            raise DataError(
                f"{file.source.name} with weight {file.weight:g} gives no row to train on",
                hint="raise its weight in dataset.mix, or leave the file out",
            )
