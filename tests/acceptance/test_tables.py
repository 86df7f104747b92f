"""The seed's three tables: they fill what is left out and warn about what is outside."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llamafarm.models.shape import ModelShape
from llamafarm.planning import tables
from llamafarm.planning.tables import Range
from llamafarm.strategy.model import Method, Strategy, TrainingArgs
from llamafarm.strategy.shares import auto_share
from tests.hardware.recorded import H200
from tests.planning.building import (
    LLAMA_1B,
    LLAMA_3B,
    LLAMA_7B,
    LLAMA_13B,
    SMOLLM2,
    plan_for,
    remarks,
    with_args,
)

from . import seed

SHAPES = {"1B": LLAMA_1B, "3B": LLAMA_3B, "7B": LLAMA_7B, "13B": LLAMA_13B}
SIZES = seed.table(seed.SIZE_TABLE)
DATA = seed.table(seed.DATA_TABLE)
# The edges: 100 and 1000 begin their row, 10,000 ends the third.
ROWS_OF = {
    "<100": (10, 99),
    "100-1000": (100, 999),
    "1000-10000": (1000, 10_000),
    ">10000": (10_001, 100_000),
}


def read_range(cell: str) -> Range:
    """`4-8`, `1e-5 to 5e-5`."""
    low, high = re.findall(r"\d+(?:e-\d+)?", cell)
    return Range(float(low), float(high))


def by_name(rows: list[list[str]]) -> list[Any]:
    return [pytest.param(row, id=row[0]) for row in rows]


@pytest.mark.seed(155, 156, 157, 158)
@pytest.mark.parametrize("row", by_name(SIZES))
def test_the_planner_holds_the_size_table(row: list[str]) -> None:
    held = tables.size_row(int(float(row[0].removesuffix("B")) * 1e9))
    assert (held.min_memory_gib, held.recommended_memory_gib) == (
        float(row[1].removesuffix("GB")),
        float(row[2].removesuffix("GB")),
    )
    assert (held.rank, held.batch_size) == (read_range(row[3]), read_range(row[4]))


@pytest.mark.seed(155, 156, 157, 158)
@pytest.mark.parametrize("row", by_name(SIZES))
def test_rank_and_batch_are_filled_from_the_row_of_the_model(row: list[str]) -> None:
    plan = plan_for(Strategy(id="empty"), H200, SHAPES[row[0]])
    assert plan.adapter is not None
    assert plan.adapter.r in read_range(row[3])
    assert plan.batch.micro_batch_size in read_range(row[4])
    assert remarks(plan, "method.r") == []


@pytest.mark.seed(155, 156, 157, 158)
@pytest.mark.parametrize("row", by_name(SIZES))
def test_a_rank_or_batch_outside_the_row_stays_and_is_warned_about(row: list[str]) -> None:
    rank, batch = int(read_range(row[3]).high) * 4, int(read_range(row[4]).high) * 4
    args = TrainingArgs(per_device_train_batch_size=batch)
    plan = plan_for(
        Strategy(id="wide", method=Method(r=rank), training_args=args), H200, SHAPES[row[0]]
    )
    assert plan.adapter is not None
    assert (plan.adapter.r, plan.batch.micro_batch_size) == (rank, batch)
    (text,) = remarks(plan, "method.r")
    assert text.startswith(f"method.r={rank} is outside what the table advises for ")
    (text,) = remarks(plan, "per_device_train_batch_size")
    assert text.startswith(f"a batch of {batch} is above what the table advises for ")


@pytest.mark.seed(164, 165, 166, 167, 280)
@pytest.mark.parametrize("row", by_name(DATA))
@pytest.mark.parametrize("end", [0, 1])
def test_learning_rate_epochs_and_warm_up_are_filled_from_the_row_of_the_data(
    end: int, row: list[str]
) -> None:
    plan = plan_for(Strategy(id="empty"), H200, LLAMA_1B, rows=ROWS_OF[row[0]][end])
    assert plan.optimizer.learning_rate in read_range(row[1])
    assert plan.batch.num_epochs in read_range(row[2])
    share = plan.optimizer.warmup_steps / plan.batch.total_steps
    percent = int(row[3].removesuffix("%")) / 100
    assert percent <= share < percent + 1 / plan.batch.total_steps


@pytest.mark.seed(164, 165, 166, 167, 288)
@pytest.mark.parametrize("row", by_name(DATA))
def test_a_learning_rate_more_than_twice_the_table_stays_and_is_warned_about(
    row: list[str],
) -> None:
    high = read_range(row[1]).high
    rows = ROWS_OF[row[0]][0]
    plan = plan_for(with_args(learning_rate=2.1 * high), H200, LLAMA_1B, rows=rows)
    assert plan.optimizer.learning_rate == 2.1 * high
    (text,) = remarks(plan, "learning_rate")
    assert "is more than twice what the table advises" in text
    plan = plan_for(with_args(learning_rate=high), H200, LLAMA_1B, rows=rows)
    assert remarks(plan, "learning_rate") == []


@pytest.mark.seed(164, 165, 166, 167, 290)
@pytest.mark.parametrize("row", by_name(DATA))
def test_more_epochs_than_the_table_stay_and_are_warned_about(row: list[str]) -> None:
    high = read_range(row[2]).high
    rows = ROWS_OF[row[0]][0]
    plan = plan_for(with_args(num_train_epochs=high + 1), H200, LLAMA_1B, rows=rows)
    assert plan.batch.num_epochs == high + 1
    (text,) = remarks(plan, "num_train_epochs")
    assert "more of them memorise rather than learn" in text
    plan = plan_for(with_args(num_train_epochs=high), H200, LLAMA_1B, rows=rows)
    assert remarks(plan, "num_train_epochs") == []


@pytest.mark.seed(164, 165)
@pytest.mark.parametrize(("shape", "factor"), [(SMOLLM2, 20), (LLAMA_1B, 1)])
def test_below_1b_the_measured_factor_is_applied_with_its_reason(
    shape: ModelShape, factor: float
) -> None:
    plan = plan_for(Strategy(id="empty"), H200, shape, rows=115)
    by_table = tables.table_learning_rate(115)
    assert plan.optimizer.learning_rate == pytest.approx(min(by_table * factor, 1e-3), rel=0.05)
    (reason,) = [d.reason for d in plan.decisions if d.field == "learning_rate"]
    assert ("measured at 135M" in reason) == (factor > 1)


@pytest.mark.seed(155)
def test_less_memory_than_the_row_asks_for_is_warned_about() -> None:
    strategy = Strategy.model_validate({"id": "small_card", "hardware": {"memory_gb": 4}})
    plan = plan_for(strategy, H200, LLAMA_1B, rows=200)
    assert plan.forecast.fits
    assert any(
        re.match(r"4\.0 GiB of memory is below the 4\.\d* GiB that the table asks for", text)
        for text in remarks(plan, "memory_gb")
    )


@pytest.mark.seed(173, 174, 175, 176)
def test_the_planner_holds_the_split_table() -> None:
    shares = [row[1].removesuffix("%") for row in seed.table(seed.SPLIT_TABLE)]
    assert [f"{100 * row.eval_fraction:g}" for row in tables.SPLIT_ROWS] == shares
    assert [auto_share(rows) for rows in (49, 50, 5000)] == [0.05, 0.1, 0.1]
