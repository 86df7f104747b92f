"""How long a thread of torch waits for the others before it sleeps, on a CPU."""

from __future__ import annotations

import os

# What GNU OpenMP itself takes once it knows of more threads than cores.
_SPINS = "1000"


def sleep_soon() -> None:
    """Let a thread that has nothing to do sleep soon, unless the user has set how it waits.

    GNU OpenMP lets it spin for milliseconds. Where another process has taken the core of the thread
    it waits for, a step takes twice as long; sleeping at once (OMP_WAIT_POLICY=PASSIVE) would cost
    a quiet machine a fifth. Measured: docs/decisions.md. Read when torch is imported, so call this
    before. Results do not change.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
