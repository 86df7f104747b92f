from __future__ import annotations

import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Done

Run = Callable[..., Done]
ADDRESS = "http://127.0.0.1:8765/token/"


def serving(directory: Path | None, **options: Any) -> None:
    options["on_ready"](ADDRESS)


def test_the_address_is_the_result_and_is_opened(
    llamafarm: Run, fake_api: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    fake = fake_api("dashboard", serving)
    assert llamafarm("dashboard") == Done(0, f"{ADDRESS}\n", "Ctrl-C ends it\n")
    assert opened == [ADDRESS]
    assert llamafarm("dashboard", "runs", "--port", "8765", "--no-browser").code == 0
    assert opened == [ADDRESS]
    assert [call.args[0] for call in fake.call_args_list] == [None, Path("runs")]
    assert [call.kwargs["port"] for call in fake.call_args_list] == [0, 8765]


@pytest.mark.parametrize("port", ["-1", "65536", "http", "1.5", ""])
def test_what_is_no_port_is_an_error_of_the_user(llamafarm: Run, port: str) -> None:
    done = llamafarm("dashboard", f"--port={port}")
    assert (done.code, done.out) == (2, "")
    assert "--port" in done.err


def test_a_directory_that_is_not_there_is_an_error_of_the_user(
    llamafarm: Run, tmp_path: Path
) -> None:
    done = llamafarm("dashboard", str(tmp_path / "nothing"), "--no-browser")
    assert (done.code, done.out) == (2, "")
    assert "does not exist" in done.err


def test_ctrl_c_is_told_and_has_its_code(llamafarm: Run, fake_api: Callable[..., Any]) -> None:
    fake_api("dashboard", KeyboardInterrupt)
    assert llamafarm("dashboard") == Done(130, "", "stopped\n")


def test_a_defect_of_a_page_is_told_and_kept_while_the_server_goes_on(
    llamafarm: Run, fake_api: Callable[..., Any]
) -> None:
    def failing(directory: Path | None, **options: Any) -> None:
        options["on_defect"](ZeroDivisionError("of a page"))

    fake_api("dashboard", failing)
    done = llamafarm("dashboard")
    assert done.code == 0
    assert "a defect of llamafarm: ZeroDivisionError: of a page" in done.err
    assert "the details are in" in done.err


def test_the_web_framework_is_imported_by_nothing_else(llamafarm: Run) -> None:
    assert llamafarm("dashboard", "--help").code == 0
    import subprocess

    code = (
        "import sys; from llamafarm.cli.main import main; main(['dashboard', '--help']); "
        "main(['runs', '.']); sys.exit(bool({'starlette', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0
