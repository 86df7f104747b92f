"""The command line with the verbs of `llamafarm.api` replaced at the seam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec

import pytest

from llamafarm import api
from llamafarm.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def no_colour_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same width everywhere, and nothing written into anybody's home."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("LLAMAFARM_STATE", str(tmp_path / "state"))


@pytest.fixture
def llamafarm(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command line."""

    def run(*argv: str) -> Done:
        code = main(argv)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def fake_api(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Mock]:
    """Put an answer (or an error to raise) in the place of a verb; calls must fit its signature."""

    verbs = dict(vars(api))

    def replace(verb: str, answer: Any) -> Mock:
        fake = create_autospec(verbs[verb])
        if isinstance(answer, BaseException | type) or callable(answer):
            fake.side_effect = answer
        else:
            fake.return_value = answer
        monkeypatch.setattr(api, verb, fake)
        return fake  # type: ignore[no-any-return]  # create_autospec is not typed

    return replace
