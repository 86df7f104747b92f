"""Charts as PNG files: for `plots/`, for paper, and for browsers without scripts."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamafarm.monitoring.report.charts import Chart, Series
from llamafarm.monitoring.report.colours import BLUE, GREY, INK, LINE, ORANGE, RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DOTS_PER_INCH = 110
_LARGE, _SMALL = (9.0, 3.4), (4.6, 2.3)
_LINES: Mapping[str, Mapping[str, Any]] = {
    "line": {"color": BLUE, "linewidth": 1.6},
    "faint": {"color": BLUE, "linewidth": 0.7, "alpha": 0.45},
    "marks": {"color": ORANGE, "linewidth": 1.6, "marker": "o", "markersize": 4},
}


def pictures_of(charts: Sequence[Chart]) -> dict[str, bytes]:
    """PNG by the chart's key."""
    return {chart.key: _picture(chart) for chart in charts}


def _picture(chart: Chart) -> bytes:
    # Where its cache of fonts lies is nothing to tell.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Not pyplot: it keeps every figure, and asks for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = _LARGE if chart.key == "loss" else _SMALL
    figure = Figure(figsize=(width, height))
    canvas = FigureCanvasAgg(figure)
    # Margins in inches: to fit them by measuring the texts takes longer than to draw the picture.
    left, right, bottom, top = 0.55, 0.08, 0.28, 0.3
    inner = (width - left - right) / width, (height - bottom - top) / height
    axes = figure.add_axes((left / width, bottom / height, *inner))
    for level in chart.levels:
        axes.axhline(level.value, color=GREY, linewidth=0.9, linestyle=(0, (4, 4)))
    for series in chart.series:
        _draw(axes, series)
    _mark(axes, chart)
    _dress(axes, chart)
    stream = io.BytesIO()
    canvas.print_figure(stream, dpi=_DOTS_PER_INCH, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw(axes: Axes, series: Series) -> None:
    steps = [step for step, _ in series.points]
    values = [value for _, value in series.points]
    axes.plot(steps, values, **_LINES[series.style])


def _mark(axes: Axes, chart: Chart) -> None:
    """The best evaluation, and what went wrong."""
    best = [p for s in chart.series if s.style == "marks" for p in s.points]
    for step, value in best:
        if step == chart.best_step:
            axes.plot([step], [value], "o", color=ORANGE, markersize=8)
    for step in sorted({mark.step for mark in chart.marks}):
        axes.axvline(step, color=RED, linewidth=0.7, alpha=0.6)


def _dress(axes: Axes, chart: Chart) -> None:
    unit = f"  ({chart.unit})" if chart.unit else ""
    axes.set_title(chart.title + unit, loc="left", fontsize=10, color=INK, fontweight="bold")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if len(chart.series) > 1:
        handles = _legend(chart)
        axes.legend(
            handles=handles, loc="upper right", ncols=len(handles), fontsize=8, frameon=False
        )


def _legend(chart: Chart) -> list[Any]:
    from matplotlib.lines import Line2D

    names = [(s.name, _LINES[s.style]) for s in chart.series if s.name != "smoothed"]
    levels = [
        Line2D([], [], color=GREY, linestyle=(0, (4, 4)), linewidth=0.9, label=level.name)
        for level in chart.levels
    ]
    return [*(Line2D([], [], **style, label=name) for name, style in names), *levels]
