"""What became of a run, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping

from llamafarm.monitoring.formats import format_perplexity
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
    against_base = _against_base(summary)
    if rule:
        text = _VERDICTS[rule]
        if rule == "overfitting":
            best = found[rule].numbers.get("best_step", summary.best_step or 0)
            text = f"overfitting after step {best:.0f}"
        return f"{text}; {against_base}" if against_base else text
    if summary.eval_loss is None:
        return "not evaluated: nothing is known about other data than the training rows"
    return (against_base or _progress(summary)) + _perplexity(summary)


def run_verdict(summary: RunSummary, *, status: str, error: str, total_steps: int | None) -> str:
    """As a sentence about a run that may have ended in any way. status: of run.json, or `stopped`;
    error: why it ended.
    """
    step = summary.steps
    match status:
        case "running":
            of_all = "" if total_steps is None else f" of {total_steps:,}"
            return f"Still running, at step {step:,}{of_all}."
        case "failed":
            why = " ".join(error.split()).rstrip(".")
            return f"Failed at step {step:,}: {why or 'no reason was recorded'}."
        case "interrupted":
            return f"Interrupted at step {step:,}: --resume goes on with it."
        case "stopped":
            return f"Ended at step {step:,} without a word: --resume goes on with it."
    text = verdict(summary)
    return f"{text[:1].upper()}{text[1:]}."


def _against_base(summary: RunSummary) -> str:
    """What keeps the kept model from counting as better than the base; empty: nothing."""
    paired = summary.against_base
    match paired.verdict if paired else "":
        case "no difference":
            return "no difference from the base model: the change is inside the noise"
        case "worse":
            return "worse than the base model"
    return ""


def _progress(summary: RunSummary) -> str:
    base, tuned, best = summary.base_eval_loss, summary.eval_loss, summary.best_step
    if base is not None and tuned is not None and tuned >= base:
        return "no better than the base model"
    if best is None or not summary.steps:
        return "evaluated, but without a best step"
    few = summary.against_base is not None and summary.against_base.verdict == "too few rows"
    unsure = "; too few evaluation rows to be sure" if few else ""
    if best >= summary.steps:
        by_loss = "the eval loss was lowest at the last step"
        how = by_loss if _is_by_loss(summary) else "the last step is the best one"
        return f"improving: {how}{unsure}"
    return f"improved until step {best} of {summary.steps}{unsure}"


def _is_by_loss(summary: RunSummary) -> bool:
    """Whether the best step was chosen by the loss, and by no other metric."""
    if summary.best_metric is None or summary.eval_loss is None:
        return True
    by_loss = (summary.eval_loss, summary.perplexity or 0.0)
    return any(math.isclose(summary.best_metric, value) for value in by_loss)


def _perplexity(summary: RunSummary) -> str:
    if summary.perplexity is None or not summary.perplexity > _HIGH_PERPLEXITY:
        return ""
    return f"; a perplexity of {format_perplexity(summary.perplexity)} is high"
