"""The dashboard in a real browser, served by its own command."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from llamafarm.monitoring.events import EvalEvent, Event
from llamafarm.monitoring.metrics_file import cut_after
from llamafarm.monitoring.report.colours import BLUE, ORANGE, RED, RUN_COLOURS
from tests.monitoring.events_of_a_run import eval_event, overfitting_event, step_event
from tests.monitoring.report.records import HOSTILE, full_record, hostile_record
from tests.monitoring.run_directories import (
    EVENTS,
    add_events,
    is_going_on,
    write_rows,
    write_run,
    write_whole_run,
)

from .conftest import Dashboard, Open, Opened, Serve, assert_policy_holds
from .test_report import CURVES, WIDTHS, rgb

# Of 12 steps, those up to the first evaluation.
BEGUN: list[Event] = EVENTS[:7]
STEPS_SHOWN = "Bokeh.documents[0].get_model_by_name('loss/training loss').data.step"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two that ended, one of them hostile, and one that cannot be read."""
    directory = tmp_path / "runs"
    first = write_whole_run(directory / "first", full_record(directory / "first"))
    write_rows(first, 8, [1.839] * 10)
    write_whole_run(directory / "hostile", hostile_record(directory / "hostile"))
    (directory / "broken").mkdir()
    (directory / "broken" / "run.json").write_text('{"id": ')
    return directory


def open_run(dashboard: Dashboard, open_page: Open, name: str, **context: object) -> Opened:
    """The page of a run, with what is asked for on the way from the list."""
    opened = open_page(dashboard.address, drawn=False, **context)
    opened.page.goto(dashboard.link_to(opened, name))
    opened.page.wait_for_selector("html.drawn", state="attached")
    opened.wait_until("Bokeh.documents[0].is_idle")
    return opened


def test_every_curve_of_a_run_is_drawn_and_nothing_leaves_the_machine(
    serve: Serve, open_page: Open, run_directory: Path
) -> None:
    dashboard = serve(run_directory.parent)
    opened = open_run(dashboard, open_page, run_directory.name)
    for key in CURVES:
        assert rgb(BLUE) in opened.colours_of(key), key
    assert rgb(ORANGE) in opened.colours_of("loss")
    opened.page.locator("#connection.open").wait_for()
    assert all(asked.startswith((dashboard.address, "data:")) for asked in opened.requests)
    assert opened.complaints == []


def test_hovering_tells_the_values_of_the_step(serve: Serve, open_page: Open, runs: Path) -> None:
    opened = open_run(serve(runs), open_page, "first")
    opened.page.mouse.move(*opened.place("loss", 8))
    assert opened.tooltips == ["1.8000 training loss, step 8", "1.8390 eval loss, step 8"]


def test_a_run_is_followed_while_its_metrics_grow(
    serve: Serve, open_page: Open, tmp_path: Path
) -> None:
    root = write_run(tmp_path / "runs" / "now", BEGUN, status="running", actual=None)
    with is_going_on(root):
        opened = open_run(serve(root.parent), open_page, "now")
        assert opened.page.locator(".status").inner_text() == "running"
        assert "at step 4 of 12" in opened.page.locator(".verdict").inner_text()
        add_events(root, step_event(5, 1.5), step_event(6, 1.25))
        opened.wait_until(f"{STEPS_SHOWN}.length === 6")
        opened.wait_until("Bokeh.documents[0].roots()[0].x_range.end >= 6")
        assert "at step 6 of 12" in opened.page.locator(".verdict").inner_text()
        assert rgb(RED) not in opened.colours_of("loss")
        # What was not there before has to be drawn anew.
        add_events(root, overfitting_event(), eval_event(6, 1.4, best=True))
        opened.page.locator("#part-findings", has_text="overfitting").wait_for()
        opened.wait_until("Bokeh.documents[0].is_idle")
        opened.page.mouse.move(*opened.place("loss", 6))
        assert opened.tooltips == ["1.2500 training loss, step 6", "1.4000 eval loss, step 6"]
    # Its lock is free, and run.json says nothing else.
    opened.page.locator(".status", has_text="stopped").wait_for()
    assert opened.complaints == []


def test_what_somebody_zoomed_into_stays_while_points_are_added(
    serve: Serve, open_page: Open, tmp_path: Path
) -> None:
    root = write_run(tmp_path / "runs" / "now", BEGUN, status="running", actual=None)
    with is_going_on(root):
        opened = open_run(serve(root.parent), open_page, "now")
        mouse = opened.page.mouse
        mouse.move(*opened.place("loss", 2, 0.2))
        mouse.down()
        mouse.move(*opened.place("loss", 3, 0.8), steps=5)
        mouse.up()
        opened.wait_until("Bokeh.documents[0].roots()[0].x_range.start > 1")
        zoomed = opened.range_of("loss")
        add_events(root, step_event(5, 1.5))
        opened.wait_until(f"{STEPS_SHOWN}.length === 5")
        assert opened.range_of("loss") == zoomed


def test_a_resume_that_cuts_the_metrics_takes_the_curves_back(
    serve: Serve, open_page: Open, tmp_path: Path
) -> None:
    root = write_run(tmp_path / "runs" / "now", EVENTS[:11], status="running", actual=None)
    with is_going_on(root):
        opened = open_run(serve(root.parent), open_page, "now")
        opened.wait_until(f"{STEPS_SHOWN}.length === 8")
        cut_after(root / "metrics.jsonl", 4)
        opened.wait_until(f"{STEPS_SHOWN}.length === 4")
        add_events(root, step_event(5, 1.0))
        opened.wait_until(f"{STEPS_SHOWN}.length === 5")
    assert opened.complaints == []


