"""Which runs are in the corpus: what is wrong with each, and what has to be found.

What counts as right was written down before a run of the held-out parts was made. The thresholds of
the rules were chosen on the part `tuning`: other seeds, and the medical rows only. Where a held-out
part showed a rule to be wrong, the rule was changed and another part was made: it is scored only on
what was made after its last change (see `CHANGED_AFTER`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HEALTHY = "healthy"
PARTS = TUNING, *HELD_OUT = ("tuning", "held_out", "held_out_2", "held_out_3")
CHANGED_AFTER: Mapping[str, str] = {
    "plateau": "held_out",
    "overfitting": "held_out_2",
    "spike": "held_out_2",
}
"""The part that a rule was changed by; no part but `tuning` for the others."""


@dataclass(frozen=True)
class Fault:
    """Something done to a run. right: findings that have to be told, one of each group, whose first
    one answers for it; also: what may be told besides, because it follows; config: what differs
    from a healthy run.
    """

    name: str
    what: str
    right: tuple[tuple[str, ...], ...]
    also: frozenset[str] = frozenset()
    config: Mapping[str, Any] = field(default_factory=dict)
    train_rows: int = 64


@dataclass(frozen=True)
class Case:
    """One run. part: one of PARTS."""

    fault: str
    data: str
    seed: int
    part: str
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        return f"{self.fault}-{self.data}-{self.seed}"


def _one(rule: str) -> tuple[tuple[str, ...], ...]:
    return ((rule,),)


_ONE_EPOCH: Mapping[str, Any] = {"training_args.num_train_epochs": 1}

FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(HEALTHY, "nothing", ()),
        Fault(
            "rate_x30",
            "the learning rate times 30",
            _one("learning_rate_too_high"),
            frozenset({"unstable_loss", "spike", "wasted_epochs"}),
            {"training_args.learning_rate": 3e-2, "training_args.early_stopping_patience": 0},
        ),
        Fault(
            "unsteady",
            "the learning rate times 20, at once and to the end, for two rows a step",
            (("learning_rate_too_high", "unstable_loss"),),
            frozenset({"spike", "wasted_epochs"}),
            {
                "training_args.learning_rate": 2e-2,
                "training_args.adam_beta2": 0.9,
                "training_args.warmup_steps": 0,
                "training_args.lr_scheduler_type": "constant",
                "training_args.per_device_train_batch_size": 2,
                "training_args.max_steps": 40,
                "training_args.early_stopping_patience": 0,
            },
        ),
        Fault(
            "rate_d100",
            "the learning rate divided by 100",
            _one("learning_rate_too_low"),
            frozenset({"underfitting"}),
            {"training_args.learning_rate": 1e-5},
        ),
        Fault(
            "rank_1",
            "rank 1 on q_proj, and answers whose words are in reverse order",
            _one("underfitting"),
            frozenset({"plateau"}),
            {"method.r": 1, "method.alpha": 2, "method.target_modules": ["q_proj"]},
        ),
        Fault(
            "epochs_40",
            "40 epochs on 30 rows",
            (("overfitting",), ("wasted_epochs",)),
            config={
                "training_args.num_train_epochs": 40,
                "training_args.per_device_train_batch_size": 10,
                "training_args.eval_steps": 12,
                "training_args.early_stopping_patience": 0,
            },
            train_rows=30,
        ),
        Fault(
            "shuffled",
            "every question has the answer of another, for ten epochs",
            (("overfitting", "underfitting"),),
            frozenset({"wasted_epochs", "plateau"}),
            {
                "training_args.num_train_epochs": 10,
                "training_args.eval_steps": 10,
                "training_args.early_stopping_patience": 0,
            },
            train_rows=28,
        ),
        Fault(
            "shuffled_20",
            "every question has the answer of another, for twenty epochs on half as many rows",
            (("overfitting", "underfitting"),),
            frozenset({"wasted_epochs", "plateau"}),
            {
                "training_args.num_train_epochs": 20,
                "training_args.eval_steps": 10,
                "training_args.early_stopping_patience": 0,
            },
            train_rows=14,
        ),
        Fault(
            "leaked",
            "the evaluation rows are trained on, for sixteen epochs",
            _one("suspiciously_low_loss"),
            config={
                "training_args.num_train_epochs": 16,
                "training_args.eval_steps": 10,
                "dataset.allow_leakage": True,
            },
            train_rows=8,
        ),
        Fault(
            "slow_data", "the rows of a step come late", _one("slow_training"), config=_ONE_EPOCH
        ),
        Fault(
            "frozen",
            "no step changes the adapter",
            _one("adapter_not_learning"),
            config=_ONE_EPOCH,
        ),
        Fault(
            "stalled",
            "after a third of the run no step changes the adapter",
            _one("plateau"),
            frozenset({"wasted_epochs", "underfitting"}),
            {"training_args.lr_scheduler_type": "constant_with_warmup"},
        ),
        Fault(
            "spike_row",
            "one answer is noise",
            _one("spike"),
            frozenset({"unstable_loss"}),
        ),
        Fault(
            "small_memory",
            "the allocator refuses rows of more than 100 tokens",
            _one("memory_pressure"),
            config=_ONE_EPOCH,
        ),
    )
}

# What a sound run may look like: the rows of the guide around this model and amount of data.
_HEALTHY_KINDS: tuple[Mapping[str, Any], ...] = (
    {},
    {"method.r": 4, "method.alpha": 8},
    {"training_args.learning_rate": 5e-4},
    {"training_args.lr_scheduler_type": "linear"},
    {"training_args.num_train_epochs": 1},
    {"method.r": 16, "method.alpha": 32},
)


# Those whose outcome depends on the rows; what the others do is the same for any.
_TUNED_TWICE = ("rate_x30", "unsteady", "rate_d100", "rank_1", "shuffled", "leaked", "stalled")
# What the changed rules have to tell, or told wrongly. Shuffled answers in a form that all notes
# share still bring the loss down in ten epochs: so they are trained for longer.
_SECOND = ("epochs_40", "shuffled_20", "stalled", "spike_row", "unsteady")
_THIRD = ("shuffled_20", "spike_row")


def all_cases() -> tuple[Case, ...]:
    """The whole corpus, in the order in which it is made: tuning first, then two seeds of each."""
    planted = [name for name in FAULTS if name not in (HEALTHY, "shuffled_20")]
    tuning = [Case(name, "medical", 1, TUNING) for name in planted]
    tuning += [Case(HEALTHY, "medical", i, TUNING, k) for i, k in enumerate(_HEALTHY_KINDS, 1)]
    tuning += [Case(name, "medical", 2, TUNING) for name in _TUNED_TWICE]
    first, second, third = HELD_OUT
    return (
        *tuning,
        *_on_both_sets(planted, 10, first),
        *_on_both_sets(_SECOND, 30, second),
        *_on_both_sets(_THIRD, 50, third),
        Case("epochs_40", "medical", 51, third),
        Case("epochs_40", "parcels", 61, third),
    )


def _on_both_sets(planted: Sequence[str], seed: int, part: str) -> list[Case]:
    """Six healthy runs and two of each fault on each set of rows; seeds from this one on."""
    sets = (("medical", seed), ("parcels", seed + 10))
    healthy = [
        Case(HEALTHY, data, first + i, part, kind)
        for i, kind in enumerate(_HEALTHY_KINDS)
        for data, first in sets
    ]
    return healthy + [
        Case(name, data, first + number, part)
        for number in (1, 2)
        for name in planted
        for data, first in sets
    ]
