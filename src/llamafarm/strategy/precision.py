"""`fp16`, `bf16` and `mixed_precision` are three ways to say one thing.

Which device's switches count, and whether training_args differs from them, is known only once the
device is: hardware.precision says that. Here is what holds on every device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from llamafarm.strategy.assignment import Assignment, Findings, Values, fault, warning
from llamafarm.strategy.keys import ASKED

MIXED_PRECISION = "training_args.mixed_precision"
_HALVES = ("fp16", "bf16")
_SPOKEN = (MIXED_PRECISION, *(ASKED + name for name in _HALVES))
_BLOCKS = tuple(f"hardware.precision.{device}" for device in ("", "cuda.", "mps.", "cpu."))
SWITCHES = tuple(f"{block}use_{name}" for block in _BLOCKS for name in _HALVES)


def settle_precision(values: Values) -> tuple[Values, Findings]:
    """The values with `fp16` and `bf16` folded into mixed_precision.

    Block by block, `training_args` first: the first that asks for something wins, with a warning
    about the others. A half that is switched off, where nothing else is asked for, is full
    precision, as in Hugging Face. Both halves asked for in one block are a fault.
    """
    others = {path: a for path, a in values.items() if path not in _SPOKEN}
    findings = _both_on_one_device(values)
    chosen: Assignment | None = None
    denied: dict[str, Assignment] = {}
    for block in _blocks(values[path] for path in _SPOKEN if path in values):
        asked, said = _asked_in(block)
        findings += said
        if asked is not None:
            winner = chosen or denied.get(str(asked.value))
            if winner is None:
                chosen = asked
            elif winner.value != asked.value:
                findings += warning(asked, f"{winner.cited()} wins over {asked.cited()}")
        for name, flag in _flags(block).items():
            if flag.value is False:
                denied.setdefault(name, flag)
    switched_on = any(values[path].value for path in SWITCHES if path in values)
    if chosen is None and denied and not switched_on:
        chosen = _as_mixed(next(iter(denied.values())), "no")
    return ({**others, MIXED_PRECISION: chosen} if chosen else others), findings


def _blocks(spoken: Iterable[Assignment]) -> list[list[Assignment]]:
    """The values of the nearest layer by the block they stand in, the one that wins first."""
    by_rank = sorted(spoken, key=lambda a: (a.layer, a.rank))
    blocks: dict[str, list[Assignment]] = {}
    for assignment in by_rank:
        if assignment.layer == by_rank[0].layer:
            block = "" if assignment.is_flag else assignment.path.rpartition(".")[0]
            blocks.setdefault(block, []).append(assignment)
    return list(blocks.values())


def _asked_in(block: list[Assignment]) -> tuple[Assignment | None, Findings]:
    """What one block asks for: mixed_precision wins over the two flags, with a warning."""
    mixed = next((a for a in block if a.target == MIXED_PRECISION), None)
    flags = _flags(block)
    on = {name: flag for name, flag in flags.items() if flag.value}
    if mixed is not None and mixed.value in _HALVES:
        on[str(mixed.value)] = mixed
    if len(on) > 1:
        return mixed, _both(*sorted(on.values(), key=lambda a: a.origin.line or 0))
    if mixed is None:
        return next((_as_mixed(flag, name) for name, flag in on.items()), None), Findings()
    findings = Findings()
    for name, flag in flags.items():
        if flag.value != (mixed.value == name):
            findings += warning(flag, f"{mixed.cited()} wins over {flag.cited()}")
    return mixed, findings


def _flags(block: Iterable[Assignment]) -> Mapping[str, Assignment]:
    return {a.target.removeprefix(ASKED): a for a in block if a.target.startswith(ASKED)}


def _as_mixed(flag: Assignment, value: str) -> Assignment:
    return replace(flag, target=MIXED_PRECISION, value=value)


def _both_on_one_device(values: Values) -> Findings:
    """Both switches on, in the flat block or in one device's, at the same distance."""
    findings = Findings()
    for block in _BLOCKS:
        pair = [values.get(f"{block}use_{name}") for name in _HALVES]
        on = [a for a in pair if a is not None and a.value]
        if len(on) == 2 and on[0].layer == on[1].layer:
            findings += _both(*sorted(on, key=lambda a: a.origin.line or 0))
    return findings


def _both(first: Assignment, second: Assignment) -> Findings:
    message = f"fp16 and bf16 are both asked for: {first.cited()}, {second.cited()}"
    return fault(second, message, "keep one of the two; bf16 where the device has it")
