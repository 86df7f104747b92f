"""Charts as Bokeh plots: the documents that BokehJS draws in the page, and BokehJS itself.

Colours that differ between a light and a dark page are CSS variables of the page (`--bk-…`), which
BokehJS reads whenever it paints; those of the curves are readable on both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llamafarm.monitoring.report.charts import Chart, Level, Series
from llamafarm.monitoring.report.colours import BLUE, GREY, ORANGE, RED

if TYPE_CHECKING:
    from bokeh.plotting import figure

_HEIGHTS = {"loss": 330}
_SMALL_HEIGHT = 190
_FORMATS = {"learning_rate": "%.2e", "throughput": "%.1f", "memory": "%.2f"}


@dataclass(frozen=True, slots=True)
class Plots:
    """data: the JSON that the page's script gives to BokehJS; elements: id of the element to draw
    in, by the chart's key; library: BokehJS.
    """

    data: str
    elements: Mapping[str, str]
    library: str


def draw(charts: Sequence[Chart]) -> Plots:
    """All charts as one document, so that zooming in one shows the same steps in all."""
    from bokeh.document import Document
    from bokeh.models import DataRange1d
    from bokeh.resources import Resources

    steps = DataRange1d(range_padding=0.02)
    document = Document()
    elements = {}
    roots = {}
    for chart in charts:
        plot = _plot(chart, steps)
        document.add_root(plot)
        elements[chart.key] = roots[plot.id] = f"plot-{chart.key}"
    item = {"docid": "run", "roots": roots, "root_ids": list(roots)}
    # As the text of a script element: `<` would let a text end it.
    data = json.dumps({"documents": {"run": document.to_json(deferred=False)}, "items": [item]})
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    # Only what plots need; what follows BokehJS itself makes it talk in the console.
    library, *_ = Resources(mode="inline", components=["bokeh"]).js_raw
    return Plots(data, elements, library)


def _plot(chart: Chart, steps: Any) -> figure:
    from bokeh.models import (
        BasicTicker,
        BasicTickFormatter,
        BoxZoomTool,
        DataRange1d,
        InlineStyleSheet,
        NumeralTickFormatter,
        PanTool,
        ResetTool,
        WheelZoomTool,
    )
    from bokeh.plotting import figure

    zoom = BoxZoomTool(description="Zoom: drag over what to see")
    tools = [
        zoom,
        PanTool(dimensions="width", description="Move"),
        WheelZoomTool(dimensions="width", description="Zoom with the wheel"),
        ResetTool(description="Show all steps"),
    ]
    plot = figure(
        height=_HEIGHTS.get(chart.key, _SMALL_HEIGHT),
        sizing_mode="stretch_width",
        x_range=steps,
        tools=tools,
        active_drag=zoom,
        active_scroll=None,
        toolbar_location="above",
        toolbar_inner=True,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        output_backend="canvas",
        window_axis="x",
        min_border=4,
        name=chart.key,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.toolbar.stylesheets = [
        InlineStyleSheet(css=":host(.bk-inner) { background: none; opacity: 1; }")
    ]
    for axis in plot.axis:
        axis.axis_line_color = None
        axis.major_tick_line_color = None
        axis.minor_tick_line_color = None
        axis.major_label_text_font_size = "11px"
    plot.xgrid.visible = False
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=5 if chart.key == "loss" else 4)
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    if chart.key == "learning_rate":
        plot.yaxis.formatter = BasicTickFormatter(power_limit_low=0, precision=1)
    for level in chart.levels:
        _level(plot, level)
    lines = [_series(plot, series, chart) for series in chart.series]
    plot.y_range = DataRange1d(renderers=lines, range_padding=0.08)
    if chart.marks:
        _marks(plot, chart)
    return plot


def _level(plot: figure, level: Level) -> None:
    """No axis grows for it: what it stands for is a point of a series too."""
    from bokeh.models.annotations import Span

    span = Span(location=level.value, dimension="width", line_color=GREY, line_dash="dashed")
    plot.add_layout(span)


def _series(plot: figure, series: Series, chart: Chart) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool

    steps = [step for step, _ in series.points]
    values = [value for _, value in series.points]
    source = ColumnDataSource({"step": steps, "value": values})
    marks = series.style == "marks"
    faint = series.style == "faint"
    colour = ORANGE if marks else BLUE
    line = plot.line(
        "step",
        "value",
        source=source,
        line_color=colour,
        line_width=1 if faint else 2,
        line_alpha=0.45 if faint else 1.0,
        line_join="round",
    )
    if marks:
        is_best = [step == chart.best_step for step in steps]
        source.add([10 if best else 6 for best in is_best], "size")
        plot.scatter("step", "value", source=source, size="size", color=colour, line_width=0)
    if series.name == "smoothed":
        return line
    unit = f" {chart.unit}" if chart.unit else ""
    shown = _FORMATS.get(chart.key, "%.4f")
    plot.add_tools(
        HoverTool(
            renderers=[line],
            mode="vline",
            line_policy="nearest",
            # The evaluation loss is mostly the higher one: neither text covers the other.
            attachment="above" if marks else "below",
            formatters={"@value": "printf"},
            tooltips=f"<b>@value{{{shown}}}</b>{unit} {series.name}, step @step{{0,0}}",
            description=f"Values of {series.name}",
            visible=False,
        )
    )
    return line


def _marks(plot: figure, chart: Chart) -> None:
    """Triangles on the ground, each with its text."""
    from bokeh.models import ColumnDataSource, HoverTool

    ground = min(value for series in chart.series for _, value in series.points)
    source = ColumnDataSource(
        {
            "step": [mark.step for mark in chart.marks],
            "value": [ground] * len(chart.marks),
            "text": [mark.text for mark in chart.marks],
        }
    )
    drawn = plot.scatter(
        "step", "value", source=source, marker="triangle", size=10, color=RED, line_width=0
    )
    plot.add_tools(
        HoverTool(
            renderers=[drawn],
            # `@text` is escaped by BokehJS; `{safe}` would not be.
            tooltips="step @step{0,0}: @text",
            attachment="vertical",
            visible=False,
        )
    )
