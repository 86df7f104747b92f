"""The report in a real browser: what is drawn, what moves, and what cannot happen."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.monitoring.events import EvalEvent, Event, StepEvent
from llamafarm.monitoring.metrics_file import read_events
from llamafarm.monitoring.report.colours import BLUE, ORANGE, RED
from tests.monitoring.report.records import HOSTILE

from .conftest import Open, assert_policy_holds

CURVES = ("loss", "learning_rate", "gradient_norm", "throughput", "memory")
WIDTHS = (390, 820, 1280)
# Padding of the axis below the lowest value, where the marks are.
MARKS_HEIGHT = 0.04 / 1.08
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def is_at(event: Event, step: int) -> bool:
    return isinstance(event, StepEvent | EvalEvent) and event.step == step


def test_every_curve_is_drawn(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    for key in CURVES:
        assert rgb(BLUE) in opened.colours_of(key), key
    assert rgb(ORANGE) in opened.colours_of("loss")


def test_no_request_leaves_the_machine_and_nothing_is_complained_of(
    open_page: Open, report: Path
) -> None:
    opened = open_page(report)
    opened.page.mouse.wheel(0, 2000)
    assert opened.requests == [report.as_uri()]
    assert opened.complaints == []


def test_hovering_tells_the_values_of_the_step(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    assert opened.page.locator(".bk-tooltip-content").count() == 0
    opened.page.mouse.move(*opened.place("loss", 4))
    told = dict(text.split(" ", 1)[::-1] for text in opened.tooltips)
    losses = {e.kind: e for e in read_events(report.parent / "metrics.jsonl") if is_at(e, 4)}
    assert told == {
        "eval loss, step 4": f"{losses['eval'].eval_loss:.4f}",
        "training loss, step 4": f"{losses['step'].loss:.4f}",
    }


def test_dragging_zooms_all_plots_to_the_same_steps(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    whole = opened.range_of("memory")
    assert whole[0] <= 0
    assert whole[1] >= 12
    mouse = opened.page.mouse
    mouse.move(*opened.place("loss", 3, 0.2))
    mouse.down()
    mouse.move(*opened.place("loss", 8, 0.8), steps=5)
    mouse.up()
    opened.wait_until("Bokeh.documents[0].roots()[0].x_range.start > 1")
    for key in CURVES:
        assert opened.range_of(key) == pytest.approx((3, 8), abs=0.2)


def test_the_tool_that_shows_all_steps_again_does(open_page: Open, report: Path) -> None:
    opened = open_page(report)
    whole = opened.range_of("loss")
    mouse = opened.page.mouse
    mouse.move(*opened.place("loss", 3, 0.2))
    mouse.down()
    mouse.move(*opened.place("loss", 8, 0.8), steps=5)
    mouse.up()
    opened.wait_until("Bokeh.documents[0].roots()[0].x_range.start > 1")
    opened.page.get_by_title("Show all steps").first.click()
    opened.wait_until("Bokeh.documents[0].roots()[0].x_range.start < 1")
    assert opened.range_of("memory") == whole


def test_turning_the_wheel_over_a_plot_scrolls_the_page(open_page: Open, report: Path) -> None:
    opened = open_page(report, viewport={"width": 1000, "height": 600})
    before = opened.range_of("loss")
    opened.page.mouse.move(*opened.place("loss", 6))
    opened.page.mouse.wheel(0, 300)
    opened.wait_until("scrollY > 100")
    assert opened.range_of("loss") == before


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(
    open_page: Open, hostile_report: Path, width: int, scheme: str
) -> None:
    opened = open_page(
        hostile_report, viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    assert opened.value("document.documentElement.scrollWidth") == width


def test_on_a_phone_a_finger_on_a_plot_scrolls_the_page(open_page: Open, report: Path) -> None:
    opened = open_page(report, **PHONE)
    events = opened.page.locator("#plot-loss .bk-events")
    assert events.evaluate("(element) => getComputedStyle(element).touchAction") == "auto"
    assert opened.value("document.documentElement.scrollWidth") == 390


def test_on_a_phone_a_tap_tells_the_values(open_page: Open, report: Path) -> None:
    opened = open_page(report, **PHONE)
    opened.page.touchscreen.tap(*opened.place("loss", 4))
    assert len(opened.tooltips) == 2
    opened.value("scrollBy(0, 50)")
    opened.page.locator(".bk-tooltip-content:visible").first.wait_for(state="detached")


def test_dark_and_light_follow_the_reader_also_while_the_page_is_open(
    open_page: Open, report: Path
) -> None:
    opened = open_page(report, color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.value(background) == "rgb(255, 255, 255)"
    grid = {"light": (223, 227, 232), "dark": (46, 52, 60)}
    assert grid["light"] in opened.colours_of("loss")
    opened.page.emulate_media(color_scheme="dark")
    assert opened.value(background) == "rgb(20, 23, 27)"
    opened.page.wait_for_timeout(500)
    found = opened.colours_of("loss")
    assert grid["dark"] in found
    assert grid["light"] not in found
    assert rgb(BLUE) in found


def test_paper_gets_pictures_and_everything_that_is_folded(open_page: Open, report: Path) -> None:
    opened = open_page(report, color_scheme="dark")
    opened.page.emulate_media(media="print")
    opened.value("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator("figure img:visible").count() == len(CURVES)
    assert opened.page.locator(".plot:visible").count() == 0
    assert opened.page.locator("details:not([open])").count() == 0
    assert opened.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_without_scripts_the_curves_are_pictures(open_page: Open, report: Path) -> None:
    opened = open_page(report, drawn=False, java_script_enabled=False)
    assert opened.page.locator("figure img:visible").count() == len(CURVES)
    assert opened.page.locator(".plot:visible").count() == 0


def test_markup_in_a_training_row_is_shown_as_text(open_page: Open, hostile_report: Path) -> None:
    opened = open_page(hostile_report)
    assert opened.page.locator(f"text={HOSTILE}").count() >= 10
    assert opened.value("window.hacked") is None
    assert opened.page.locator("[onerror]").count() == 0
    assert opened.requests == [hostile_report.as_uri()]
    assert opened.complaints == []


def test_markup_in_a_mark_of_a_plot_is_shown_as_text(open_page: Open, hostile_report: Path) -> None:
    opened = open_page(hostile_report)
    assert rgb(RED) in opened.colours_of("loss")
    opened.page.mouse.move(*opened.place("loss", 12, MARKS_HEIGHT))
    assert any(HOSTILE in text for text in opened.tooltips)
    assert opened.page.locator(".bk-tooltip-content").locator("img, script").count() == 0
    assert opened.value("window.hacked") is None


def test_what_is_put_into_the_page_by_mistake_neither_runs_nor_loads(
    open_page: Open, report: Path
) -> None:
    opened = open_page(report)
    assert_policy_holds(opened)
