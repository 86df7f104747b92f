"""Decisions on a terminal, and what was decided, told before the training starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from llamafarm.cli.facts import aligned
from llamafarm.cli.output import say
from llamafarm.errors import count_of
from llamafarm.monitoring.console import is_live_terminal, terminal_width, wrap_columns
from llamafarm.monitoring.events import Event, LogLevelEvent, PlanEvent

if TYPE_CHECKING:
    from llamafarm.decision import Decision

_REMARKS = ("warning", "notice")
_WIDEST_VALUE = 24
_NARROWEST_REASON = 30


def decisions_for(stream: TextIO, decisions: Sequence[Decision]) -> str:
    """As text. A terminal gets long values shortened, so that one of them does not push the
    reasons of all off the screen; a narrow one gets the reason in brackets behind the value.
    """
    from llamafarm.planning.render import render_decisions

    if not is_live_terminal(stream):
        return render_decisions(decisions)
    width = terminal_width()
    short = [replace(decision, value=_short(decision.value)) for decision in decisions]
    columns = [(d.field, d.value, d.source) for d in short if d.source not in _REMARKS]
    taken = sum(max((len(row[i]) for row in columns), default=0) + 2 for i in range(3)) + 2
    lines = render_decisions(short) if width - taken >= _NARROWEST_REASON else _narrow(decisions)
    return wrap_columns(lines, width)


def _narrow(decisions: Sequence[Decision]) -> str:
    """Two columns instead of four."""
    from llamafarm.planning.render import render_decisions, short_field

    values = [d for d in decisions if d.source not in _REMARKS]
    rows = [(short_field(d.field), f"{d.value} ({_because(d)})") for d in values]
    remarks = render_decisions([d for d in decisions if d.source in _REMARKS])
    return "\n".join(part for part in (aligned(rows), remarks) if part)


def _because(decision: Decision) -> str:
    return ": ".join(part for part in (decision.source, decision.reason) if part)


def _short(value: str) -> str:
    """The start of a list, the end of a path."""
    if len(value) <= _WIDEST_VALUE:
        return value
    keep = _WIDEST_VALUE - 2
    return f"… {value[-keep:]}" if "/" in value else f"{value[:keep].rstrip()} …"


class DecisionPrinter:
    """Sink that prints on stderr what a plan decided; constants nobody touched are only counted,
    but at log level debug.
    """

    def __init__(self) -> None:
        self._with_defaults = False

    def handle(self, event: Event) -> None:
        """Print a plan."""
        if isinstance(event, LogLevelEvent):
            self._with_defaults = event.level == "debug"
        if not isinstance(event, PlanEvent):
            return
        chosen = [d for d in event.decisions if self._with_defaults or d.source != "default"]
        say(f"{event.strategy_id} → {event.output_dir}\n")
        say(decisions_for(sys.stderr, chosen))
        if defaults := len(event.decisions) - len(chosen):
            say(f"  and {count_of(defaults, 'default')}: run.json there has every value")
        say("")

    def close(self) -> None:
        """Nothing is left open."""
