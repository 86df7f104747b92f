"""The table of an evaluation: the model, and beside it the others that were measured too."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from llamafarm.errors import count_of
from llamafarm.monitoring.formats import format_loss, format_perplexity

if TYPE_CHECKING:
    from llamafarm.evaluation.report import EvaluationReport, ModelScores, PairedRows, Sample

_SAMPLES_SHOWN = 3
_NAME_WIDTH = 18
_COLUMN_WIDTH = 10
_LABEL_WIDTH = 8
_SAMPLE_WIDTH = 90
_BASE = "base"


def render_scores(report: EvaluationReport) -> str:
    """Scores, how many rows got better, then a few answers beside the right ones."""
    columns = _columns(report)
    answered = f"{count_of(report.tuned.generated_rows, 'row')} answered in full"
    blocks = [
        f"{report.dataset}: {count_of(report.rows, 'row')}, {answered}",
        "\n".join(_table(columns)),
    ]
    pairs = _paired_lines(report)
    blocks += ["\n".join(pairs)] if pairs else []
    answers = {
        name: {sample.source: sample.answer for sample in scores.samples}
        for name, scores in columns.items()
    }
    shown = report.tuned.samples[:_SAMPLES_SHOWN]
    blocks += ["\n".join(_sample_lines(sample, answers)) for sample in shown]
    return "\n\n".join(blocks)


def _columns(report: EvaluationReport) -> dict[str, ModelScores]:
    """By name; the base first, because that is where it started."""
    return {
        **({_BASE: report.base} if report.base else {}),
        report.name: report.tuned,
        **{other.name: other.scores for other in report.compared},
    }


def _table(columns: dict[str, ModelScores]) -> list[str]:
    """A line a score; a model alone needs no head."""
    texts = {name: _texts(scores) for name, scores in columns.items()}
    alone = len(columns) == 1
    widths = {
        name: _COLUMN_WIDTH if alone else max(_COLUMN_WIDTH, len(name) + 2) for name in columns
    }
    head = f"  {'':<{_NAME_WIDTH}}" + "".join(f"{name:>{widths[name]}}" for name in columns)
    rows = [
        f"  {score:<{_NAME_WIDTH}}"
        + "".join(f"{texts[name].get(score, ''):>{widths[name]}}" for name in columns)
        for score in next(iter(texts.values()))
    ]
    return rows if alone else [head, *rows]


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


def _paired_lines(report: EvaluationReport) -> list[str]:
    """By loss, row by row: the first model against each of the others."""
    subject = "the tuned model" if report.name == "tuned" else report.name
    others = {_BASE: report.paired} if report.paired else {}
    others |= {other.name: other.paired for other in report.compared}
    return [f"  by loss, {subject} {_better(pairs, name)}" for name, pairs in others.items()]


def _better(pairs: PairedRows, name: str) -> str:
    return (
        f"is better than {name} on {count_of(pairs.better, 'row')}, "
        f"worse on {pairs.worse:,}, the same on {pairs.same:,}"
    )


def _sample_lines(sample: Sample, answers: dict[str, dict[str, str]]) -> list[str]:
    """answers: by the name of the model, then by the row."""
    texts = {"asked": sample.prompt, "right": sample.reference}
    texts |= {
        name: given[sample.source] for name, given in answers.items() if sample.source in given
    }
    width = max(_LABEL_WIDTH, *(len(name) + 2 for name in texts))
    return [f"  {sample.source}", *(_sample_line(n, text, width) for n, text in texts.items())]


def _sample_line(name: str, text: str, width: int) -> str:
    """One line of a text, however long it is: --json has it whole."""
    return f"    {name:<{width}}{textwrap.shorten(text, _SAMPLE_WIDTH, placeholder=' …')}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
