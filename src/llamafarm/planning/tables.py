"""The parameter guide as data: what fits which model size, which amount of data, which use.

The tables fill what a strategy leaves out and warn about what lies outside; they never rewrite a
value.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from llamafarm.strategy.shares import NAMED_SHARES, STANDARD_SHARE, VERY_SMALL_SHARE

BILLION = 1e9


@dataclass(frozen=True, slots=True)
class Range:
    """Both ends belong to it."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class SizeRow:
    """Model size against hardware. name: the row of the guide, or those that it lies between;
    billions: parameters / 1e9; memory in GiB, for LoRA.
    """

    name: str
    billions: float
    min_memory_gib: float
    recommended_memory_gib: float
    rank: Range
    batch_size: Range


@dataclass(frozen=True, slots=True)
class DataRow:
    """Amount of data against schedule. from_rows belongs to the row; learning_rate is for LoRA from
    1B.
    """

    name: str
    from_rows: int
    learning_rate: Range
    epochs: Range
    warmup_fraction: float


@dataclass(frozen=True, slots=True)
class SplitRow:
    """How many of all rows are kept for evaluation. name: what `recommend --use` calls it."""

    name: str
    use_case: str
    eval_fraction: float


SIZE_ROWS = (
    SizeRow("1B", 1, 4, 8, Range(4, 8), Range(1, 2)),
    SizeRow("3B", 3, 8, 16, Range(8, 16), Range(2, 4)),
    SizeRow("7B", 7, 16, 24, Range(16, 32), Range(4, 8)),
    SizeRow("13B", 13, 24, 40, Range(32, 64), Range(4, 8)),
)
# 10,000 examples are the last that belong to the third row.
DATA_ROWS = (
    DataRow("under 100", 1, Range(1e-5, 5e-5), Range(5, 10), 0.10),
    DataRow("100-1000", 100, Range(5e-5, 1e-4), Range(3, 5), 0.05),
    DataRow("1000-10000", 1_000, Range(1e-4, 2e-4), Range(2, 3), 0.03),
    DataRow("over 10000", 10_001, Range(2e-4, 5e-4), Range(1, 2), 0.01),
)
SPLIT_ROWS = (
    SplitRow("very-small", "very small dataset", VERY_SMALL_SHARE),
    SplitRow("standard", "standard training", STANDARD_SHARE),
    SplitRow("robust", "robust validation", NAMED_SHARES["robust"]),
    SplitRow("research", "research", NAMED_SHARES["research"]),
)
# The guide's usual values where no row decides. Its profiles decay weights by up to 0.02.
DROPOUT = Range(0, 0.2)
WEIGHT_DECAY = Range(0, 0.1)
WARMUP_FRACTION = Range(0.03, 0.1)
EVAL_FRACTION = Range(VERY_SMALL_SHARE, NAMED_SHARES["research"])
MAX_LENGTH = 4096
EFFECTIVE_BATCH = Range(8, 16)
MAX_BATCH_SIZE = 8
# A model is called 7B that has up to a tenth more or less.
_NOMINAL = 0.1
# The guide's ends of the first and the last row, which the table leaves open.
_FEWEST_ROWS, _MOST_ROWS = 10, 100_000

# Below 1B LoRA needs a higher rate than the table. Measured: SmolLM2-135M, 115 rows, 57 steps: 5e-5
# took the eval loss from 2.230 to 2.201, 1e-3 (20 times as much) to 1.839. Between 135M and 1B the
# factor is interpolated by a power law; no rate above the measured one is chosen.
MEASURED_BILLIONS, MEASURED_FACTOR, MEASURED_RATE = 0.1345, 20.0, 1e-3
# Full fine-tuning wants about a tenth of LoRA's rate (Schulman et al., LoRA Without Regret, 2025).
FULL_FINETUNE_DIVISOR = 10.0


def size_row(num_parameters: int) -> SizeRow:
    """The row for a model size, interpolated between rows.

    Below 1B memory shrinks with the model (not below 1 GiB) and the batch grows against it (not
    above 8); above 13B memory grows with the model.
    """
    billions = num_parameters / BILLION
    first, last = SIZE_ROWS[0], SIZE_ROWS[-1]
    if billions <= first.billions:
        batch = [min(MAX_BATCH_SIZE, int(b / billions)) for b in _ends(first.batch_size)]
        name = _nominal(billions) or f"below {first.name}"
        return _scaled(first, name, billions, batch_size=Range(*batch))
    if billions >= last.billions:
        name = _nominal(billions) or f"above {last.name}"
        return _scaled(last, name, billions, batch_size=last.batch_size)
    below, above = next(
        pair for pair in itertools.pairwise(SIZE_ROWS) if billions <= pair[1].billions
    )
    share = (billions - below.billions) / (above.billions - below.billions)

    def between(a: float, b: float) -> float:
        return a + share * (b - a)

    return SizeRow(
        _nominal(billions) or f"between {below.name} and {above.name}",
        billions,
        between(below.min_memory_gib, above.min_memory_gib),
        between(below.recommended_memory_gib, above.recommended_memory_gib),
        _rank_between(below.rank, above.rank, share),
        Range(*(round(between(a, b)) for a, b in _both(below.batch_size, above.batch_size))),
    )


def _nominal(billions: float) -> str:
    """The row whose size a model is called by; empty where it is none."""
    near = (r.name for r in SIZE_ROWS if abs(billions / r.billions - 1) <= _NOMINAL)
    return next(near, "")


def _rank_between(below: Range, above: Range, share: float) -> Range:
    """Powers of two, widened between rows; close to a row they are that row's."""
    low, high = (
        math.log2(a) + share * (math.log2(b) - math.log2(a)) for a, b in _both(below, above)
    )
    return Range(2.0 ** math.floor(low + 0.25), 2.0 ** math.ceil(high - 0.25))


