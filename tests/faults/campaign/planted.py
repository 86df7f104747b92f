"""Faults of our own in a child, so that the campaign is seen to find them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Planted:
    """Break the program in one way, after what was to be done before the command: a shim must not
    see an fsync that is not done. fault: a key of FAULTS.
    """

    fault: str
    then: Callable[[], object] | None = None

    def __call__(self) -> None:
        if self.then is not None:
            self.then()
        FAULTS[self.fault]()


def _replace(name: str, value: Any) -> None:
    """Whichever modules of llamafarm have it under this name."""
    modules = [m for n, m in list(sys.modules.items()) if n.startswith("llamafarm.")]
    holders = [module for module in modules if hasattr(module, name)]
    assert holders, name
    for module in holders:
        setattr(module, name, value)


def _write_in_place() -> None:
    """Directories are written under their own name."""

    @contextlib.contextmanager
    def in_place(final: Path) -> Iterator[Path]:
        final.mkdir(parents=True, exist_ok=True)
        yield final

    _replace("staged_directory", in_place)


def _never_fsync() -> None:
    os.fsync = lambda descriptor: None


def _forget_the_optimizer() -> None:
    _replace("join_optimizer_state", lambda *arguments: None)


def _take_no_lock() -> None:
    fcntl.flock = lambda descriptor, operation: None


FAULTS: Mapping[str, Callable[[], None]] = {
    "writes in place": _write_in_place,
    "never fsyncs": _never_fsync,
    "forgets the optimizer": _forget_the_optimizer,
    "takes no lock": _take_no_lock,
}
