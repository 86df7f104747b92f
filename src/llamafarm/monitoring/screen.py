"""The live screen as lines of text: a function of the run's state and the size of the terminal."""

from __future__ import annotations

from llamafarm.monitoring.curves import render_curves
from llamafarm.monitoring.events import FindingEvent
from llamafarm.monitoring.formats import (
    format_bytes,
    format_duration,
    format_gap,
    format_loss,
    format_rate,
)
from llamafarm.monitoring.run_state import RunState

SCREEN_CHARACTERS = "━─◆┤│└⣿"
"""What the terminal must be able to show; otherwise the ASCII form is used."""

_MAX_WIDTH = 100
_MIN_BAR_WIDTH = 8
_CURVE_HEIGHT = 8
_LINES_BESIDE_CURVE = 8
_GUTTER = "   "


def screen_lines(
    state: RunState, width: int, height: int, *, ascii_only: bool = False
) -> list[str]:
    """Bar, numbers, the last finding and, where the terminal is high enough, both curves. No line
    is wider than the terminal.
    """
    width = min(width - 1, _MAX_WIDTH)
    lines = [_bar_line(state, width, ascii_only=ascii_only), _fit(_numbers(state), width)]
    if state.finding is not None:
        lines.append(_finding_line(state.finding, width, ascii_only=ascii_only))
    if height >= _CURVE_HEIGHT + _LINES_BESIDE_CURVE:
        curves = render_curves(
            state.history.train_points,
            state.history.eval_points,
            width=width,
            height=_CURVE_HEIGHT,
            last_step=state.total_steps,
            ascii_only=ascii_only,
        )
        lines += ["", *curves.splitlines()] if curves else []
    return [line[:width].rstrip() for line in lines]


def _bar_line(state: RunState, width: int, *, ascii_only: bool) -> str:
    """While an evaluation goes on, the bar is the evaluation's."""
    if (evaluation := state.evaluating) is not None:
        name, done, total = "evaluating", evaluation.rows_done, evaluation.rows
        after = f"row {done}/{total}"
    else:
        name, done, total = "training  ", state.steps_done, state.total_steps
        after = f"step {done}/{total}"
    fraction = done / total if total else 0.0
    left = state.seconds_left
    eta = [] if left is None else [f"eta {format_duration(left)}"]
    tail = _GUTTER.join([after, f"{100 * fraction:.0f} %", *eta])
    room = max(width - len(name) - len(tail) - 2 * len(_GUTTER), _MIN_BAR_WIDTH)
    return f"{name}{_GUTTER}{_bar(fraction, room, ascii_only=ascii_only)}{_GUTTER}{tail}"


def _bar(fraction: float, width: int, *, ascii_only: bool) -> str:
    full, rest = ("#", "-") if ascii_only else ("━", "─")
    filled = min(round(fraction * width), width)
    return full * filled + rest * (width - filled)


def _numbers(state: RunState) -> list[str]:
    """The most important first: what does not fit is left out from the end."""
    evaluation, best, step = state.history.last_evaluation, state.history.best, state.step
    return [
        *([f"loss {format_loss(step.loss)}"] if step else []),
        *([f"eval {format_loss(evaluation.eval_loss)}"] if evaluation else []),
        *([f"gap {format_gap(state.gap)}"] if state.gap is not None else []),
        *([f"lr {step.learning_rate:.1e}", format_rate(step.tokens_per_second)] if step else []),
        *([format_bytes(step.memory_bytes)] if step and step.memory_bytes else []),
        *([f"best step {best.step}"] if best else []),
    ]


def _finding_line(finding: FindingEvent, width: int, *, ascii_only: bool) -> str:
    """As much of it as there is room for: the whole stands above the screen."""
    text = f"found at step {finding.step}: {finding.text}"
    if len(text) <= width:
        return text
    more = "..." if ascii_only else "…"
    return text[: width - len(more)] + more


def _fit(parts: list[str], width: int) -> str:
    while parts and len(_GUTTER.join(parts)) > width:
        parts = parts[:-1]
    return _GUTTER.join(parts)
