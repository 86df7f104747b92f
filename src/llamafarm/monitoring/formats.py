"""How quantities are written for people."""

from __future__ import annotations

import math


def format_duration(seconds: float) -> str:
    """`0:41`, `12:05`, `3:02:10`; `?` for what is not known."""
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def format_loss(loss: float | None) -> str:
    """Three decimals; `?` for what was not measured."""
    return "?" if loss is None else f"{loss:.3f}"


def format_gap(gap: float) -> str:
    """With its sign, because either one means something: `+0.041`."""
    return f"{round(gap, 3) + 0.0:+.3f}"


def format_perplexity(perplexity: float) -> str:
    """Two decimals where they mean something."""
    return f"{perplexity:.2f}" if perplexity < 1000 else f"{perplexity:.3g}"


def format_bytes(count: int) -> str:
    """`3.5 MiB`, `1.2 GiB` (powers of 1024)."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_rate(tokens_per_second: float) -> str:
    """Three digits are enough for a speed."""
    digits = 0 if tokens_per_second >= 100 else 1
    return f"{tokens_per_second:,.{digits}f} tok/s"
