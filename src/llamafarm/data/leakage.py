"""Rows to measure on that the training rows give away: found, counted, and refused beyond a share.

A number measured on such rows says how well a model remembers, not how well it answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamafarm.data.groups import merge_groups
from llamafarm.data.near.pairs import jaccard, shared_counts
from llamafarm.data.near.search import NEAR_SIMILARITY, RowPairs, contained_pairs
from llamafarm.data.report import (
    LEAK_WORDS,
    LeakageReport,
    LeakedRow,
    LeakKind,
    leakage_text,
)
from llamafarm.data.rows import RowRef
from llamafarm.data.survey import Keys, Progress, Rows, Survey, distinctive_prompts
from llamafarm.errors import GateRefused, Problem

GATE_SHARE = 0.01
_EXAMPLES_PER_KIND = 5
_TWINS_COMPARED = 64
_MOST_COMPARED = 10_000


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows of the measured side with one kind of leak, and a training row for each."""

    kind: LeakKind
    rows: Rows
    twins: Rows
    similarity: npt.NDArray[np.float32]


def find_leakage(
    survey: Survey,
    side: str,
    measured: Rows,
    trained: Rows,
    pairs: RowPairs,
    names: Sequence[str],
    *,
    forced: bool,
    progress: Progress | None = None,
) -> LeakageReport:
    """What training rows give away of the rows that are measured on; ascending row numbers.

    pairs: near duplicates of the survey (`near_duplicates`); names: of its files, by number.
    """
    left = measured
    found: list[_Found] = []
    prompts = distinctive_prompts(survey)
    found.append(_same("exact", survey.content, left, trained))
    left = np.setdiff1d(left, found[-1].rows)
    found.append(_same("normalised", survey.normal, left, trained))
    left = np.setdiff1d(left, found[-1].rows)
    found.append(_near(survey, left, trained, pairs))
    left = np.setdiff1d(left, found[-1].rows)
    asking = trained[prompts[trained] != 0]
    found.append(_same("same prompt", prompts, left[prompts[left] != 0], asking))
    left = np.setdiff1d(left, found[-1].rows)
    found.append(_contained(survey, left, trained, progress))
    exact, normalised, near, same_prompt, contained = (len(kind.rows) for kind in found)
    return LeakageReport(
        side=side,
        rows=len(measured),
        exact=exact,
        normalised=normalised,
        near=near,
        same_prompt=same_prompt,
        contained=contained,
        forced=forced,
        examples=tuple(_examples(survey, found, names)),
    )


def _same(kind: LeakKind, keys: Keys, rows: Rows, trained: Rows) -> _Found:
    """Rows whose key a training row has."""
    known, first = np.unique(keys[trained], return_index=True)
    if not len(known) or not len(rows):
        return _Found(kind, *_no_rows())
    place = np.minimum(np.searchsorted(known, keys[rows]), len(known) - 1)
    hit = known[place] == keys[rows]
    twins = trained[first[place[hit]]]
    return _Found(kind, rows[hit], twins, np.ones(len(twins), np.float32))


def _near(survey: Survey, rows: Rows, trained: Rows, pairs: RowPairs) -> _Found:
    """Rows with a near duplicate among the training rows. A pair stands for all copies of its two
    rows.
    """
    if not len(pairs.first) or not len(rows):
        return _Found("near", *_no_rows())
    _, copy_of = np.unique(survey.normal, return_inverse=True)
    twin_of = np.full(int(copy_of.max()) + 1, -1, np.int64)
    twin_of[copy_of[trained]] = trained
    best = np.zeros(len(twin_of), np.float32)
    twin = np.full(len(twin_of), -1, np.int64)
    order = np.argsort(pairs.similarity, kind="stable")
    for one, other in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
        ours, theirs = copy_of[one[order]], twin_of[copy_of[other[order]]]
        similarity = pairs.similarity[order]
        # The last write wins, and the most similar come last.
        better = (theirs >= 0) & (similarity >= best[ours])
        best[ours[better]], twin[ours[better]] = similarity[better], theirs[better]
    _look_in_large_groups(survey, rows, trained, pairs, copy_of, best, twin)
    hits = rows[twin[copy_of[rows]] >= 0]
    return _Found("near", hits, twin[copy_of[hits]], best[copy_of[hits]])


