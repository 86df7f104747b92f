"""Two to eight runs in one directory: one runs, the others name it. And what else must do no harm:
somebody who reads all the time, a clock that jumps, a terminal that is gone.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.faults.campaign.conditions import ClockJumps, ClosedPipe, LostTerminal, WaitFor
from tests.faults.campaign.outcome import (
    Reference,
    check_finished,
    file_hashes,
    last_lines,
    newest_step,
)
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.together import Job, chance_of, each
from tests.faults.campaign.training import start, train_reference
from tests.faults.campaign.workplace import Workplace, make_workplace
from tests.faults.campaign.zygote import Child

_STRATEGY = "lora"
_CLOSED_PIPE = 141
# Groups of runs, by their size; how often the other things are done.
_GROUPS: dict[Form, tuple[int, ...]] = {
    "short": (2, 3, 4, 8),
    "long": tuple(2 + number % 7 for number in range(50)),
}
_OTHERS: dict[Form, int] = {"short": 1, "long": 10}


def cases(workdir: Path, form: Form) -> Iterator[Case]:
    """A case for every group, reader, clock and terminal."""
    place = make_workplace(workdir / "place")
    reference = train_reference(place, _STRATEGY)
    for number, size in enumerate(_GROUPS[form]):
        group = _Group(place, reference, number, size, resumed=number % 2 == 1)
        yield from each([(group.name, group.run)])
    yield from each(_others(place, reference, _OTHERS[form]))


@dataclass(frozen=True)
class _Group:
    """Runs that begin at the same instant. resumed: the directory holds a run that was killed."""

    place: Workplace
    reference: Reference
    number: int
    size: int
    resumed: bool

    @property
    def name(self) -> str:
        return f"group-{self.number}-of-{self.size}"

    def run(self) -> list[Case]:
        argv = self.place.train(_STRATEGY, self.name, *(("--resume",) if self.resumed else ()))
        if self.resumed:
            self._leave_a_killed_run()
        go = self.place.root / f"{self.name}.go"
        children = [start(self.place, argv, WaitFor(go)) for _ in range(self.size)]
        go.touch()
        codes = [child.wait() for child in children]
        fault = self._fault(children, codes)
        fault = fault or check_finished(self.place.out(self.name), self.reference)
        what = f"{self.size} runs {'that resume ' if self.resumed else ''}at once"
        facts = {"groups": 1, "runs": self.size}
        return [Case(f"{what} ({self.name})", not fault, fault, facts)]

    def _fault(self, children: list[Child], codes: list[int]) -> str:
        if sorted(codes) != [0] + [2] * (self.size - 1):
            said = [last_lines(c.stderr) for c, code in zip(children, codes, strict=True) if code]
            return f"exit codes {codes}: {said}"
        winner = children[codes.index(0)]
        others = [child for child in children if child is not winner]
        unnamed = [c for c in others if not _names(c.stderr, winner.pid)]
        if unnamed:
            return f"process {winner.pid} is not named: {last_lines(unnamed[0].stderr)}"
        return ""

    def _leave_a_killed_run(self) -> None:
        out = self.place.out(self.name)
        child = start(self.place, self.place.train(_STRATEGY, self.name))
        while child.poll() is None and not newest_step(out):
            time.sleep(0.005)
        child.signal(signal.SIGKILL)
        child.wait()


def _names(stderr: str, pid: int) -> bool:
    return f"process {pid} " in stderr


def _others(place: Workplace, reference: Reference, times: int) -> Iterator[Job]:
    for number in range(times):
        chance = chance_of("lock", number)
        seconds = chance.uniform(0, reference.seconds)
        yield f"reader {number}", partial(_read_while_it_runs, place, reference, number)
        for what, before in (
            ("clock", ClockJumps(number)),
            ("closed-pipe", ClosedPipe(seconds)),
            ("lost-terminal", LostTerminal(seconds)),
        ):
            name = f"{what}-{number}"
            yield name, partial(_harmless, place, reference, name, before)


def _harmless(
    place: Workplace, reference: Reference, name: str, before: Callable[[], object]
) -> list[Case]:
    """It ends as any run; at most, the exit code says that nobody was there to be told."""
    child = start(place, place.train(_STRATEGY, name), before)
    code = child.wait()
    kind = name.rpartition("-")[0]
    out, fault = place.out(name), ""
    if code not in (0, _CLOSED_PIPE):
        fault = f"exit {code}: {last_lines(child.stderr)}"
    fault = fault or check_finished(out, reference)
    return [Case(name, not fault, fault, {kind: 1})]


def _read_while_it_runs(place: Workplace, reference: Reference, number: int) -> list[Case]:
    """Everything that a reader may find is whole, at every instant."""
    name = f"read-{number}"
    out = place.out(name)
    child = start(place, place.train(_STRATEGY, name))
    reads, fault = 0, ""
    while child.poll() is None and not fault:
        fault = _half_read(out, reference)
        reads += 1
    code = child.wait()
    if code and not fault:
        fault = f"exit {code}: {last_lines(child.stderr)}"
    fault = fault or check_finished(out, reference)
    return [Case(f"reader {number}", not fault, fault, {"reads": reads})]


def _half_read(out: Path, reference: Reference) -> str:
    for name in ("run.json", "summary.json"):
        try:
            json.loads((out / name).read_bytes())
        except FileNotFoundError:
            continue
        except ValueError as error:
            return f"{name} was half a file: {error}"
    metrics = out / "metrics.jsonl"
    try:
        lines = metrics.read_bytes().split(b"\n")[:-1] if metrics.exists() else []
        for line in lines:
            json.loads(line)
    except ValueError as error:
        return f"metrics.jsonl had a line that is none: {error}"
    final = out / "final_model"
    if final.exists() and file_hashes(final) != reference.files:
        return "final_model was not whole"
    return ""


ROW = Row(
    key="lock",
    fault="two to eight runs in one directory",
    passes_when="one runs, the others name it",
    cases=cases,
)
