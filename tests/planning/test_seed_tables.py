"""The three tables of the overview document, row by row, seen from outside: what is decided, what
it names as its reason, and what is said of a value that lies elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from llamafarm.decision import Decision
from llamafarm.models.shape import ModelShape
from llamafarm.planning.plan import TrainingPlan
from llamafarm.planning.recommended import strategy_of_plan
from llamafarm.planning.tables import Range, rows_about
from llamafarm.strategy.model import DatasetSection, HardwareSection, Method, Strategy, TrainingArgs
from tests.hardware.recorded import H200
from tests.planning.building import (
    LLAMA_1B,
    LLAMA_3B,
    LLAMA_7B,
    LLAMA_13B,
    decision,
    make_report,
    make_request,
    plan_for,
    remarks,
    with_args,
)

RATE, EPOCHS, WARMUP = (
    f"training_args.{name}" for name in ("learning_rate", "num_train_epochs", "warmup_steps")
)
BATCH = "training_args.per_device_train_batch_size"
SPLIT = "dataset.eval_split"
# What they need besides the weights is little.
SHORT_ROWS = make_report(400, tokens=20, longest=30)


@dataclass(frozen=True)
class Size:
    """A row of the first table. shape: a model of that size (the guide's sizes are round)."""

    name: str
    shape: ModelShape
    minimum: float
    recommended: float
    rank: Range
    batch: Range


@dataclass(frozen=True)
class Amount:
    """A row of the second table. first, last: numbers of rows that belong to it."""

    name: str
    first: int
    last: int
    rate: Range
    epochs: Range
    warmup: float


SIZES = [
    Size("1B", LLAMA_1B, 4, 8, Range(4, 8), Range(1, 2)),
    Size("3B", LLAMA_3B, 8, 16, Range(8, 16), Range(2, 4)),
    Size("7B", LLAMA_7B, 16, 24, Range(16, 32), Range(4, 8)),
    Size("13B", LLAMA_13B, 24, 40, Range(32, 64), Range(4, 8)),
]
AMOUNTS = [
    Amount("under 100", 10, 99, Range(1e-5, 5e-5), Range(5, 10), 0.10),
    Amount("100-1000", 100, 999, Range(5e-5, 1e-4), Range(3, 5), 0.05),
    Amount("1000-10000", 1_000, 10_000, Range(1e-4, 2e-4), Range(2, 3), 0.03),
    Amount("over 10000", 10_001, 90_000, Range(2e-4, 5e-4), Range(1, 2), 0.01),
]
by_size = pytest.mark.parametrize("row", SIZES, ids=lambda row: row.name)
by_amount = pytest.mark.parametrize("row", AMOUNTS, ids=lambda row: row.name)


def nominal(shape: ModelShape, billions: float) -> ModelShape:
    """The same model, counted as one of a round size."""
    return replace(shape, num_parameters=int(billions * 1e9))


def round_shape(row: Size) -> ModelShape:
    return nominal(row.shape, float(row.name.removesuffix("B")))


def on_memory(gib: float, **parts: Any) -> Strategy:
    return Strategy(id="s", hardware=HardwareSection(memory_gb=gib), **parts)


def recommended(plan: TrainingPlan) -> Strategy:
    strategy = Strategy(id="s", dataset=DatasetSection(path="rows.jsonl"))
    return strategy_of_plan(strategy, plan, None)


@by_size
def test_rank_and_batch_of_a_size_are_recommended_and_name_their_row(row: Size) -> None:
    plan = plan_for(Strategy(id="s"), H200, round_shape(row))
    written = recommended(plan)
    assert written.method.r in row.rank
    assert written.training_args.per_device_train_batch_size == row.batch.high
    size = f"{row.name} parameters: row {row.name}"
    found = decision(plan, "method.r")
    assert (found.source, found.reason) == ("table", f"{size}, rank {row.rank}")
    found = decision(plan, BATCH)
    assert (found.source, found.reason) == ("table", f"{size}, batch {row.batch}")


@by_size
def test_a_rank_or_batch_elsewhere_is_kept_and_warned_about(row: Size) -> None:
    args = TrainingArgs(per_device_train_batch_size=int(row.batch.high) + 1)
    rank = int(row.rank.high) + 1
    plan = plan_for(
        Strategy(id="s", method=Method(r=rank), training_args=args), H200, round_shape(row)
    )
    assert (recommended(plan).method.r, plan.batch.micro_batch_size) == (rank, row.batch.high + 1)
    assert len(remarks(plan, "method.r")) == len(remarks(plan, BATCH)) == 1


@by_size
def test_a_batch_below_the_row_is_only_noticed(row: Size) -> None:
    low = int(row.batch.low)
    plan = plan_for(with_args(per_device_train_batch_size=low), H200, round_shape(row))
    assert remarks(plan, BATCH, "notice") == []
    if low > 1:
        plan = plan_for(with_args(per_device_train_batch_size=1), H200, round_shape(row))
        (text,) = remarks(plan, BATCH, "notice")
        assert "a larger one is faster" in text
        assert remarks(plan, BATCH) == []


@by_size
def test_less_than_the_recommended_memory_takes_the_smaller_batch_and_says_so(row: Size) -> None:
    plan = plan_for(on_memory(row.recommended - 0.5), H200, round_shape(row), report=SHORT_ROWS)
    assert plan.batch.micro_batch_size == row.batch.low
    advice = f"less than the recommended {row.recommended:g} GiB of memory"
    assert decision(plan, BATCH).reason.endswith(advice)
    plan = plan_for(on_memory(row.recommended), H200, round_shape(row), report=SHORT_ROWS)
    assert plan.batch.micro_batch_size == row.batch.high
    assert advice not in decision(plan, BATCH).reason


# The largest model does not even fit below the guide's minimum, which is told instead.
@by_size
def test_memory_below_the_minimum_is_warned_about_with_what_is_recommended(row: Size) -> None:
    plan = plan_for(on_memory(row.minimum - 0.5), H200, round_shape(row), report=SHORT_ROWS)
    told = " ".join(plan.warnings)
    if plan.forecast.fits:
        assert f"is below the {row.minimum:g} GiB that the table asks for" in told
        assert f"({row.recommended:g} GiB are recommended)" in told
    else:
        assert f"there are {row.minimum - 0.5:.1f} GiB" in told
    assert plan.forecast.fits == (row.name != "13B")


@by_size
def test_memory_between_minimum_and_recommended_is_noticed(row: Size) -> None:
    plan = plan_for(on_memory(row.recommended - 1), H200, round_shape(row), report=SHORT_ROWS)
    assert plan.forecast.fits
    (text,) = remarks(plan, "hardware.memory_gb", "notice")
    assert f"which ask for {row.minimum:g} GiB; {row.recommended:g} GiB are recommended" in text
    assert remarks(plan, "hardware.memory_gb") == []


@by_amount
@pytest.mark.parametrize("end", ["first", "last"])
def test_rate_epochs_and_warm_up_are_recommended_and_name_their_row(row: Amount, end: str) -> None:
    plan = plan_for(Strategy(id="s"), H200, LLAMA_1B, rows=getattr(row, end))
    args = recommended(plan).training_args
    assert args.learning_rate in row.rate
    assert args.num_train_epochs in row.epochs
    total = plan.batch.total_steps
    assert args.warmup_steps is not None
    assert row.warmup * total <= args.warmup_steps < row.warmup * total + 1
    for field in (RATE, EPOCHS, WARMUP):
        found = decision(plan, field)
        assert found.source == "table"
        assert found.reason.endswith(f"row {row.name}")


@by_amount
def test_a_rate_elsewhere_is_kept_and_warned_about_the_more_the_further(row: Amount) -> None:
    high, low = row.rate.high, row.rate.low
    for rate, text in [
        (1.5 * high, "is above what the table advises"),
        (2.5 * high, "is more than twice what the table advises"),
        (0.7 * low, "is below what the table advises"),
        (0.3 * low, "is less than half of what the table advises"),
    ]:
        plan = plan_for(with_args(learning_rate=rate), H200, LLAMA_1B, rows=row.first)
        assert plan.optimizer.learning_rate == rate
        (found,) = remarks(plan, RATE)
        assert text in found
    for rate in (low, high):
        plan = plan_for(with_args(learning_rate=rate), H200, LLAMA_1B, rows=row.first)
        assert remarks(plan, RATE) == []


@by_amount
def test_too_many_epochs_are_warned_about_and_few_are_noticed(row: Amount) -> None:
    plan = plan_for(with_args(num_train_epochs=row.epochs.high + 1), rows=row.first)
    assert len(remarks(plan, EPOCHS)) == 1
    plan = plan_for(with_args(num_train_epochs=row.epochs.low / 2), rows=row.first)
    assert remarks(plan, EPOCHS) == []
    assert len(remarks(plan, EPOCHS, "notice")) == 1


@by_amount
def test_a_warm_up_far_from_its_row_is_kept_and_told(row: Amount) -> None:
    plan = plan_for(with_args(warmup_steps=0.4), H200, LLAMA_1B, rows=row.last)
    assert plan.optimizer.warmup_steps == -(-4 * plan.batch.total_steps // 10)
    (text,) = remarks(plan, WARMUP)
    assert f"the table advises {row.warmup:g} for" in text
    plan = plan_for(with_args(warmup_steps=row.warmup), H200, LLAMA_1B, rows=row.last)
    assert remarks(plan, WARMUP) == remarks(plan, WARMUP, "notice") == []


def test_no_warm_up_in_a_long_run_is_noticed() -> None:
    plan = plan_for(with_args(warmup_steps=0), H200, LLAMA_1B, rows=5_000)
    (text,) = remarks(plan, WARMUP, "notice")
    assert "the first steps may be unstable" in text


@pytest.mark.parametrize("steps", [1, 2])
def test_a_warm_up_of_whole_steps_in_a_short_run_is_no_fault(steps: int) -> None:
    plan = plan_for(with_args(warmup_steps=steps, max_steps=12), rows=412)
    assert remarks(plan, WARMUP) == []


@pytest.mark.parametrize(
    ("use", "share"),
    [
        ("very small dataset", 0.05),
        ("standard training", 0.1),
        ("robust validation", 0.15),
        ("research", 0.2),
    ],
)
def test_a_share_of_the_split_table_is_kept_without_a_word(use: str, share: float) -> None:
    strategy = Strategy(id="s", dataset=DatasetSection(path="r", eval_split=share))
    rows = round(1000 * share)
    report = make_report(1000 - rows, rows)
    plan = plan_for(strategy, request=make_request(eval_fraction=share), report=report)
    assert remarks(plan, SPLIT) == remarks(plan, SPLIT, "notice") == []
    assert (use, f"{share:g}") in rows_about(SPLIT)


@pytest.mark.parametrize(
    ("share", "source", "text"),
    [
        (0.3, "warning", "these rows are not trained on"),
        (0.02, "notice", "few rows make a noisy loss"),
    ],
)
def test_a_share_outside_the_split_table_is_kept_and_told(
    share: float, source: str, text: str
) -> None:
    strategy = Strategy(id="s", dataset=DatasetSection(path="r", eval_split=share))
    rows = round(1000 * share)
    request = make_request(eval_fraction=share)
    plan = plan_for(strategy, request=request, report=make_report(1000 - rows, rows))
    (found,) = remarks(plan, SPLIT, source)
    assert "the table advises 0.05 to 0.2, for 1,000 rows 0.1" in found
    assert text in found


def test_many_evaluation_rows_by_number_are_warned_about_and_few_are_not() -> None:
    for count, told in ((300, 1), (10, 0)):
        strategy = Strategy(id="s", dataset=DatasetSection(path="r", eval_rows=count))
        report = make_report(1000 - count, count)
        plan = plan_for(strategy, request=make_request(eval_rows=count), report=report)
        assert len(remarks(plan, "dataset.eval_rows")) == told


@pytest.mark.parametrize(
    ("rows", "value", "row"),
    [
        (49, "0.05", "5% of 49 rows: row very small dataset"),
        (50, "0.1", "10% of 50 rows: row standard training"),
    ],
)
def test_auto_names_the_row_that_it_came_to(rows: int, value: str, row: str) -> None:
    held_out = max(1, round(rows * float(value)))
    decisions = (
        Decision(SPLIT, "auto", "table", "5% of fewer than 50 rows, else 10%"),
        Decision(SPLIT, "auto", "flag", "--eval-percent auto: 5% of fewer than 50 rows, else 10%"),
    )
    plan = plan_for(
        Strategy(id="s"),
        request=make_request(eval_auto=True),
        report=make_report(rows - held_out, held_out),
        data_decisions=decisions,
    )
    found = [d for d in plan.decisions if d.field == SPLIT]
    assert [d.value for d in found] == [value, value]
    assert [d.reason for d in found] == [row, f"--eval-percent auto: {row}"]


@pytest.mark.parametrize(
    ("strategy", "field", "text"),
    [
        (
            Strategy(id="s", method=Method(dropout=0.3)),
            "method.dropout",
            "above the usual 0 to 0.2",
        ),
        (with_args(weight_decay=0.3), "training_args.weight_decay", "above the usual 0 to 0.1"),
    ],
    ids=["dropout", "weight decay"],
)
def test_a_value_above_its_usual_range_is_kept_and_warned_about(
    strategy: Strategy, field: str, text: str
) -> None:
    (found,) = remarks(plan_for(strategy), field)
    assert text in found


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(id="s", method=Method(dropout=0.2)),
        Strategy(id="s", method=Method(r=8, alpha=8)),
        Strategy(id="s", method=Method(r=8, alpha=16)),
        Strategy(id="s", method=Method(r=8, alpha=64, use_rslora=True)),
        with_args(weight_decay=0.02),
    ],
    ids=["dropout", "alpha r", "alpha 2 r", "rslora", "weight decay"],
)
def test_a_usual_value_is_kept_without_a_word(strategy: Strategy) -> None:
    plan = plan_for(strategy)
    for field in ("method.dropout", "method.alpha", "training_args.weight_decay"):
        assert remarks(plan, field) == remarks(plan, field, "notice") == []


