"""Control groups, from recorded trees of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.hardware.facts import GIB
from llamafarm.hardware.limits import (
    MemoryLimit,
    cpu_quota,
    memory_limit,
    physical_cores,
    usable_cores,
    usable_memory,
)


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


def v1(root: Path, **extra: str) -> Path:
    files = {
        "proc/self/cgroup": "3:memory:/job\n2:cpu,cpuacct:/job\n0::/",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "150000",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(4 * GIB),
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(3 * GIB),
        "sys/fs/cgroup/memory/job/memory.stat": f"cache 1\ntotal_inactive_file {2 * GIB}",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    }
    return plant(root, files | extra)


def v2(root: Path) -> Path:
    return plant(
        root,
        {
            "proc/self/cgroup": "0::/user.slice/job.scope",
            "sys/fs/cgroup/user.slice/cpu.max": "100000 100000",
            "sys/fs/cgroup/user.slice/job.scope/cpu.max": "max 100000",
            "sys/fs/cgroup/user.slice/job.scope/memory.max": "max",
            "sys/fs/cgroup/user.slice/memory.max": str(2 * GIB),
            "sys/fs/cgroup/user.slice/memory.current": str(GIB),
            "sys/fs/cgroup/user.slice/memory.stat": "anon 5\ninactive_file 0",
        },
    )


def test_a_quota_of_version_1_is_read_from_the_joined_controller_directory(tmp_path: Path) -> None:
    assert cpu_quota(v1(tmp_path)) == 1.5


def test_a_quota_of_an_enclosing_group_of_version_2_holds(tmp_path: Path) -> None:
    assert cpu_quota(v2(tmp_path)) == 1.0


def test_a_quota_of_one_leaves_one_core_of_eight(tmp_path: Path) -> None:
    assert usable_cores(v2(tmp_path), range(8)) == (1, "cgroup quota of 1 CPUs")


def test_part_of_a_second_cpu_is_not_a_second_core(tmp_path: Path) -> None:
    assert usable_cores(v1(tmp_path), range(8))[0] == 1


def test_a_quota_above_the_affinity_changes_nothing(tmp_path: Path) -> None:
    assert usable_cores(v1(tmp_path), {3}) == (1, "1 in the affinity of this process")


def test_a_container_that_shows_the_host_path_is_read_at_its_mount(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {"proc/self/cgroup": "0::/docker/0123", "sys/fs/cgroup/cpu.max": "50000 100000"},
    )
    assert cpu_quota(tmp_path) == 0.5
    assert usable_cores(tmp_path, range(4))[0] == 1


def test_a_machine_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert memory_limit(tmp_path) is None
    assert usable_memory(tmp_path, 8 * GIB, 5 * GIB) == (8 * GIB, 5 * GIB, "memory of the machine")


def test_file_cache_that_can_be_dropped_counts_as_free(tmp_path: Path) -> None:
    assert memory_limit(v1(tmp_path)) == MemoryLimit(4 * GIB, 3 * GIB)


def test_the_tightest_memory_limit_wins_and_is_named(tmp_path: Path) -> None:
    assert usable_memory(v2(tmp_path), 16 * GIB, 12 * GIB) == (
        2 * GIB,
        1 * GIB,
        "cgroup limit of 2.0 GiB",
    )


def test_available_memory_is_never_more_than_the_machine_has_left(tmp_path: Path) -> None:
    _, available, _ = usable_memory(v1(tmp_path), 16 * GIB, GIB // 2)
    assert available == GIB // 2


@pytest.mark.parametrize(
    ("siblings", "expected"), [(("0", "1"), 2), (("0-1", "0-1"), 1), (("0,2", "1,3"), 2)]
)
def test_hardware_twins_are_one_physical_core(
    tmp_path: Path, siblings: tuple[str, str], expected: int
) -> None:
    base = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    plant(tmp_path, {base.format(cpu): text for cpu, text in enumerate(siblings)})
    assert physical_cores(tmp_path, {0, 1}) == expected


def test_physical_cores_are_unknown_without_a_topology(tmp_path: Path) -> None:
    assert physical_cores(tmp_path, {0, 1}) is None
