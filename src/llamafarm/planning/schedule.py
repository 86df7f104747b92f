"""What happens at which step: warm-up, evaluations, resume points, log lines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from llamafarm.decision import Decision
from llamafarm.errors import count_of
from llamafarm.planning import tables
from llamafarm.planning.batch import RunLength
from llamafarm.planning.explain import (
    asked,
    is_written,
    notice,
    settled,
    shown,
    warning,
    whereabouts,
)
from llamafarm.planning.metrics import BestMetric, answer_metrics, best_metric, metric_decisions
from llamafarm.planning.plan import EvaluationPlan, Every, LoggingPlan, SavingPlan
from llamafarm.strategy.model import Strategy

EVALUATIONS_PER_RUN = 10
SHORT_RUN_STEPS = 200
_WARMUP = "training_args.warmup_steps"


@dataclass(frozen=True, slots=True)
class Warmup:
    """Optimizer steps until the learning rate has reached its peak."""

    steps: int
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class Schedules:
    """Evaluation, saving and logging."""

    evaluation: EvaluationPlan
    saving: SavingPlan
    logging: LoggingPlan
    decisions: tuple[Decision, ...]


def choose_warmup(strategy: Strategy, length: RunLength, num_rows: int) -> Warmup:
    """As written (below 1 a fraction of the run), else the table's fraction."""
    args = strategy.training_args
    written, total = args.warmup_steps, length.total_steps
    if args.lr_scheduler_type == "constant":
        return _no_warmup(strategy)
    if written is None:
        row = tables.data_row(num_rows)
        steps = math.ceil(row.warmup_fraction * total)
        examples = count_of(num_rows, "training example")
        share = f"{row.warmup_fraction:.0%} of {count_of(total, 'step')}"
        reason = f"{share}; {examples}: row {row.name}"
        return Warmup(steps, (Decision(_WARMUP, str(steps), "table", reason),))
    steps = _in_steps(written, total)
    note = f"{written:.3g} of {count_of(total, 'step')}" if 0 < written < 1 else ""
    decisions = [asked(strategy, _WARMUP, steps, note)]
    if steps >= total:
        text = (
            f"warmup_steps={steps} is not shorter than the {count_of(total, 'step')} of this run: "
            "the learning rate never reaches its peak"
        )
        decisions.append(warning(_WARMUP, steps, text))
    else:
        decisions += _unusual_warmup(steps, total, num_rows)
    return Warmup(steps, tuple(decisions))


def _unusual_warmup(steps: int, total: int, num_rows: int) -> list[Decision]:
    """Rounded in favour of what was written: a short run has no exact shares."""
    usual, row = tables.warmup_range(num_rows), tables.data_row(num_rows)
    advice = (
        f"warmup_steps={steps} is {steps / total:.3g} of the {count_of(total, 'step')} of this "
        f"run; the table advises {row.warmup_fraction:g} for "
        f"{count_of(num_rows, 'training example')}"
    )
    if steps > math.ceil(usual.high * total):
        return [warning(_WARMUP, steps, f"{advice}: most of the run is below the peak rate")]
    if steps < math.floor(usual.low * total):
        return [notice(_WARMUP, steps, f"{advice}: the first steps may be unstable")]
    return []


def choose_schedules(strategy: Strategy, length: RunLength, *, has_eval_rows: bool) -> Schedules:
    """has_eval_rows: whether there is anything to evaluate on."""
    evaluation, evaluation_decisions = _evaluation(strategy, length, has_eval_rows)
    saving, saving_decisions = _saving(strategy, length, evaluation)
    logging, logging_decisions = _logging(strategy, length)
    decisions = (*evaluation_decisions, *saving_decisions, *logging_decisions)
    return Schedules(evaluation, saving, logging, decisions)


def _no_warmup(strategy: Strategy) -> Warmup:
    reason = "the constant schedule has none"
    decisions = [Decision(_WARMUP, "0", "default", reason)]
    if strategy.training_args.warmup_steps:
        text = (
            f"{whereabouts(strategy, _WARMUP)} has no effect: {reason}; "
            "constant_with_warmup has one"
        )
        decisions.append(warning(_WARMUP, 0, text))
    return Warmup(0, tuple(decisions))


def _in_steps(value: float, total_steps: int) -> int:
    """Below 1 a fraction of the run, rounded up as transformers does."""
    return math.ceil(value * total_steps) if value < 1 else int(value)