def _look_in_large_groups(
    survey: Survey,
    rows: Rows,
    trained: Rows,
    pairs: RowPairs,
    copy_of: Rows,
    best: npt.NDArray[np.float32],
    twin: Rows,
) -> None:
    """The search does not name every pair of a large group: rows whose group holds training rows
    are compared with some of those. Writes into best and twin.
    """
    open_rows = rows[twin[copy_of[rows]] < 0]
    group = merge_groups(len(survey), [survey.normal], [(pairs.first, pairs.second)])
    open_rows = open_rows[np.isin(group[open_rows], group[trained])][:_MOST_COMPARED]
    if not len(open_rows):
        return
    by_group = trained[np.argsort(group[trained], kind="stable")]
    begins = np.searchsorted(group[by_group], group[open_rows])
    for row, begin in zip(open_rows.tolist(), begins.tolist(), strict=True):
        others = by_group[begin : begin + _TWINS_COMPARED]
        others = others[group[others] == group[row]]
        mine = np.full_like(others, row)
        sizes = survey.store.lengths(others), survey.store.lengths(mine)
        similarity = jaccard(shared_counts(survey.store, others, mine), *sizes)
        nearest = int(similarity.argmax())
        if similarity[nearest] >= NEAR_SIMILARITY:
            best[copy_of[row]], twin[copy_of[row]] = similarity[nearest], others[nearest]


def _contained(survey: Survey, rows: Rows, trained: Rows, progress: Progress | None) -> _Found:
    pairs = contained_pairs(survey.store, rows, trained, progress=progress)
    hits, first = np.unique(pairs.first, return_index=True)
    return _Found("contained", hits, pairs.second[first], pairs.similarity[first])


def _no_rows() -> tuple[Rows, Rows, npt.NDArray[np.float32]]:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)


def _examples(survey: Survey, found: Iterable[_Found], names: Sequence[str]) -> list[LeakedRow]:
    def ref(row: int) -> RowRef:
        return RowRef(names[int(survey.source[row])], int(survey.line[row]))

    return [
        LeakedRow(ref(row), ref(twin), kind.kind, round(float(similarity), 3))
        for kind in found
        for row, twin, similarity in zip(
            kind.rows[:_EXAMPLES_PER_KIND].tolist(),
            kind.twins[:_EXAMPLES_PER_KIND].tolist(),
            kind.similarity[:_EXAMPLES_PER_KIND].tolist(),
            strict=True,
        )
    ]


def leakage_warnings(reports: Iterable[LeakageReport]) -> list[str]:
    """A line for each side that leaks."""
    return [
        f"the training rows give away {leakage_text(report)}; "
        "the loss on them looks better than it is"
        for report in reports
        if report.leaked + report.contained
    ]


def check_leakage(reports: Iterable[LeakageReport], *, allowed: bool) -> None:
    """The gate. Raises GateRefused when more than GATE_SHARE of a side is given away, unless that
    is allowed, or could not be avoided when the training rows were split.
    """
    refused = [report for report in reports if report.share > GATE_SHARE and not report.forced]
    if allowed or not refused:
        return
    problems = [
        Problem(f"{LEAK_WORDS[leak.kind]} {leak.twin}{_share(leak)}", where=str(leak.row))
        for report in refused
        for leak in report.examples
        if leak.kind != "contained"
    ]
    unnamed = sum(report.leaked for report in refused) - len(problems)
    if unnamed:
        problems.append(Problem(f"and {unnamed:,} more"))
    what = " and ".join(leakage_text(report) for report in refused)
    raise GateRefused(
        f"the training rows give away {what} (at most {100 * GATE_SHARE:g} % may be)",
        problems,
        hint="take these rows out of one of the files, or give one file and let it be split "
        "(--dataset FILE); to go on all the same: --allow-leakage, or dataset.allow_leakage: true",
    )


def _share(leaked: LeakedRow) -> str:
    return f" (similarity {leaked.similarity:.2f})" if leaked.kind == "near" else ""
