"""What there is to know of a dataset before it is trained on, and its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.decision import Decision
from llamafarm.errors import GateRefused, OutputError
from llamafarm.monitoring.events import Event
from llamafarm.readiness import Faults, ready_data

if TYPE_CHECKING:
    from llamafarm.data.preview import MarkedRow
    from llamafarm.data.report import DataReport
    from llamafarm.strategy.model import Strategy
    from llamafarm.strategy.overrides import Override


@dataclass(frozen=True)
class InspectRequest:
    """What `inspect` was asked for. preview: rows to show as the model gets them."""

    overrides: tuple[Override, ...]
    strategy: str | None = None
    strategy_file: Path | None = None
    skip_bad_rows: bool = False
    preview: int = 0


@dataclass(frozen=True)
class Inspection:
    """The findings. refused: what the leakage gate says to it, None where it lets it pass."""

    report: DataReport
    decisions: tuple[Decision, ...]
    rows: tuple[MarkedRow, ...]
    refused: GateRefused | None


def inspect(
    strategy: Strategy, *, skip_bad_rows: bool, preview: int, emit: Callable[[Event], None]
) -> Inspection:
    """Read the strategy's rows as `train` would. Raises UserError with every fault."""
    from llamafarm.data.leakage import check_leakage
    from llamafarm.data.preview import marked_rows

    faults = Faults()
    ready = ready_data(
        strategy, skip_bad_rows=skip_bad_rows, allow_download=True, emit=emit, faults=faults
    )
    if ready.data is None:
        raise faults.together()
    refused = None
    try:
        check_leakage(ready.data.report.leakage, allowed=strategy.dataset.allow_leakage)
    except GateRefused as refusal:
        refused = refusal
    rows = marked_rows(ready.data.train, ready.tokenizer, most=preview)
    return Inspection(ready.data.report, ready.decisions, rows, refused)


def write_data_page(
    path: Path, title: str, facts: Sequence[tuple[str, str]], found: Inspection
) -> None:
    """An inspection as a web page. facts: label and text. Raises OutputError."""
    from llamafarm.files import write_text_atomic
    from llamafarm.monitoring.data_page import data_page

    page = data_page(title, facts, found.report.warnings, found.rows)
    try:
        write_text_atomic(path, page)
    except OSError as fault:
        raise OutputError(f"{path} cannot be written: {fault.strerror or fault}") from fault