def test_an_unusual_alpha_is_noticed() -> None:
    plan = plan_for(Strategy(id="s", method=Method(r=8, alpha=64)))
    (text,) = remarks(plan, "method.alpha", "notice")
    assert "outside the usual r to 2 r (8 to 16)" in text


def test_for_a_model_below_1b_a_rate_a_little_outside_is_only_noticed() -> None:
    plan = plan_for(with_args(learning_rate=7e-4), rows=412)
    assert remarks(plan, RATE) == []
    assert "is below what the table advises" in remarks(plan, RATE, "notice")[0]


def test_a_batch_that_memory_decides_is_not_said_to_come_from_the_table() -> None:
    report = make_report(400, tokens=900, longest=2000)
    plan = plan_for(on_memory(17), H200, LLAMA_7B, report=report)
    found = decision(plan, BATCH)
    assert (found.source, found.reason) == ("detected", "what fits into the memory")


def test_what_cuts_a_value_of_the_table_is_named_beside_it() -> None:
    plan = plan_for(Strategy(id="s"), rows=3, report=make_report(3, 1))
    assert decision(plan, BATCH).reason.endswith("; there are no more than 3 training examples")
    plan = plan_for(with_args(gradient_accumulation_steps=8))
    assert decision(plan, BATCH).reason.endswith("; 2 x 8 make no more than 16")
