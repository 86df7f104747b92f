"""How a thread of torch waits for the others on a CPU."""

from __future__ import annotations

import os


def wait_without_spinning() -> None:
    """Let a thread that has nothing to do sleep, unless the user's OMP_WAIT_POLICY says otherwise.

    GNU OpenMP lets it spin, which keeps its core from the thread it waits for when another process
    has taken that one's: measured with two threads on two cores, one of them busy, steps of
    SmolLM2-135M took 1.7 times as long. The policy is read when torch is imported, so call this
    before. Results do not change.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
