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

Shape = tuple[tuple[Any, ...], ...]

_HEIGHTS = {"loss": 330, "eval_loss": 330}
_MARKS = "marks"
_ROOM, _LEAST_ROOM = 0.01, 0.04
_SMALL_HEIGHT = 190
_FORMATS = {"learning_rate": "%.2e", "throughput": "%.1f", "memory": "%.2f"}


Columns = Mapping[str, list[Any]]
"""What a plot draws from: values by the name of the column."""


@dataclass(frozen=True, slots=True)
class Plots:
    """What BokehJS takes: the documents, and which plot of them goes into which element."""

    documents: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]

    @property
    def data(self) -> str:
        """As the text of a script element of the page: `<` would let a text end it."""
        data = json.dumps({"documents": self.documents, "items": self.items})
        for character in "<>&\u2028\u2029":
            data = data.replace(character, f"\\u{ord(character):04x}")
        return data


def draw(charts: Sequence[Chart]) -> Plots:
    """All charts as one document, so that zooming in one shows the same steps in all."""
    from bokeh.document import Document
    from bokeh.models import Range1d

    # Not one that follows the data: with `window_axis` it would look no further than it shows.
    start, end = steps_of(charts)
    steps = Range1d(start=start, end=end, reset_start=start, reset_end=end)
    document = Document()
    elements = element_ids(charts)
    roots = {}
    for chart in charts:
        plot = _plot(chart, steps)
        document.add_root(plot)
        roots[plot.id] = elements[chart.key]
    item = {"docid": "run", "roots": roots, "root_ids": list(roots)}
    return Plots({"run": document.to_json(deferred=False)}, [item])


def element_ids(charts: Sequence[Chart]) -> dict[str, str]:
    """The id of the element that a chart is drawn in, by its key."""
    return {chart.key: f"plot-{chart.key}" for chart in charts}


def library() -> str:
    """BokehJS: only what plots need. What follows BokehJS itself makes it talk in the console."""
    from bokeh.resources import Resources

    script, *_ = Resources(mode="inline", components=["bokeh"]).js_raw
    return script


def shape_of(charts: Sequence[Chart]) -> Shape:
    """All but the points: as long as it is the same, new columns are enough to show what is new."""
    return tuple(
        (
            c.key,
            c.note,
            c.levels,
            bool(c.marks),
            tuple((s.name, s.style, s.colour) for s in c.series),
        )
        for c in charts
    )


def steps_of(charts: Sequence[Chart]) -> tuple[float, float]:
    """Where the steps of all charts begin and end, and a little room on both sides."""
    steps = [step for chart in charts for series in chart.series for step, _ in series.points]
    first, last = min(steps, default=0), max(steps, default=1)
    room = max(_ROOM * (last - first), _LEAST_ROOM)
    return first - room, last + room


def columns_of(charts: Sequence[Chart]) -> dict[str, Columns]:
    """What the plots draw from, by the name of the source."""
    found: dict[str, Columns] = {}
    for chart in charts:
        for series in chart.series:
            found[_source_name(chart, series.name)] = _points(chart, series)
        if chart.marks:
            found[_source_name(chart, _MARKS)] = _mark_columns(chart)
    return found


def _points(chart: Chart, series: Series) -> Columns:
    """The best evaluation is the larger one."""
    steps = [step for step, _ in series.points]
    columns: dict[str, list[Any]] = {
        "step": steps,
        "value": [value for _, value in series.points],
    }
    if series.style == "marks":
        columns["size"] = [10 if step == chart.best_step else 6 for step in steps]
    return columns


def _mark_columns(chart: Chart) -> Columns:
    ground = min((v for series in chart.series for _, v in series.points), default=0.0)
    return {
        "step": [mark.step for mark in chart.marks],
        "value": [ground] * len(chart.marks),
        "text": [mark.text for mark in chart.marks],
    }


def _source_name(chart: Chart, name: str) -> str:
    return f"{chart.key}/{name}"


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
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=5 if chart.key in _HEIGHTS else 4)
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

    name = _source_name(chart, series.name)
    source = ColumnDataSource(dict(_points(chart, series)), name=name)
    marks = series.style == "marks"
    faint = series.style == "faint"
    colour = series.colour or (ORANGE if marks else BLUE)
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

    source = ColumnDataSource(dict(_mark_columns(chart)), name=_source_name(chart, _MARKS))
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
