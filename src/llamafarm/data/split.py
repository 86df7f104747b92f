"""Which rows are trained on, evaluated on and tested on: a function of the rows, the sizes asked
for and the seed, no more.

Rows that belong together (they say the same, nearly the same, or share a group) are drawn as one.
Everything is an array with one entry a row, so that ten million rows fit.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llamafarm.data.groups import merge_groups
from llamafarm.errors import DataError, UserError, count_of
from llamafarm.strategy.shares import AUTO, NAMED_SHARES, auto_share

EvalPercent = float | Literal["auto", "robust", "research"]
PERCENT_WORDS: tuple[str, ...] = (AUTO, *NAMED_SHARES)

TRAIN, EVAL, TEST = 0, 1, 2
_ADJECTIVES = ("training", "evaluation", "test")
_ROWS_NAMED = 3
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class SplitSize:
    """What one side is to hold: a fraction of the rows, 0 < fraction < 1, or a number of rows.

    Exactly one of the two. Raises UserError for a value outside these bounds.
    """

    fraction: float | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.rows is None):
            raise ValueError("a side has a fraction or a number of rows")
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise UserError(f"a side holds more than none and less than all: not {self.fraction:g}")
        if self.rows is not None and self.rows < 1:
            raise UserError(f"a side holds at least 1 row: not {self.rows:,}")


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """How rows are to be parted. shuffle: draw them; else the last ones are held out.

    stable: by content, so that adding rows moves no old one; the counts are then approximate.
    Raises UserError for sizes that leave nothing for training, or that are no shares of a stable
    split.
    """

    eval: SplitSize
    test: SplitSize | None = None
    seed: int = 42
    shuffle: bool = True
    stable: bool = False

    def __post_init__(self) -> None:
        sizes = [size for _, size in self.held_out()]
        share = sum(size.fraction or 0 for size in sizes)
        if share >= 1:
            raise UserError(
                f"the evaluation and the test side together take {share * 100:g} % of the rows",
                hint="leave some for training: 10 and 10 are usual",
            )
        counted = next((size.rows for size in sizes if size.rows is not None), None)
        if self.stable and counted is not None:
            raise UserError(
                f"a stable split cannot hold exactly {counted:,} rows: who is held out may not "
                "depend on how many rows there are",
                hint="give a share of the rows, or do without a stable split",
            )

    def held_out(self) -> tuple[tuple[int, SplitSize], ...]:
        """The sides beside training, in the order in which they are drawn."""
        sides = ((EVAL, self.eval),)
        return sides if self.test is None else (*sides, (TEST, self.test))


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """The side of every row. sides: (rows,), TRAIN, EVAL or TEST."""

    sides: NDArray[np.int8]
    warnings: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def train(self) -> NDArray[np.int64]:
        """Rows to train on, ascending."""
        return np.flatnonzero(self.sides == TRAIN)

    @property
    def eval(self) -> NDArray[np.int64]:
        """Rows to evaluate on, ascending."""
        return np.flatnonzero(self.sides == EVAL)

    @property
    def test(self) -> NDArray[np.int64]:
        """Rows to test on, ascending."""
        return np.flatnonzero(self.sides == TEST)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Rows of each side: train, eval, test."""
        train, held_out, test = np.bincount(self.sides, minlength=3).tolist()
        return train, held_out, test


def read_eval_percent(
    value: EvalPercent | str, rows: int, flag: str = "--eval-percent"
) -> tuple[float, str]:
    """The share of rows that an `--eval-percent` means, 0 < share < 1, and a notice where it needs
    one.

    10 is ten percent; 0.1 is read as a share of one; `auto` asks the recommendation table; `robust`
    and `research` are its profiles. Raises UserError, which names the flag, for anything else.
    """
    name = flag.removeprefix("--")
    is_percentage = False
    if isinstance(value, str):
        word = value.strip().lower()
        if word in PERCENT_WORDS:
            share = NAMED_SHARES.get(word) or auto_share(rows)
            return share, f"{name} {word}: {100 * share:g} % for {count_of(rows, 'row')}"
        is_percentage = word.endswith("%")
        value = _number(value, flag)
    if not 0 < value < 100:
        raise UserError(
            f"{flag} must lie between 0 and 100, or be {_WORDS} (got {value:g})",
            hint=f"use {flag} 10",
        )
    if value < 1 and not is_percentage:
        return value, f"{name} {value:g} is read as {value * 100:g} %"
    return value / 100, ""


