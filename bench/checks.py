"""Whether the engines did the same work. Speed without that says nothing, so nothing is reported
without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.judge import Verdict
from bench.spec import Engine, EngineRun

FIRST_LOSS_TOLERANCE = 1e-4
HELD_OUT_TOLERANCE = 0.01


class NotComparableError(Exception):
    """The engines did not do the same work: every reason, one a line."""


def check(
    runs: Mapping[str, Sequence[EngineRun]], verdict: Verdict, engines: Sequence[Engine]
) -> None:
    """Raises NotComparableError with every fault. runs: by engine name, one a round."""
    faults = []
    for engine in engines:
        for number, run in enumerate(runs[engine.name], start=1):
            where = f"{engine.name}, round {number}"
            faults += [f"{where}: {fault}" for fault in run_faults(run, verdict.first_loss)]
        faults += [f"{engine.name}: {fault}" for fault in result_faults(engine, verdict)]
    faults += work_faults(runs, engines)
    if faults:
        raise NotComparableError("\n".join(faults))


def run_faults(run: EngineRun, first_loss: float) -> list[str]:
    """What one run got wrong, measured against the neutral loss of the first step's rows."""
    faults = []
    difference = abs(run.first_loss - first_loss)
    if not difference <= FIRST_LOSS_TOLERANCE:
        faults.append(
            f"loss before the first step is {run.first_loss:.6f}, "
            f"{difference:.1e} from {first_loss:.6f}"
        )
    dead = [i for i, step in enumerate(run.steps, start=1) if not step.grad_norm > 0]
    if dead:
        faults.append(f"no gradient in steps {dead}")
    if not all(math.isfinite(step.loss) for step in run.steps):
        faults.append("a loss is not finite")
    return faults


def result_faults(engine: Engine, verdict: Verdict) -> list[str]:
    """An adapter must have learnt; after the same steps it must be worth what ours is worth."""
    loss, reference = verdict.held_out[engine.name], next(iter(verdict.held_out.values()))
    if not loss < verdict.base_held_out_loss:
        return [f"held-out loss {loss:.4f} is not below the base model's"]
    if engine.same_steps and not abs(loss / reference - 1) <= HELD_OUT_TOLERANCE:
        return [f"held-out loss {loss:.4f} differs from {reference:.4f} by more than 1 %"]
    return []


def work_faults(runs: Mapping[str, Sequence[EngineRun]], engines: Sequence[Engine]) -> list[str]:
    """The same conversations in every step, or for engines that group rows in their own way, in the
    whole run.
    """
    faults, reference = [], runs[engines[0].name][0].steps
    for engine in engines:
        steps = runs[engine.name][0].steps
        mine, theirs = (
            [(step.tokens, step.trained_tokens) for step in run] for run in (steps, reference)
        )
        if engine.same_steps and mine != theirs:
            faults.append(f"{engine.name}: its steps hold other tokens than {engines[0].name}'s")
        if not engine.same_steps and _totals(mine) != _totals(theirs):
            faults.append(f"{engine.name}: it trained on other tokens than {engines[0].name}")
    return faults


def _totals(steps: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(tokens for tokens, _ in steps), sum(trained for _, trained in steps)
