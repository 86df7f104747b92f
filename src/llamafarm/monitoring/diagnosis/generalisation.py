"""Findings about other data than that trained on: what the evaluation loss says beside the training
loss.
"""

from __future__ import annotations

import math

from llamafarm.monitoring.diagnosis import patches
from llamafarm.monitoring.diagnosis.noise import (
    Level,
    change_between,
    level_of,
    surely_above,
    surely_worse,
    sureness,
)
from llamafarm.monitoring.diagnosis.observed import Observed, Stretch
from llamafarm.monitoring.events import EvalEvent, FindingEvent, SettingsEvent
from llamafarm.monitoring.formats import format_gap, format_loss

# A rise of less than 1 % is not worth a run, however sure it is.
_MATERIAL_RISE = 0.01
# The overview's bound for the gap, in nats per token.
_GUIDE_GAP = 0.5
# Of a loss that is below half of the evaluation loss the rows are known by heart: that the
# evaluation loss rose is then no surprise that would need more than an ordinary test.
_BY_HEART = 0.5
_SURE, _QUITE_SURE = 0.95, 0.99
# Of the training loss at the best evaluation: what climbs further is not learning the rows.
_CLIMB = 0.1
# An epoch is the unit in which a person would have stopped earlier.
_WASTED_EPOCHS = 1.0
# exp(0.3) = 1.35: three of four tokens are certain. Text that was not seen before leaves more open.
_LOW_LOSS = 0.3
# A base model that is so sure of the answers has seen them, or is asked for tokens of the template.
_LOW_BASE_LOSS = 0.15


def overfitting(observed: Observed) -> FindingEvent | None:
    """The evaluation loss turned, or the gap to the training loss opened.

    Turned: above its best value by 1 % and outside the noise band of a paired comparison, twice in
    a row or at the end, while the training loss did not rise. Opened: the gap is above the
    overview's 0.5 nats, has grown by as much outside its noise, and the evaluation loss no longer
    falls. The noise band is one in a thousand for a whole run; where the training loss is below
    half of the evaluation loss, one in a hundred for a single comparison.

    Sources: the overview's "eval loss increases" and "gap indicates overfitting".
    """
    settings, best, last = observed.settings, observed.best, observed.last_evaluation
    if settings is None or best is None or last is None or last.step <= best.step:
        return None
    trained, before = _train_up_to(observed, last), _train_up_to(observed, best)
    if trained is None or before is None or trained.mean > before.mean:
        return None
    later = observed.after(best.step)
    since = [level.mean for e in later if (level := _train_up_to(observed, e)) is not None]
    if trained.mean > min(since) + _CLIMB * before.mean:
        return None
    opening = _opening(observed, last)
    gap = last.eval_loss - trained.mean
    evaluations = len(observed.after(0))
    by_heart = trained.mean < _BY_HEART * last.eval_loss
    sure = surely_worse(last, evaluations)
    if by_heart and _worse(last) > _QUITE_SURE:
        sure = _worse(last)
    rise = last.eval_loss - best.eval_loss
    turned = sure and rise > _MATERIAL_RISE * best.eval_loss
    confirmed = observed.completed or (len(later) > 1 and later[-2].eval_loss > best.eval_loss)
    confidence, text = 0.0, ""
    if turned and confirmed:
        confidence = sure
        text = (
            f"the eval loss rose from {format_loss(best.eval_loss)} at step {best.step} to "
            f"{format_loss(last.eval_loss)} while the training loss went to "
            f"{format_loss(trained.mean)}"
        )
    elif opening is not None and gap > _GUIDE_GAP and rise > 0:
        beyond = opening.mean - _GUIDE_GAP
        confidence = surely_above(beyond, opening.error, last.rows, evaluations)
        if by_heart and sureness(beyond, opening.error, last.rows) > _QUITE_SURE:
            confidence = sureness(beyond, opening.error, last.rows)
        if confidence:
            text = (
                f"the gap between eval and training loss opened to {format_gap(gap)} (above "
                f"{_GUIDE_GAP}), and the eval loss no longer falls"
            )
    if not text:
        return None
    return FindingEvent(
        step=last.step,
        rule="overfitting",
        text=text,
        confidence=confidence,
        numbers={
            "best_step": float(best.step),
            "best_eval_loss": best.eval_loss,
            "eval_loss": last.eval_loss,
            "rise": rise,
            "rise_standard_error": _number(last.change_standard_error),
            "train_loss": trained.mean,
            "gap": gap,
            "eval_rows": float(last.rows),
        },
        advice=f"stop at step {best.step}"
        + (", add dropout" if settings.rank else "")
        + ", or bring more rows",
        patch={**patches.ends_after(settings, best.step), **patches.more_dropout(settings)},
    )


