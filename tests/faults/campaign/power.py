"""What a power failure leaves of a directory, by the promises of POSIX alone.

What is simulated: a file falls back to the size that it had when it was last fsynced (a new one to
nothing), three times in four; of the names in a directory
(created, removed, renamed, swapped) those since its last fsync are lost from some instant on, which
is drawn for every directory of its own: so of two directories one may have lost more than the
other. What is not: single sectors that are torn or stale, a disk that lies about fsync, later names
of one directory that survive earlier ones.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Some of what was never fsynced reaches the disk all the same.
_LOST = 0.75


@dataclass(frozen=True, slots=True)
class _Change:
    """One change of the names in a directory, and what it takes to undo it.

    inode: of the directory that was removed; kept: where the content of a removed file still is.
    """

    number: int
    kind: Literal["create", "remove", "rmdir", "rename", "exchange"]
    directory: int
    name: str
    to_directory: int = 0
    to_name: str = ""
    inode: int = 0
    kept: str = ""


class Disk:
    """Follows the operations on a directory, and can take back what was not durable."""

    def __init__(self, root: Path, shadow: Path, seed: int) -> None:
        """shadow: an absent directory beside `root`, for files that were removed."""
        self._root = root
        self._shadow = shadow
        self._chance = random.Random(seed)
        self._count = 0
        self._durable_sizes: dict[int, int] = {}
        self._changes: dict[int, list[_Change]] = defaultdict(list)
        shadow.mkdir()

    # What was done.

    def will_write(self, path: str) -> None:
        """Before a write or a truncation: what is there now was there before."""
        status = os.lstat(path)
        self._durable_sizes.setdefault(status.st_ino, status.st_size)

    def truncated(self, path: str) -> None:
        """A size that shrank is not taken back: the old bytes are gone."""
        status = os.lstat(path)
        self._durable_sizes[status.st_ino] = min(
            self._durable_sizes.get(status.st_ino, 0), status.st_size
        )

    def created(self, path: str) -> None:
        """A new file or directory."""
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            self._durable_sizes[status.st_ino] = 0
        self._add("create", path)

    def synced(self, path: str) -> None:
        """A file or directory was fsynced under this name."""
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            self._changes.pop(status.st_ino, None)
        else:
            self._durable_sizes[status.st_ino] = status.st_size

    def will_remove(self, path: str) -> None:
        """Before a file is unlinked."""
        self._add("remove", path, kept=self._keep(path))

    def will_remove_directory(self, path: str) -> None:
        """Before a directory is removed."""
        self._add("rmdir", path, inode=os.lstat(path).st_ino)

    def will_rename(self, path: str, to: str) -> None:
        """Before a rename, which may replace a file."""
        kept = self._keep(to) if Path(to).is_file() else ""
        self._add("rename", path, to, kept=kept)

    def exchanged(self, path: str, to: str) -> None:
        """Two names were swapped."""
        self._add("exchange", path, to)

    def _add(
        self,
        kind: Literal["create", "remove", "rmdir", "rename", "exchange"],
        path: str,
        to: str = "",
        *,
        inode: int = 0,
        kept: str = "",
    ) -> None:
        self._count += 1
        directory, name = os.path.split(path)
        to_directory, to_name = os.path.split(to)
        parent = os.lstat(directory).st_ino
        to_parent = os.lstat(to_directory).st_ino if to else 0
        change = _Change(self._count, kind, parent, name, to_parent, to_name, inode, kept)
        self._changes[parent].append(change)

    def _keep(self, path: str) -> str:
        kept = self._shadow / str(self._count + 1)
        os.link(path, kept, follow_symlinks=False)
        return str(kept)

    # What is left of it.

    def lose_power(self) -> None:
        """Leave the directory as it may be found after a power failure now."""
        undone: list[_Change] = []
        for changes in self._changes.values():
            undone += changes[self._chance.randint(0, len(changes)) :]
        restored: dict[int, Path] = {}
        for change in sorted(undone, key=lambda change: change.number, reverse=True):
            self._undo(change, self._directories() | restored, restored)
        for path in self._root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self._cut_back(path)

    def _cut_back(self, path: Path) -> None:
        status = path.stat()
        durable = self._durable_sizes.get(status.st_ino, status.st_size)
        if status.st_size > durable and self._chance.random() < _LOST:
            os.truncate(path, durable)

    def _undo(self, change: _Change, paths: dict[int, Path], restored: dict[int, Path]) -> None:
        if change.directory not in paths:
            return  # it is lost itself
        path = paths[change.directory] / change.name
        if change.kind == "create":
            _remove(path)
        elif change.kind == "remove":
            path.hardlink_to(change.kept)
        elif change.kind == "rmdir":
            path.mkdir()
            restored[change.inode] = path
        elif change.to_directory in paths:
            self._rename_back(change, path, paths[change.to_directory] / change.to_name)

    def _rename_back(self, change: _Change, path: Path, to: Path) -> None:
        aside = self._shadow / "swapped"
        if change.kind == "exchange":
            path.rename(aside)
        to.rename(path)
        if change.kind == "exchange":
            aside.rename(to)
        elif change.kept:
            to.hardlink_to(change.kept)

    def _directories(self) -> dict[int, Path]:
        return {os.lstat(folder).st_ino: Path(folder) for folder, _, _ in os.walk(self._root)}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
