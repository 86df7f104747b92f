"""The parameter guide: every row, every edge, and what lies between rows."""

from __future__ import annotations

import itertools
import math

import pytest

from llamafarm.planning import tables
from llamafarm.planning.tables import Range
from llamafarm.strategy.shares import auto_share


@pytest.mark.parametrize(
    ("billions", "minimum", "recommended", "rank", "batch"),
    [
        (1, 4, 8, Range(4, 8), Range(1, 2)),
        (3, 8, 16, Range(8, 16), Range(2, 4)),
        (7, 16, 24, Range(16, 32), Range(4, 8)),
        (13, 24, 40, Range(32, 64), Range(4, 8)),
    ],
)
def test_a_model_of_a_rows_size_gets_that_row(
    billions: int, minimum: float, recommended: float, rank: Range, batch: Range
) -> None:
    row = tables.size_row(billions * 10**9)
    assert (row.min_memory_gib, row.recommended_memory_gib) == (minimum, recommended)
    assert (row.rank, row.batch_size) == (rank, batch)


def test_a_size_between_two_rows_lies_between_them() -> None:
    row = tables.size_row(5 * 10**9)
    assert (row.min_memory_gib, row.recommended_memory_gib) == (12, 20)
    assert row.rank == Range(8, 32)
    assert tables.size_row(3_212_749_824).rank == Range(8, 16)
    assert tables.size_row(6_738_415_616).rank == Range(16, 32)
    assert row.batch_size == Range(3, 6)


def test_below_1b_memory_shrinks_and_the_batch_grows() -> None:
    row = tables.size_row(134_515_008)
    assert row.min_memory_gib == 1
    assert row.batch_size == Range(7, 8)
    half = tables.size_row(500_000_000)
    assert (half.min_memory_gib, half.recommended_memory_gib) == (2, 4)
    assert half.batch_size == Range(2, 4)


def test_above_13b_memory_grows_with_the_model() -> None:
    row = tables.size_row(26 * 10**9)
    assert (row.min_memory_gib, row.recommended_memory_gib) == (48, 80)
    assert row.batch_size == Range(4, 8)


@pytest.mark.parametrize(
    ("parameters", "rank"),
    [
        (134_515_008, 4),
        (899_999_999, 4),
        (10**9, 8),
        (1_235_814_400, 8),
        (3_212_749_824, 16),
        (6_738_415_616, 32),
        (13_015_864_320, 64),
        (70 * 10**9, 64),
    ],
)
def test_the_default_rank_follows_the_size(parameters: int, rank: int) -> None:
    assert tables.default_rank(parameters) == rank


@pytest.mark.parametrize(
    ("rows", "name", "rate", "epochs", "warmup"),
    [
        (1, "under 100", Range(1e-5, 5e-5), Range(5, 10), 0.10),
        (99, "under 100", Range(1e-5, 5e-5), Range(5, 10), 0.10),
        (100, "100-1000", Range(5e-5, 1e-4), Range(3, 5), 0.05),
        (999, "100-1000", Range(5e-5, 1e-4), Range(3, 5), 0.05),
        (1_000, "1000-10000", Range(1e-4, 2e-4), Range(2, 3), 0.03),
        (10_000, "1000-10000", Range(1e-4, 2e-4), Range(2, 3), 0.03),
        (10_001, "over 10000", Range(2e-4, 5e-4), Range(1, 2), 0.01),
        (5_000_000, "over 10000", Range(2e-4, 5e-4), Range(1, 2), 0.01),
    ],
)
def test_each_amount_of_data_has_its_row_with_the_edges_of_the_guide(
    rows: int, name: str, rate: Range, epochs: Range, warmup: float
) -> None:
    row = tables.data_row(rows)
    assert (row.name, row.learning_rate, row.epochs) == (name, rate, epochs)
    assert row.warmup_fraction == warmup


@pytest.mark.parametrize("rows", [1, 9, 50, 99, 100, 412, 999, 1000, 5000, 10_000, 10_001, 10**6])
def test_defaults_lie_within_their_row(rows: int) -> None:
    row = tables.data_row(rows)
    assert tables.table_learning_rate(rows) in row.learning_rate
    assert tables.default_epochs(rows) in row.epochs


def test_more_data_never_lowers_the_rate_or_adds_epochs() -> None:
    sizes = [round(10 ** (exponent / 8)) for exponent in range(8, 49)]
    for fewer, more in itertools.pairwise(sizes):
        assert tables.table_learning_rate(fewer) <= tables.table_learning_rate(more)
        assert tables.default_epochs(fewer) >= tables.default_epochs(more)


@pytest.mark.parametrize(
    ("use", "fraction"),
    [
        ("very small dataset", 0.05),
        ("standard training", 0.10),
        ("robust validation", 0.15),
        ("research", 0.20),
    ],
)
def test_each_use_has_its_share_of_evaluation_rows(use: str, fraction: float) -> None:
    assert {row.use_case: row.eval_fraction for row in tables.SPLIT_ROWS}[use] == fraction


def test_a_very_small_dataset_keeps_five_percent_and_any_other_ten() -> None:
    assert auto_share(49) == 0.05
    assert auto_share(50) == 0.10


def test_the_table_holds_as_it_is_from_1b() -> None:
    assert tables.size_factor(10**9) == 1
    assert tables.size_factor(70 * 10**9) == 1
    assert tables.default_learning_rate(1_000, 7 * 10**9, full_finetune=False) == 1e-4


def test_the_measured_model_gets_the_measured_rate() -> None:
    assert tables.size_factor(134_515_008) == pytest.approx(20, rel=0.01)
    assert tables.default_learning_rate(115, 134_515_008, full_finetune=False) == 1e-3


def test_no_rate_above_the_measured_one_is_chosen_for_a_small_model() -> None:
    rates = [
        tables.default_learning_rate(rows, 134_515_008, full_finetune=False)
        for rows in (115, 10**4, 10**6)
    ]
    assert max(rates) == 1e-3


def test_the_factor_falls_steadily_with_the_size() -> None:
    sizes = [134_515_008, 360_000_000, 500_000_000, 800_000_000, 10**9]
    factors = [tables.size_factor(size) for size in sizes]
    assert factors == sorted(factors, reverse=True)
    assert factors[1] == pytest.approx(20 ** (math.log(1 / 0.36) / math.log(1 / 0.1345)), rel=0.01)


def test_full_fine_tuning_takes_a_tenth_of_the_rate_of_lora() -> None:
    lora = tables.default_learning_rate(5_000, 7 * 10**9, full_finetune=False)
    full = tables.default_learning_rate(5_000, 7 * 10**9, full_finetune=True)
    assert full == pytest.approx(lora / 10)


def test_a_range_reads_as_words() -> None:
    assert str(Range(4, 8)) == "4 to 8"
    assert str(Range(1e-3, 1e-3)) == "0.001"
