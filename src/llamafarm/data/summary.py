"""Facts about prepared rows in words: lengths, warnings and notices of the data report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamafarm.data.cache import ArrowPart
from llamafarm.data.quality.report import QualityReport
from llamafarm.data.report import LengthSummary, TruncatedRow
from llamafarm.data.token_row import TokenCounts
from llamafarm.data.tokenized import TokenRows
from llamafarm.errors import count_of

FEW_EVAL_ROWS = 30
_MUCH_UNKNOWN = 0.01
_LISTED = 10


def length_summary(parts: Iterable[TokenRows | ArrowPart]) -> LengthSummary:
    """Token counts of one side, which must hold rows. parts: of the side; each is let go of when it
    was looked at.
    """
    found = [(part.lengths(), int(part.trained_counts().sum())) for part in parts]
    lengths = np.concatenate([part for part, _ in found])
    return LengthSummary(
        rows=len(lengths),
        total_tokens=int(lengths.sum()),
        trained_tokens=sum(trained for _, trained in found),
        shortest=int(lengths.min()),
        median=int(np.percentile(lengths, 50, method="higher")),
        p95=int(np.percentile(lengths, 95, method="higher")),
        longest=int(lengths.max()),
        histogram=_histogram(lengths),
    )


def _histogram(lengths: npt.NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Rows by powers of two of their length, from the shortest to the longest."""
    bins = np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    counts = np.bincount(bins)
    first = int(bins.min())
    return tuple((2**power, int(counts[power])) for power in range(first, len(counts)))


def format_name(formats: Counter[str]) -> str:
    """`qa`, or `mixed (qa 90, alpaca 10)`."""
    if len(formats) == 1:
        return next(iter(formats))
    return "mixed (" + ", ".join(f"{name} {count:,}" for name, count in formats.most_common()) + ")"


def eval_size_warning(rows: int) -> list[str]:
    """Few rows make a noisy number."""
    if rows >= FEW_EVAL_ROWS:
        return []
    few = count_of(rows, "evaluation row")
    return [f"only {few}: the eval loss is noisy, small differences mean nothing"]


@dataclass(frozen=True, slots=True)
class Cuts:
    """Rows that were cut. named: at most some of them; rows, trained_tokens: of all."""

    named: Sequence[TruncatedRow]
    rows: int
    trained_tokens: int

    @classmethod
    def of(cls, truncated: Sequence[TruncatedRow]) -> Cuts:
        """Where every row is named."""
        return cls(truncated, len(truncated), sum(row.trained_tokens_cut for row in truncated))


def truncation_warning(cuts: Cuts, rows: int, max_length: int) -> list[str]:
    """Which rows were cut, the ones with the greatest loss first."""
    if not cuts.rows:
        return []
    lost = count_of(cuts.trained_tokens, "answer token")
    worst = sorted(cuts.named, key=lambda row: -row.trained_tokens_cut)[:_LISTED]
    listed = ", ".join(f"{row.source} ({row.tokens:,} tokens)" for row in worst)
    more = ", …" if cuts.rows > _LISTED else ""
    are = f"{cuts.rows:,} of {count_of(rows, 'row')} are longer than max_length={max_length}"
    return [f"{are} and were cut there, which lost {lost}: {listed}{more}"]


def quality_warnings(report: QualityReport) -> list[str]:
    """What was noticed in the rows, as far as it is more than a remark; with the first of them."""
    return [
        f"{finding.text} (the first: {finding.examples[0].source})"
        if finding.examples
        else finding.text
        for finding in report.findings
        if finding.level == "warning"
    ]


def token_warnings(counts: TokenCounts) -> list[str]:
    """What the tokens show that a person should not miss."""
    found: list[str] = []
    if untrained := counts.answers - counts.answers_end_trained:
        share = counts.answers_end_trained / counts.answers
        of = f"({untrained:,} of {counts.answers:,} lack it)"
        found.append(
            f"the end-of-turn token is trained in only {share:.1%} of the answers {of}: "
            "the model may not learn to stop"
        )
    if counts.rows_without_end:
        rows = count_of(counts.rows_without_end, "row")
        found.append(f"no end token after {rows}: neither the template nor the tokenizer has one")
    if counts.tokens and (share := counts.unknown_tokens / counts.tokens) > _MUCH_UNKNOWN:
        found.append(
            f"{share:.1%} of the tokens are unknown to the tokenizer: "
            "the model does not know the script or the symbols of this data"
        )
    if counts.answers_other_prompt:
        answers = count_of(counts.answers_other_prompt, "answer")
        found.append(
            f"the prompts of {answers} end in other tokens when the model is asked: "
            "the tokenizer joins the end of the template's prompt with what follows"
        )
    if counts.rows_with_control_tokens:
        rows = count_of(counts.rows_with_control_tokens, "row")
        found.append(f"control tokens of the model stand in the text of {rows}, and act as such")
    return found


def token_notices(counts: TokenCounts) -> list[str]:
    """What was done that a person may want to know."""
    found: list[str] = []
    if counts.rows_system_moved:
        rows = count_of(counts.rows_system_moved, "row")
        found.append(
            f"the chat template has no place for the system prompt of {rows}: "
            "it stands before the first question instead"
        )
    if counts.rows_end_appended:
        rows = count_of(counts.rows_end_appended, "row")
        found.append(
            f"the chat template writes no end token after {rows}: "
            "the tokenizer's own was appended, and is trained"
        )
    if counts.answers_inexact:
        answers = count_of(counts.answers_inexact, "answer")
        found.append(
            f"the chat template rewrites {answers} or its prompt (as templates that remove "
            "reasoning do): the part that stays the same is trained"
        )
    return found
