from __future__ import annotations

import json
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import OutputError
from llamafarm.monitoring.report.write import WrittenReport

from .conftest import Done

Run = Callable[..., Done]
WRITTEN = WrittenReport(
    Path("/runs/a/report.html"), (Path("/runs/a/plots/loss.png"),), ("run.json is cut off",)
)


def test_the_path_of_the_page_is_the_result(llamafarm: Run, fake_api: Callable[..., Any]) -> None:
    fake = fake_api("report", WRITTEN)
    done = llamafarm("report", "runs/a")
    assert done == Done(0, "/runs/a/report.html\n", "warning: run.json is cut off\n")
    fake.assert_called_once_with(Path("runs/a"))


def test_a_program_gets_all_paths(llamafarm: Run, fake_api: Callable[..., Any]) -> None:
    fake_api("report", WRITTEN)
    assert json.loads(llamafarm("report", "runs/a", "--json").out) == {
        "report": "/runs/a/report.html",
        "plots": ["/runs/a/plots/loss.png"],
    }


def test_the_page_is_shown_when_asked_for(
    llamafarm: Run, fake_api: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    fake_api("report", WRITTEN)
    llamafarm("report", "runs/a")
    assert shown == []
    llamafarm("report", "runs/a", "--open")
    assert shown == ["file:///runs/a/report.html"]


def test_what_is_no_run_is_an_error_of_the_user(
    llamafarm: Run, fake_api: Callable[..., Any]
) -> None:
    fake_api("report", OutputError("x is not a run directory", hint="name one"))
    assert llamafarm("report", "x") == Done(
        2, "", "error: x is not a run directory\nhint: name one\n"
    )