def _evaluation(
    strategy: Strategy, length: RunLength, has_eval_rows: bool
) -> tuple[EvaluationPlan, list[Decision]]:
    args = strategy.training_args
    best = best_metric(strategy) or BestMetric("eval_loss", False)
    metric = best.name
    if args.eval_strategy == "no" or not has_eval_rows:
        plan = EvaluationPlan(
            enabled=False,
            on_start=False,
            every=Every(0),
            metric=metric,
            greater_is_better=bool(best.greater_is_better),
            load_best=False,
            patience=0,
            threshold=args.early_stopping_threshold,
        )
        without = metric_decisions(strategy, evaluations=0)
        return plan, [*_without_evaluation(strategy), *without]
    every, decisions = _eval_every(strategy, length)
    greater, greater_decisions = _greater_is_better(strategy, metric, best.greater_is_better)
    during = sum(every.due(step) for step in range(1, length.total_steps))
    measured = metric_decisions(strategy, evaluations=during + 1 + args.eval_on_start)
    plan = EvaluationPlan(
        enabled=True,
        on_start=args.eval_on_start,
        every=every,
        metric=metric,
        greater_is_better=greater,
        load_best=args.load_best_model_at_end,
        patience=args.early_stopping_patience,
        threshold=args.early_stopping_threshold,
        answer_metrics=answer_metrics(strategy),
    )
    names = ("eval_on_start", "load_best_model_at_end")
    stopping = ("early_stopping_patience", "early_stopping_threshold")
    return plan, [
        *decisions,
        *(settled(strategy, f"training_args.{n}", getattr(args, n)) for n in names),
        settled(strategy, "training_args.metric_for_best_model", metric),
        *greater_decisions,
        *measured,
        *(settled(strategy, f"training_args.{n}", getattr(args, n)) for n in stopping),
    ]


def _without_evaluation(strategy: Strategy) -> list[Decision]:
    """What goes with it, named: a written setting that cannot take effect too."""
    path = "training_args.eval_strategy"
    text = (
        "without evaluation there is no best step and no early stopping: "
        "final_model is the last step"
    )
    names = (
        "eval_steps",
        "eval_delay",
        "eval_on_start",
        "per_device_eval_batch_size",
        "load_best_model_at_end",
        "metric_for_best_model",
        "greater_is_better",
        "early_stopping_patience",
        "early_stopping_threshold",
    )
    written = [n for n in names if is_written(strategy, f"training_args.{n}")]
    if written:
        text += f"; no effect: {', '.join(written)}"
    return [settled(strategy, path, "no"), warning(path, "no", text)]


def _eval_every(strategy: Strategy, length: RunLength) -> tuple[Every, list[Decision]]:
    args = strategy.training_args
    path = "training_args.eval_steps"
    decisions = [settled(strategy, "training_args.eval_strategy", args.eval_strategy)]
    per_epoch, total = length.steps_per_epoch, length.total_steps
    if args.eval_strategy == "epoch":
        steps, delay = per_epoch, math.ceil(args.eval_delay * per_epoch)
        reason = f"an epoch has {count_of(per_epoch, 'step')}"
        decisions.append(Decision(path, str(steps), "detected", reason))
        if args.eval_steps is not None:
            text = f"{whereabouts(strategy, path)} has no effect: eval_strategy is epoch"
            decisions.append(warning(path, args.eval_steps, text))
    else:
        delay = math.ceil(args.eval_delay)
        steps, step_decisions = _step_interval(strategy, "eval_steps", total)
        decisions += step_decisions
    if args.eval_delay:
        decisions.append(asked(strategy, "training_args.eval_delay", args.eval_delay))
    # `Every` counts from after its delay; transformers evaluates at the step of the delay itself.
    return Every(steps, max(0, delay - 1)), decisions


def _step_interval(
    strategy: Strategy, name: Literal["eval_steps", "save_steps"], total: int
) -> tuple[int, list[Decision]]:
    """Every so many steps: as written, else ten times a run."""
    path = f"training_args.{name}"
    written: float | None = getattr(strategy.training_args, name)
    if written is None:
        steps = max(1, math.ceil(total / EVALUATIONS_PER_RUN))
        reason = f"about {EVALUATIONS_PER_RUN} in the {count_of(total, 'step')} of this run"
        return steps, [Decision(path, str(steps), "default", reason)]
    steps = _in_steps(written, total)
    note = f"{written:.3g} of {count_of(total, 'step')}" if written < 1 else ""
    decisions = [asked(strategy, path, steps, note)]
    if steps > total:
        decisions.append(warning(path, steps, _beyond_the_run(name, steps, total)))
    return steps, decisions


def _beyond_the_run(name: str, steps: int, total: int) -> str:
    beyond = f"{name}={steps} exceeds the {count_of(total, 'step')} of this run: "
    if name == "eval_steps":
        return beyond + "only the base model and the last step are evaluated"
    return beyond + "there is no resume point before the end unless it is interrupted"


