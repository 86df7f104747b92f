"""Forecast and other facts as aligned lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamafarm.monitoring.formats import format_bytes, format_duration, format_rate

if TYPE_CHECKING:
    from llamafarm.planning.plan import Forecast


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart, indented by two; the last column is as long as it is."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(columns)]
    return "\n".join(
        "  " + "  ".join(f"{cell:<{widths[i]}}" for i, cell in enumerate(row)).rstrip()
        for row in rows
    )


def forecast_facts(forecast: Forecast) -> list[tuple[str, str]]:
    """What the run will need, against what there is."""
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in forecast.memory_parts)
    memory = f"{format_bytes(forecast.memory_bytes)} of {format_bytes(forecast.memory_limit_bytes)}"
    disk = f"{format_bytes(forecast.disk_bytes)} of {format_bytes(forecast.disk_free_bytes)} free"
    facts = [("memory", f"{memory}  ({parts})" if parts else memory), ("disk", disk)]
    if forecast.seconds is not None:
        speed = forecast.tokens_per_second
        at = f" at {format_rate(speed)}" if speed is not None else ""
        facts.append(("time", f"about {format_duration(forecast.seconds)}{at}  ({forecast.basis})"))
    else:
        facts.append(("time", f"not known before the first steps  ({forecast.basis})"))
    return facts
