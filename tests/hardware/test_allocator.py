"""Freed memory stays with the process where the C library allows it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llamafarm.hardware.allocator import keep_freed_memory

FAULTS = """
import ctypes, resource, sys
if sys.argv[1] == "kept":
    from llamafarm.hardware.allocator import keep_freed_memory
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
size = 4 << 20
for _ in range(50):
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def test_the_switch_for_huge_pages_is_the_users_when_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    keep_freed_memory()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has these switches")
def test_a_block_that_is_freed_is_not_faulted_in_again() -> None:
    def faults(mode: str) -> int:
        command = [sys.executable, "-c", FAULTS, mode]
        # glibc raises its own threshold after the first free unless it is pinned.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < faults("given back") / 4
