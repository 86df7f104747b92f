"""Everything before the first step: what `setup` reports and `train` then carries out.

Like api.py it puts rooms together and decides nothing itself. Faults of independent parts (device,
model, data) are found together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamafarm.bundled import bundled_demos
from llamafarm.decision import Decision
from llamafarm.errors import LlamafarmError, Problem, UserError
from llamafarm.monitoring.events import Event, MessageEvent

if TYPE_CHECKING:
    from llamafarm.data.report import DataReport
    from llamafarm.data.tokenized import PreparedData
    from llamafarm.hardware.facts import Hardware
    from llamafarm.planning.plan import TrainingPlan
    from llamafarm.strategy.model import Notice, Strategy


@dataclass(frozen=True)
class Planned:
    """A run that can start."""

    plan: TrainingPlan
    data: PreparedData
    tokenizer: Any
    hardware: Hardware
    strategy: Strategy


class NotPlannedError(Exception):
    """Planning stopped at problems that were all written down; what had been found out until
    then.
    """

    def __init__(
        self, decisions: tuple[Decision, ...], data: DataReport | None, hardware: Hardware | None
    ) -> None:
        super().__init__("not planned")
        self.decisions, self.data, self.hardware = decisions, data, hardware


def plan_run(
    strategy: Strategy,
    *,
    skip_bad_rows: bool,
    allow_download: bool,
    emit: Callable[[Event], None],
    problems: list[UserError] | None = None,
) -> Planned:
    """Everything before the first step. Faults of independent parts are found together.

    problems given: faults are put there and NotPlannedError is raised; left out: they are raised
    as one error.
    """
    from llamafarm.data.prepare import prepare
    from llamafarm.data.token_row import adds_bos
    from llamafarm.deploy import check_export
    from llamafarm.export.route import export_route
    from llamafarm.hardware.choose import choose_device
    from llamafarm.hardware.probe import bitsandbytes_available, free_disk_bytes, probe
    from llamafarm.models.resolve import resolve_model
    from llamafarm.models.shape_reader import read_shape
    from llamafarm.models.tokenizer import load_tokenizer
    from llamafarm.planning.resolve import resolve
    from llamafarm.planning.resolve_data import resolve_data

    faults = _Faults()
    cwd = Path.cwd()
    _tell_notices(strategy, emit)
    hardware = probe()
    with faults:
        choose_device(strategy.hardware.device, hardware, strategy.origin("hardware.device"))
    source = shape = tokenizer = None
    with faults:
        origin = strategy.origin("base_model.id")
        in_file = strategy.file if origin is not None and origin.kind == "strategy" else None
        source = resolve_model(
            strategy.base_model,
            working_directory=cwd,
            strategy_file=in_file,
            allow_download=allow_download,
        )
        if source.notice:
            emit(MessageEvent(level="notice", text=source.notice))
        tokenizer = load_tokenizer(source.directory)
        shape = read_shape(source.directory)
    request = data = None
    decisions: tuple[Decision, ...] = ()
    with faults:
        request, decisions = resolve_data(
            strategy,
            model_context=shape.max_position_embeddings if shape else 1 << 30,
            tokenizer_template=getattr(tokenizer, "chat_template", None),
            working_directory=cwd,
            bundled_data=bundled_demos(),
            skip_bad_rows=skip_bad_rows,
            tokenizer_adds_bos=tokenizer is not None and adds_bos(tokenizer),
        )
        if tokenizer is not None:
            data = prepare(request, tokenizer)
    if not faults.found and source and shape and request and data:
        with faults:
            route = export_route(source.directory)
            plan = resolve(
                strategy,
                hardware,
                source,
                shape,
                request,
                data.report,
                data_decisions=decisions,
                working_directory=cwd,
                bitsandbytes_available=bitsandbytes_available(),
                free_disk_bytes=free_disk_bytes(output_dir(strategy)),
                route=route,
            )
            if plan.export is not None:
                check_export(plan.export)
            return Planned(plan, data, tokenizer, hardware, strategy)
    if problems is None:
        raise faults.together()
    problems += faults.found
    raise NotPlannedError(decisions, data.report if data else None, hardware)


class _Faults:
    """Context manager, used again and again: collects the user's errors of independent parts."""

    def __init__(self) -> None:
        self.found: list[UserError] = []

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, UserError):
            self.found.append(error)
            return True
        return False

    def together(self) -> LlamafarmError:
        """One error as it is; several as one that lists them all."""
        if len(self.found) == 1:
            return self.found[0]
        problems = [p for error in self.found for p in problems_of(error)]
        return UserError(f"this run has {len(problems)} problems", problems)


def problems_of(error: UserError) -> tuple[Problem, ...]:
    """The listed problems of an error, or the error itself as one."""
    if not error.problems:
        return (Problem(error.summary, hint=error.hint),)
    last = error.problems[-1]
    hint = last.hint or error.hint
    return (*error.problems[:-1], replace(last, hint=hint))


def output_dir(strategy: Strategy) -> Path:
    """Where this strategy's run goes; planning says the same with its reason."""
    from llamafarm.planning.output import output_directory

    return output_directory(strategy, Path.cwd())


def _tell_notices(strategy: Strategy, emit: Callable[[Event], None]) -> None:
    for notice in strategy.notices:
        emit(MessageEvent(level=notice.severity, text=notice_text(notice)))


def notice_text(notice: Notice) -> str:
    """A notice as one line, with where it stands."""
    return " ".join(part for part in (notice.where, f"{notice.path}:", notice.message) if part)