def default_rank(num_parameters: int) -> int:
    """The rank where two rows meet: 4 below 1B, 8 from 1B, 16 from 3B, 32 from 7B, 64 from 13B.

    A model that is called 7B may have a tenth less.
    """
    least = (1 - _NOMINAL) * BILLION
    reached = [row for row in SIZE_ROWS if num_parameters >= least * row.billions]
    return int(reached[-1].rank.high if reached else SIZE_ROWS[0].rank.low)


def data_row(num_rows: int) -> DataRow:
    """The row for a number of training examples."""
    return next(
        row for row in reversed(DATA_ROWS) if num_rows >= row.from_rows or row is DATA_ROWS[0]
    )


def split_row(eval_fraction: float) -> SplitRow | None:
    """The row with this share; None where no row has it."""
    return next((row for row in SPLIT_ROWS if row.eval_fraction == eval_fraction), None)


def warmup_range(num_rows: int) -> Range:
    """Fractions of a run: the usual ones, and that of the row."""
    own = data_row(num_rows).warmup_fraction
    return Range(min(own, WARMUP_FRACTION.low), max(own, WARMUP_FRACTION.high))


def rows_about(path: str) -> tuple[tuple[str, str], ...]:
    """What the tables say of a field of the strategy: a row's name, and its values."""
    columns: dict[str, tuple[tuple[str, str], ...]] = {
        "method.r": tuple((r.name, str(r.rank)) for r in SIZE_ROWS),
        "training_args.per_device_train_batch_size": tuple(
            (r.name, str(r.batch_size)) for r in SIZE_ROWS
        ),
        "hardware.memory_gb": tuple(
            (r.name, f"at least {r.min_memory_gib:g}, recommended {r.recommended_memory_gib:g}")
            for r in SIZE_ROWS
        ),
        "training_args.learning_rate": (
            *((r.name, str(r.learning_rate)) for r in DATA_ROWS),
            ("below 1B", f"up to {MEASURED_FACTOR:g} times that, at most {MEASURED_RATE:g}"),
        ),
        "training_args.num_train_epochs": tuple((r.name, str(r.epochs)) for r in DATA_ROWS),
        "training_args.warmup_steps": tuple(
            (r.name, f"{r.warmup_fraction:g} of the run") for r in DATA_ROWS
        ),
        "dataset.eval_split": tuple((r.use_case, f"{r.eval_fraction:g}") for r in SPLIT_ROWS),
    }
    return columns.get(path, ())


def default_epochs(num_rows: int) -> int:
    """Epochs within the row: the fewer examples, the more."""
    epochs = data_row(num_rows).epochs
    return round(epochs.high - _position(num_rows) * (epochs.high - epochs.low))


def table_learning_rate(num_rows: int) -> float:
    """LoRA's rate for models from 1B: within the row it grows with the data, on a log-log line."""
    rate = data_row(num_rows).learning_rate
    value = rate.low * (rate.high / rate.low) ** _position(num_rows)
    return float(f"{value:.1e}")


def size_factor(num_parameters: int) -> float:
    """What the table's rate is multiplied by: 1 from 1B, 20 at the measured 135M and below."""
    exponent = math.log(MEASURED_FACTOR) / math.log(1 / MEASURED_BILLIONS)
    factor: float = (BILLION / num_parameters) ** exponent
    return min(MEASURED_FACTOR, max(1.0, factor))


def learning_rate_range(num_rows: int, num_parameters: int, *, full_finetune: bool) -> Range:
    """The row's rates for this model and method."""
    rate = data_row(num_rows).learning_rate
    return Range(*(_adapted(end, num_parameters, full_finetune) for end in _ends(rate)))


def default_learning_rate(num_rows: int, num_parameters: int, *, full_finetune: bool) -> float:
    """The table's rate for this much data, this model and this method."""
    return _adapted(table_learning_rate(num_rows), num_parameters, full_finetune)


# Rows with two answers (DPO) are moved by far less. Low: all weights of a 7B (Zephyr, arXiv
# 2310.16944: 5e-7); high: ten times the rate of LLaMA-Factory's own LoRA example, 5e-6.
PAIRS_LEARNING_RATE = Range(5e-7, 5e-5)
PAIRS_DEFAULT_RATE, PAIRS_DEFAULT_RATE_FULL = 5e-6, 5e-7


def _adapted(rate: float, num_parameters: int, full_finetune: bool) -> float:
    factor = size_factor(num_parameters)
    value = rate if factor == 1.0 else max(rate, min(rate * factor, MEASURED_RATE))
    return float(f"{value / (FULL_FINETUNE_DIVISOR if full_finetune else 1.0):.1e}")


def _position(num_rows: int) -> float:
    """Where a number of examples lies within its row, 0 to 1 on a logarithmic scale."""
    row = data_row(num_rows)
    index = DATA_ROWS.index(row)
    low = max(row.from_rows, _FEWEST_ROWS)
    high = DATA_ROWS[index + 1].from_rows if index + 1 < len(DATA_ROWS) else _MOST_ROWS
    share = math.log(max(num_rows, low) / low) / math.log(high / low)
    return min(1.0, share)


def _scaled(row: SizeRow, name: str, billions: float, batch_size: Range) -> SizeRow:
    scale = billions / row.billions
    low, high = max(1.0, row.min_memory_gib * scale), max(1.0, row.recommended_memory_gib * scale)
    return SizeRow(name, billions, low, high, row.rank, batch_size)


def _ends(range_: Range) -> tuple[float, float]:
    return range_.low, range_.high


def _both(a: Range, b: Range) -> tuple[tuple[float, float], tuple[float, float]]:
    return (a.low, b.low), (a.high, b.high)
