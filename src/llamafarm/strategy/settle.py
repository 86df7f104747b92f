"""Of everything that was written about a value: what holds, and what is said about the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from llamafarm.strategy.assignment import Assignment, Findings, Values, remark, warning
from llamafarm.strategy.precision import MIXED_PRECISION, SWITCHES, settle_precision


@dataclass(frozen=True, slots=True)
class Settled:
    """One assignment per canonical path, all of them fields of the strategy."""

    values: Values
    findings: Findings


_MIX = "dataset.mix"
# A value from the left makes those on the right meaningless when they come from further away:
# from the file where it is a flag, or from the strategy that is extended.
DISPLACES: Mapping[str, tuple[str, ...]] = {
    "dataset.path": (
        "dataset.train_file",
        "dataset.mix",
        "dataset.eval_file",
        "dataset.dataset_name",
        "dataset.dataset_config_name",
    ),
    "dataset.train_file": (
        "dataset.path",
        "dataset.mix",
        "dataset.dataset_name",
        "dataset.dataset_config_name",
    ),
    "dataset.mix": (
        "dataset.path",
        "dataset.train_file",
        "dataset.dataset_name",
        "dataset.dataset_config_name",
    ),
    "dataset.dataset_name": (
        "dataset.path",
        "dataset.train_file",
        "dataset.mix",
        "dataset.eval_file",
    ),
    "dataset.eval_split": ("dataset.eval_rows",),
    "dataset.eval_rows": ("dataset.eval_split",),
    "training_args.num_train_epochs": ("training_args.max_steps",),
    "base_model.id": ("base_model.revision",),
    "method.type": ("method.use_dora", "method.use_rslora"),
    # A flat switch speaks for every device, a device's own for that device.
    **{switch: (MIXED_PRECISION, *SWITCHES) for switch in SWITCHES if switch.count(".") == 2},
    **{
        switch: (MIXED_PRECISION, *(s for s in SWITCHES if s.rpartition(".")[0] in switch))
        for switch in SWITCHES
        if switch.count(".") == 3
    },
}


def settle(assignments: Iterable[Assignment]) -> Settled:
    """Flags before the strategy before what it extends; in one of them, by the table's order."""
    by_target: dict[str, list[Assignment]] = {}
    for assignment in assignments:
        by_target.setdefault(assignment.target, []).append(assignment)
    values: dict[str, Assignment] = {}
    findings = Findings()
    for target, found in by_target.items():
        winner, said = _winner(found)
        findings += said
        if winner is not None:
            values[target] = winner
    precision, said = settle_precision(values)
    findings += said
    remaining, said = _displace(precision)
    return Settled(_with_profile(remaining), findings + said)


def _winner(found: list[Assignment]) -> tuple[Assignment | None, Findings]:
    """The value that holds; None when the nearest place says that it is left out."""
    layer = min(assignment.layer for assignment in found)
    nearest = [assignment for assignment in found if assignment.layer == layer]
    nearest.sort(key=lambda assignment: assignment.rank)
    if nearest[0].is_flag:
        return (None if nearest[0].is_null else nearest[0]), Findings()
    given = [assignment for assignment in nearest if not assignment.is_null]
    return (given[0], _contradictions(given)) if given else (None, Findings())


def _contradictions(given: list[Assignment]) -> Findings:
    """A warning for every value of the same layer that says something else than the first."""
    findings = Findings()
    winner = given[0]
    for other in given[1:]:
        if other.value != winner.value and not other.key.quiet:
            findings += warning(other, f"{winner.cited()} wins over {other.cited()}")
    return findings


def _displace(values: Values) -> tuple[Values, Findings]:
    """The values without those that a nearer one makes meaningless."""
    remaining = dict(values)
    findings = Findings()
    for target in sorted(values, key=lambda target: _distance(values[target])):
        winner = remaining.get(target)
        for other in DISPLACES.get(_family(target), ()):
            for name in [name for name in remaining if _family(name) == other]:
                loser = remaining[name]
                if winner is None or not _is_nearer(winner, loser):
                    continue
                del remaining[name]
                findings += remark(loser, f"{winner.cited()} takes the place of {loser.cited()}")
    return remaining, findings


def _family(target: str) -> str:
    """The files of a mixture hold or give way together."""
    return _MIX if target.startswith(f"{_MIX}.") else target


def _is_nearer(winner: Assignment, loser: Assignment) -> bool:
    if winner.target == "method.type" and loser.key.target != "method.type":
        return False
    return _distance(winner) < _distance(loser)


def _distance(assignment: Assignment) -> tuple[int, bool]:
    """A flag is nearest; `dataset` beside `components` is nearer than the one in `config`."""
    in_config = (
        assignment.target.startswith("dataset.") and assignment.path != assignment.short_path
    )
    return assignment.layer, in_config


def _with_profile(values: Values) -> Values:
    """`export.quantization` may name one of the strategy's own quantization profiles."""
    chosen = values.get("export.quantization")
    profile = chosen and values.get(f"export.quantization_profiles.{chosen.value}")
    if chosen is None or profile is None:
        return values
    return {**values, chosen.target: replace(chosen, value=profile.value)}
