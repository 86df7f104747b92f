from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from llamafarm.monitoring.report.charts import charts_of, charts_of_runs
from llamafarm.monitoring.report.plots import columns_of, draw, element_ids, shape_of, steps_of
from tests.monitoring.events_of_a_run import eval_event, events_of_a_run, step_event
from tests.monitoring.report.records import OUT_OF_MEMORY

EVENTS = events_of_a_run()
CHARTS = charts_of([*EVENTS, OUT_OF_MEMORY])


def sources(value: Any) -> dict[str, Any]:
    """Everything in a document that a plot draws from, by its name."""
    found: dict[str, Any] = {}
    if isinstance(value, dict):
        if value.get("name") == "ColumnDataSource":
            attributes = value["attributes"]
            found[attributes["name"]] = dict(attributes["data"]["entries"])
        for item in value.values():
            found |= sources(item)
    elif isinstance(value, list):
        for item in value:
            found |= sources(item)
    return found


def test_what_is_sent_for_a_plot_is_what_it_was_drawn_from() -> None:
    drawn = sources(draw(CHARTS).documents)
    sent = {name: dict(columns) for name, columns in columns_of(CHARTS).items()}
    assert sent == drawn
    assert sent["loss/marks"]["text"]
    assert sent["loss/eval loss"]["size"] == [6, 6, 10, 6]


def test_new_points_leave_the_shape_and_anything_else_changes_it() -> None:
    longer = charts_of([*EVENTS, step_event(13), OUT_OF_MEMORY])
    assert shape_of(longer) == shape_of(CHARTS)
    assert columns_of(longer) != columns_of(CHARTS)
    for other in (charts_of(EVENTS), charts_of(EVENTS[2:6]), charts_of(EVENTS[:1])):
        assert shape_of(other) != shape_of(CHARTS)
    base = charts_of([eval_event(0, 9.0, best=True), *EVENTS[2:], OUT_OF_MEMORY])
    assert shape_of(base) != shape_of(CHARTS)


def test_all_steps_have_room_on_both_sides() -> None:
    first, last = steps_of(CHARTS)
    assert -0.2 < first < 0
    assert 12 < last < 12.2
    alone = charts_of_runs({"a": [step_event(7), step_event(7)]})
    first, last = steps_of(alone)
    assert first < 7 < last
    assert steps_of(()) < (1.0, 2.0)


def test_the_text_of_the_plots_cannot_end_its_element() -> None:
    hostile = [replace(OUT_OF_MEMORY, action="</script><!-- & \u2028")]
    data = draw(charts_of([*EVENTS, *hostile])).data
    assert not set("<>&\u2028") & set(data)
    (text,) = sources(json.loads(data))["loss/marks"]["text"]
    assert "</script><!-- & \u2028" in text


def test_every_plot_has_the_element_of_its_chart() -> None:
    (item,) = draw(CHARTS).items
    assert list(item["roots"].values()) == list(element_ids(CHARTS).values())