def test_the_first_curves_appear_in_a_page_that_had_none(
    serve: Serve, open_page: Open, tmp_path: Path
) -> None:
    root = write_run(tmp_path / "runs" / "now", [], status="running", actual=None)
    with is_going_on(root):
        dashboard = serve(root.parent)
        opened = open_page(dashboard.address, drawn=False)
        opened.page.goto(dashboard.link_to(opened, "now"))
        opened.page.locator("#connection.open").wait_for()
        assert opened.page.locator("figure").count() == 0
        add_events(root, *BEGUN)
        opened.page.wait_for_selector("html.drawn", state="attached")
        opened.wait_until("Bokeh.documents[0].is_idle")
        assert rgb(BLUE) in opened.colours_of("loss")
    assert opened.complaints == []


def test_the_list_shows_new_runs_and_keeps_what_is_chosen(
    serve: Serve, open_page: Open, runs: Path
) -> None:
    opened = open_page(serve(runs).address, drawn=False)
    opened.page.get_by_label("Compare first").check()
    write_run(runs / "new", BEGUN)
    opened.page.locator("th a", has_text="new").wait_for()
    assert opened.page.get_by_label("Compare first").is_checked()
    assert opened.page.locator("tr", has_text="broken").locator(".problem").inner_text() == (
        "run.json is not a JSON object"
    )
    assert opened.complaints == []


def test_runs_that_are_chosen_are_compared(serve: Serve, open_page: Open, runs: Path) -> None:
    events = tuple(
        replace(event, eval_loss=event.eval_loss - 0.1) if isinstance(event, EvalEvent) else event
        for event in EVENTS
    )
    other = replace(full_record(runs / "second", events), strategy_yaml="tiny: {seed: 3}\n")
    write_rows(write_whole_run(runs / "second", other), 8, [0.839, *[1.839] * 9])
    dashboard = serve(runs)
    opened = open_page(dashboard.address, drawn=False)
    for name in ("first", "second"):
        opened.page.get_by_label(f"Compare {name}").check()
    opened.page.get_by_role("button").click()
    opened.page.wait_for_selector("html.drawn", state="attached")
    opened.wait_until("Bokeh.documents[0].is_idle")
    for colour in RUN_COLOURS[:2]:
        assert rgb(colour) in opened.colours_of("eval_loss")
    assert opened.page.locator("#part-comparison", has_text="What differed").count() == 1
    opened.page.mouse.move(*opened.place("eval_loss", 8))
    assert {text.split(" ", 1)[1] for text in opened.tooltips} == {
        "first, step 8",
        "second, step 8",
    }
    opened.page.get_by_text("compare against this").click()
    opened.page.locator(".chosen li").first.get_by_text("second").wait_for()
    assert all(asked.startswith((dashboard.address, "data:")) for asked in opened.requests)
    assert opened.complaints == []


def test_markup_in_a_training_row_is_shown_as_text(
    serve: Serve, open_page: Open, runs: Path
) -> None:
    dashboard = serve(runs)
    opened = open_run(dashboard, open_page, "hostile")
    assert opened.page.locator(f"text={HOSTILE}").count() >= 10
    # What a stream brings is escaped as well.
    told = replace(overfitting_event(), text=f"told later {HOSTILE}")
    add_events(runs / "hostile", told)
    (runs / "hostile" / "summary.json").unlink()
    opened.page.locator("#part-findings", has_text="told later").wait_for()
    assert opened.value("window.hacked") is None
    assert opened.page.locator("[onerror]").count() == 0
    opened.page.goto(dashboard.address)
    assert opened.page.locator(f"text={HOSTILE}").count() >= 1
    assert opened.value("window.hacked") is None
    assert all(asked.startswith((dashboard.address, "data:")) for asked in opened.requests)
    assert opened.complaints == []


def test_what_is_put_into_the_page_by_mistake_neither_runs_nor_loads(
    serve: Serve, open_page: Open, runs: Path
) -> None:
    opened = open_run(serve(runs), open_page, "first")
    assert_policy_holds(opened)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(
    serve: Serve, open_page: Open, runs: Path, width: int, scheme: str
) -> None:
    dashboard = serve(runs)
    view = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    opened = open_page(dashboard.address, drawn=False, **view)
    wide = "document.documentElement.scrollWidth"
    assert opened.value(wide) == width
    links = [dashboard.link_to(opened, name) for name in ("first", "hostile")]
    ids = [link.rpartition("/")[2] for link in links]
    compared = f"{dashboard.address}compare?run={ids[0]}&run={ids[1]}"
    for address in (links[1], compared):
        opened.page.goto(address)
        opened.page.wait_for_selector("html.drawn", state="attached")
        assert opened.value(wide) == width


def test_a_page_says_that_the_dashboard_is_gone(serve: Serve, open_page: Open, runs: Path) -> None:
    dashboard = serve(runs)
    opened = open_page(dashboard.address, drawn=False)
    opened.page.locator("#connection.open").wait_for()
    dashboard.process.terminate()
    assert dashboard.process.wait(timeout=60) == -signal.SIGTERM
    opened.page.locator("#connection.away", has_text="does not answer").wait_for()
