"""How long a thread of torch waits for the others before it sleeps, on a CPU."""

from __future__ import annotations

import os

# What GNU OpenMP itself takes once it knows of more threads than cores.
_SPINS = "1000"


def sleep_soon() -> None:
    """Let a thread that has nothing to do sleep soon, unless the user has set how it waits.

    GNU OpenMP lets it spin for milliseconds: with two threads on two cores, one of them taken by
    another process, steps of SmolLM2-135M took twice as long (138 against 272 tokens/s); on a quiet
    machine no difference was seen (446 and 515 against 487 and 490). Sleeping at once
    (OMP_WAIT_POLICY=PASSIVE) costs a fifth there. Read when torch is imported, so call this before.
    Results do not change.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
