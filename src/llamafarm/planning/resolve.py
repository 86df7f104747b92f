"""Strategy, machine, model and data become one plan. Pure: what it is given is all it knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.data.report import DataReport
from llamafarm.data.request import DataRequest
from llamafarm.decision import Decision
from llamafarm.errors import DataError, StrategyError, count_of
from llamafarm.hardware.choose import (
    DEVICE,
    choose_device,
    choose_threads,
    device_name,
    find_accelerator,
)
from llamafarm.hardware.facts import GIB, DeviceKind, Hardware
from llamafarm.hardware.precision import PrecisionChoice, choose_precision
from llamafarm.models.shape import ModelShape
from llamafarm.models.source import ModelSource
from llamafarm.monitoring.formats import format_bytes
from llamafarm.planning import tables
from llamafarm.planning.batch import (
    BatchSizes,
    RunLength,
    batch_decisions,
    choose_batch_sizes,
    choose_run_length,
    eval_batch_size,
)
from llamafarm.planning.checks import problems_of
from llamafarm.planning.explain import asked, is_written, notice, settled, warning
from llamafarm.planning.export import choose_export, export_problems, route_decision
from llamafarm.planning.fit import fit
from llamafarm.planning.forecast import choose_speed, forecast
from llamafarm.planning.later import not_in_this_version
from llamafarm.planning.llamafactory import choose_llamafactory
from llamafarm.planning.memory import Workload
from llamafarm.planning.method import MethodChoice, choose_method
from llamafarm.planning.optimizer import (
    choose_learning_rate,
    choose_optimizer,
    optimizer_decisions,
)
from llamafarm.planning.output import output_directory
from llamafarm.planning.plan import (
    BatchPlan,
    DevicePlan,
    Dtype,
    Forecast,
    ModelPlan,
    TrainingPlan,
)
from llamafarm.planning.render import short_field
from llamafarm.planning.schedule import choose_schedules, choose_warmup
from llamafarm.strategy.model import Strategy
from llamafarm.strategy.shares import auto_share

if TYPE_CHECKING:
    from llamafarm.export.route import ExportRoute

_MEMORY = "hardware.memory_gb"
_EVAL_SPLIT, _EVAL_ROWS = "dataset.eval_split", "dataset.eval_rows"


@dataclass(frozen=True, slots=True)
class _Machine:
    """Where it runs, and with how much memory."""

    plan: DevicePlan
    precision: PrecisionChoice
    kind: DeviceKind
    memory_bytes: int
    decisions: tuple[Decision, ...]


def resolve(
    strategy: Strategy,
    hardware: Hardware,
    source: ModelSource,
    shape: ModelShape,
    data_request: DataRequest,
    report: DataReport,
    *,
    data_decisions: tuple[Decision, ...] = (),
    working_directory: Path,
    bitsandbytes_available: bool,
    free_disk_bytes: int,
    measured_speed: float | None = None,
    route: ExportRoute | None = None,
) -> TrainingPlan:
    """Decide every value of the run, each with its reason.

    A value that somebody wrote is never changed, except a precision that the device does not have.
    free_disk_bytes: where the run directory will be; measured_speed: FLOP/s of matrix products on
    the device in the run's precision; route: how the model could be exported. Raises StrategyError
    with every problem, HardwareError for a device that is not there, DataError for a training set
    without rows.
    """
    if report.train.rows < 1:
        raise DataError("there is no row to train on")
    device, device_decision = choose_device(
        strategy.hardware.device, hardware, strategy.origin(DEVICE)
    )
    problems = [
        *problems_of(strategy, shape, device, bitsandbytes_available=bitsandbytes_available),
        *([] if route is None else export_problems(strategy, route)),
    ]
    if problems:
        count = count_of(len(problems), "problem")
        raise StrategyError(f"{strategy.id} has {count}", problems)
    machine = _machine(strategy, hardware, device, device_decision)
    method = choose_method(strategy, shape, device, machine.precision)
    rows = report.train.rows
    rate = choose_learning_rate(strategy, shape, rows)
    fitted = fit(
        strategy,
        *_workload(strategy, shape, report, machine, method),
        machine.memory_bytes,
        bitsandbytes_available=bitsandbytes_available,
    )
    length = choose_run_length(strategy, rows, fitted.sizes)
    warmup = choose_warmup(strategy, length, rows)
    schedules = choose_schedules(strategy, length, has_eval_rows=report.eval is not None)
    batch = _batch_plan(strategy, fitted.sizes, length)
    outlook = forecast(
        fitted.work,
        batch,
        schedules.evaluation,
        schedules.saving,
        choose_speed(measured_speed, fitted.work, hardware.cpu, machine.plan.threads),
        memory_limit_bytes=machine.memory_bytes,
        disk_free_bytes=free_disk_bytes,
    )
    run_directory = output_directory(strategy, working_directory)
    export, export_decisions = choose_export(strategy, run_directory)
    other_engine, its_decisions = (
        choose_llamafactory(strategy) if strategy.backend == "llamafactory" else (None, [])
    )
    decisions = (
        *_model_decisions(strategy, source),
        *_output_decision(strategy, working_directory),
        *machine.decisions,
        *method.decisions,
        *_with_share(data_decisions, data_request, report),
        *_data_remarks(strategy, data_request, report),
        *rate.decisions,
        *batch_decisions(strategy, shape, fitted.sizes),
        *length.decisions,
        *_scheduler_decision(strategy),
        *warmup.decisions,
        *optimizer_decisions(strategy),
        *schedules.decisions,
        *fitted.decisions,
        *_runtime_decisions(strategy),
        *_room_remarks(strategy, outlook),
        *_size_remarks(shape, method, outlook),
        *([] if route is None else [route_decision(route)]),
        *export_decisions,
        *its_decisions,
        *not_in_this_version(strategy),
    )
    return TrainingPlan(
        strategy_id=strategy.id,
        title=strategy.title or strategy.id,
        backend=strategy.backend,
        output_dir=run_directory,
        model=ModelPlan(source, shape, machine.precision.weights),
        adapter=method.adapter,
        quantization=method.quantization,
        device=machine.plan,
        optimizer=choose_optimizer(strategy, rate, warmup.steps),
        batch=batch,
        evaluation=schedules.evaluation,
        saving=schedules.saving,
        logging=schedules.logging,
        data=data_request,
        data_fingerprint=report.fingerprint,
        num_trainable_parameters=method.num_trainable_parameters,
        max_length=data_request.max_length,
        gradient_checkpointing=fitted.work.gradient_checkpointing,
        torch_compile=strategy.training_args.torch_compile,
        seed=strategy.training_args.seed,
        on_nonfinite=strategy.on_nonfinite,
        stop_on_overfitting=strategy.stop_on_overfitting,
        forecast=outlook,
        llamafactory=other_engine,
        export=export,
        stop_words=strategy.prompt_template.stop_sequences,
        decisions=tuple(replace(d, field=short_field(d.field)) for d in decisions),
    )


@dataclass(frozen=True, slots=True)
class WithoutData:
    """What model and machine decide on their own."""

    method: MethodChoice
    device: DevicePlan
    weights: Dtype
    sizes: BatchSizes
    memory_bytes: int
    decisions: tuple[Decision, ...]


def resolve_without_data(
    strategy: Strategy,
    hardware: Hardware,
    source: ModelSource,
    shape: ModelShape,
    *,
    working_directory: Path,
    bitsandbytes_available: bool,
) -> WithoutData:
    """The same as `resolve`, as far as it goes without a single row. Raises as that does."""
    device, device_decision = choose_device(
        strategy.hardware.device, hardware, strategy.origin(DEVICE)
    )
    problems = problems_of(strategy, shape, device, bitsandbytes_available=bitsandbytes_available)
    if problems:
        count = count_of(len(problems), "problem")
        raise StrategyError(f"{strategy.id} has {count}", problems)
    machine = _machine(strategy, hardware, device, device_decision)
    method = choose_method(strategy, shape, device, machine.precision)
    # As if there were enough rows for every batch.
    enough = int(tables.EFFECTIVE_BATCH.high)
    sizes = choose_batch_sizes(strategy, shape, enough, machine.memory_bytes)
    decisions = (
        *_model_decisions(strategy, source),
        *_output_decision(strategy, working_directory),
        *machine.decisions,
        *method.decisions,
        settled(strategy, "training_args.seed", strategy.training_args.seed),
        *batch_decisions(strategy, shape, sizes),
        *_scheduler_decision(strategy),
        *optimizer_decisions(strategy),
        *_runtime_decisions(strategy),
        *_size_remarks(shape, method, None, machine.memory_bytes),
        *not_in_this_version(strategy),
    )
    return WithoutData(
        method,
        machine.plan,
        machine.precision.weights,
        sizes,
        machine.memory_bytes,
        tuple(replace(d, field=short_field(d.field)) for d in decisions),
    )


def _machine(
    strategy: Strategy, hardware: Hardware, device: str, device_decision: Decision
) -> _Machine:
    precision = choose_precision(strategy, device, hardware)
    threads, threads_decision = choose_threads(hardware)
    accelerator = find_accelerator(device, hardware.accelerators)
    kind: DeviceKind = "cpu" if accelerator is None else accelerator.kind
    memory = (
        hardware.cpu.memory_available_bytes
        if accelerator is None
        else accelerator.memory_free_bytes
    )
    decisions = [device_decision, *precision.decisions, threads_decision]
    cap = strategy.hardware.memory_gb
    if cap is not None:
        decisions.append(asked(strategy, _MEMORY, cap))
        if cap * GIB > memory:
            text = (
                f"memory_gb={cap:g} is more than there is: {memory / GIB:.1f} GiB are planned for"
            )
            decisions.append(warning(_MEMORY, cap, text))
        memory = min(memory, int(cap * GIB))
    plan = DevicePlan(
        device=device,
        name=device_name(device, hardware),
        mixed_precision=precision.mixed_precision,
        tf32=precision.tf32,
        threads=threads,
    )
    return _Machine(plan, precision, kind, memory, tuple(decisions))


def _workload(
    strategy: Strategy,
    shape: ModelShape,
    report: DataReport,
    machine: _Machine,
    method: MethodChoice,
) -> tuple[Workload, BatchSizes]:
    """The run before anything is done about its memory."""
    sizes = choose_batch_sizes(strategy, shape, report.train.rows, machine.memory_bytes)
    work = Workload(
        shape=shape,
        weights=machine.precision.weights,
        mixed_precision=machine.precision.mixed_precision,
        quantization=method.quantization,
        adapter=method.adapter,
        num_trainable_parameters=method.num_trainable_parameters,
        optimizer=strategy.training_args.optim or "adamw_torch_fused",
        device=machine.kind,
        train=report.train,
        evaluation=report.eval,
        micro_batch_size=sizes.micro,
        eval_batch_size=eval_batch_size(strategy, sizes),
        gradient_checkpointing=strategy.training_args.gradient_checkpointing or False,
    )
    return work, sizes


def _batch_plan(strategy: Strategy, sizes: BatchSizes, length: RunLength) -> BatchPlan:
    return BatchPlan(
        micro_batch_size=sizes.micro,
        accumulation_steps=sizes.accumulation,
        eval_batch_size=eval_batch_size(strategy, sizes),
        steps_per_epoch=length.steps_per_epoch,
        total_steps=length.total_steps,
        num_epochs=length.num_epochs,
        shuffle=strategy.dataset.shuffle,
        num_workers=strategy.training_args.dataloader_num_workers,
    )


def _model_decisions(strategy: Strategy, source: ModelSource) -> list[Decision]:
    field, path = "base_model", "base_model.id"
    if strategy.base_model.id is None:
        lines = [Decision(field, source.name, "default", "the packaged model")]
    else:
        lines = [replace(asked(strategy, path, source.requested), field=field)]
    if source.notice:
        lines.append(notice(field, source.name, source.notice))
    for name in ("revision", "cache_dir"):
        if is_written(strategy, f"base_model.{name}"):
            lines.append(asked(strategy, f"base_model.{name}", getattr(strategy.base_model, name)))
    return lines


def _output_decision(strategy: Strategy, working_directory: Path) -> list[Decision]:
    path = "training_args.output_dir"
    if strategy.training_args.output_dir is not None:
        return [asked(strategy, path, strategy.training_args.output_dir)]
    directory = output_directory(strategy, working_directory).relative_to(working_directory)
    return [Decision(path, str(directory), "default", "named after the strategy")]


def _data_remarks(strategy: Strategy, request: DataRequest, report: DataReport) -> list[Decision]:
    """What reading the data has shown, as far as a person should not miss it."""
    lines = [warning("dataset", report.split, text) for text in report.warnings]
    if request.eval_fraction == 0 or request.eval_auto or report.eval is None:
        return lines
    rows = report.train.rows + report.eval.rows
    path = next((p for p in (_EVAL_ROWS, _EVAL_SPLIT) if is_written(strategy, p)), None)
    advised = auto_share(rows)
    if path is None:
        if advised != request.eval_fraction:
            text = f"for {count_of(rows, 'row')} the table advises `eval_split: {advised:g}`"
            lines.append(notice(_EVAL_SPLIT, request.eval_fraction, text))
        return lines
    by_number = path == _EVAL_ROWS
    share = report.eval.rows / rows if by_number else request.eval_fraction
    text = (
        f"{share:.2g} of the rows are kept for evaluation; the table advises "
        f"{tables.EVAL_FRACTION}, for {count_of(rows, 'row')} {advised:g}"
    )
    if share > tables.EVAL_FRACTION.high:
        lines.append(warning(path, share, f"{text}: these rows are not trained on"))
    elif share < tables.EVAL_FRACTION.low and not by_number:
        lines.append(notice(path, share, f"{text}: few rows make a noisy loss"))
    return lines


def _with_share(
    decisions: tuple[Decision, ...], request: DataRequest, report: DataReport
) -> list[Decision]:
    """`auto` as the share that it came to, now that the rows have been counted."""
    if not request.eval_auto:
        return list(decisions)
    rows = split_row_count(report)
    share = auto_share(rows)
    row = tables.split_row(share)
    found = (
        f"{share:.0%} of {count_of(rows, 'row')}{'' if row is None else f': row {row.use_case}'}"
    )

    def counted(decision: Decision) -> Decision:
        head, mark, _ = decision.reason.partition(": ")
        by_table = decision.source == "table" or not mark
        return replace(
            decision, value=f"{share:g}", reason=found if by_table else f"{head}: {found}"
        )

    return [
        counted(d) if d.field == _EVAL_SPLIT and d.source in ("table", "flag", "strategy") else d
        for d in decisions
    ]


def split_row_count(report: DataReport) -> int:
    """The rows that the evaluation rows were drawn from."""
    files = sum(file.rows for file in report.files if file.role == "train")
    held_out = report.eval.rows if report.eval is not None else 0
    return files or report.train.rows + held_out


def _scheduler_decision(strategy: Strategy) -> list[Decision]:
    name = strategy.training_args.lr_scheduler_type
    return [settled(strategy, "training_args.lr_scheduler_type", name)]


def _room_remarks(strategy: Strategy, outlook: Forecast) -> list[Decision]:
    """Too little disk."""
    lines = []
    if outlook.disk_bytes > outlook.disk_free_bytes:
        text = (
            f"the run directory may grow to {format_bytes(outlook.disk_bytes)} and "
            f"{format_bytes(outlook.disk_free_bytes)} are free: write a smaller save_total_limit, "
            "or an output_dir elsewhere"
        )
        limit = strategy.training_args.save_total_limit
        lines.append(warning("training_args.save_total_limit", limit, text))
    return lines


def _size_remarks(
    shape: ModelShape, method: MethodChoice, outlook: Forecast | None, memory_bytes: int = 0
) -> list[Decision]:
    """Less memory than the table asks for, for LoRA. outlook None: memory_bytes is all that is
    known; a forecast that does not fit has a warning of its own.
    """
    row = tables.size_row(shape.num_parameters)
    memory = memory_bytes if outlook is None else outlook.memory_limit_bytes
    lora = method.adapter is not None and method.quantization is None
    if not lora or (outlook is not None and outlook.memory_bytes > memory):
        return []
    have, size = f"{memory / GIB:.1f}", f"{row.billions:.3g}B parameters"
    if memory < row.min_memory_gib * GIB:
        text = (
            f"{have} GiB of memory is below the {row.min_memory_gib:.3g} GiB that the table asks "
            f"for with {size} ({row.recommended_memory_gib:.3g} GiB are recommended)"
        )
        text += "" if outlook is None else ", though the forecast fits"
        return [warning(_MEMORY, have, text)]
    if memory < row.recommended_memory_gib * GIB:
        text = (
            f"{have} GiB of memory is enough for {size}, which ask for "
            f"{row.min_memory_gib:.3g} GiB; {row.recommended_memory_gib:.3g} GiB are recommended"
        )
        return [notice(_MEMORY, have, text)]
    return []


def _runtime_decisions(strategy: Strategy) -> list[Decision]:
    args = strategy.training_args
    lines = [
        settled(strategy, f"training_args.{name}", getattr(args, name))
        for name in ("torch_compile", "dataloader_num_workers")
    ]
    return [
        *lines,
        settled(strategy, "on_nonfinite", strategy.on_nonfinite),
        settled(strategy, "stop_on_overfitting", strategy.stop_on_overfitting),
    ]
