"""That the row of fuzzed strategies would find what it looks for. The row itself is run with the
others, in test_campaign.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import Problem, StrategyError
from tests.faults.campaign import fuzz

GOOD = "s: {components: {fine_tuner: {config: {method: {r: 4}}}}}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "fuzz.yaml"
    made.write_text(GOOD)
    return made


def _raise(error: Exception) -> Callable[..., Any]:
    def raise_it(*_: Any, **__: Any) -> Any:
        raise error

    return raise_it


def _hang(*_: Any, **__: Any) -> Any:
    while True:
        pass


def test_a_file_that_is_right_is_taken(file: Path) -> None:
    assert fuzz.check(file) == ""


def test_another_error_than_ours_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "load_strategy", _raise(KeyError("x")))
    assert fuzz.check(file) == "KeyError: 'x'"


def test_a_hang_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LONGEST_SECONDS", 0.05)
    monkeypatch.setattr(fuzz, "load_strategy", _hang)
    assert fuzz.check(file) == "more than 0.05 seconds"


def test_a_refusal_without_key_and_line_is_found(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = StrategyError("no", [Problem("something is wrong somewhere")])
    monkeypatch.setattr(fuzz, "load_strategy", _raise(error))
    assert "neither a key nor a line" in fuzz.check(file)


@pytest.mark.parametrize("written", ["s: [", GOOD.replace("r: 4", "r: 5")])
def test_a_strategy_that_is_written_as_another_is_found(
    file: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setattr(fuzz, "to_yaml", lambda *_, **__: written)
    assert "what is written of it" in fuzz.check(file)


def test_a_case_is_the_same_whenever_it_is_made() -> None:
    for make in (fuzz._written, fuzz._damaged):
        made = [make(random.Random(f"x {number}")) for number in range(30)]
        assert made == [make(random.Random(f"x {number}")) for number in range(30)]
        assert len(set(made)) > 25
