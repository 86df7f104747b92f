"""SIGTERM, SIGINT, SIGHUP and two SIGINT at random instants: what was done is saved, the exit code
is the signal's, and --resume ends as if nothing had happened.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.faults.campaign.conditions import IgnoreHangup
from tests.faults.campaign.outcome import (
    Reference,
    check_finished,
    last_lines,
    newest_step,
    run_status,
    stages,
    steps_of,
)
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.together import Job, chance_of, each
from tests.faults.campaign.training import resume_to_the_end, start, train_references
from tests.faults.campaign.workplace import Workplace, make_workplace
from tests.faults.campaign.zygote import PATIENCE_SECONDS, Child

_STRATEGIES = ("lora", "full", "workers")
_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
# Signals in the loop, of each kind; at any instant of the process; with a hangup that is ignored.
_COUNTS: dict[Form, tuple[dict[str, int], int, int]] = {
    "short": ({"SIGTERM": 2, "SIGINT": 1, "SIGHUP": 1, "double SIGINT": 2}, 3, 1),
    "long": (dict.fromkeys(("SIGTERM", "SIGINT", "SIGHUP", "double SIGINT"), 50), 50, 10),
}
# A person presses a second time when nothing seems to happen.
_SECOND_SECONDS = 0.02
_TRIES = 5


def cases(workdir: Path, form: Form) -> Iterator[Case]:
    """A case for every signal, or pair of them."""
    place = make_workplace(workdir / "place")
    references = train_references(place, _STRATEGIES)
    yield from each(_jobs(place, references, form))


def _jobs(place: Workplace, references: dict[str, Reference], form: Form) -> Iterator[Job]:
    in_the_loop, anywhere, ignored = _COUNTS[form]
    kinds = [kind for kind, count in in_the_loop.items() for _ in range(count)]
    total = len(kinds) + anywhere + ignored
    for number in range(total):
        strategy = _STRATEGIES[number % len(_STRATEGIES)]
        run = _Run(place, strategy, references[strategy], number)
        if number < len(kinds):
            kind = kinds[number]
            yield f"{kind} to {run.name}", partial(run.in_the_loop, kind)
        elif number < len(kinds) + anywhere:
            yield f"a signal at any instant to {run.name}", run.anywhere
        else:
            yield f"ignored SIGHUP to {run.name}", run.ignored


@dataclass(frozen=True)
class _Run:
    place: Workplace
    strategy: str
    reference: Reference
    number: int

    @property
    def name(self) -> str:
        return f"{self.strategy}-{self.number}"

    @property
    def out(self) -> Path:
        return self.place.out(self.name)

    def in_the_loop(self, kind: str) -> list[Case]:
        """The signal comes after a random step, before the last one."""
        chance = chance_of("signals", self.number)
        number = signal.Signals[kind.removeprefix("double ")]
        for _ in range(_TRIES):
            step = chance.randint(0, self.reference.steps - 2)
            shutil.rmtree(self.out, ignore_errors=True)
            child = self._started()
            self._wait_for_step(child, step)
            time.sleep(chance.uniform(0, self.reference.seconds / self.reference.steps))
            child.signal(number)
            if kind.startswith("double"):
                time.sleep(chance.uniform(0, _SECOND_SECONDS))
                child.signal(number)
            code = child.wait()
            if code == 0 or run_status(self.out) == "completed":
                continue  # it was done before, or all but gone
            fault = self._fault(child, code, _CODES[number], double=kind.startswith("double"))
            fault = fault or resume_to_the_end(self.place, self.strategy, self.name, self.reference)
            name = f"{kind} to {self.name} after step {step}"
            return [Case(name, not fault, fault, {kind: 1})]
        name = f"{kind} to {self.name}"
        return [Case(name, passed=False, detail="every try came too late")]

    def _fault(self, child: Child, code: int, expected: int, *, double: bool) -> str:
        stderr = child.stderr
        if code != expected:
            return f"exit {code} instead of {expected}: {last_lines(stderr)}"
        if "Traceback" in stderr:
            return f"a traceback: {last_lines(stderr)}"
        if double:
            return ""
        if "--resume" not in stderr:
            return f"nothing says how to go on: {last_lines(stderr)}"
        if (status := run_status(self.out)) != "interrupted":
            return f"run.json says {status}"
        if left := stages(self.out):
            return f"left behind: {', '.join(left)}"
        told, saved = max(steps_of(self.out), default=0), newest_step(self.out)
        return f"step {told} was done, and step {saved} saved" if saved < told else ""

    def anywhere(self) -> list[Case]:
        """At a random instant of the whole process, before the loop and after it too. A signal that
        finds no handler ends the process as the shell's 128 + number says.
        """
        chance = chance_of("signals", self.number)
        number = chance.choice(list(_CODES))
        instant = chance.uniform(0, self.reference.seconds)
        child = self._started()
        time.sleep(instant)
        hit = child.signal(number)
        code = child.wait()
        name = f"{number.name} to {self.name} after {instant:.3f} s"
        fault = ""
        if code not in (0, _CODES[number], -number):
            fault = f"exit {code}: {last_lines(child.stderr)}"
        elif "Traceback" in child.stderr:
            fault = f"a traceback: {last_lines(child.stderr)}"
        elif code == 0:
            fault = check_finished(self.out, self.reference)
        fault = fault or resume_to_the_end(self.place, self.strategy, self.name, self.reference)
        return [Case(name, not fault, fault, {"at any instant": 1, "found it alive": float(hit)})]

    def ignored(self) -> list[Case]:
        """nohup: the run goes on."""
        chance = chance_of("signals", self.number)
        step = chance.randint(0, self.reference.steps - 2)
        child = self._started(before=IgnoreHangup())
        self._wait_for_step(child, step)
        child.signal(signal.SIGHUP)
        code = child.wait()
        fault = f"exit {code}: {last_lines(child.stderr)}" if code else ""
        fault = fault or check_finished(self.out, self.reference)
        name = f"ignored SIGHUP to {self.name} after step {step}"
        return [Case(name, not fault, fault, {"ignored SIGHUP": 1})]

    def _started(self, before: Callable[[], object] | None = None) -> Child:
        argv = self.place.train(self.strategy, self.name)
        return start(self.place, argv, before)

    def _wait_for_step(self, child: Child, step: int) -> None:
        """Until metrics.jsonl tells of it; of the first evaluation where it is 0."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        metrics = self.out / "metrics.jsonl"
        wanted = f'"event": "step", "step": {step},' if step else '"event": "eval"'
        while child.poll() is None:
            if metrics.exists() and wanted in metrics.read_text():
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"step {step} was never done")
            time.sleep(0.002)


ROW = Row(
    key="signals",
    fault="SIGTERM, SIGINT, SIGHUP, double SIGINT",
    passes_when="saved, right exit code, at most one optimizer step lost",
    cases=cases,
)
