"""The table of an evaluation: the model, and its base beside it where that was measured too."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from llamafarm.errors import count_of
from llamafarm.monitoring.formats import format_loss, format_perplexity

if TYPE_CHECKING:
    from llamafarm.evaluation.report import EvaluationReport, ModelScores, Sample

_SAMPLES_SHOWN = 3
_NAME_WIDTH = 18
_SAMPLE_WIDTH = 90


def render_scores(report: EvaluationReport) -> str:
    """Scores, how many rows got better, then a few answers beside the right ones."""
    tuned, base = report.tuned, report.base
    answered = f"{count_of(tuned.generated_rows, 'row')} answered in full"
    blocks = [
        f"{report.dataset}: {count_of(report.rows, 'row')}, {answered}",
        "\n".join(_table(tuned, base)),
    ]
    if report.paired is not None:
        pairs = report.paired
        blocks.append(
            f"  by loss, the tuned model is better on {count_of(pairs.better, 'row')}, "
            f"worse on {pairs.worse:,}, the same on {pairs.same:,}"
        )
    base_answers = {s.source: s.answer for s in base.samples} if base else {}
    shown = tuned.samples[:_SAMPLES_SHOWN]
    blocks += ["\n".join(_sample_lines(s, base_answers.get(s.source))) for s in shown]
    return "\n\n".join(blocks)


def _table(tuned: ModelScores, base: ModelScores | None) -> list[str]:
    """A line a score; the base first, because that is where it started."""
    columns = [_texts(base), _texts(tuned)] if base else [_texts(tuned)]
    heads = ["base", "tuned"] if base else []
    head = f"  {'':<{_NAME_WIDTH}}" + "".join(f"{name:>10}" for name in heads)
    rows = [
        f"  {name:<{_NAME_WIDTH}}" + "".join(f"{column[name]:>10}" for column in columns)
        for name in _texts(tuned)
    ]
    return [*([head] if heads else []), *rows]


def _texts(scores: ModelScores) -> dict[str, str]:
    """Every score that was measured, by name."""
    texts = {
        "loss": format_loss(scores.loss),
        "perplexity": format_perplexity(scores.perplexity),
        "next token right": _share(scores.accuracy),
    }
    if scores.generated_rows:
        texts["exact match"] = _share(scores.exact_match)
        texts["ROUGE-L"] = _share(scores.rouge_l)
    return texts


def _sample_lines(sample: Sample, base_answer: str | None) -> list[str]:
    texts = [
        ("asked", sample.prompt),
        ("right", sample.reference),
        *([("base", base_answer)] if base_answer is not None else []),
        ("tuned", sample.answer),
    ]
    return [f"  {sample.source}", *(_sample_line(name, text) for name, text in texts)]


def _sample_line(name: str, text: str) -> str:
    """One line of a text, however long it is: --json has it whole."""
    return f"    {name:<8}{textwrap.shorten(text, _SAMPLE_WIDTH, placeholder=' …')}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