_WORDS = f"{', '.join(PERCENT_WORDS[:-1])} or {PERCENT_WORDS[-1]}"


def _number(text: str, flag: str) -> float:
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise UserError(
            f'{flag} must be a number, {_WORDS} (got "{text}")', hint=f"use {flag} 10"
        ) from None


def row_name(row: int) -> str:
    """`row 1` for the first: what warnings call a row whose line is not known."""
    return f"row {row + 1:,}"


def split_rows(
    groups: NDArray[np.int64],
    request: SplitRequest,
    *,
    strata: NDArray[Any] | None = None,
    stable_keys: NDArray[np.uint64] | None = None,
    name: Callable[[int], str] = row_name,
) -> Split:
    """Part rows so that those of a group stay on one side, and no side is empty.

    groups: (rows,), as merge_groups numbers them; strata: (rows,), values to be spread evenly over
    the sides, a group being of its first row's; stable_keys: (rows,), hashes of what the rows say,
    for a stable split; name: of a row, for warnings.

    A side holds exactly what was asked for wherever whole groups allow it, else something between
    half and double of it. Where whole groups cannot give that, the largest group is split within
    itself, with a warning. Without strata and shuffle the last rows are held out.

    A stable split puts a group where the hash of (seed, key of its first row) lies. Rows added
    after the others move no old one, unless they join two old groups: the later one then follows
    the earlier. Raises DataError when the rows do not suffice for every side.
    """
    _check_sizes(len(groups), request)
    if request.stable:
        if stable_keys is None:
            raise ValueError("a stable split needs stable_keys")
        return _stable_split(groups, request, stable_keys, strata is not None, name)
    return _Drawing(groups, request, strata).split(name)


def _check_sizes(rows: int, request: SplitRequest) -> None:
    sides = 1 + len(request.held_out())
    if rows < sides:
        others = "an evaluation side" if sides == 2 else "an evaluation and a test side"
        glue = " and" if sides == 2 else ","
        raise DataError(
            f"{count_of(rows, 'row')} cannot be split into a training{glue} {others}",
            hint=f"bring at least {sides} rows, or name an --eval-dataset of its own",
        )
    asked = sum(size.rows or 0 for _, size in request.held_out())
    needed = asked + sum(size.rows is None for _, size in request.held_out()) + 1
    if asked and rows < needed:
        raise DataError(
            f"{count_of(rows, 'row')} cannot give {asked:,} held-out rows and leave some on every "
            "other side",
            hint=f"ask for at most {rows - needed + asked:,}, or bring at least {needed:,} rows",
        )


