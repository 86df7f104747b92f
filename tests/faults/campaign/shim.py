"""What stands between a run and the disk: every change of a file under a directory is counted, and
at one of them the process is killed, loses its power, or is refused by the disk.

The functions of `os`, `open`, and `exchange` of the file layer are replaced inside the process, so
that no rights are needed. A call of one of them is an operation.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.faults.campaign.power import Disk

When = Literal["before", "within", "after"]
_WRITING = os.O_WRONLY | os.O_RDWR
_STAGE = re.compile(r"^\.tmp-(?P<name>.+?)-\d+(?:\.old)?$")
# What the disk refuses with each error.
REFUSED: dict[str, tuple[str, ...]] = {
    "ENOSPC": ("create", "mkdir", "write", "fsync", "rename"),
    "EDQUOT": ("create", "mkdir", "write", "fsync", "rename"),
    "EROFS": ("create", "mkdir", "rename", "exchange", "unlink", "rmdir", "truncate"),
    "EIO": ("create", "mkdir", "write", "fsync", "rename", "exchange", "unlink", "rmdir"),
    "fsync": ("fsync",),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One change. path and to are relative to the watched directory; size: bytes of a write."""

    number: int
    kind: str
    path: str
    to: str
    phase: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one operation: the `at`-th (from 1) of those whose phase is in `phases`, or
    of all.

    what: kill, power (with the seed), or a key of REFUSED; lasting: refused from then on. within:
    half of a write is done first.
    """

    what: str
    at: int
    when: When = "before"
    phases: tuple[str, ...] = ()
    lasting: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Shim:
    """Called in the process that is watched. log: one JSON line an operation, and one when the
    fault was done; copies: where the directory is copied to after every operation.
    """

    root: Path
    log: Path
    fault: Fault | None = None
    copies: Path | None = None

    def __call__(self) -> None:
        """Install it, for good."""
        _Watch(self).install()


def read_log(log: Path) -> tuple[tuple[Operation, ...], bool]:
    """The operations, and whether the fault was done."""
    if not log.exists():
        return (), False
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    operations = tuple(Operation(**line) for line in lines if "fault" not in line)
    return operations, any("fault" in line for line in lines)


class _Watch:
    """In the process."""

    def __init__(self, shim: Shim) -> None:
        self._shim = shim
        self._root = str(shim.root.resolve())
        self._paths: dict[int, str] = {}
        self._phase = "start"
        self._number = 0
        self._matching = 0
        self._over = False
        self._quiet = False
        self._log = os.open(shim.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        fault = shim.fault
        self._disk: Disk | None = None
        if fault is not None and fault.what == "power":
            shadow = shim.log.with_suffix(".shadow")
            self._disk = Disk(Path(self._root), shadow, fault.seed)

    # Which calls are watched.

    def install(self) -> None:
        watched = {
            "open": self._open,
            "close": self._close,
            "write": self._write,
            "pwrite": self._pwrite,
            "fsync": self._fsync,
            "fdatasync": self._fsync,
            "ftruncate": self._ftruncate,
            "truncate": self._truncate,
            "mkdir": self._mkdir,
            "rmdir": self._rmdir,
            "unlink": self._unlink,
            "remove": self._unlink,
            "rename": self._rename,
            "replace": self._rename,
            "link": self._link,
            "symlink": self._symlink,
        }
        self._os = {name: getattr(os, name) for name in watched}
        for name, function in watched.items():
            setattr(os, name, function)
        self._stream = io.open
        io.open = builtins.open = self._open_stream
        from llamafarm import files

        if hasattr(files, "exchange"):
            self._exchange_names = files.exchange
            files.exchange = self._exchange

    def _path_of(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The absolute path, when it is watched."""
        if self._quiet:
            return None
        if isinstance(path, int):
            return self._paths.get(path)
        name = os.fsdecode(path)
        if dir_fd is not None:
            if dir_fd not in self._paths:
                return None
            full = f"{self._paths[dir_fd]}/{name}"
        else:
            path = Path(name)
            full = str(path.parent.resolve() / path.name)
        inside = full == self._root or full.startswith(self._root + os.sep)
        return full if inside else None

    def _open(self, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        full = self._path_of(path, options.get("dir_fd"))
        if full is None:
            return self._os["open"](path, flags, *rest, **options)
        creates = bool(flags & os.O_CREAT) and not os.path.lexists(full)
        descriptor = 0

        def act() -> int:
            nonlocal descriptor
            descriptor = self._os["open"](path, flags, *rest, **options)
            return descriptor

        if creates:
            self._do("create", full, act)
        elif flags & os.O_TRUNC and os.path.lexists(full):
            self._do("truncate", full, act)
        else:
            act()
        self._paths[descriptor] = full
        return descriptor

    def _close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        self._os["close"](descriptor)

    def _write(self, descriptor: int, data: Any) -> int:
        full = self._path_of(descriptor)
        write = self._os["write"]
        if full is None:
            return int(write(descriptor, data))
        view = memoryview(data).cast("B")
        return int(
            self._do(
                "write",
                full,
                lambda: write(descriptor, view),
                half=lambda: write(descriptor, view[: len(view) // 2]),
                size=len(view),
            )
        )

    def _pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        full = self._path_of(descriptor)
        pwrite = self._os["pwrite"]
        if full is None:
            return int(pwrite(descriptor, data, offset))
        size = memoryview(data).nbytes
        return int(self._do("write", full, lambda: pwrite(descriptor, data, offset), size=size))

    def _fsync(self, descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        full = self._path_of(number)
        if full is None:
            self._os["fsync"](number)
        else:
            self._do("fsync", full, lambda: self._os["fsync"](number))

    def _ftruncate(self, descriptor: int, length: int) -> None:
        self._simple("truncate", "ftruncate", descriptor, length)

    def _truncate(self, path: Any, length: int) -> None:
        self._simple("truncate", "truncate", path, length)

    def _mkdir(self, path: Any, *rest: Any, **options: Any) -> None:
        self._simple("mkdir", "mkdir", path, *rest, **options)

    def _rmdir(self, path: Any, **options: Any) -> None:
        self._simple("rmdir", "rmdir", path, **options)

    def _unlink(self, path: Any, **options: Any) -> None:
        self._simple("unlink", "unlink", path, **options)

    def _simple(self, kind: str, name: str, path: Any, *rest: Any, **options: Any) -> None:
        full = self._path_of(path, options.get("dir_fd"))
        # A call that fails by itself changes nothing, and is no operation.
        if (
            full is None
            or (kind in ("rmdir", "unlink") and not os.path.lexists(full))
            or (kind == "mkdir" and os.path.lexists(full))
        ):
            self._os[name](path, *rest, **options)
        else:
            self._do(kind, full, lambda: self._os[name](path, *rest, **options))

    def _rename(self, source: Any, target: Any, **options: Any) -> None:
        full, to = self._path_of(source), self._path_of(target)
        if full is None or to is None:
            self._os["rename"](source, target, **options)
        else:
            self._do("rename", full, lambda: self._os["rename"](source, target, **options), to=to)

    def _link(self, source: Any, target: Any, **options: Any) -> None:
        self._new_name(target, lambda: self._os["link"](source, target, **options))

    def _symlink(self, source: Any, target: Any, *rest: Any, **options: Any) -> None:
        self._new_name(target, lambda: self._os["symlink"](source, target, *rest, **options))

    def _new_name(self, path: Any, act: Callable[[], None]) -> None:
        """A name more for what is there already."""
        full = self._path_of(path)
        if full is None:
            act()
        else:
            self._do("create", full, act)

    def _exchange(self, first: Path, second: Path) -> bool:
        full, to = self._path_of(first), self._path_of(second)
        if full is None or to is None:
            return bool(self._exchange_names(first, second))
        return bool(self._do("exchange", full, lambda: self._exchange_names(first, second), to=to))

    def _open_stream(self, file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        """A stream whose every write is an operation."""
        writes = any(letter in mode for letter in "wax+")
        watched = self._path_of(file) if writes else None
        if watched is None:
            return self._stream(file, mode, *rest, **options)
        raw = _WatchedFile(self, file, mode.replace("b", "").replace("t", ""))
        buffering = rest[0] if rest else options.get("buffering", -1)
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
        stream = kind(raw)
        if "b" in mode:
            return stream
        encoding, errors, newline = (*rest[1:4], None, None, None)[:3]
        return io.TextIOWrapper(
            stream,
            options.get("encoding", encoding),
            options.get("errors", errors),
            options.get("newline", newline),
        )

    # What is done at an operation.

    def _do(
        self,
        kind: str,
        path: str,
        act: Callable[[], Any],
        *,
        to: str = "",
        half: Callable[[], Any] | None = None,
        size: int = 0,
    ) -> Any:
        operation = self._record(kind, path, to, size)
        fault = self._shim.fault
        if fault is None or not self._is_hit(operation, fault):
            return self._perform(operation, path, to, act)
        if fault.when == "after":
            result = self._perform(operation, path, to, act)
            self._strike(fault, path)
            return result
        if fault.when == "within" and half is not None:
            self._perform(operation, path, to, half)
        self._strike(fault, path)
        return self._perform(operation, path, to, act)

    def _is_hit(self, operation: Operation, fault: Fault) -> bool:
        if fault.phases and operation.phase not in fault.phases:
            return False
        if fault.what in REFUSED and operation.kind not in REFUSED[fault.what]:
            return False
        self._matching += 1
        return self._matching == fault.at or (fault.lasting and self._matching > fault.at)

    def _record(self, kind: str, path: str, to: str, size: int) -> Operation:
        self._number += 1
        relative = os.path.relpath(path, self._root)
        self._phase = phase_of(kind, relative, self._phase)
        target = os.path.relpath(to, self._root) if to else ""
        operation = Operation(self._number, kind, relative, target, self._phase, size)
        self._say(asdict(operation))
        return operation

    def _perform(self, operation: Operation, path: str, to: str, act: Callable[[], Any]) -> Any:
        if self._disk is not None:
            self._quiet = True
            _before(self._disk, operation.kind, path, to)
            self._quiet = False
        result = act()
        if operation.kind == "exchange" and not result:
            return result  # it is not to be had here
        if self._disk is not None:
            self._quiet = True
            _after(self._disk, operation.kind, path, to)
            self._quiet = False
        if operation.kind in ("rename", "exchange"):
            self._follow(path, to, both=operation.kind == "exchange")
        if self._shim.copies is not None:
            self._quiet = True
            shutil.copytree(self._root, self._shim.copies / str(operation.number), symlinks=True)
            self._quiet = False
        return result

    def _follow(self, path: str, to: str, *, both: bool) -> None:
        """Open descriptors have other names now."""
        for descriptor, name in self._paths.items():
            for old, new in ((path, to), *(((to, path),) if both else ())):
                if name == old or name.startswith(old + os.sep):
                    self._paths[descriptor] = new + name[len(old) :]
                    break

    def _strike(self, fault: Fault, path: str) -> None:
        self._say({"fault": asdict(fault)})
        if fault.what == "power":
            self._quiet = True
            assert self._disk is not None
            self._disk.lose_power()
        if fault.what in ("kill", "power"):
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.EIO if fault.what == "fsync" else getattr(errno, fault.what)
        raise OSError(number, os.strerror(number), path)

    def _say(self, value: dict[str, Any]) -> None:
        self._os["write"](self._log, (json.dumps(value) + "\n").encode())


class _WatchedFile(io.FileIO):
    """A file that `open` gave out."""

    def __init__(self, watch: _Watch, file: Any, mode: str) -> None:
        self._watch = watch
        opener = None if isinstance(file, int) else watch._open
        super().__init__(file, mode, opener=opener)
        if isinstance(file, int):
            self._path = watch._paths[file]
        else:
            self._path = watch._paths[self.fileno()]

    def write(self, data: Any) -> int:  # type: ignore[override]
        view = memoryview(data).cast("B")
        return int(
            self._watch._do(
                "write",
                self._path,
                lambda: io.FileIO.write(self, view),
                half=lambda: io.FileIO.write(self, view[: len(view) // 2]),
                size=len(view),
            )
        )

    def truncate(self, size: int | None = None) -> int:
        return int(self._watch._do("truncate", self._path, lambda: io.FileIO.truncate(self, size)))

    def close(self) -> None:
        if not self.closed:
            self._watch._paths.pop(self.fileno(), None)
        super().close()


def phase_of(kind: str, path: str, previous: str) -> str:
    """What a run is doing, by the path it changes: save, rotate, final_model, metrics.jsonl, …"""
    first, _, rest = path.partition(os.sep)
    if first == ".":
        return previous
    if first != "checkpoints":
        return _name(first)
    if not rest:
        return previous if previous in ("save", "rotate") else "save"
    second = rest.partition(os.sep)[0]
    if _STAGE.match(second) or kind in ("rename", "exchange"):
        return "save"
    return "rotate"


def _name(part: str) -> str:
    stage = _STAGE.match(part)
    return stage["name"] if stage else part


def _before(disk: Disk, kind: str, path: str, to: str) -> None:
    if kind in ("write", "truncate"):
        disk.will_write(path)
    elif kind == "unlink":
        disk.will_remove(path)
    elif kind == "rmdir":
        disk.will_remove_directory(path)
    elif kind == "rename":
        disk.will_rename(path, to)


def _after(disk: Disk, kind: str, path: str, to: str) -> None:
    if kind in ("create", "mkdir"):
        disk.created(path)
    elif kind == "fsync":
        disk.synced(path)
    elif kind == "truncate":
        disk.truncated(path)
    elif kind == "exchange":
        disk.exchanged(path, to)
