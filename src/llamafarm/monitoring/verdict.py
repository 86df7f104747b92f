"""What became of a run, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llamafarm.monitoring.formats import format_perplexity

if TYPE_CHECKING:
    from llamafarm.monitoring.summary import RunSummary

# The overview's bounds: under 50 is good, above 100 is a problem.
_HIGH_PERPLEXITY = 100.0

# The first that was found decides: what makes the numbers worthless comes before what explains
# them.
_VERDICTS: Mapping[str, str] = {
    "suspiciously_low_loss": "too good to be true: the evaluation rows may have been trained on",
    "learning_rate_too_high": "diverged: the learning rate is too high",
    "adapter_not_learning": "not learning: the trained weights have no effect",
    "overfitting": "overfitting",
    "learning_rate_too_low": "hardly learning: the learning rate is too low",
    "underfitting": "underfitting: it could learn more than it did",
    "unstable_loss": "unstable: the loss jumps",
    "plateau": "plateau: the loss no longer falls",
}


def verdict(summary: RunSummary) -> str:
    """`improving: the eval loss was lowest at the last step`."""
    found = {finding.rule: finding for finding in reversed(summary.findings)}
    rule = next((rule for rule in _VERDICTS if rule in found), "")
    if rule == "overfitting":
        best = found[rule].numbers.get("best_step", summary.best_step or 0)
        return f"overfitting after step {best:.0f}"
    if rule:
        return _VERDICTS[rule]
    if summary.eval_loss is None:
        return "not evaluated: nothing is known about other data than the training rows"
    return _progress(summary) + _perplexity(summary)


def _progress(summary: RunSummary) -> str:
    base, tuned, best = summary.base_eval_loss, summary.eval_loss, summary.best_step
    if base is not None and tuned is not None and tuned >= base:
        return "no better than the base model"
    if best is None or not summary.steps:
        return "evaluated, but without a best step"
    if best >= summary.steps:
        return "improving: the eval loss was lowest at the last step"
    return f"improved until step {best} of {summary.steps}"


def _perplexity(summary: RunSummary) -> str:
    if summary.perplexity is None or not summary.perplexity > _HIGH_PERPLEXITY:
        return ""
    return f"; a perplexity of {format_perplexity(summary.perplexity)} is high"
