"""What a disk can do to a program: a crash or an error at any call that changes something.

The calls are those of `os` and `files.exchange`, which the file layer looks up when it calls them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from llamafarm import files

_OF_OS = ("write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
_FINISHED, _CRASHED, _FAILED = 0, 77, 78

Before = Callable[[str, tuple[Any, ...]], None]


@contextlib.contextmanager
def watched(before: Before, *, exchange: bool = True) -> Iterator[None]:
    """Call `before(name, arguments)` ahead of every call; `create` is an `open` that may make a
    file. exchange: whether the kernel has it.
    """

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            before(name, arguments)
            return real(*arguments, **named)

        return call

    def opened(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            before("create", (path,))
        return real_open(path, flags, *arguments, **named)

    real_open = os.open
    swap = files.exchange if exchange else lambda first, second: False
    with contextlib.ExitStack() as patches:
        for name in _OF_OS:
            patches.enter_context(patch.object(os, name, wrapped(name, getattr(os, name))))
        patches.enter_context(patch.object(os, "open", opened))
        if exchange:
            swap = wrapped("exchange", swap)
        patches.enter_context(patch.object(files, "exchange", swap))
        yield


# Crashes.


@dataclass(frozen=True, slots=True)
class Crash:
    """power: the machine's, so that what was not fsynced is lost too; else the process's."""

    power: bool = False
    exchange: bool = True

    def __str__(self) -> str:
        return f"{'power' if self.power else 'kill'}{'' if self.exchange else '-no-exchange'}"


CRASHES = [Crash(power, exchange) for power in (False, True) for exchange in (True, False)]


def crash_at_every_call(
    root: Path, prepare: Callable[[], None], work: Callable[[], None], crash: Crash
) -> Iterator[str]:
    """Do the work from the start again and again, each time in a process that ends at the next
    call. Yields after each, with the name of the call; at last after work that came to its end.
    """
    for number in itertools.count():
        prepare()
        name = _in_a_process(root, work, crash, number)
        yield name
        if name == "finished":
            return


def _in_a_process(root: Path, work: Callable[[], None], crash: Crash, number: int) -> str:
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        # Nothing but the kernel may clean up after it.
        try:
            with watched(_Disk(root, crash, number, writable).before, exchange=crash.exchange):
                work()
            os._exit(_FINISHED)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(_FAILED)
    os.close(writable)
    with os.fdopen(readable) as said:
        name = said.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (_FINISHED, _CRASHED), f"the work failed at call {number}"
    return name if code == _CRASHED else "finished"


@dataclass(slots=True)
class _Disk:
    """What is not safe yet. written: inodes with content that was not fsynced; made: names since
    their directory was fsynced, by its inode; renamed: how to undo each rename since then.
    """

    root: Path
    crash: Crash
    number: int
    report_to: int
    calls: int = 0
    written: set[int] = field(default_factory=set)
    made: dict[int, set[str]] = field(default_factory=dict)
    renamed: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    write: Callable[[int, Any], int] = os.write
    rename: Callable[[Any, Any], None] = os.rename
    swap: Callable[[Path, Path], bool] = files.exchange

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.calls == self.number:
            self._end(name, arguments)
        self.calls += 1
        if name == "write":
            self.written.add(os.fstat(arguments[0]).st_ino)
        elif name == "fsync":
            inode = os.fstat(arguments[0]).st_ino
            self.written.discard(inode)
            self.made.pop(inode, None)
            self.renamed = [entry for entry in self.renamed if entry[0] != inode]
        elif name in ("create", "mkdir") and not os.path.lexists(arguments[0]):
            path = Path(arguments[0])
            self.made.setdefault(path.parent.stat().st_ino, set()).add(path.name)
        elif name in ("rename", "replace", "exchange"):
            self._remember(name, Path(arguments[0]), Path(arguments[1]))

    def _remember(self, name: str, first: Path, second: Path) -> None:
        kept = self.root.with_name(f"replaced-{self.number}-{self.calls}")
        if name == "replace" and second.exists():
            kept.hardlink_to(second)

        def undo() -> None:
            if name == "exchange":
                self.swap(first, second)
                return
            self.rename(second, first)
            if kept.exists():
                self.rename(kept, second)

        self.renamed.append((second.parent.stat().st_ino, undo))

    def _end(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write":
            # A write is cut short in its middle.
            descriptor, data = arguments
            self.written.add(os.fstat(descriptor).st_ino)
            self.write(descriptor, data[: len(data) // 2])
        if self.crash.power:
            self._lose_what_is_not_safe()
        self.write(self.report_to, name.encode())
        os._exit(_CRASHED)

    def _lose_what_is_not_safe(self) -> None:
        for _, undo in reversed(self.renamed):
            with contextlib.suppress(FileNotFoundError):
                undo()
        # What follows is no call of the program.
        self.number = -1
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_file() and path.stat().st_ino in self.written:
                os.truncate(path, 0)
            if path.name in self.made.get(path.parent.stat().st_ino, ()):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


# Errors.


@dataclass(slots=True)
class Failing:
    """An error at the call of this number, or at it and all later ones of its kind (lasting)."""

    number: int
    errno: int
    lasting: bool = False
    calls: int = 0
    name: str = ""

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.calls += 1
        if self.calls == self.number + 1:
            self.name = name
        elif not (self.lasting and name == self.name):
            return
        raise OSError(self.errno, os.strerror(self.errno))


def fail_at_every_call(
    prepare: Callable[[], None],
    work: Callable[[], None],
    errno: int,
    *,
    lasting: bool = False,
    exchange: bool = True,
) -> Iterator[tuple[str, Exception | None]]:
    """Do the work from the start again and again, each time with an error at the next call. Yields
    after each, with the name of the call and what the work raised; ends when no call is left.
    """
    for number in itertools.count():
        prepare()
        disk, raised = Failing(number, errno, lasting), None
        try:
            with watched(disk.before, exchange=exchange):
                work()
        except Exception as error:
            raised = error
        if not disk.name:
            assert raised is None
            return
        yield disk.name, raised
