"""A memory limit that is met as an error inside this process, not as a kill from outside.

Linux does not refuse memory: it hands out pages until the machine or the control group has none
left, and then kills the process. Here the kernel is told to refuse new private memory
(RLIMIT_DATA, setrlimit(2)) beyond what is free now, so that an allocator reports an error while
there still is something to reduce.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path
from types import TracebackType

from llamafarm.hardware.limits import memory_limit

# For the stacks, buffers and small objects of whoever has to report that memory is short.
RESERVE_BYTES = 64 * 1024**2
_KIB = 1024


class MemoryCeiling:
    """Context manager; without effect where the kernel has no such limit (macOS).

    refresh() is to be called now and then: what others take or give back moves the ceiling.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before: tuple[int, int] | None = None

    def __enter__(self) -> MemoryCeiling:
        if sys.platform == "linux":
            self._before = resource.getrlimit(resource.RLIMIT_DATA)
            self.refresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            resource.setrlimit(resource.RLIMIT_DATA, self._before)

    def refresh(self) -> None:
        """Set the ceiling to what this process holds plus what is free now."""
        if self._before is None:
            return
        held, free = held_bytes(self._root), free_bytes(self._root)
        if held is None or free is None:
            return
        wanted = held + max(free - RESERVE_BYTES, RESERVE_BYTES)
        soft, hard = self._before
        for limit in (soft, hard):
            if limit != resource.RLIM_INFINITY:
                wanted = min(wanted, limit)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def held_bytes(root: Path) -> int | None:
    """What RLIMIT_DATA counts of this process: private writable memory, touched or not."""
    return _field(root / "proc/self/status", "VmData")


def free_bytes(root: Path) -> int | None:
    """What the machine (swap included) and every control group around this process have left."""
    available = _field(root / "proc/meminfo", "MemAvailable")
    if available is None:
        return None
    machine = available + (_field(root / "proc/meminfo", "SwapFree") or 0)
    group = memory_limit(root)
    return machine if group is None else min(machine, group.free_bytes)


def _field(file: Path, name: str) -> int | None:
    """A `Name:   123 kB` line, in bytes."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", file.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) * _KIB if found else None
