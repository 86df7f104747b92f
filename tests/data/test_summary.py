from __future__ import annotations

from collections import Counter

from llamafarm.data.report import TruncatedRow
from llamafarm.data.rows import RowRef
from llamafarm.data.summary import (
    Cuts,
    eval_size_warning,
    format_name,
    length_summary,
    token_notices,
    token_warnings,
    truncation_warning,
)
from llamafarm.data.token_row import TokenCounts
from llamafarm.data.tokenized import ListRows


def test_lengths_are_summed_and_ranked() -> None:
    rows = ListRows([([1] * n, [False] + [True] * (n - 1)) for n in (2, 3, 4, 5, 100)])
    found = length_summary([rows])
    assert (found.rows, found.total_tokens, found.trained_tokens) == (5, 114, 109)
    assert (found.shortest, found.median, found.p95, found.longest) == (2, 4, 100, 100)


def test_mixed_formats_are_named_by_frequency() -> None:
    assert format_name(Counter(qa=3)) == "qa"
    assert format_name(Counter(alpaca=1, qa=3)) == "mixed (qa 3, alpaca 1)"


def test_thirty_eval_rows_are_not_few() -> None:
    assert eval_size_warning(29) and not eval_size_warning(30)


def test_the_worst_cut_rows_come_first_and_the_list_is_short() -> None:
    rows = [TruncatedRow(RowRef("r", n), 100 + n, n) for n in range(1, 16)]
    (warning,) = truncation_warning(Cuts.of(rows), 200, 64)
    assert warning.startswith("15 of 200 rows are longer than max_length=64")
    assert "lost 120 answer tokens: r:15 (115 tokens), r:14" in warning
    assert warning.endswith("r:6 (106 tokens), …")
    assert truncation_warning(Cuts.of([]), 200, 64) == []


def test_clean_counts_say_nothing() -> None:
    counts = TokenCounts(rows=9, tokens=900, answers=9, answers_end_trained=9)
    assert token_warnings(counts) == [] and token_notices(counts) == []


def test_every_count_that_matters_has_its_line() -> None:
    counts = TokenCounts(
        rows=10,
        tokens=100,
        unknown_tokens=2,
        answers=10,
        answers_end_trained=9,
        answers_inexact=1,
        answers_other_prompt=3,
        rows_end_appended=2,
        rows_without_end=1,
        rows_with_control_tokens=4,
        rows_system_moved=5,
    )
    said = "\n".join(token_warnings(counts) + token_notices(counts))
    for words in (
        "90.0% of the answers (1 of 10 lack it)",
        "no end token after 1 row",
        "2.0% of the tokens are unknown",
        "prompts of 3 answers",
        "text of 4 rows",
        "system prompt of 5 rows",
        "no end token after 2 rows",
        "rewrites 1 answer",
    ):
        assert words in said


def test_counts_add_up() -> None:
    total = TokenCounts(rows=1, tokens=5)
    total.add(TokenCounts(rows=2, tokens=7, answers=3))
    assert (total.rows, total.tokens, total.answers) == (3, 12, 3)
