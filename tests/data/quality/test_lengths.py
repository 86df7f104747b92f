from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamafarm.data.quality.histogram import Histogram
from llamafarm.data.rows import Conversation, RowRef
from tests.data.quality.conversations import chat, finding_of, plain_rows, qa, report_of


def test_prompts_and_answers_are_measured_apart() -> None:
    report = report_of([chat("s:abc", "u:def", "a:g"), qa("abcd", "ab"), qa("abcde", "abc")])
    prompts, answers = report.prompts, report.answers
    assert prompts is not None and answers is not None
    assert (prompts.rows, prompts.shortest, prompts.median, prompts.longest) == (3, 4, 5, 6)
    assert (answers.rows, answers.shortest, answers.median, answers.longest) == (3, 1, 2, 3)


def test_plain_text_is_learnt_whole() -> None:
    report = report_of([Conversation(RowRef("r", 1), text="abcdef")])
    assert report.prompts is None
    assert report.answers is not None and report.answers.longest == 6


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=60), st.sampled_from([0.5, 0.95]))
def test_quantiles_are_at_most_one_percent_too_low(sizes: list[int], fraction: float) -> None:
    histogram = Histogram()
    for size in sizes:
        histogram.add(size)
    exact = sorted(sizes)[max(0, -int(-fraction * len(sizes) // 1) - 1)]
    assert exact * 0.99 <= histogram.quantile(fraction) <= exact
    assert (histogram.smallest, histogram.largest) == (min(sizes), max(sizes))


def test_a_histogram_of_a_million_sizes_stays_small() -> None:
    histogram = Histogram()
    for size in range(0, 100_000_000, 997):
        histogram.add(size)
    assert len(histogram._counts) < 3000


def test_rows_far_beyond_the_rest_are_named_the_longest_first() -> None:
    rows = [*plain_rows(40), qa("And?", "word " * 400, 41), qa("And?", "word " * 900, 42)]
    finding = finding_of(report_of(rows), "long_row")
    assert finding is not None and finding.rows == 2
    assert [example.source.line for example in finding.examples] == [42, 41]
    assert "far beyond the rest: half of the rows have" in finding.text


def test_long_rows_among_rows_of_all_lengths_are_not_far_beyond() -> None:
    rows = [qa(f"And {i}?", "Many words. " * 2 ** (i % 9), i) for i in range(90)]
    assert finding_of(report_of(rows), "long_row") is None
