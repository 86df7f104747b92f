"""The table of an evaluation: the model, and beside it the others that were measured too."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from llamafarm.errors import count_of
from llamafarm.monitoring.comparison import PairedChange, ScoreChange, verdict_text
from llamafarm.monitoring.formats import format_loss, format_perplexity

if TYPE_CHECKING:
    from llamafarm.evaluation.harness import TasksReport
    from llamafarm.evaluation.report import EvaluationReport, ModelScores, PairedRows, Sample

_SAMPLES_SHOWN = 3
_NAME_WIDTH = 18
_COLUMN_WIDTH = 10
_LABEL_WIDTH = 8
_SAMPLE_WIDTH = 90
_BASE = "base"
# Shares, which are shown in percent; a difference of two in percentage points.
_SHARES = {
    "accuracy": "next token right",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
}


def render_scores(report: EvaluationReport) -> str:
    """Scores, what differs and how surely, then a few answers beside the right ones."""
    columns = _columns(report)
    answered = f"{count_of(report.tuned.generated_rows, 'row')} answered in full"
    blocks = [
        f"{report.dataset}: {count_of(report.rows, 'row')}, {answered}",
        "\n".join(_table(columns)),
    ]
    blocks += ["\n".join(lines) for lines in _paired_blocks(report)]
    answers = {
        name: {sample.source: sample.answer for sample in scores.samples}
        for name, scores in columns.items()
    }
    shown = report.tuned.samples[:_SAMPLES_SHOWN]
    blocks += ["\n".join(_sample_lines(sample, answers)) for sample in shown]
    return "\n\n".join(blocks)


def render_tasks(report: TasksReport) -> str:
    """A line a number, with its standard error and how many rows it is of."""
    rows = [
        (
            score.task,
            score.metric,
            f"{score.value:.4g}",
            "" if score.standard_error is None else f"± {score.standard_error:.3g}",
            "" if score.rows is None else count_of(score.rows, "row"),
        )
        for score in report.scores
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    lines = [
        "  ".join(["", *(f"{text:<{w}}" for text, w in zip(row, widths, strict=True))]).rstrip()
        for row in rows
    ]
    return "\n".join([f"{report.source}, measured by lm-eval {report.version}", "", *lines])


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
        for score in dict.fromkeys(score for column in texts.values() for score in column)
    ]
    return rows if alone else [head, *rows]


def _texts(scores: ModelScores) -> dict[str, str]:
    """Every score that was measured, by name."""
    texts = {
        "loss": format_loss(scores.loss),
        "perplexity": format_perplexity(scores.perplexity),
        _SHARES["accuracy"]: _share(scores.accuracy),
    }
    if scores.generated_rows:
        texts[_SHARES["exact_match"]] = _share(scores.exact_match)
        texts[_SHARES["token_f1"]] = _share(scores.token_f1)
        texts[_SHARES["rouge_l"]] = _share(scores.rouge_l)
    return texts | {name: f"{value:.4g}" for name, value in scores.metrics.items()}


def _paired_blocks(report: EvaluationReport) -> list[list[str]]:
    """Row by row: the first model against each of the others."""
    others = {_BASE: report.paired} if report.paired else {}
    others |= {other.name: other.paired for other in report.compared}
    return [_paired_lines(report.name, pairs, name) for name, pairs in others.items()]


def _paired_lines(subject: str, pairs: PairedRows, name: str) -> list[str]:
    title = f"  {subject} against {name}, on the same rows:"
    if not pairs.scores:
        return [f"{title} nothing that both have"]
    lines = [
        [_SHARES.get(each.score, each.score), *_paired_cells(each), verdict_text(each.paired)]
        for each in pairs.scores
    ]
    table = [["", "change", "95 % interval", "won", "lost", "same", ""], *lines]
    widths = [max(len(row[column]) for row in table) for column in range(6)]
    widths[0] = max(widths[0], _NAME_WIDTH)
    return [title, *(_paired_row(row, widths) for row in table)]


def _paired_row(row: list[str], widths: list[int]) -> str:
    name, *numbers, verdict = row
    cells = [f"{text:>{width}}" for text, width in zip(numbers, widths[1:], strict=True)]
    return "  ".join(["", f"{name:<{widths[0]}}", *cells, verdict]).rstrip()


def _paired_cells(change: ScoreChange) -> list[str]:
    paired = change.paired
    counts = (paired.better, paired.worse, paired.same)
    return [
        _difference(change.score, paired.change),
        _interval(change.score, paired),
        *(f"{count:,}" for count in counts),
    ]


def _interval(score: str, paired: PairedChange) -> str:
    if paired.low is None or paired.high is None:
        return "not known"
    return f"{_difference(score, paired.low)} to {_difference(score, paired.high)}"


def _difference(score: str, value: float) -> str:
    """With its sign; adding 0 takes it from a zero."""
    if score in _SHARES:
        return f"{round(100 * value, 1) + 0.0:+.1f} pp"
    return f"{round(value, 3) + 0.0:+.3f}"


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
