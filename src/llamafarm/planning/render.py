"""Decisions as text: pure, so that every place that shows them shows the same."""

from __future__ import annotations

from collections.abc import Sequence

from llamafarm.decision import Decision

# Sections whose keys are known by their own name.
_FAMILIAR = ("training_args.", "hardware.", "method.quantization.")
# A longer value pushes only its own line.
_VALUE_WIDTH = 28


def render_decisions(decisions: Sequence[Decision]) -> str:
    """One aligned line a value: field, value, source, reason; notices and warnings last."""
    values = [d for d in decisions if d.source not in ("notice", "warning")]
    lines = _aligned([(short_field(d.field), d.value, d.source, d.reason) for d in values])
    width = max((len(short_field(d.field)) for d in values), default=0)
    remarks = [d for source in ("notice", "warning") for d in decisions if d.source == source]
    lines += [f"  {d.source:<{max(width, len('warning'))}}  {d.reason}" for d in remarks]
    return "\n".join(lines)


def short_field(field: str) -> str:
    """`training_args.learning_rate` → `learning_rate`; other sections keep their name.

    What a plan calls its decisions, and so what a person and a program read.
    """
    prefix = next((p for p in _FAMILIAR if field.startswith(p)), "")
    return field.removeprefix(prefix)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    widths[1] = min(widths[1], _VALUE_WIDTH)
    return [
        "  " + "  ".join([*(f"{row[i]:<{widths[i]}}" for i in range(3)), row[3]]).rstrip()
        for row in rows
    ]