class _Drawing:
    """Draws groups for one side after the other. free: rows of each group on no side yet."""

    def __init__(
        self, groups: NDArray[np.int64], request: SplitRequest, strata: NDArray[Any] | None
    ) -> None:
        self._groups = groups
        self._request = request
        self._sides = np.zeros(len(groups), np.int8)
        self._free = np.bincount(groups)
        self._order = _order(len(self._free), request)
        labels = None if strata is None else strata[_first_rows(groups)]
        self._strata = None if labels is None else merge_groups(len(labels), [labels])
        self._parted: list[int] = []

    def split(self, name: Callable[[int], str]) -> Split:
        """Draw every side."""
        wanted = _plan(len(self._groups), self._request)
        reserved = 1 + sum(wanted.values())
        for drawn, (side, count) in enumerate(wanted.items()):
            reserved -= count
            self._draw(side, count, sides_after=len(wanted) - drawn, rows_after=reserved)
        warnings = [self._parted_warning(group, name) for group in self._parted]
        found = np.bincount(self._sides, minlength=3)
        for side, count in wanted.items():
            warnings += _count_warnings(int(found[side]), count, side)
        return Split(self._sides, tuple(warnings))

    def _draw(self, side: int, wanted: int, sides_after: int, rows_after: int) -> None:
        """Whole groups; where they give less than half of it, one more; else a part of one.

        At least sides_after groups and rows_after rows are left wherever there are as many.
        """
        candidates = self._order[self._free[self._order] > 0]
        taken = self._choose(candidates, wanted)[: max(1, len(candidates) - sides_after)]
        left = np.delete(candidates, taken)
        found = int(self._free[candidates[taken]].sum())
        self._put(candidates[taken], side)
        if 2 * found >= wanted:
            return
        smallest = left[np.argmin(self._free[left])]
        most = min(2 * wanted, int(self._free.sum()) + found - rows_after)
        if found + self._free[smallest] <= most and len(left) > sides_after:
            self._put(np.array([smallest]), side)
        else:
            self._part(left, wanted - found, side)

    def _choose(self, candidates: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
        """Places of groups, ascending: per stratum in the drawn order, then from anywhere what is
        still missing.
        """
        sizes = self._free[candidates]
        if self._strata is None:
            return _take(sizes, wanted)
        taken = np.zeros(len(candidates), bool)
        for count, places in _targets(self._strata[candidates], sizes, wanted):
            taken[places[_take(sizes[places], count)]] = True
        places = np.flatnonzero(~taken)
        taken[places[_take(sizes[places], wanted - int(sizes[taken].sum()))]] = True
        return np.flatnonzero(taken)

    def _part(self, left: NDArray[np.int64], missing: int, side: int) -> None:
        """Split the largest group within itself; where three sides share few groups, the next
        largest too.
        """
        for group in left[np.argsort(-self._free[left], kind="stable")].tolist():
            count = min(missing, int(self._free[group]))
            if count == 0:
                return
            missing -= count
            self._put_part(group, count, side)

    def _put(self, chosen: NDArray[np.int64], side: int) -> None:
        on_side = np.zeros(len(self._free), bool)
        on_side[chosen] = True
        self._sides[on_side[self._groups] & (self._sides == TRAIN)] = side
        self._free[chosen] = 0

    def _put_part(self, group: int, count: int, side: int) -> None:
        rows = np.flatnonzero((self._groups == group) & (self._sides == TRAIN))
        drawn = rows[_order(len(rows), self._request)[:count]]
        self._sides[drawn] = side
        self._free[group] -= count
        if count < len(rows) and group not in self._parted:
            self._parted.append(group)

    def _parted_warning(self, group: int, name: Callable[[int], str]) -> str:
        rows = np.flatnonzero(self._groups == group)
        if len(rows) == len(self._groups):
            both = "both" if self._request.test is None else "all"
            return (
                f"all {len(rows):,} rows say the same or belong to one group: they had to be put "
                f"on {both} sides, so the evaluation loss says nothing about new rows"
            )
        counts = np.bincount(self._sides[rows], minlength=3)
        parts = [f"{counts[EVAL]:,} are evaluated on"] if counts[EVAL] else []
        parts += [f"{counts[TEST]:,} are tested on"] if counts[TEST] else []
        parts += [f"{counts[TRAIN]:,} are trained on"] if counts[TRAIN] else []
        return (
            f"{count_of(len(rows), 'row')} belong together, more than the sides can take whole "
            f"({_named(rows, name)}): {', '.join(parts[:-1])} and {parts[-1]}, so the loss of "
            "held-out rows looks better than it is"
        )


def _plan(rows: int, request: SplitRequest) -> dict[int, int]:
    """Rows of each held-out side, such that at least one is left for every other."""
    later = request.test
    reserved = 1 + (0 if later is None else later.rows or 1)
    plan = {EVAL: min(_wanted(request.eval, rows), rows - reserved)}
    if later is not None:
        plan[TEST] = min(_wanted(later, rows), rows - plan[EVAL] - 1)
    return plan


def _targets(
    strata: NDArray[np.int64], sizes: NDArray[np.int64], wanted: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """How many rows each stratum owes, by largest remainder, with the places of its groups."""
    totals = np.bincount(strata, weights=sizes)
    shares = wanted * totals / totals.sum()
    counts = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(counts - shares, kind="stable")
    counts[by_remainder[: wanted - counts.sum()]] += 1
    places = np.argsort(strata, kind="stable")
    ends = np.cumsum(np.bincount(strata))
    for code in np.flatnonzero(counts).tolist():
        yield int(counts[code]), places[ends[code - 1] if code else 0 : ends[code]]


def _order(count: int, request: SplitRequest) -> NDArray[np.int64]:
    """The order in which groups, or the rows of one, are drawn."""
    order = array("q", range(count))
    if request.shuffle:
        random.Random(request.seed).shuffle(order)
    else:
        order.reverse()
    return np.frombuffer(order, np.int64)


def _first_rows(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of every group, of groups numbered by first appearance."""
    return np.flatnonzero(np.diff(np.maximum.accumulate(groups), prepend=-1))


def _wanted(size: SplitSize, rows: int) -> int:
    if size.fraction is None:
        return size.rows or 0
    return max(1, round(rows * size.fraction))


def _take(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Places of the groups that fit into what is left of count, one after the other."""
    taken: list[NDArray[np.int64]] = []
    for start in range(0, len(sizes), _CHUNK):
        if count == 0:
            break
        places = array("q")
        for place, size in enumerate(sizes[start : start + _CHUNK].tolist(), start):
            if size <= count:
                places.append(place)
                count -= size
        taken.append(np.frombuffer(places, np.int64))
    return np.concatenate(taken) if taken else np.empty(0, np.int64)


def _count_warnings(found: int, wanted: int, side: int) -> list[str]:
    if found == wanted:
        return []
    rows = count_of(found, f"{_ADJECTIVES[side]} row")
    return [f"{rows} instead of {wanted:,}: rows of one group stay on one side"]


def _named(rows: NDArray[np.int64], name: Callable[[int], str]) -> str:
    more = len(rows) - _ROWS_NAMED
    named = ", ".join(name(row) for row in rows[:_ROWS_NAMED].tolist())
    return named + (f" and {more:,} more" if more > 0 else "")


def _stable_split(
    groups: NDArray[np.int64],
    request: SplitRequest,
    keys: NDArray[np.uint64],
    stratified: bool,
    name: Callable[[int], str],
) -> Split:
    fractions = [(side, size.fraction or 0.0) for side, size in request.held_out()]
    places = _places(keys[_first_rows(groups)], request.seed)
    side_of_group = np.zeros(len(places), np.int8)
    for side, fraction in fractions:
        width = max(1, int(fraction * 2**64))
        # Evaluation from the lower end, test from the upper: the size of one moves none of the
        # other's rows.
        within = places < np.uint64(width) if side == EVAL else places >= np.uint64(2**64 - width)
        side_of_group[within] = side
    sides = side_of_group[groups]
    found = np.bincount(sides, minlength=3)
    wanted = {side: _wanted(size, len(groups)) for side, size in request.held_out()}
    _check_none_empty(found, wanted)
    warnings = [*_stable_warnings(request, stratified)]
    for side, count in wanted.items():
        warnings += _heavy_group_warning(groups, sides, side, count, name)
    return Split(sides, tuple(warnings), (_stable_notice(found, wanted),))


def _places(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Where keys lie between 0 and 2^64, for a seed."""
    return _mix(keys ^ _mix(np.array([seed & (2**64 - 1)], np.uint64)))


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _check_none_empty(found: NDArray[np.int64], wanted: Mapping[int, int]) -> None:
    empty = [_ADJECTIVES[side] for side in (TRAIN, *wanted) if found[side] == 0]
    if empty:
        raise DataError(
            f"a stable split of {count_of(int(found.sum()), 'row')} leaves nothing on the "
            f"{' and the '.join(empty)} side",
            hint="do without a stable split, bring more rows, or try another share or seed",
        )


def _stable_warnings(request: SplitRequest, stratified: bool) -> Iterator[str]:
    if stratified:
        yield (
            "stratify_by has no effect on a stable split: each row is drawn for itself, so that "
            "every value has about its share on each side"
        )
    if not request.shuffle:
        yield "shuffle: false has no effect on a stable split: content decides, not position"


def _heavy_group_warning(
    groups: NDArray[np.int64],
    sides: NDArray[np.int8],
    side: int,
    wanted: int,
    name: Callable[[int], str],
) -> Iterator[str]:
    """A group that alone is more than the side was to hold."""
    found = groups[sides == side]
    largest = np.flatnonzero(groups == np.bincount(found).argmax())
    if len(largest) > wanted and len(found) > 2 * wanted:
        yield (
            f"{count_of(len(found), f'{_ADJECTIVES[side]} row')} instead of {wanted:,}: "
            f"{count_of(len(largest), 'row')} that belong together ({_named(largest, name)}) fell "
            "on that side; another seed may put them elsewhere"
        )


def _stable_notice(found: NDArray[np.int64], wanted: Mapping[int, int]) -> str:
    counts = ", ".join(
        f"{count_of(int(found[side]), f'{_ADJECTIVES[side]} row')} where {count:,} were asked for"
        for side, count in wanted.items()
    )
    return (
        "stable: no old row changes sides when rows are added, unless they join two old groups; "
        f"counts are approximate: {counts}"
    )