def wasted_epochs(observed: Observed) -> FindingEvent | None:
    """At the end of a run that was not stopped early: at least one whole epoch after the best
    evaluation, and the last one is worse outside its noise.

    Source: the overview's "ignore overfitting signs" and "reduce epochs".
    """
    settings, best, last = observed.settings, observed.best, observed.last_evaluation
    if settings is None or best is None or last is None:
        return None
    if not observed.completed or observed.stopped_early:
        return None
    epochs = last.epoch - best.epoch
    if epochs < _WASTED_EPOCHS or _worse(last) < _SURE:
        return None
    share = epochs / last.epoch
    return FindingEvent(
        step=last.step,
        rule="wasted_epochs",
        text=(
            f"the best step is {best.step}, after {best.epoch:.1f} of {last.epoch:.1f} epochs: the "
            f"{epochs:.1f} after it ({100 * share:.0f} % of the run) brought nothing"
        ),
        confidence=_worse(last),
        numbers={
            "best_step": float(best.step),
            "best_epoch": best.epoch,
            "epochs": last.epoch,
            "epochs_after_best": epochs,
            "best_eval_loss": best.eval_loss,
            "eval_loss": last.eval_loss,
        },
        advice=f"end after step {best.step}, or let early stopping end the run",
        patch={
            **patches.ends_after(settings, best.step),
            **({} if settings.patience else {patches.PATIENCE: 3}),
        },
    )


def suspiciously_low_loss(observed: Observed) -> FindingEvent | None:
    """The base model is already sure of the answers, or the rows were learnt by heart and the
    evaluation loss fell with the training loss: below 0.3 nats per token, and less than half of
    what the training loss was in the first pass, over rows that nobody had seen.

    In its first epoch a run meets every row for the first time, so that its training loss there is
    a loss on unseen rows. An evaluation loss far below that says that its rows were seen.
    """
    settings, base, last = observed.settings, observed.base, observed.last_evaluation
    if settings is None:
        return None
    if base is not None and base.eval_loss < _LOW_BASE_LOSS:
        return _low(
            observed,
            f"the base model's eval loss is {format_loss(base.eval_loss)} before any training",
            "see which tokens are trained on (the mask), and whether the answers stand in the "
            "questions",
            {"base_eval_loss": base.eval_loss},
            sureness(_LOW_BASE_LOSS - base.eval_loss, _number(base.standard_error), base.rows),
        )
    if last is None or last.step == 0 or last.epoch <= 1:
        return None
    fresh = level_of(_late_first_epoch(observed))
    trained = _train_up_to(observed, last)
    if fresh is None or trained is None or last.eval_loss >= _LOW_LOSS:
        return None
    if last.eval_loss >= fresh.mean / 2 or last.eval_loss > 2 * trained.mean:
        return None
    return _low(
        observed,
        f"the eval loss is {format_loss(last.eval_loss)}, while rows that were met for the first "
        f"time had {format_loss(fresh.mean)}",
        "see whether evaluation rows stand in the training data (`inspect` lists them)",
        {"eval_loss": last.eval_loss, "first_pass_loss": fresh.mean, "train_loss": trained.mean},
        sureness(
            fresh.mean / 2 - last.eval_loss,
            math.hypot(fresh.error / 2, _number(last.standard_error)),
            last.rows,
        ),
    )


def _low(
    observed: Observed, text: str, advice: str, numbers: dict[str, float], confidence: float
) -> FindingEvent:
    return FindingEvent(
        step=observed.last_step,
        rule="suspiciously_low_loss",
        text=text,
        confidence=confidence,
        numbers=numbers,
        advice=advice,
        patch={"dataset.allow_leakage": False},
    )


def _train_level(observed: Observed, first: int, last: int) -> Level | None:
    return level_of(observed.between(first, last))


def _train_up_to(observed: Observed, evaluation: EvalEvent) -> Level | None:
    """The training loss since the evaluation before this one; a tenth of the run where that is
    less.
    """
    settings = observed.settings
    earlier = [e.step for e in observed.evaluations if e.step < evaluation.step]
    least = _tenth(settings) if settings else 0
    since = min(max(earlier, default=0), evaluation.step - least)
    return _train_level(observed, since, evaluation.step)


def _tenth(settings: SettingsEvent) -> int:
    return max(3, settings.total_steps // 10)


def _opening(observed: Observed, last: EvalEvent) -> Level | None:
    """How much the gap grew since the start: what makes the evaluation rows easier or harder than
    the others is in both. Of the evaluation's error the paired one is known, since the best.
    """
    first = observed.base or next(iter(observed.after(0)), None)
    settings = observed.settings
    if first is None or first is last or settings is None:
        return None
    now = _train_up_to(observed, last)
    then = (
        level_of(observed.between(0, _tenth(settings)))
        if first.step == 0
        else _train_up_to(observed, first)
    )
    if now is None or then is None:
        return None
    fall = change_between(now, then)
    error = math.inf if last.change_standard_error is None else last.change_standard_error
    return Level(last.eval_loss - first.eval_loss + fall.mean, math.hypot(fall.error, error))


def _late_first_epoch(observed: Observed) -> tuple[Stretch, ...]:
    return tuple(s for s in observed.stretches if 0.5 <= s.epoch <= 1 and math.isfinite(s.loss))


def _worse(last: EvalEvent) -> float:
    """How sure it is that an evaluation is worse than the best one."""
    if last.change is None or last.change_standard_error is None:
        return 0.0
    return sureness(last.change, last.change_standard_error, last.rows)


def _number(value: float | None) -> float:
    return 0.0 if value is None else value
