"""Everything before the first step: what `setup` reports and `train` then carries out, and the part
of it that is about data, which `inspect` shows.

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
from llamafarm.errors import GateRefused, LlamafarmError, Problem, UserError
from llamafarm.monitoring.events import Event, MessageEvent, WorkEvent

if TYPE_CHECKING:
    from llamafarm.data.report import DataReport
    from llamafarm.data.request import DataRequest
    from llamafarm.data.tokenized import PreparedData
    from llamafarm.hardware.facts import Hardware
    from llamafarm.models.shape import ModelShape
    from llamafarm.models.source import ModelSource
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


@dataclass(slots=True)
class ReadyData:
    """How far model and data of a strategy could be made ready; what a fault kept from it is
    None.
    """

    source: ModelSource | None = None
    shape: ModelShape | None = None
    tokenizer: Any = None
    request: DataRequest | None = None
    decisions: tuple[Decision, ...] = ()
    data: PreparedData | None = None


def ready_data(
    strategy: Strategy,
    *,
    skip_bad_rows: bool,
    allow_download: bool,
    emit: Callable[[Event], None],
    faults: Faults,
) -> ReadyData:
    """The tokenizer and the rows made with it. Faults of independent parts go to `faults`."""
    from llamafarm.data.prepare import prepare
    from llamafarm.data.token_row import adds_bos
    from llamafarm.models.shape_reader import read_shape
    from llamafarm.models.tokenizer import load_tokenizer
    from llamafarm.planning.llamafactory import with_native_dataset
    from llamafarm.planning.resolve_data import resolve_data

    _tell_notices(strategy, emit)
    strategy = with_native_dataset(strategy)
    ready = ReadyData()
    cwd = Path.cwd()
    with faults:
        ready.source = find_model(strategy, allow_download=allow_download, emit=emit)
        ready.tokenizer = load_tokenizer(ready.source.directory)
        ready.shape = read_shape(ready.source.directory)
    with faults:
        ready.request, ready.decisions = resolve_data(
            strategy,
            model_context=ready.shape.max_position_embeddings if ready.shape else 1 << 30,
            tokenizer_template=getattr(ready.tokenizer, "chat_template", None),
            working_directory=cwd,
            bundled_data=bundled_demos(),
            skip_bad_rows=skip_bad_rows,
            tokenizer_adds_bos=ready.tokenizer is not None and adds_bos(ready.tokenizer),
        )
        if ready.tokenizer is not None:
            ready.data = prepare(
                ready.request,
                ready.tokenizer,
                work=lambda what, done, total: emit(WorkEvent(what=what, done=done, total=total)),
            )
    return ready


def find_model(
    strategy: Strategy, *, allow_download: bool, emit: Callable[[Event], None]
) -> ModelSource:
    """The base model on this machine; another one that stands in for it is told. Raises
    ModelError.
    """
    from llamafarm.models.resolve import resolve_model

    origin = strategy.origin("base_model.id")
    in_file = strategy.file if origin is not None and origin.kind == "strategy" else None
    source = resolve_model(
        strategy.base_model,
        working_directory=Path.cwd(),
        strategy_file=in_file,
        allow_download=allow_download,
    )
    if source.notice:
        emit(MessageEvent(level="notice", text=source.notice))
    return source


def plan_run(
    strategy: Strategy,
    *,
    skip_bad_rows: bool,
    allow_download: bool,
    emit: Callable[[Event], None],
    problems: list[LlamafarmError] | None = None,
    allow_custom_metrics: bool = False,
) -> Planned:
    """Everything before the first step. Faults of independent parts are found together.

    allow_custom_metrics: metrics of the strategy that are functions of the user's own are imported.
    problems given: faults are put there and NotPlannedError is raised; left out: they are raised
    as one error. Raises GateRefused when training rows give evaluation rows away.
    """
    from llamafarm.data.leakage import check_leakage
    from llamafarm.deploy import check_export
    from llamafarm.export.route import export_route
    from llamafarm.hardware.choose import choose_device
    from llamafarm.hardware.probe import bitsandbytes_available, free_disk_bytes, probe
    from llamafarm.planning.metrics import check_metrics
    from llamafarm.planning.resolve import resolve
    from llamafarm.training.backends.llamafactory.environment import find_environment

    faults = Faults()
    hardware = probe()
    environment = None
    if strategy.backend == "llamafactory":
        with faults:
            environment = find_environment()
    with faults:
        check_metrics(strategy, allow_custom=allow_custom_metrics, working_directory=Path.cwd())
    with faults:
        choose_device(strategy.hardware.device, hardware, strategy.origin("hardware.device"))
    ready = ready_data(
        strategy,
        skip_bad_rows=skip_bad_rows,
        allow_download=allow_download,
        emit=emit,
        faults=faults,
    )
    if ready.data is not None:
        with faults:
            check_leakage(ready.data.report.leakage, allowed=strategy.dataset.allow_leakage)
    if not faults.found and ready.source and ready.shape and ready.request and ready.data:
        with faults:
            route = export_route(ready.source.directory)
            plan = resolve(
                strategy,
                hardware,
                ready.source,
                ready.shape,
                ready.request,
                ready.data.report,
                data_decisions=ready.decisions,
                working_directory=Path.cwd(),
                bitsandbytes_available=bitsandbytes_available(),
                free_disk_bytes=free_disk_bytes(output_dir(strategy)),
                route=route,
            )
            if plan.export is not None:
                check_export(plan.export)
            if plan.llamafactory is not None and environment is not None:
                engine = replace(plan.llamafactory, libraries=environment.libraries)
                plan = replace(plan, llamafactory=engine)
            return Planned(plan, ready.data, ready.tokenizer, hardware, strategy)
    if problems is None:
        raise faults.together()
    problems += faults.found
    report = ready.data.report if ready.data else None
    raise NotPlannedError(ready.decisions, report, hardware)


class Faults:
    """Context manager, used again and again: collects the user's errors of independent parts, and
    what a gate refuses.
    """

    def __init__(self) -> None:
        self.found: list[LlamafarmError] = []

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, UserError | GateRefused):
            self.found.append(error)
            return True
        return False

    def together(self) -> LlamafarmError:
        """One error as it is; several as one that lists them all."""
        if len(self.found) == 1:
            return self.found[0]
        problems = [p for error in self.found for p in problems_of(error)]
        return UserError(f"this run has {len(problems)} problems", problems)


def problems_of(error: LlamafarmError) -> tuple[Problem, ...]:
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
