"""Conversations for the tests of the quality checks."""

from __future__ import annotations

from collections.abc import Iterable

from llamafarm.data.quality.observer import QualityObserver
from llamafarm.data.quality.report import Finding, QualityReport
from llamafarm.data.rows import Conversation, Message, Role, RowRef

FILE = "rows.jsonl"
_ROLES: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}

# A sentence for each row that says nothing special, and no two rows the same.
ENGLISH = (
    "High blood pressure often has no symptoms, and most people learn of it by chance.",
    "The liver turns what we eat into substances that the body can use or store.",
    "A fever is not an illness in itself, but a sign that the body fights one.",
    "Children should be vaccinated even when the disease has become rare.",
    "Whoever sleeps badly should go to bed at the same time every day.",
    "The heart pumps about five litres of blood through the body in a minute.",
    "Most headaches go away by themselves within a few hours.",
)


def chat(*turns: str, line: int = 1) -> Conversation:
    """Turns as `u:question`, `a:answer`, `s:system`, `t:tool`."""
    messages = tuple(Message(_ROLES[turn[0]], turn[2:]) for turn in turns)
    return Conversation(RowRef(FILE, line), messages)


def qa(question: str, answer: str, line: int = 1) -> Conversation:
    return chat(f"u:{question}", f"a:{answer}", line=line)


def plain_rows(count: int) -> list[Conversation]:
    """Rows in which nothing is to be found."""
    return [
        qa(
            f"What should I know about case {number}?",
            f"{ENGLISH[number % len(ENGLISH)]} This was observed in case {number} too.",
            number + 1,
        )
        for number in range(count)
    ]


def report_of(rows: Iterable[Conversation], *, pii: bool = True) -> QualityReport:
    observer = QualityObserver(pii=pii)
    for row in rows:
        observer.see(row, "train")
    return observer.report()


def finding_of(report: QualityReport, kind: str) -> Finding | None:
    """The finding of a kind; each kind is there once at most, but for scripts."""
    return next((finding for finding in report.findings if finding.kind == kind), None)


def kinds_of(*rows: Conversation) -> set[str]:
    return {finding.kind for finding in report_of(rows).findings}
