"""SIGKILL at random instants, resumed until done: the finished weights are those of the run that
was never killed.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.faults.campaign.outcome import (
    Reference,
    check_finished,
    check_state,
    last_lines,
    stages,
    steps_of,
)
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.shim import Fault, Shim, When, read_log
from tests.faults.campaign.together import Job, chance_of, each
from tests.faults.campaign.training import resume_to_the_end, start, train_references
from tests.faults.campaign.workplace import Workplace, make_workplace, strategy_names

# How many kills, how many of them inside saves, and how many chains run the console command.
_COUNTS: dict[Form, tuple[int, int, int]] = {"short": (12, 4, 1), "long": (200, 60, 10)}
_LONGEST_CHAIN = 5
_SAVING = ("save", "rotate", "final_model")


def cases(workdir: Path, form: Form) -> Iterator[Case]:
    """A case for every kill; those of one run pass or fail together."""
    kills, inside, by_console = _COUNTS[form]
    place = make_workplace(workdir / "place")
    names = strategy_names()
    references = train_references(place, names)
    yield from (
        Case("the strategy that stops early does not", passed=False)
        for name in names
        if name == "early" and not references[name].stopped_early
    )
    tickets = _Tickets(kills, inside)
    numbers = count()
    while tickets.left:  # the last runs may have given some back
        yield from each(_chains(place, references, tickets, numbers, by_console))


class _Tickets:
    """The kills that are still to be done: inside a save, or at any instant."""

    def __init__(self, kills: int, inside: int) -> None:
        self._kinds = [True] * inside + [False] * (kills - inside)
        chance_of("kills").shuffle(self._kinds)
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """How many nobody has taken."""
        return len(self._kinds)

    def take(self) -> bool | None:
        """Whether the next kill is inside a save; None when all are done or being done."""
        with self._lock:
            return self._kinds.pop() if self._kinds else None

    def give_back(self, kind: bool) -> None:
        """It hit nothing."""
        with self._lock:
            self._kinds.append(kind)


def _chains(
    place: Workplace,
    references: dict[str, Reference],
    tickets: _Tickets,
    numbers: Iterator[int],
    by_console: int,
) -> Iterator[Job]:
    while (first := tickets.take()) is not None:
        number = next(numbers)
        name = list(references)[number % len(references)]
        chain = _Chain(place, name, references[name], number, number < by_console)
        yield f"{name}, run {number}", lambda chain=chain, kind=first: chain.run(tickets, kind)


@dataclass(frozen=True)
class _Kill:
    """One that hit. what: where; inside: whether a save was going on."""

    what: str
    inside: bool
    fault: str


@dataclass(frozen=True)
class _Chain:
    """One run, killed and resumed until it is done. console: its last part is the real command."""

    place: Workplace
    strategy: str
    reference: Reference
    number: int
    console: bool

    @property
    def name(self) -> str:
        return f"{self.strategy}-{self.number}"

    def run(self, tickets: _Tickets, kind: bool | None) -> list[Case]:
        """All its kills, and whether it came to its end as if there had been none."""
        chance = chance_of("kills", self.number)
        kills: list[_Kill] = []
        done = False
        while kind is not None and not done:
            kill = self._killed(kind, chance, len(kills))
            if kill is None:
                tickets.give_back(kind)
                done = True
            else:
                kills.append(kill)
            kind = tickets.take() if not done and len(kills) < _LONGEST_CHAIN else None
        if done:
            fault = check_finished(self.place.out(self.name), self.reference)
        else:
            fault = resume_to_the_end(
                self.place, self.strategy, self.name, self.reference, console=self.console
            )
        return [self._case(position, kill, fault) for position, kill in enumerate(kills, start=1)]

    def _case(self, position: int, kill: _Kill, fault: str) -> Case:
        return Case(
            f"{self.name}: kill {position} {kill.what}",
            passed=not (kill.fault or fault),
            detail=kill.fault or fault,
            facts={"kills": 1, "inside a save": float(kill.inside)},
        )

    def _killed(self, inside: bool, chance: random.Random, position: int) -> _Kill | None:
        """None when the run was over before."""
        out = self.place.out(self.name)
        argv = self.place.train(self.strategy, self.name, "--resume")
        log = self.place.root / f"{self.name}-{position}.log"
        fault = None
        if inside:
            # As many operations as are still to come, about.
            left = 1 - max(steps_of(out), default=0) / self.reference.steps
            all_of_it = sum(o.phase in _SAVING for o in self.reference.operations)
            most = max(1, int(left * all_of_it))
            fault = Fault("kill", chance.randint(1, most), chance.choice(_WHEN), phases=_SAVING)
        instant = chance.uniform(0, self.reference.seconds)
        before = Shim(out, log, fault) if inside else None
        child = start(self.place, argv, before)
        if inside:
            code = child.wait()
            operations, _ = read_log(log)
            last = operations[-1] if operations else None
            what = f"at {last.kind} of {last.path}" if last else ""
        else:
            time.sleep(instant)
            child.signal(signal.SIGKILL)
            code = child.wait()
            what = f"after {instant:.3f} s"
        if code == 0:
            return None
        trouble = f"exit {code} instead of a kill: {last_lines(child.stderr)}"
        fault_found = trouble if code != -signal.SIGKILL else check_state(out, self.reference)
        return _Kill(what, inside or _in_a_save(out, child.pid), fault_found)


_WHEN: tuple[When, ...] = ("before", "within", "after")


def _in_a_save(out: Path, pid: int) -> bool:
    """By what it left: a process that was killed early may have found an older stage."""
    mine = [name for name in stages(out) if str(pid) in name]
    return any("checkpoint" in name or "final_model" in name for name in mine)


ROW = Row(
    key="kills",
    fault="SIGKILL at random instants, resumed until done",
    passes_when="final weights' SHA-256 equals the uninterrupted run's",
    cases=cases,
)
