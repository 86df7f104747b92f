"""The ceiling is real: processes of their own run into it, and are not killed."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamafarm.hardware import ceiling
from llamafarm.hardware.ceiling import RESERVE_BYTES, MemoryCeiling, free_bytes, held_bytes
from llamafarm.hardware.facts import GIB

from .test_limits import plant, v1, v2

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a limit")

MIB = 1024**2
SOURCE = Path(ceiling.__file__).parents[2]
# A machine with little memory left, around this very process.
PROGRAM = """
import os, resource, sys
from pathlib import Path
from llamafarm.hardware.ceiling import MemoryCeiling, held_bytes
root = Path(sys.argv[1])
MIB = 1024**2

def now():  # what this process holds, as the fake machine would tell
    status = Path("/proc/self/status").read_text()
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/status").write_text(status)

def free(mib):
    (root / "proc/meminfo").write_text(f"MemAvailable:   {mib * 1024} kB\\nSwapFree:       0 kB\\n")

def fits(mib):
    try:
        bytes(mib * MIB)  # asked for, not touched
    except MemoryError:
        return False
    return True

now()
"""


def child(root: Path, program: str) -> list[str]:
    """What a process prints that may not be killed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program, str(root)],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def machine(root: Path, *, free_mib: int, swap_mib: int = 0, held_mib: int = 500) -> Path:
    return plant(
        root,
        {
            "proc/meminfo": f"MemTotal:  9 kB\nMemAvailable:   {free_mib * 1024} kB\n"
            f"SwapFree:        {swap_mib * 1024} kB",
            "proc/self/status": f"Name:\tpython\nVmData:\t  {held_mib * 1024} kB",
        },
    )


def test_more_than_what_is_free_is_refused_and_less_is_not(tmp_path: Path) -> None:
    machine(tmp_path, free_mib=300)
    said = child(
        tmp_path,
        "with MemoryCeiling(root):\n"
        "    print(fits(200), fits(300), fits(2000))\n"
        "print(fits(2000))\n",
    )
    assert said == ["True", "False", "False", "True"]


def test_the_limit_of_a_control_group_holds_though_the_machine_has_more(tmp_path: Path) -> None:
    machine(v2(tmp_path), free_mib=64 * 1024)  # the group has 1 GiB left
    said = child(tmp_path, "with MemoryCeiling(root): print(fits(900), fits(1100))")
    assert said == ["True", "False"]


def test_the_ceiling_moves_with_what_is_free(tmp_path: Path) -> None:
    machine(tmp_path, free_mib=300)
    said = child(
        tmp_path,
        "with MemoryCeiling(root) as limit:\n"
        "    print(fits(400))\n"
        "    free(600); now(); limit.refresh(); print(fits(400))\n"
        "    free(300); now(); limit.refresh(); print(fits(400))\n",
    )
    assert said == ["False", "True", "False"]


def test_what_the_process_holds_already_does_not_count_against_it(tmp_path: Path) -> None:
    machine(tmp_path, free_mib=300)
    said = child(
        tmp_path,
        "held = bytes(400 * MIB); now()\nwith MemoryCeiling(root): print(fits(200), fits(300))",
    )
    assert said == ["True", "False"]


def test_an_own_limit_is_never_raised_and_is_put_back(tmp_path: Path) -> None:
    machine(tmp_path, free_mib=64 * 1024)
    said = child(
        tmp_path,
        "own = held_bytes(Path('/')) + 100 * MIB, held_bytes(Path('/')) + 200 * MIB\n"
        "resource.setrlimit(resource.RLIMIT_DATA, own)\n"
        "with MemoryCeiling(root) as limit:\n"
        "    print(resource.getrlimit(resource.RLIMIT_DATA) == own, fits(150))\n"
        "    free(80); limit.refresh()\n"
        "    print(resource.getrlimit(resource.RLIMIT_DATA)[0] < own[0])\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA) == own)\n",
    )
    assert said == ["True", "False", "True", "True"]


def test_torch_reports_the_ceiling_as_a_refusal(tmp_path: Path) -> None:
    said = child(
        tmp_path,
        "import torch\n"
        "from llamafarm.hardware.out_of_memory import is_out_of_memory\n"
        "small = []\n"
        "def large():\n"
        "    torch.empty(2**30, dtype=torch.uint8)\n"
        "def many():\n"
        "    while True: small.append(torch.empty(10))\n"
        "free(200); now()\n"
        "with MemoryCeiling(root):\n"
        "    for attempt in (large, many):\n"
        "        try:\n"
        "            attempt()\n"
        "        except (RuntimeError, MemoryError) as error:\n"
        "            refused = error\n"
        "        small.clear()\n"
        "        print(is_out_of_memory(refused))\n",
    )
    assert said == ["True", "True"]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """The limits that are set, none of them in this process."""
    made: list[tuple[int, int]] = []
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: unlimited)
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: made.append(limit))
    yield made


