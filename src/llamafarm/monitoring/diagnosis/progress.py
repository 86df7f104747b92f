"""Findings about a loss that should have fallen further."""

from __future__ import annotations

from llamafarm.monitoring.diagnosis import patches
from llamafarm.monitoring.diagnosis.learning import moves
from llamafarm.monitoring.diagnosis.noise import (
    Level,
    change_between,
    first_level,
    last_level,
    level_of,
    sureness,
)
from llamafarm.monitoring.diagnosis.observed import Observed
from llamafarm.monitoring.events import EvalEvent, FindingEvent, SettingsEvent
from llamafarm.monitoring.formats import format_loss

# Sound runs of the demo gain 15 to 30 % of the base model's loss.
_LITTLE_GAIN = 0.1
# Below 1 nat per token most of a text is certain already: there is little to gain.
_HIGH_LOSS = 1.0
_BELOW_GUIDE = 0.5
# A third of the run without progress.
_PLATEAU_SHARE = 1 / 3
_PLATEAU_EVALUATIONS = 2
# A fall of 2 % in a third of a run is still worth having.
_WORTH_SHARE = 0.02
_SURE = 0.9
# A schedule that has come down to a third of its peak ends the progress by itself.
_LATE_RATE = 1 / 3


def underfitting(observed: Observed) -> FindingEvent | None:
    """At the end both losses are still high: the evaluation loss is above 1 nat per token and less
    than a tenth below the base model's, and the training loss did not fall away from it, at a rate
    that is not too low.

    Source: the overview's "high train & eval loss: increase epochs, LR, or rank".
    """
    settings, base = observed.settings, observed.base
    later = observed.after(0)
    if settings is None or base is None or not later or not observed.completed:
        return None
    if settings.learning_rate < _BELOW_GUIDE * settings.guide_learning_rate_low:
        return None
    lowest = min(later, key=lambda e: e.eval_loss)
    gained, little = base.eval_loss - lowest.eval_loss, _LITTLE_GAIN * base.eval_loss
    # What moved nothing, or did harm, has another name.
    if lowest.eval_loss < _HIGH_LOSS or not 0 < gained < little or not moves(observed, settings):
        return None
    start, now = first_level(observed), last_level(observed)
    if start is None or now is None:
        return None
    fell = change_between(now, start)
    if fell.mean - 2 * fell.error > gained + little:
        return None
    confidence = sureness(little - gained, lowest.change_standard_error or 0.0, lowest.rows)
    if confidence < _SURE:
        return None
    patch = {
        **patches.more_epochs(settings),
        **patches.more_rank(settings),
        **_toward_guide(settings),
    }
    return FindingEvent(
        step=observed.last_step,
        rule="underfitting",
        text=(
            f"both losses are still high: eval {format_loss(lowest.eval_loss)} (base "
            f"{format_loss(base.eval_loss)}), training {format_loss(now.mean)} (at first "
            f"{format_loss(start.mean)})"
        ),
        confidence=confidence,
        numbers={
            "base_eval_loss": base.eval_loss,
            "eval_loss": lowest.eval_loss,
            "gained": gained,
            "train_loss_at_start": start.mean,
            "train_loss": now.mean,
            "perplexity": lowest.perplexity,
            "epochs": settings.num_epochs,
            "rank": float(settings.rank),
        },
        advice="more epochs, a higher rank, or a higher learning rate",
        patch=patch,
    )


def plateau(observed: Observed) -> FindingEvent | None:
    """For a third of the run and at least two evaluations the evaluation loss surely fell by less
    than 2 %, after it had fallen before; the training loss stands too, and the learning rate was
    above a third of its peak.

    Source: torch's ReduceLROnPlateau has the same idea with a fixed count and no noise.
    """
    settings, last = observed.settings, observed.last_evaluation
    if settings is None or last is None or observed.base is None:
        return None
    span = _PLATEAU_SHARE * settings.total_steps
    reference = max(
        (e for e in observed.evaluations if e.step <= last.step - span),
        key=lambda e: e.step,
        default=None,
    )
    if reference is None or reference.step == 0:
        return None
    later = observed.after(reference.step)
    if len(later) < _PLATEAU_EVALUATIONS:
        return None
    since = observed.between(reference.step, last.step)
    rates = [s.learning_rate for s in since]
    if not rates or min(rates) < _LATE_RATE * settings.learning_rate:
        return None
    gained_before = observed.base.eval_loss - reference.eval_loss
    lowest = min(later, key=lambda e: e.eval_loss)
    gained = reference.eval_loss - lowest.eval_loss
    error = max((e.change_standard_error or 0.0 for e in later), default=0.0)
    worth = _WORTH_SHARE * reference.eval_loss
    confidence = sureness(worth - gained, error, last.rows)
    if gained >= worth or confidence < _SURE or gained_before < worth:
        return None
    train_before, train_now = _halves(observed, reference, last)
    if train_before is None or train_now is None:
        return None
    fall = change_between(train_now, train_before)
    rose = last.eval_loss - min(lowest.eval_loss, reference.eval_loss)
    if fall.mean > max(worth, 2 * fall.error) or rose >= worth:
        return None
    return FindingEvent(
        step=last.step,
        rule="plateau",
        text=(
            f"the eval loss has stayed at {format_loss(reference.eval_loss)} since step "
            f"{reference.step} ({format_loss(last.eval_loss)} now), at a learning rate of "
            f"{rates[-1]:.1e}"
        ),
        confidence=confidence,
        numbers={
            "since_step": float(reference.step),
            "eval_loss_then": reference.eval_loss,
            "eval_loss": last.eval_loss,
            "gained": gained,
            "gained_before": gained_before,
            "noise": error,
        },
        advice="what this setting can learn is learnt: end here, or raise the rank",
        patch=patches.more_rank(settings) or patches.ends_after(settings, reference.step),
    )


def _toward_guide(settings: SettingsEvent) -> patches.Patch:
    """The guide's highest rate, where the run was below it."""
    highest = settings.guide_learning_rate_high
    return {patches.RATE: highest} if settings.learning_rate < highest else {}


def _halves(
    observed: Observed, reference: EvalEvent, last: EvalEvent
) -> tuple[Level | None, Level | None]:
    middle = (reference.step + last.step) // 2
    return (
        level_of(observed.between(reference.step, middle)),
        level_of(observed.between(middle, last.step)),
    )
