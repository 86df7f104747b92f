"""Findings about the learning rate, and about weights that do not move."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from llamafarm.errors import count_of
from llamafarm.monitoring.diagnosis import patches
from llamafarm.monitoring.diagnosis.noise import (
    Level,
    change_between,
    first_level,
    last_level,
    surely_above,
    sureness,
)
from llamafarm.monitoring.diagnosis.observed import Observed, Stretch
from llamafarm.monitoring.events import EvalEvent, FindingEvent, SettingsEvent
from llamafarm.monitoring.formats import format_loss

# How sure a rise of the loss has to be.
_SURE = 0.99
# How sure it has to be that there is no progress.
_LIKELY = 0.9
# A loss that ends a tenth above its start did not only wander.
_RISE = 0.1
# The guide's ranges are a factor of 2 to 5 wide: what is below half of the lower end is outside.
_BELOW_GUIDE = 0.5
# Runs at the guide's rates gain 15 to 30 % of the loss in the demo; a twentieth is next to nothing.
_LITTLE_PROGRESS = 0.05
_HALF_OF_THE_RUN = 0.5
# Two evaluations of the same weights agree to rounding, some 1e-7 of the loss; a single step at the
# guide's lowest rate moves it by 1e-4.
_SAME_LOSS = 1e-5
# A gradient of that size is rounding.
_NO_GRADIENT = 1e-7
_ENOUGH_STEPS = 4
_ENOUGH_SPIKES = 3
# Twice the standard deviation is four times the variance.
_ROUGH = 2.0
_RECENT_EVENTS, _ENOUGH_TO_COMPARE = 64, 16
# The spread between fewer rows is hardly known.
_ENOUGH_ROWS = 8
# Of the absolute value of a normal variable, in standard deviations.
_UPPER_QUARTILE = 1.150


def learning_rate_too_high(observed: Observed) -> FindingEvent | None:
    """The training loss is above where it started, beyond its noise and by a tenth, and so is the
    evaluation loss where there is one; or the evaluation loss is so far above the base model's, and
    the training loss above the first one; or losses stop being numbers at a rate above the guide's.

    Source: the overview's "too high: loss spikes"; a rate that is only somewhat high recovers, and
    is not told.
    """
    settings = observed.settings
    if settings is None:
        return None
    above_guide = settings.learning_rate > settings.guide_learning_rate_high
    start, now = first_level(observed), last_level(observed)
    base, last = observed.base, observed.last_evaluation
    confidence, text = 0.0, ""
    if observed.num_nonfinite and above_guide:
        confidence = 0.9
        text = (
            f"{count_of(observed.num_nonfinite, 'time')} a loss or gradient was no number, and the "
            f"learning rate {settings.learning_rate:.1e} is above the guide's "
            f"{settings.guide_learning_rate_high:.1e}"
        )
    if start is not None and now is not None:
        rise = change_between(start, now)
        sure = sureness(rise.mean, rise.error, observed.num_events)
        worse = base is None or last is None or last.eval_loss > base.eval_loss * (1 + _RISE / 2)
        if sure > _SURE and rise.mean > _RISE * start.mean and worse:
            confidence = max(confidence, sure)
            text = (
                f"the training loss rose from {format_loss(start.mean)} to {format_loss(now.mean)} "
                f"at a learning rate of {settings.learning_rate:.1e}"
            )
        elif base and last and (harm := _harm(observed, base, last, now)):
            confidence = max(confidence, harm)
            text = (
                f"the evaluation loss rose from the base model's {format_loss(base.eval_loss)} to "
                f"{format_loss(last.eval_loss)}, and the training loss did not fall, at a learning "
                f"rate of {settings.learning_rate:.1e}"
            )
    if not text:
        return None
    numbers = {
        "learning_rate": settings.learning_rate,
        "guide_learning_rate_high": settings.guide_learning_rate_high,
        "clipped_share": _clipped_share(observed),
        "nonfinite": float(observed.num_nonfinite),
        **_losses(start, now, base, last),
    }
    rate = patches.lower_rate(settings)
    return FindingEvent(
        step=observed.last_step,
        rule="learning_rate_too_high",
        text=text,
        confidence=confidence,
        numbers=numbers,
        advice=f"learning rate {rate:.1e}, and a warm-up",
        patch={patches.RATE: rate, **patches.more_warmup(settings)},
    )


def _harm(observed: Observed, base: EvalEvent, last: EvalEvent, now: Level) -> float:
    """How sure it is that the model became worse than the base by a tenth on the evaluation rows
    without becoming better on the others, which would be overfitting. 0: it is not.
    """
    if now.mean <= observed.stretches[0].loss:
        return 0.0
    rise = last.eval_loss - base.eval_loss
    if rise <= _RISE * base.eval_loss:
        return 0.0
    if base.standard_error is None or last.standard_error is None:
        return 0.0
    error = math.hypot(base.standard_error, last.standard_error)
    return surely_above(rise, error, last.rows, len(observed.after(0)))


def learning_rate_too_low(observed: Observed) -> FindingEvent | None:
    """After half of the run the loss fell by less than 5 %, and the rate is below half of the
    guide's lowest for this model and number of rows.

    Source: the overview's "too low: no progress". Within the guide's range little progress has
    other causes: see `underfitting`.
    """
    settings = observed.settings
    if settings is None or settings.total_steps < 1:
        return None
    if observed.last_step < _HALF_OF_THE_RUN * settings.total_steps:
        return None
    lowest = settings.guide_learning_rate_low
    if settings.learning_rate >= _BELOW_GUIDE * lowest or _does_not_move(observed, settings):
        return None
    progress = _progress(observed)
    if progress is None:
        return None
    start, now, error, rows = progress
    little = _LITTLE_PROGRESS * start
    gained = start - now
    confidence = sureness(little - gained, error, rows)
    if gained >= little or confidence < _LIKELY:
        return None
    rate = patches.higher_rate(settings)
    below = f"the learning rate is 0 (the guide's lowest is {lowest:.1e})"
    if settings.learning_rate:
        below = (
            f"the learning rate {settings.learning_rate:.1e} is "
            f"{lowest / settings.learning_rate:.0f} times below the guide's lowest ({lowest:.1e})"
        )
    return FindingEvent(
        step=observed.last_step,
        rule="learning_rate_too_low",
        text=(
            f"the loss went from {format_loss(start)} to {format_loss(now)} in "
            f"{observed.last_step} steps, and {below}"
        ),
        confidence=confidence,
        numbers={
            "learning_rate": settings.learning_rate,
            "guide_learning_rate_low": lowest,
            "loss_at_start": start,
            "loss_now": now,
            "gained": gained,
        },
        advice=f"learning rate {rate:.1e}",
        patch={patches.RATE: rate},
    )


def adapter_not_learning(observed: Observed) -> FindingEvent | None:
    """After several steps the evaluation loss is that of the base model, to rounding, or the
    gradient is 0: no trained weight has any effect.

    Source: the product B A of LoRA is 0 at the start (Hu et al. 2021), so that an adapter that is
    not updated, or not in the path of the loss, leaves the base model as it is.
    """
    settings = observed.settings
    if settings is None or not _does_not_move(observed, settings):
        return None
    what = "adapter" if settings.rank else "model"
    base, last = observed.base, observed.last_evaluation
    numbers = {
        "learning_rate": settings.learning_rate,
        "trainable_parameters": float(settings.trainable_parameters),
        "grad_norm": _usual_norm(observed),
    }
    if base is not None and last is not None:
        numbers |= {"base_eval_loss": base.eval_loss, "eval_loss": last.eval_loss}
        seen = f"the evaluation loss is still the base model's ({format_loss(base.eval_loss)})"
    else:
        seen = "the gradient is 0"
    patch: dict[str, float | int | str | bool] = {}
    if settings.rank:
        patch[patches.MODULES] = "all-linear"
    if settings.learning_rate < settings.guide_learning_rate_low:
        patch[patches.RATE] = patches.guide_rate(settings)
    return FindingEvent(
        step=observed.last_step,
        rule="adapter_not_learning",
        text=f"after {observed.last_step} steps {seen}: the {what} is not learning",
        confidence=0.99,
        numbers=numbers,
        advice="see which modules are trained (method.target_modules), that they are not frozen, "
        "and that the learning rate is not 0",
        patch=patch,
    )


def unstable_loss(observed: Observed) -> FindingEvent | None:
    """At a rate above the guide's, the training loss jumps from step to step more than twice as far
    as the choice of the rows explains; or at least three steps stood out of the run's own history
    with a different row in front each time; or the evaluation loss rose and fell again twice
    outside its noise.

    What the choice of the rows explains: the spread of the loss between rows, known from the
    evaluation, over the square root of the rows of a step. Training rows may differ more than
    evaluation rows do, so that within the guide's rates this is no evidence.

    Source: the overview's "spikes and jumps: reduce learning rate, add warmup". The same row in
    front of every spike is that row's fault, and told as `spike` alone.
    """
    settings = observed.settings
    if settings is None:
        return None
    in_front = {spike.rows[0] if spike.rows else str(spike.step) for spike in observed.spikes}
    swings = _swings(observed.evaluations)
    jumps, expected = _jumps(observed, settings)
    roughness = jumps / expected if expected else 0.0
    above_guide = settings.learning_rate > settings.guide_learning_rate_high
    if above_guide and roughness > _ROUGH:
        text = (
            f"the training loss jumps by {jumps:.2f} from step to step, {roughness:.1f} times what "
            "the choice of the rows explains"
        )
        confidence = 1 - 1 / roughness**2
    elif len(in_front) >= _ENOUGH_SPIKES:
        steps = ", ".join(str(spike.step) for spike in observed.spikes[:_ENOUGH_SPIKES])
        text = f"{observed.num_spikes} steps stand out of the run's own history (steps {steps}"
        text += ", …)" if observed.num_spikes > _ENOUGH_SPIKES else ")"
        confidence = 1 - 1 / (1 + len(in_front))
    elif swings >= 2:
        text = f"the evaluation loss rose and fell again {swings} times outside its noise"
        confidence = 1 - 1 / (1 + swings**2)
    else:
        return None
    rate = patches.lower_rate(settings)
    return FindingEvent(
        step=observed.last_step,
        rule="unstable_loss",
        text=text,
        confidence=confidence,
        numbers={
            "jumps": jumps,
            "expected_jumps": expected,
            "spikes": float(observed.num_spikes),
            "rows_in_front": float(len(in_front)),
            "swings": float(swings),
            "learning_rate": settings.learning_rate,
            "warmup_steps": float(settings.warmup_steps),
        },
        advice=f"learning rate {rate:.1e}, and a longer warm-up",
        patch={patches.RATE: rate, **patches.more_warmup(settings)},
    )


def _jumps(observed: Observed, settings: SettingsEvent) -> tuple[float, float]:
    """The upper quartile of the differences between neighbouring step events, as a standard
    deviation of one of them; and the one that the choice of the rows explains. 0, 0: not known.

    A quartile, so that one row that stands out is not taken for the whole run.
    """
    recent = [s for s in observed.stretches[-_RECENT_EVENTS:] if math.isfinite(s.loss)]
    known = [e for e in observed.evaluations if e.standard_error and e.rows >= _ENOUGH_ROWS]
    if len(recent) < _ENOUGH_TO_COMPARE or not known or any(s.events > 1 for s in recent):
        return 0.0, 0.0
    differences = [abs(b.loss - a.loss) for a, b in itertools.pairwise(recent)]
    quartile = statistics.quantiles(differences, n=4)[2]
    steps = (recent[-1].step - recent[0].step) / (len(recent) - 1)
    rows = steps * settings.micro_batch_size * settings.accumulation_steps
    spread = max((e.standard_error or 0.0) * math.sqrt(e.rows) for e in known)
    return quartile / (_UPPER_QUARTILE * math.sqrt(2)), spread / math.sqrt(rows)


def _progress(observed: Observed) -> tuple[float, float, float, int] | None:
    """The loss at the start and now, the standard error of the difference, and the number of rows
    or steps that it is of. By evaluations where there are any.
    """
    base, last = observed.base, observed.last_evaluation
    if base is not None and last is not None and last.step > 0:
        lowest = min(observed.after(0), key=lambda e: e.eval_loss)
        error = lowest.change_standard_error
        return base.eval_loss, lowest.eval_loss, error or 0.0, last.rows
    start, now = first_level(observed), last_level(observed)
    if start is None or now is None:
        return None
    return start.mean, now.mean, change_between(start, now).error, observed.num_events


def moves(observed: Observed, settings: SettingsEvent) -> bool:
    """Whether training has changed anything, as far as it can be told."""
    return not _does_not_move(observed, settings)


def _does_not_move(observed: Observed, settings: SettingsEvent) -> bool:
    moved = [s for s in observed.stretches if s.learning_rate > 0]
    if sum(s.events for s in moved) < _ENOUGH_STEPS or settings.learning_rate <= 0:
        return False
    norms = [s.grad_norm for s in moved if math.isfinite(s.grad_norm)]
    if norms and max(norms) < _NO_GRADIENT:
        return True
    base, later = observed.base, _after_steps(observed, moved)
    if base is None or not later:
        return False
    return all(abs(e.eval_loss - base.eval_loss) < _SAME_LOSS * base.eval_loss for e in later)


def _after_steps(observed: Observed, moved: Sequence[Stretch]) -> tuple[EvalEvent, ...]:
    """Evaluations with enough steps before them to have made a difference."""
    return observed.after(moved[min(_ENOUGH_STEPS, len(moved)) - 1].step - 1)


def _usual_norm(observed: Observed) -> float:
    norms = sorted(s.grad_norm for s in observed.stretches if math.isfinite(s.grad_norm))
    return norms[len(norms) // 2] if norms else math.nan


def _clipped_share(observed: Observed) -> float:
    events = observed.num_events
    return sum(s.clipped for s in observed.stretches) / events if events else 0.0


def _swings(evaluations: Sequence[EvalEvent]) -> int:
    """How often the evaluation loss rose outside its noise and then fell outside it."""
    swings, risen = 0, False
    for before, after in itertools.pairwise(evaluations):
        error = after.change_standard_error
        if error is None or not math.isfinite(after.eval_loss - before.eval_loss):
            continue
        difference = after.eval_loss - before.eval_loss
        # Between neighbours the error is not told; that of the change since the best is as large.
        if sureness(abs(difference), error, after.rows) < _SURE:
            continue
        if difference > 0:
            risen = True
        elif risen:
            swings, risen = swings + 1, False
    return swings


def _losses(
    start: Level | None, now: Level | None, base: EvalEvent | None, last: EvalEvent | None
) -> dict[str, float]:
    numbers: dict[str, float] = {}
    if start is not None and now is not None:
        numbers |= {"train_loss_at_start": start.mean, "train_loss": now.mean}
    if base is not None and last is not None:
        numbers |= {"base_eval_loss": base.eval_loss, "eval_loss": last.eval_loss}
    return numbers
