"""Which rows are trained on and which are evaluated on: a function of the rows, the share and the
seed, no more.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from llamafarm.errors import DataError, UserError, count_of

EvalPercent = float | Literal["auto"]
# The seed document's recommendation: (rows below which it holds, percent).
AUTO_PERCENT: tuple[tuple[float, float], ...] = ((50, 5.0), (math.inf, 10.0))


@dataclass(frozen=True, slots=True)
class Split:
    """Row indices of both sides, each in ascending order."""

    train: tuple[int, ...]
    eval: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def read_eval_percent(value: EvalPercent | str, rows: int) -> tuple[float, str]:
    """The share of rows that an `--eval-percent` means, 0 < share < 1, and a notice where it needs
    one.

    10 is ten percent; 0.1 is read as a share of one; `auto` asks the recommendation table. Raises
    UserError for anything else.
    """
    if isinstance(value, str):
        if value.strip().lower() == "auto":
            percent = next(p for below, p in AUTO_PERCENT if rows < below)
            return percent / 100, f"eval-percent auto: {percent:g} % for {count_of(rows, 'row')}"
        value = _number(value)
    if not 0 < value < 100:
        raise UserError(
            f"--eval-percent must lie between 0 and 100, or be auto (got {value:g})",
            hint="use --eval-percent 10",
        )
    if value < 1:
        return value, f"eval-percent {value:g} is read as {value * 100:g} %"
    return value / 100, ""


def _number(text: str) -> float:
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise UserError(
            f'--eval-percent must be a number or auto (got "{text}")',
            hint="use --eval-percent 10",
        ) from None


def eval_count(rows: int, fraction: float) -> int:
    """Eval rows: max(1, round(rows * fraction)); at least one row stays for training."""
    return min(max(1, round(rows * fraction)), rows - 1)


def split_records(
    keys: Sequence[Hashable],
    fraction: float,
    seed: int,
    *,
    groups: Sequence[Hashable] | None = None,
    strata: Sequence[Hashable] | None = None,
    shuffle: bool = True,
) -> Split:
    """Split rows so that equal keys, and equal groups, stay on one side.

    keys: what each row says (`content_key`); groups, strata: one value a row, for `group_by` and
    `stratify_by`. The eval side holds exactly eval_count rows wherever whole groups allow it, else
    fewer, by less than the size of one group; without strata and shuffle the last rows are taken.
    Raises DataError for fewer than two rows.
    """
    rows = len(keys)
    if rows < 2:
        raise DataError(
            f"{count_of(rows, 'row')} cannot be split into a training and an evaluation side",
            hint="bring at least 2 rows, or name an --eval-dataset of its own",
        )
    members = _connected(rows, [keys] if groups is None else [keys, groups])
    if len(members) == 1:
        return _split_inside(rows, fraction, seed)
    wanted = eval_count(rows, fraction)
    order = list(range(len(members)))
    if shuffle:
        random.Random(seed).shuffle(order)
    else:
        order.reverse()
    chosen = _choose(members, order, _targets(members, wanted, strata), wanted)
    eval_rows = tuple(sorted(row for group in chosen for row in members[group]))
    taken = set(eval_rows)
    train_rows = tuple(row for row in range(rows) if row not in taken)
    return Split(train_rows, eval_rows, _count_warnings(len(eval_rows), wanted))


def _connected(rows: int, labellings: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Rows that share a label in any labelling, directly or through others; in order of first
    appearance.
    """
    parent = list(range(rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for labels in labellings:
        first: dict[Hashable, int] = {}
        for row, label in enumerate(labels):
            other = first.setdefault(label, row)
            low, high = sorted((root(other), root(row)))
            parent[high] = low
    members: dict[int, list[int]] = {}
    for row in range(rows):
        members.setdefault(root(row), []).append(row)
    return list(members.values())


def _targets(
    members: Sequence[Sequence[int]],
    wanted: int,
    strata: Sequence[Hashable] | None,
) -> list[tuple[int, set[int]]]:
    """How many eval rows each stratum owes, by largest remainder, with its groups.

    A group is of its first row's.
    """
    if strata is None:
        return [(wanted, set(range(len(members))))]
    groups: dict[Hashable, set[int]] = {}
    for group, rows in enumerate(members):
        groups.setdefault(strata[rows[0]], set()).add(group)
    sizes = [sum(len(members[group]) for group in ids) for ids in groups.values()]
    shares = [wanted * size / sum(sizes) for size in sizes]
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: wanted - sum(counts)]:
        counts[i] += 1
    return list(zip(counts, groups.values(), strict=True))


def _choose(
    members: Sequence[Sequence[int]],
    order: Sequence[int],
    targets: Sequence[tuple[int, set[int]]],
    wanted: int,
) -> list[int]:
    """Groups for the eval side: per stratum in the given order, then from anywhere what is still
    missing.
    """
    chosen: list[int] = []
    for count, ids in targets:
        chosen += _take(members, [group for group in order if group in ids], count)
    missing = wanted - sum(len(members[group]) for group in chosen)
    taken = set(chosen)
    left = [group for group in order if group not in taken]
    chosen += _take(members, left, missing)
    return chosen or [min(left, key=lambda group: len(members[group]))]


def _take(members: Sequence[Sequence[int]], order: Sequence[int], count: int) -> list[int]:
    taken: list[int] = []
    for group in order:
        if count == 0:
            break
        if len(members[group]) <= count:
            taken.append(group)
            count -= len(members[group])
    return taken


def _count_warnings(found: int, wanted: int) -> tuple[str, ...]:
    if found == wanted:
        return ()
    rows = count_of(found, "evaluation row")
    return (f"{rows} instead of {wanted:,}: rows that say the same stay on one side",)


def _split_inside(rows: int, fraction: float, seed: int) -> Split:
    """All rows belong together: the only way to have two sides is to part them."""
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    count = eval_count(rows, fraction)
    warning = (
        f"all {rows:,} rows say the same or belong to one group: they had to be put on both sides, "
        "so the evaluation loss says nothing about new rows"
    )
    return Split(tuple(sorted(order[count:])), tuple(sorted(order[:count])), (warning,))
