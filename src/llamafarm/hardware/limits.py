"""What the kernel lets this process have: the CPU quota and the memory of its control groups,
versions 1 and 2.

Every function takes the root of the file system, so that a recorded tree is as good as the real
one. A limit of any enclosing group holds, so the path of the process's group is walked up to its
mount.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from llamafarm.hardware.facts import GIB

# Version 1 writes "no limit" as the largest page-aligned signed 64-bit number.
_NO_LIMIT_BYTES = 2**60


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """limit_bytes: the most the group may hold; free_bytes: what is left of it, reclaimable file
    cache counted.
    """

    limit_bytes: int
    free_bytes: int


def cpu_quota(root: Path) -> float | None:
    """CPUs' worth of time per period that the tightest group grants, e.g. 1.5; None without a
    quota.
    """
    quotas = [
        *(_quota_v2(group) for group in _groups(root, "")),
        *(_quota_v1(group) for group in _groups(root, "cpu")),
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: Path) -> MemoryLimit | None:
    """The group that leaves the least memory; None without a limit."""
    limits = [
        *(_memory_v2(group) for group in _groups(root, "")),
        *(_memory_v1(group) for group in _groups(root, "memory")),
    ]
    found = [limit for limit in limits if limit is not None]
    return min(found, key=lambda limit: limit.free_bytes, default=None)


def usable_cores(root: Path, affinity: Collection[int]) -> tuple[int, str]:
    """Cores this process may keep busy, and why: its affinity, cut to the quota.

    A quota of 1.5 CPUs is one core: a second thread would be stopped for half of every period.
    """
    cores, reason = len(affinity), f"{len(affinity)} in the affinity of this process"
    quota = cpu_quota(root)
    if quota is not None and quota < cores:
        return max(1, int(quota)), f"cgroup quota of {quota:g} CPUs"
    return cores, reason


def physical_cores(root: Path, affinity: Collection[int]) -> int | None:
    """How many of these CPUs are cores of their own and not hardware twins; None where the kernel
    does not say.
    """
    siblings = [
        _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        for cpu in affinity
    ]
    return None if None in siblings else len(set(siblings))


def usable_memory(root: Path, total_bytes: int, available_bytes: int) -> tuple[int, int, str]:
    """Total and available bytes for this process, and why: the machine's, cut to the group's."""
    limit = memory_limit(root)
    if limit is None or limit.limit_bytes >= total_bytes:
        return total_bytes, available_bytes, "memory of the machine"
    reason = f"cgroup limit of {limit.limit_bytes / GIB:.1f} GiB"
    return limit.limit_bytes, min(available_bytes, limit.free_bytes), reason


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Directories of this process's group and of those around it, innermost first; controller "" is
    version 2.
    """
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        for mount in _mounts(root, controllers, controller):
            group = mount / path.lstrip("/")
            # Inside a container the path may be the host's: then only the mount itself exists.
            yield from (
                d for d in (group, *group.parents) if d.is_relative_to(mount) and d.is_dir()
            )


def _mounts(root: Path, controllers: str, controller: str) -> tuple[Path, ...]:
    base = root / "sys/fs/cgroup"
    names = (controllers, controller) if controller else ("", "unified")
    return tuple(dict.fromkeys(base / name for name in names))


def _quota_v2(group: Path) -> float | None:
    fields = (_read(group / "cpu.max") or "").split()
    if len(fields) != 2 or fields[0] == "max":
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(group: Path) -> float | None:
    quota, period = _read_int(group / "cpu.cfs_quota_us"), _read_int(group / "cpu.cfs_period_us")
    return quota / period if quota is not None and period and quota > 0 else None


def _memory_v2(group: Path) -> MemoryLimit | None:
    return _memory(group, _read_int(group / "memory.max"), "memory.current", "inactive_file")


def _memory_v1(group: Path) -> MemoryLimit | None:
    limit = _read_int(group / "memory.limit_in_bytes")
    return _memory(group, limit, "memory.usage_in_bytes", "total_inactive_file")


def _memory(
    group: Path, limit: int | None, usage_file: str, reclaimable: str
) -> MemoryLimit | None:
    if limit is None or limit >= _NO_LIMIT_BYTES:
        return None
    pairs = (line.split() for line in (_read(group / "memory.stat") or "").splitlines())
    cached = next((int(value) for name, value in pairs if name == reclaimable), 0)
    held = max(0, (_read_int(group / usage_file) or 0) - cached)
    return MemoryLimit(limit, max(0, limit - held))


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _read_int(file: Path) -> int | None:
    text = _read(file)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None
