"""That the row of hostile artifacts would find what it looks for. The row itself is run with the
others, in test_campaign.py.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.campaign import hostile
from tests.faults.campaign.hostile import Hostile, Place

pytestmark = pytest.mark.slow


def seen(event: str, *args: Any) -> str:
    return hostile._what_happens(event, args, ("/case/out",))


def test_there_are_more_than_sixty_and_each_has_a_name_of_its_own() -> None:
    names = [artifact.name for artifact in hostile.artifacts()]
    assert len(names) == len(set(names)) > 120
    assert len(hostile.chosen("short")) > 60
    assert len(hostile.chosen("long")) == len(names)


@pytest.mark.parametrize(
    ("event", "args"),
    [
        ("socket.connect", (None, ("203.0.113.1", 443))),
        ("socket.getaddrinfo", ("huggingface.co", 443, 0, 0, 0)),
        ("socket.gethostbyname", ("huggingface.co",)),
        ("os.system", (b"touch ran",)),
        ("subprocess.Popen", ("/bin/sh", ["sh", "-c", "true"], None, None)),
        ("open", ("/case/victim", None, os.O_WRONLY | os.O_CREAT)),
        ("open", ("/case/out/../victim", "w", os.O_RDWR)),
        ("os.rename", ("/case/out/a", "/case/victim", -1, -1)),
        ("os.symlink", ("/case/out/a", "/case/victim", -1)),
        ("os.mkdir", ("/case/victim", 0o777, -1)),
        ("os.remove", ("/case/victim", -1)),
    ],
)
def test_what_is_not_to_happen_is_seen(event: str, args: Sequence[Any]) -> None:
    assert seen(event, *args)


@pytest.mark.parametrize(
    ("event", "args"),
    [
        ("socket.connect", (None, "/run/some.socket")),
        ("socket.gethostname", ()),
        ("open", ("/case/victim", "r", os.O_RDONLY)),
        ("open", ("/case/out/new/x", "w", os.O_WRONLY | os.O_CREAT)),
        ("open", (5, "w", os.O_WRONLY)),
        ("os.rename", ("/case/out/a", "/case/out/b", -1, -1)),
        ("subprocess.Popen", ("/usr/bin/lscpu", ["lscpu"], None, None)),
    ],
)
def test_what_every_run_does_is_not(event: str, args: Sequence[Any]) -> None:
    assert not seen(event, *args)


def test_what_is_sent_in_a_pickle_or_as_code_would_be_noticed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    pickle.loads(place.pickle)
    assert place.canary.exists()
    place.canary.unlink()
    exec(place.code)
    assert place.canary.exists()


def _nothing(place: Place) -> Sequence[str]:
    return ("--version",)


def _touches(place: Place) -> Sequence[str]:
    place.canary.touch()
    return ("--version",)


def _carries_off(place: Place) -> Sequence[str]:
    (place.out / "copy.json").write_text(place.secret.read_text())
    return ("--version",)


def _asks_the_hub(place: Place) -> Sequence[str]:
    place.change(place.root / "strategies.yaml", s={})
    return ("generate", "somebody/model", "hello")


def _writes_beside(place: Place) -> Sequence[str]:
    return ("datasplit", "data.jsonl")


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (_nothing, ""),
        (_touches, "its code was run"),
        (_carries_off, "the secret, or a control character, is in what was written"),
        (_asks_the_hub, "it was seen to do: socket.getaddrinfo: ('huggingface.co',)"),
        (_writes_beside, "it was seen to do: os.mkdir: "),
    ],
)
def test_a_case_fails_when_it_should(
    make: Callable[[Place], Sequence[str]],
    detail: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hostile, "artifacts", lambda: (Hostile("x", make, (0, 2)),))
    (case,) = hostile.cases(tmp_path, "long")
    assert case.passed == (not detail)
    assert detail in case.detail


def test_an_adapter_for_the_cases_is_one_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(place: Place) -> Sequence[str]:
        assert json.loads((place.adapter / "adapter_config.json").read_text())["r"] == 2
        return hostile._generate(place, "adapter")

    monkeypatch.setattr(hostile, "artifacts", lambda: (Hostile("x", plain, (0,)),))
    (case,) = hostile.cases(tmp_path, "long")
    assert case.passed, case.detail
