"""Chromium without a screen, driven by Playwright; every test of this directory skips itself where
there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from llamafarm.monitoring.report.write import write_report
from tests.monitoring.report.records import hostile_record
from tests.training.runs import run_plan, tiny_plan, write_tiny_model

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

# What is said when pixels are looked at a second time.
_OF_TESTS = "willReadFrequently"


@dataclass
class Opened:
    """A page, and what it did. complaints: errors and warnings of the console, and uncaught
    errors; requests: every address that was asked for.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def value(self, expression: str) -> Any:
        """Of JavaScript in the page."""
        return self.page.evaluate(expression)

    def wait_until(self, condition: str) -> None:
        """Not Playwright's own, which evaluates text inside the page: the page forbids that."""
        for _ in range(100):
            if self.value(condition):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{condition} did not come true")

    @property
    def tooltips(self) -> list[str]:
        """What is told beside the pointer, once something is."""
        shown = self.page.locator(".bk-tooltip-content:visible")
        shown.first.wait_for()
        return sorted(shown.all_inner_texts())

    def place(self, key: str, step: float, height: float = 0.5) -> tuple[float, float]:
        """Where in the window a point of a plot is. height: 0 is the ground, 1 the top."""
        x, y = self.value(
            f"""() => {{
              const plot = Bokeh.documents[0].roots().find((root) => root.name === {key!r});
              const view = Bokeh.index.find_one(plot);
              const box = view.el.getBoundingClientRect();
              const {{start, end}} = plot.y_range;
              return [
                box.left + view.frame.x_scale.compute({step}),
                box.top + view.frame.y_scale.compute(start + {height} * (end - start)),
              ];
            }}"""
        )
        return x, y

    def range_of(self, key: str) -> tuple[float, float]:
        """The steps that a plot shows."""
        plot = f"Bokeh.documents[0].roots().find((root) => root.name === {key!r})"
        start, end = self.value(f"[{plot}.x_range.start, {plot}.x_range.end]")
        return start, end

    def colours_of(self, key: str) -> set[tuple[int, int, int]]:
        """Of the pixels that are painted in a plot."""
        found = self.page.locator(f"#plot-{key} canvas").evaluate_all(
            """(canvases) => canvases.flatMap((canvas) => {
              if (!canvas.width || !canvas.height) return [];
              const context = canvas.getContext("2d");
              const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
              const found = new Set();
              for (let i = 0; i < data.length; i += 4)
                if (data[i + 3] === 255) found.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
              return [...found];
            })"""
        )
        return {(int(r), int(g), int(b)) for r, g, b in (text.split(",") for text in found)}


Open = Callable[..., Opened]


def assert_policy_holds(opened: Opened) -> None:
    """What is put into the page by mistake neither runs nor loads."""
    opened.value(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.hacked = 1";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", '<img src="http://127.0.0.1:9/x.png">');
          document.body.insertAdjacentHTML("beforeend", '<img src=x onerror="window.hacked = 2">');
          return fetch("http://127.0.0.1:9/").catch(() => {});
        }"""
    )
    assert opened.value("window.hacked") is None
    refused = [text for text in opened.complaints if "Content Security Policy" in text]
    assert len(refused) >= 4


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    # Root may not use the sandbox; a small /dev/shm ends the page.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a report, or an address, and wait until it is drawn. context: as a browser context
    takes it.
    """
    contexts = []

    def opening(place: Path | str, *, drawn: bool = True, **context: Any) -> Opened:
        contexts.append(browser.new_context(**context))
        opened = Opened(contexts[-1].new_page())
        page = opened.page
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                opened.complaints.append(message.text)
                if message.type in ("error", "warning") and _OF_TESTS not in message.text
                else None
            ),
        )
        page.goto(place.as_uri() if isinstance(place, Path) else place)
        if drawn:
            page.wait_for_selector("html.drawn", state="attached")
            opened.wait_until("Bokeh.documents[0].is_idle")
        return opened

    yield opening
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a real run of a few steps, with everything that `train` writes when it ends."""
    model = write_tiny_model(tmp_path_factory.mktemp("model"))
    return run_plan(
        tiny_plan(model, tmp_path_factory.mktemp("runs") / "tiny"), report=True
    ).directory.root


@pytest.fixture(scope="session")
def report(run_directory: Path) -> Path:
    """The page of the real run."""
    return run_directory / "report.html"


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with markup wherever a stranger's text can stand."""
    return write_report(hostile_record(tmp_path_factory.mktemp("hostile"))).page


@dataclass(frozen=True)
class Dashboard:
    """One that was started by its command. address: as it printed it."""

    process: subprocess.Popen[str]
    address: str

    def link_to(self, opened: Opened, name: str) -> str:
        """The address of a run, as the list has it."""
        link = opened.page.locator("th a", has_text=re.compile(f"^{re.escape(name)}$"))
        return urljoin(self.address, link.get_attribute("href") or "")


Serve = Callable[[Path], Dashboard]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start the dashboard of a directory; Ctrl-C at the end has to end it, whatever is open."""
    started: list[subprocess.Popen[str]] = []

    def starting(directory: Path) -> Dashboard:
        command = [sys.executable, "-m", "llamafarm", "dashboard", str(directory), "--no-browser"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return Dashboard(process, process.stdout.readline().strip())

    yield starting
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
            assert (process.returncode, told) == (130, "Ctrl-C ends it\nstopped\n")