def test_a_ceiling_is_what_is_held_and_what_is_free_but_for_a_reserve(
    tmp_path: Path, limits: list[tuple[int, int]]
) -> None:
    with MemoryCeiling(machine(tmp_path, free_mib=1000, swap_mib=24, held_mib=500)):
        pass
    unlimited = resource.RLIM_INFINITY
    assert limits == [(1524 * MIB - RESERVE_BYTES, unlimited), (unlimited, unlimited)]


def test_where_almost_nothing_is_free_the_reserve_is_left_to_tell_it(
    tmp_path: Path, limits: list[tuple[int, int]]
) -> None:
    with MemoryCeiling(machine(tmp_path, free_mib=1, held_mib=500)):
        pass
    assert limits[0][0] == 500 * MIB + RESERVE_BYTES


def test_on_macos_nothing_is_limited(
    tmp_path: Path, limits: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with MemoryCeiling(machine(tmp_path, free_mib=300)) as limit:
        limit.refresh()
    assert limits == []


@pytest.mark.parametrize("lacking", ["proc/meminfo", "proc/self/status"])
def test_where_the_kernel_does_not_say_nothing_is_limited(
    tmp_path: Path, limits: list[tuple[int, int]], lacking: str
) -> None:
    (machine(tmp_path, free_mib=300) / lacking).write_text("nothing known\n")
    with MemoryCeiling(tmp_path):
        assert limits == []


def test_the_tightest_of_machine_and_groups_says_what_is_free(tmp_path: Path) -> None:
    assert free_bytes(machine(v1(tmp_path / "1"), free_mib=8192)) == 3 * GIB
    assert free_bytes(machine(v2(tmp_path / "2"), free_mib=8192)) == GIB
    assert free_bytes(machine(v2(tmp_path / "3"), free_mib=100, swap_mib=50)) == 150 * MIB
    assert free_bytes(tmp_path / "nothing") is None


def test_what_this_process_holds_is_read_from_the_kernel() -> None:
    before = held_bytes(Path("/"))
    # Of the kernel, not of what this process has freed and kept.
    with mmap.mmap(-1, 200 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block[::4096] = b"x" * (len(block) // 4096)
        after = held_bytes(Path("/"))
        assert before is not None
        assert after is not None
        assert after - before >= len(block) - MIB


def test_the_limit_of_this_process_is_put_back_whatever_happens() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(ValueError, match="anything"), MemoryCeiling():
        assert resource.getrlimit(resource.RLIMIT_DATA) != before
        raise ValueError("anything")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.fixture
def group_of_a_gib() -> Iterator[Path]:
    """A real control group inside this process's own, as a container would be."""
    own = next(
        (
            line.split(":", 2)[2]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if "memory" in line.split(":")[1].split(",")
        ),
        None,
    )
    if own is None:
        pytest.skip("there is no memory controller of version 1")
    group = Path("/sys/fs/cgroup/memory") / own.lstrip("/") / f"llamafarm-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(GIB))
        yield group
    finally:
        group.rmdir()


TRAINING = """
import os, sys
from pathlib import Path
place, group = Path(sys.argv[1]), Path(sys.argv[2])
(group / "cgroup.procs").write_text(str(os.getpid()))
from tests.training.runs import tiny_data, tiny_plan, train_plan, write_tiny_model
rows = 6000
batch = {"micro_batch_size": rows, "accumulation_steps": 1, "total_steps": 1}
model = write_tiny_model(place / "model")
plan = tiny_plan(
    model, place / "run", adapter={"dropout": 0.0}, evaluation={"enabled": False}, num_rows=rows,
    batch=batch,
)
state = train_plan(plan, data=tiny_data(rows)).outcome.state
print("trained", state.step, state.token_budget)
"""


@pytest.mark.slow
def test_a_run_in_a_container_that_is_too_small_ends_well_instead_of_being_killed(
    tmp_path: Path, group_of_a_gib: Path
) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path), str(group_of_a_gib)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    trained, step, token_budget = done.stdout.split()[-3:]
    assert (trained, step) == ("trained", "1")
    assert 0 < int(token_budget) < 150_000  # all rows at once are more than that