def _greater_is_better(
    strategy: Strategy, metric: str, by_metric: bool | None
) -> tuple[bool, list[Decision]]:
    path = "training_args.greater_is_better"
    written = strategy.training_args.greater_is_better
    if written is None:
        by_metric = bool(by_metric)
        reason = f"{metric} is better when it is {'greater' if by_metric else 'smaller'}"
        return by_metric, [Decision(path, shown(by_metric), "default", reason)]
    decisions = [asked(strategy, path, written)]
    if by_metric is not None and written != by_metric:
        text = f"greater_is_better={shown(written)} keeps the worst step: {metric} is the opposite"
        decisions.append(warning(path, written, text))
    return written, decisions


def _saving(
    strategy: Strategy, length: RunLength, evaluation: EvaluationPlan
) -> tuple[SavingPlan, list[Decision]]:
    args = strategy.training_args
    limit = settled(strategy, "training_args.save_total_limit", args.save_total_limit)
    every, decisions = _save_every(strategy, length, evaluation)
    return SavingPlan(every, args.save_total_limit), [*decisions, limit]


def _save_every(
    strategy: Strategy, length: RunLength, evaluation: EvaluationPlan
) -> tuple[Every, list[Decision]]:
    args = strategy.training_args
    path, steps_path = "training_args.save_strategy", "training_args.save_steps"
    how = args.save_strategy
    if not strategy.monitoring.save_checkpoints:
        off = asked(strategy, "monitoring.save_checkpoints", False, "the best step is still kept")
        return Every(0), [off, *_unused_save_settings(strategy, "save_checkpoints is false")]
    if how in ("no", "best"):
        decision = asked(strategy, path, how, "the best step is kept, and no resume points")
        return Every(0), [decision, *_unused_save_steps(strategy, f"save_strategy is {how}")]
    if how == "epoch":
        decision = asked(strategy, path, how, count_of(length.steps_per_epoch, "step"))
        unused = _unused_save_steps(strategy, "save_strategy is epoch")
        return Every(length.steps_per_epoch), [decision, *unused]
    decisions = [asked(strategy, path, how)] if how is not None else []
    if args.save_steps is None and evaluation.enabled:
        steps = evaluation.every.steps
        decisions.append(Decision(steps_path, str(steps), "default", "with the evaluations"))
        return Every(steps), decisions
    steps, step_decisions = _step_interval(strategy, "save_steps", length.total_steps)
    return Every(steps), [*decisions, *step_decisions]


def _unused_save_steps(strategy: Strategy, why: str) -> list[Decision]:
    return _unused(strategy, ("training_args.save_steps",), why)


def _unused_save_settings(strategy: Strategy, why: str) -> list[Decision]:
    return _unused(strategy, ("training_args.save_strategy", "training_args.save_steps"), why)


def _unused(strategy: Strategy, paths: tuple[str, ...], why: str) -> list[Decision]:
    return [
        warning(path, "no", f"{whereabouts(strategy, path)} has no effect: {why}")
        for path in paths
        if is_written(strategy, path)
    ]


def _logging(strategy: Strategy, length: RunLength) -> tuple[LoggingPlan, list[Decision]]:
    args = strategy.training_args
    path = "training_args.logging_steps"
    if args.logging_steps is None:
        short = length.total_steps < SHORT_RUN_STEPS
        steps = 1 if short else 10
        reason = f"the run has {'under' if short else 'at least'} {SHORT_RUN_STEPS} steps"
        decision = Decision(path, str(steps), "default", reason)
    else:
        steps = _in_steps(args.logging_steps, length.total_steps)
        decision = asked(strategy, path, steps)
    report_to = _reported_to(strategy)
    name = args.run_name or strategy.id
    plan = LoggingPlan(Every(steps), args.logging_first_step, report_to, name)
    decisions = [
        decision,
        settled(strategy, "training_args.logging_first_step", args.logging_first_step),
    ]
    decisions += [
        asked(strategy, path, value)
        for path, value in (
            ("training_args.report_to", ", ".join(args.report_to)),
            ("monitoring.log_tensorboard", strategy.monitoring.log_tensorboard),
            ("monitoring.use_wandb", strategy.monitoring.use_wandb),
        )
        if value
    ]
    if args.run_name is not None:
        decisions.append(asked(strategy, "training_args.run_name", name))
    return plan, decisions


def _reported_to(strategy: Strategy) -> tuple[str, ...]:
    """By the list, and by the switches of `monitoring`; each once."""
    switched = {
        "tensorboard": strategy.monitoring.log_tensorboard,
        "wandb": strategy.monitoring.use_wandb,
    }
    listed = strategy.training_args.report_to
    return (*listed, *(name for name, on in switched.items() if on and name not in listed))
