"""Learning rate, update rule and their settings."""

from __future__ import annotations

from dataclasses import dataclass

from llamafarm.decision import Decision
from llamafarm.errors import StrategyError, count_of
from llamafarm.models.shape import ModelShape
from llamafarm.planning import tables
from llamafarm.planning.explain import (
    asked,
    is_written,
    notice,
    problem,
    settled,
    shown,
    warning,
)
from llamafarm.planning.llamafactory import learns_from_pairs
from llamafarm.planning.plan import OptimizerPlan
from llamafarm.strategy.model import Strategy

_RATE = "training_args.learning_rate"
# transformers' default end of the polynomial schedule.
_POLYNOMIAL_END = 1e-7


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The peak learning rate and its decisions."""

    value: float
    decisions: tuple[Decision, ...]


def choose_learning_rate(strategy: Strategy, shape: ModelShape, num_rows: int) -> LearningRate:
    """As written, else by the table; a warning where a written one lies outside it.

    Where the row was adapted to the model or the method, a little outside is only noticed.
    """
    if learns_from_pairs(strategy):
        return _rate_for_pairs(strategy)
    full = strategy.method.trains_base
    advised = tables.learning_rate_range(num_rows, shape.num_parameters, full_finetune=full)
    examples = count_of(num_rows, "training example")
    row = tables.data_row(num_rows).name
    why = f"{examples}: row {row}{_adaptation(shape.num_parameters, full)}"
    written = strategy.training_args.learning_rate
    if written is None:
        rate = tables.default_learning_rate(num_rows, shape.num_parameters, full_finetune=full)
        return LearningRate(rate, (Decision(_RATE, shown(rate), "table", why),))
    decisions = [asked(strategy, _RATE, written)]
    if written not in advised:
        text = f"learning_rate={shown(written)} is {_outside(written, advised)} ({why})"
        adapted = full or tables.size_factor(shape.num_parameters) > 1
        little = advised.low / 2 <= written <= 2 * advised.high
        remark = notice if adapted and little else warning
        decisions.append(remark(_RATE, written, text))
    return LearningRate(written, tuple(decisions))


def _rate_for_pairs(strategy: Strategy) -> LearningRate:
    """The difference of two answers is learnt with a far smaller rate, whatever the model."""
    advised, why = tables.PAIRS_LEARNING_RATE, "stage: dpo, rows with two answers"
    written = strategy.training_args.learning_rate
    if written is None:
        full = strategy.method.trains_base
        rate = tables.PAIRS_DEFAULT_RATE_FULL if full else tables.PAIRS_DEFAULT_RATE
        return LearningRate(rate, (Decision(_RATE, shown(rate), "table", why),))
    decisions = [asked(strategy, _RATE, written)]
    if written not in advised:
        text = f"learning_rate={shown(written)} is {_outside(written, advised)} ({why})"
        decisions.append(warning(_RATE, written, text))
    return LearningRate(written, tuple(decisions))


def _outside(rate: float, advised: tables.Range) -> str:
    if not rate:
        return f"where the table advises {advised}: nothing is learnt"
    if rate > 2 * advised.high:
        return f"more than twice what the table advises, {advised}: the loss may jump or diverge"
    if rate < advised.low / 2:
        return f"less than half of what the table advises, {advised}: little may be learnt"
    side = "above" if rate > advised.high else "below"
    return f"{side} what the table advises, {advised}"


def choose_optimizer(strategy: Strategy, rate: LearningRate, warmup_steps: int) -> OptimizerPlan:
    """The update rule with its settings; they are the strategy's own."""
    args = strategy.training_args
    _check_polynomial(strategy, rate.value)
    return OptimizerPlan(
        name=args.optim or "adamw_torch_fused",
        learning_rate=rate.value,
        weight_decay=args.weight_decay,
        adam_beta1=args.adam_beta1,
        adam_beta2=args.adam_beta2,
        adam_epsilon=args.adam_epsilon,
        max_grad_norm=args.max_grad_norm,
        scheduler=args.lr_scheduler_type,
        scheduler_kwargs=dict(args.lr_scheduler_kwargs),
        warmup_steps=warmup_steps,
        label_smoothing=args.label_smoothing_factor,
        neftune_noise_alpha=args.neftune_noise_alpha,
    )


def optimizer_decisions(strategy: Strategy) -> list[Decision]:
    """Everything but the learning rate and the warm-up."""
    args = strategy.training_args
    path = "training_args.optim"
    name = (
        Decision(path, "adamw_torch_fused", "default", "AdamW in one kernel for each tensor")
        if args.optim is None
        else asked(strategy, path, args.optim)
    )
    constant = (
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_grad_norm",
        "label_smoothing_factor",
    )
    optional = ("lr_scheduler_kwargs", "neftune_noise_alpha")
    return [
        name,
        *(settled(strategy, f"training_args.{n}", getattr(args, n)) for n in constant),
        *(
            asked(strategy, f"training_args.{n}", getattr(args, n))
            for n in optional
            if is_written(strategy, f"training_args.{n}")
        ),
        *_unusual_weight_decay(args.weight_decay),
        *_unused_adam_settings(strategy),
    ]


def _unusual_weight_decay(decay: float) -> list[Decision]:
    if decay in tables.WEIGHT_DECAY:
        return []
    text = f"weight_decay={shown(decay)} is above the usual {tables.WEIGHT_DECAY}"
    return [warning("training_args.weight_decay", decay, f"{text}: what is learnt fades again")]


def _unused_adam_settings(strategy: Strategy) -> list[Decision]:
    """Adam's own settings beside an optimizer that is not Adam."""
    args = strategy.training_args
    if args.optim not in ("adafactor", "sgd"):
        return []
    paths = [f"training_args.{name}" for name in ("adam_beta1", "adam_beta2", "adam_epsilon")]
    return [
        warning(path, args.optim, f"{path} has no effect: {args.optim} is not Adam")
        for path in paths
        if is_written(strategy, path)
    ]


def _adaptation(num_parameters: int, full_finetune: bool) -> str:
    """What the table's rate was changed by for this model and method, and on which evidence."""
    texts = []
    factor = tables.size_factor(num_parameters)
    if factor > 1:
        texts.append(
            f"x {factor:.2g} for {num_parameters / tables.BILLION:.3g}B parameters, at most "
            f"{tables.MEASURED_RATE:g} (measured at 135M: eval loss from 2.23 to 2.20 with "
            "5e-5, to 1.84 with 1e-3)"
        )
    if full_finetune:
        texts.append(f"/ {tables.FULL_FINETUNE_DIVISOR:g} for full fine-tuning, against LoRA")
    return "".join(f"; {text}" for text in texts)


def _check_polynomial(strategy: Strategy, rate: float) -> None:
    args = strategy.training_args
    end = args.lr_scheduler_kwargs.get("lr_end", _POLYNOMIAL_END)
    if args.lr_scheduler_type != "polynomial" or not isinstance(end, int | float) or end < rate:
        return
    path = "training_args.lr_scheduler_kwargs"
    message = f"lr_end must be below the learning rate {rate:g} (got {end:g})"
    raise StrategyError(
        "the polynomial schedule cannot rise",
        [problem(strategy, path, message, "write a smaller lr_end")],
    )
