"""The same faults done to other tools as to ours, and judged by the same functions.

`python -m tests.faults.campaign.peers [--only KEY …] [--tools NAME …] [--results FILE]` does them
and writes a table; with --only or --tools, the lines that were not measured again stay.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.faults.campaign.peer_runs.faults import InTraining, What, steps_in, struck
from tests.faults.campaign.peer_runs.scripts import ARGUMENTS
from tests.faults.campaign.peer_runs.tools import (
    LLAMAFACTORY,
    Peer,
    Process,
    Scene,
    Tool,
    make_tools,
)

STEPS: int = ARGUMENTS["max_steps"]
_SAVE = 9
_MICRO_STEPS: int = ARGUMENTS["gradient_accumulation_steps"]
_PATIENCE_SECONDS = 180.0
_TOLERANCE = 1e-6
_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "trl", "safetensors", "datasets")
NOT_DRIVEN = (
    "LLaMA-Factory by itself, axolotl, Unsloth, ms-swift and oumi, which build on the same "
    "Trainer, were not driven"
)


# The record.


@dataclass(frozen=True, slots=True)
class PeerLine:
    """One cell of the table: a fault, done to a tool `done` times, with a good end `good` times.

    setting: options beside the ordinary ones; seen: what happened, counted; measured: a date.
    """

    fault: str
    good_when: str
    tool: str
    version: str
    setting: str
    done: int
    good: int
    seen: str
    measured: str


@dataclass(frozen=True)
class PeerTable:
    """All lines, with the versions of what was driven and of what it stands on."""

    command: str
    machine: str
    versions: tuple[str, ...]
    not_driven: str
    lines: tuple[PeerLine, ...] = ()

    def with_line(self, line: PeerLine) -> PeerTable:
        """With that line in place of the one about the same, or at the end."""
        lines = {(x.fault, x.tool, x.setting): x for x in (*self.lines, line)}
        return replace(self, lines=tuple(lines.values()))

    def in_order(self) -> PeerTable:
        """Lines by fault, then by tool, as they are listed here."""
        faults = [kind.fault for kind in FAULTS]
        key = lambda line: (faults.index(line.fault), _ALL.index(line.tool))  # noqa: E731
        return replace(self, lines=tuple(sorted(self.lines, key=key)))


def load_table(file: Path) -> PeerTable:
    """Raises OSError or ValueError where there is none."""
    value = json.loads(file.read_text(encoding="utf-8"))
    lines = tuple(PeerLine(**line) for line in value["lines"])
    return PeerTable(**{**value, "versions": tuple(value["versions"]), "lines": lines})


def save_table(table: PeerTable, file: Path) -> None:
    """As JSON that a person can read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(table), indent=1) + "\n", encoding="utf-8")


# What is judged.


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault done once. seen: in a few words, so that equal ends can be counted together."""

    good: bool
    seen: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Whole:
    """A run that nothing was done to. seconds: from its first step to its end."""

    digest: str
    weights: Path
    seconds: float
    checkpoint_bytes: int


@dataclass
class Bench:
    """A tool with its options, a directory for its cases, and its uninterrupted run."""

    tool: Tool
    root: Path
    settings: tuple[str, ...] = ()
    chance: random.Random = field(default_factory=random.Random)
    _count: int = 0

    def scene(self) -> Scene:
        """A new, empty one."""
        self._count += 1
        root = self.root / str(self._count)
        root.mkdir(parents=True)
        return Scene(root, root / "out")

    def clear(self) -> None:
        """Remove all cases but the uninterrupted run, where there was one."""
        kept: Whole | None = self.__dict__.get("whole")
        for case in self.root.iterdir():
            if kept is None or not kept.weights.is_relative_to(case):
                shutil.rmtree(case)

    @functools.cached_property
    def whole(self) -> Whole:
        """Run twice the first time: equal weights are the ground of everything else."""
        first, second = self._run_whole(), self._run_whole()
        if first.digest != second.digest:
            raise AssertionError(f"{self.tool.name} is not deterministic here")
        return replace(second, seconds=(first.seconds + second.seconds) / 2)

    def instant(self, process: Process, scene: Scene) -> None:
        """Sleep until a random instant between the first step and the end of a run.

        A run that gets less of the processor is further back by then: the caller asks
        whether it was done already, and takes another where it was.
        """
        self.await_step(process, scene, 1)
        time.sleep(self.chance.uniform(0, self.whole.seconds))

    def await_step(self, process: Process, scene: Scene, step: int) -> None:
        """Until so many optimizer steps are done, or the process has ended."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while steps_in(scene.steps) < step and process.poll() is None:
            if time.monotonic() > until:
                raise TimeoutError(f"step {step} was not reached")
            time.sleep(0.001)

    def _run_whole(self) -> Whole:
        scene = self.scene()
        process = self.tool.start(scene, self.settings, InTraining(scene.steps))
        self.await_step(process, scene, 1)
        started = time.monotonic()
        code = process.wait(_PATIENCE_SECONDS)
        seconds = time.monotonic() - started
        if code != 0 or steps_in(scene.steps) != STEPS:
            raise AssertionError(f"{self.tool.name} ended with {code}\n{process.stderr[-2000:]}")
        weights = self.tool.weights(self.tool.final(scene.out))
        last = self.tool.checkpoints(scene.out)[-1]
        return Whole(digest(weights), weights, seconds, _blocks(last))


def digest(file: Path) -> str:
    """SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def is_finite(file: Path) -> bool:
    """Whether every number in a file of weights is."""
    import numpy as np
    from safetensors.numpy import load_file

    return all(bool(np.isfinite(tensor).all()) for tensor in load_file(file).values())


def largest_difference(one: Path, other: Path) -> float:
    """Between two files of the same weights."""
    import numpy as np
    from safetensors.numpy import load_file

    first, second = load_file(one), load_file(other)
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


def judge_resume(bench: Bench, scene: Scene, tries: int = 2) -> Outcome:
    """Start the same command again until it is done, with nobody there. Good: it gets there, and
    the final weights are bitwise those of the run that nothing was done to.

    Where it does not get there: whether it does when a person removes the newest checkpoint.
    """
    before = steps_in(scene.steps)
    code, error = _start_again(bench, scene, tries)
    if code == 0:
        same = digest(bench.tool.weights(bench.tool.final(scene.out))) == bench.whole.digest
        again = steps_in(scene.steps) - STEPS
        seen = "same weights" if same else "other weights, without a word"
        return Outcome(
            same, seen, {"steps done again": again, "resumed steps": again + STEPS - before}
        )
    found = bench.tool.checkpoints(scene.out)
    if found:
        shutil.rmtree(found[-1])
    after, _ = _start_again(bench, scene, 1)
    same = (
        after == 0 and digest(bench.tool.weights(bench.tool.final(scene.out))) == bench.whole.digest
    )
    by_hand = "same weights" if same else f"exit {after}, not the same weights"
    return Outcome(False, f"cannot resume ({error}); newest checkpoint removed by hand: {by_hand}")


def _start_again(bench: Bench, scene: Scene, tries: int) -> tuple[int, str]:
    code, error = 1, ""
    for _ in range(tries):
        process = bench.tool.start(scene, bench.settings, InTraining(scene.steps))
        code = process.wait(_PATIENCE_SECONDS)
        if code == 0:
            break
        error = last_words(process.stderr)
    return code, error


def last_words(stderr: str) -> str:
    """The kind of an error from the last line of a traceback, or the line itself."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    if errors:
        return errors[-1].partition(":")[0].rpartition(".")[2]
    named = [line for line in lines if line.lower().startswith("error")]
    return (named or lines or ["nothing on stderr"])[-1].strip()[:120]


# The faults.


def random_kills(bench: Bench, count: int) -> Iterator[Outcome]:
    """SIGKILL, once a case, at a random instant."""
    while count > 0:
        scene = bench.scene()
        process = bench.tool.start(scene, bench.settings, InTraining(scene.steps))
        bench.instant(process, scene)
        process.signal(signal.SIGKILL)
        if process.wait(_PATIENCE_SECONDS) != -signal.SIGKILL:
            continue  # it was done already
        count -= 1
        in_save = bench.tool.in_save(scene.out)
        outcome = judge_resume(bench, scene)
        numbers = {name: outcome.numbers[name] for name in outcome.numbers if "again" in name}
        yield replace(outcome, numbers={**numbers, "kills inside a save": in_save})


def kills_in_saves(bench: Bench, count: int) -> Iterator[Outcome]:
    """SIGKILL at every point of the save of step 9, thinned out evenly to `count`."""
    scene = bench.scene()
    log = scene.root / "points.log"
    watch = bench.tool.kill(scene, _SAVE, log, None)
    bench.tool.start(scene, bench.settings, watch).wait(_PATIENCE_SECONDS)
    points = bench.tool.points(log, _SAVE)
    number = min(count, len(points))
    for place in range(number):
        scene = bench.scene()
        log = scene.root / "points.log"
        kill = bench.tool.kill(scene, _SAVE, log, points[place * len(points) // number])
        # The steps of the killed process are not counted: two things are not hooked at once.
        code = bench.tool.start(scene, bench.settings, kill).wait(_PATIENCE_SECONDS)
        if code != -signal.SIGKILL:
            yield Outcome(False, f"the kill did not take place (exit {code})")
            continue
        outcome = judge_resume(bench, scene)
        yield replace(outcome, numbers={})


_DAMAGES: Sequence[str] = (
    "bit flipped in the weights",
    "bit flipped in the optimizer",
    "file truncated",
    "file emptied",
    "file deleted",
)


def corruptions(bench: Bench, count: int) -> Iterator[Outcome]:
    """The newest of two good checkpoints is damaged: a bit of the weights, a bit of the optimizer;
    any one of its files truncated, emptied, deleted.
    """
    scene = killed_at(bench, 11)
    for number in range(count):
        case = copied(bench, scene)
        newest = bench.tool.checkpoints(case.out)[-1]
        kind = _DAMAGES[number % len(_DAMAGES)]
        what = damage(bench.tool, newest, kind, bench.chance)
        outcome = judge_resume(bench, case)
        if outcome.good:
            used_older = outcome.numbers["resumed steps"] > STEPS - _SAVE
            how = "the older one used" if used_older else "the damaged one used"
            outcome = replace(outcome, seen=f"{outcome.seen}, {how}")
        yield Outcome(outcome.good, f"{what}: {outcome.seen}")


def damage(tool: Tool, checkpoint: Path, kind: str, chance: random.Random) -> str:
    """Do it, and say what it was in words that do not depend on the place."""
    if kind.startswith("bit"):
        file = tool.weights(checkpoint) if "weights" in kind else tool.optimizer(checkpoint)
        data = bytearray(file.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        return kind
    file = chance.choice(sorted(checkpoint.iterdir()))
    if "truncated" in kind:
        os.truncate(file, chance.randrange(1, file.stat().st_size))
    elif "emptied" in kind:
        os.truncate(file, 0)
    else:
        file.unlink()
    return kind


def killed_at(bench: Bench, steps: int) -> Scene:
    """A run killed by SIGKILL after so many steps."""
    scene = bench.scene()
    kill = InTraining(scene.steps, "kill", steps * _MICRO_STEPS + 1)
    bench.tool.start(scene, bench.settings, kill).wait(_PATIENCE_SECONDS)
    if steps_in(scene.steps) != steps:
        raise AssertionError(f"{steps_in(scene.steps)} steps were done, not {steps}")
    return scene


def copied(bench: Bench, scene: Scene) -> Scene:
    """A copy of a run, with its times."""
    case = bench.scene()
    shutil.copytree(scene.out, case.out, symlinks=True)
    shutil.copy(scene.steps, case.steps)
    return case


def signals(number: signal.Signals, pause: float, bench: Bench, count: int) -> Iterator[Outcome]:
    """One signal at a random instant, then the same command again. pause: after each step, seconds,
    as if steps were longer.

    Good: the process says by its exit code that it was not done (128 + n, or ended by the signal),
    no more than one step is done twice, and the final weights are the right ones.
    """
    while count > 0:
        scene = bench.scene()
        process = bench.tool.start(scene, bench.settings, InTraining(scene.steps, pause=pause))
        bench.instant(process, scene)
        process.signal(number)
        code = process.wait(_PATIENCE_SECONDS)
        done = steps_in(scene.steps)
        if code == 0 and done == STEPS:
            continue  # it was too late
        count -= 1
        resumed = judge_resume(bench, scene)
        lost = resumed.numbers.get("steps done again", 0)
        said = code in (-number, 128 + number)
        how = f"exit {code}" if code >= 0 else f"died of {number.name}"
        seen = how if said else f"{how} although not all steps are done"
        good = resumed.good and said and lost <= 1
        yield Outcome(good, f"{seen}; started again: {resumed.seen}", {"steps lost": lost})


def numbers_gone_wrong(what: What, bench: Bench, count: int) -> Iterator[Outcome]:
    """Once, at a random micro-batch after the first checkpoint. Good: no weights that are left are
    non-finite, and a run that ends with 0 has trained on to its end with finite weights.
    """
    for _ in range(count):
        scene = bench.scene()
        step = bench.chance.randint(5, STEPS - 4)
        fault = InTraining(scene.steps, what, (step - 1) * _MICRO_STEPS + 1)
        process = bench.tool.start(scene, bench.settings, fault)
        code = process.wait(_PATIENCE_SECONDS)
        if not struck(scene.steps):
            yield Outcome(False, "the fault did not take place")
            continue
        tool = bench.tool
        final = tool.weights(tool.final(scene.out))
        left = [is_finite(tool.weights(path)) for path in tool.checkpoints(scene.out)]
        good = all(left) and bool(left) and (not final.exists() or is_finite(final))
        weights = "none" if not final.exists() else "finite" if is_finite(final) else "NaN"
        seen = (
            f"exit {code}; final weights: {weights}; checkpoints left: {sum(left)} finite, "
            f"{len(left) - sum(left)} NaN; {tool.told_of(scene.out, step)}"
        )
        yield Outcome(good and (code != 0 or final.exists()), seen)


def out_of_memory(bench: Bench, count: int) -> Iterator[Outcome]:
    """An allocator's refusal once, in a random forward pass. Good: the run ends by itself after as
    many optimizer steps as were asked for, with the weights of the uninterrupted one to 1e-6.
    """
    for _ in range(count):
        scene = bench.scene()
        at = bench.chance.randint(4 * _MICRO_STEPS, (STEPS - 1) * _MICRO_STEPS)
        process = bench.tool.start(
            scene, bench.settings, InTraining(scene.steps, "out of memory", at)
        )
        code = process.wait(_PATIENCE_SECONDS)
        done = steps_in(scene.steps)
        if not struck(scene.steps):
            yield Outcome(False, "the fault did not take place")
        elif code == 0:
            weights = bench.tool.weights(bench.tool.final(scene.out))
            apart = largest_difference(weights, bench.whole.weights)
            same = apart <= _TOLERANCE and done == STEPS
            seen = "the same weights to 1e-6" if apart <= _TOLERANCE else "other weights"
            yield Outcome(
                same, f"exit 0, {seen}", {"steps in all": done, "largest difference": apart}
            )
        else:
            resumed = judge_resume(bench, scene)
            error = last_words(process.stderr)
            yield Outcome(
                False,
                f"exit {code} ({error}); started again: {resumed.seen}",
                {"steps lost": resumed.numbers.get("steps done again", 0)},
            )


def two_at_once(bench: Bench, count: int) -> Iterator[Outcome]:
    """The same command in a second terminal, while the first runs. Good: one of them does all the
    steps, the other does none and does not end with 0, and the weights are right.
    """
    for _ in range(count):
        scene = bench.scene()
        other = Scene(scene.root / "second", scene.out)
        other.root.mkdir()
        first = bench.tool.start(scene, bench.settings, InTraining(scene.steps, pause=0.1))
        bench.await_step(first, scene, bench.chance.randint(2, 8))
        second = bench.tool.start(other, bench.settings, InTraining(other.steps, pause=0.1))
        codes = [process.wait(_PATIENCE_SECONDS) for process in (first, second)]
        steps = [steps_in(log) for log in (scene.steps, other.steps)]
        final = bench.tool.weights(bench.tool.final(scene.out))
        same = final.exists() and digest(final) == bench.whole.digest
        good = codes[0] == 0 and codes[1] != 0 and steps == [STEPS, 0] and same
        refused = "second did not train" if not steps[1] else "both trained"
        seen = f"{refused}, exits {codes[0]} and {codes[1]}, {'same' if same else 'other'} weights"
        yield Outcome(good, seen, {"steps in all": sum(steps)})


def full_disk(bench: Bench, count: int) -> Iterator[Outcome]:
    """A real file system that holds 1.2 to 2.6 checkpoints, where three are needed; after the run
    has ended, it is made larger, and the same command is started again. Good: that ends with the
    same weights.
    """
    whole = bench.whole
    for number in range(count):
        size = int(whole.checkpoint_bytes * (1.2 + 1.4 * number / max(1, count - 1)))
        scene = bench.scene()
        scene.out.mkdir()
        with small_disk(scene.out, size) as enlarge:
            process = bench.tool.start(scene, bench.settings, InTraining(scene.steps))
            code = process.wait(_PATIENCE_SECONDS)
            done = steps_in(scene.steps)
            went_on = f"exit {code}, " + ("trained to the end" if done == STEPS else "broke off")
            enlarge()
            final = bench.tool.weights(bench.tool.final(scene.out))
            if code == 0 and final.exists() and digest(final) == whole.digest:
                yield Outcome(True, f"{went_on}, same weights")
                continue
            resumed = judge_resume(bench, scene)
            yield replace(resumed, seen=f"{went_on}; with space again: {resumed.seen}")


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Callable[[], None]]:
    """A tmpfs of `size` bytes; the callable makes it large. Raises PermissionError where none may
    be mounted.
    """
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], capture_output=True
    )
    if made.returncode:
        raise PermissionError(made.stderr.decode(errors="replace").strip())
    try:
        yield functools.partial(
            subprocess.run, ["mount", "-o", "remount,size=64m", str(place)], check=True
        )
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _blocks(directory: Path) -> int:
    """Bytes that it takes on a file system with pages of 4 KiB."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files)


# The table.

_UNATTENDED = "finishes unattended, final weights' SHA-256 equals the uninterrupted run's"
_SIGNALLED = "exit code of the signal, at most one step lost, then the same weights"
_FINITE = "all weights left are finite, and exit 0 only after the whole training"
_ALL = ("Hugging Face Trainer", "TRL SFTTrainer", "llamafarm", LLAMAFACTORY)


@dataclass(frozen=True)
class FaultKind:
    """A line of the published table. settings: besides the ordinary ones, those of a tool's options
    that are made for this fault, by tool.
    """

    key: str
    fault: str
    good_when: str
    count: int
    do: Callable[[Bench, int], Iterator[Outcome]]
    peer_settings: tuple[tuple[str, ...], ...] = ((),)
    our_settings: tuple[tuple[str, ...], ...] = ((),)

    def settings(self, tool: Tool) -> tuple[tuple[str, ...], ...]:
        """Those of a tool."""
        return self.peer_settings if isinstance(tool, Peer) else self.our_settings


_WITHOUT_BEST = ("load_best_model_at_end=false",)
_NAN_SETTINGS = ((), _WITHOUT_BEST, ("logging_nan_inf_filter=false",))
_OUR_NAN_SETTINGS = ((), ("on_nonfinite=skip",))
FAULTS: tuple[FaultKind, ...] = (
    FaultKind("kill", "SIGKILL at a random instant", _UNATTENDED, 40, random_kills),
    FaultKind("save", "SIGKILL inside a save", _UNATTENDED, 40, kills_in_saves),
    FaultKind(
        "corruption",
        "newest checkpoint damaged, an older good one beside it",
        _UNATTENDED,
        40,
        corruptions,
    ),
    FaultKind(
        "sigterm",
        "SIGTERM",
        _SIGNALLED,
        10,
        functools.partial(signals, signal.SIGTERM, 0.01),
    ),
    FaultKind(
        "sigint",
        "SIGINT",
        _SIGNALLED,
        10,
        functools.partial(signals, signal.SIGINT, 0.01),
    ),
    FaultKind(
        "slow_sigterm",
        "SIGTERM, steps of 0.3 s",
        _SIGNALLED,
        4,
        functools.partial(signals, signal.SIGTERM, 0.3),
        ((), ("enable_jit_checkpoint=true",)),
    ),
    FaultKind(
        "nan_loss",
        "NaN loss once",
        _FINITE,
        6,
        functools.partial(numbers_gone_wrong, "NaN loss"),
        _NAN_SETTINGS,
        _OUR_NAN_SETTINGS,
    ),
    FaultKind(
        "nan_gradient",
        "NaN gradient once",
        _FINITE,
        6,
        functools.partial(numbers_gone_wrong, "NaN gradient"),
        _NAN_SETTINGS[:2],
        _OUR_NAN_SETTINGS,
    ),
    FaultKind(
        "memory",
        "out of memory once, in a training step",
        "ends by itself, as many steps as asked for, weights equal to 1e-6",
        8,
        out_of_memory,
        ((), ("auto_find_batch_size=true",)),
    ),
    FaultKind(
        "two", "two runs in one directory", "one trains, the other is refused", 6, two_at_once
    ),
    FaultKind("disk", "disk full during a save", "with space again, " + _UNATTENDED, 10, full_disk),
)


def measure(
    kind: FaultKind,
    benches: Callable[[Tool, tuple[str, ...]], Bench],
    tools: Sequence[Tool],
    count: int,
) -> Iterator[PeerLine]:
    """The lines of one fault and one tool, which may train in several ways."""
    for settings in kind.settings(tools[0]):
        outcomes: list[Outcome] = []
        for number, tool in enumerate(tools):
            bench = benches(tool, settings)
            bench.chance = random.Random(f"{kind.key} {tool.method}")
            share = count // len(tools) + (number < count % len(tools))
            outcomes += kind.do(bench, share)
            bench.clear()
        yield PeerLine(
            kind.fault,
            kind.good_when,
            tools[0].name,
            f"{tools[0].version} ({' and '.join(tool.method for tool in tools)})",
            " ".join(settings),
            len(outcomes),
            sum(outcome.good for outcome in outcomes),
            summed_up(outcomes),
            datetime.now(UTC).date().isoformat(),
        )


def summed_up(outcomes: Sequence[Outcome]) -> str:
    """Equal ends counted, then what is summed or ranges."""
    counted = Counter(outcome.seen for outcome in outcomes)
    parts = [f"{number} × {seen}" for seen, number in counted.most_common()]
    names = sorted({name for outcome in outcomes for name in outcome.numbers})
    for name in names:
        values = [o.numbers[name] for o in outcomes if name in o.numbers]
        if name.startswith("kills"):
            parts.append(f"{name}: {sum(values):g}")
        elif name != "resumed steps":
            low, high = min(values), max(values)
            parts.append(f"{name}: {low:.3g}" + ("" if low == high else f" to {high:.3g}"))
    return "; ".join(parts)


def main(argv: Sequence[str]) -> int:
    """Measure what is asked for, and keep the rest."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign.peers")
    parser.add_argument("--only", nargs="+", choices=[kind.key for kind in FAULTS])
    parser.add_argument("--tools", nargs="+", choices=_ALL, default=list(_ALL))
    parser.add_argument("--count", type=int, help="cases of each fault, instead of its own number")
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args(argv)
    table = PeerTable(
        "python -m tests.faults.campaign.peers",
        f"{platform.system()} {platform.machine()}, CPU, 1 thread",
        (
            f"Python {platform.python_version()}",
            *(f"{name} {version(name)}" for name in _LIBRARIES),
        ),
        NOT_DRIVEN,
    )
    if asked.results and asked.results.exists():
        table = replace(table, lines=load_table(asked.results).lines)
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        root = Path(name)
        tools = make_tools(root / "workplace")

        @functools.cache
        def bench(tool: Tool, settings: tuple[str, ...]) -> Bench:
            return Bench(tool, Path(tempfile.mkdtemp(dir=root)), settings)

        for kind in FAULTS:
            if asked.only and kind.key not in asked.only:
                continue
            for tool in asked.tools:
                driven = [t for t in tools if t.name == tool]
                for line in measure(kind, bench, driven, asked.count or kind.count):
                    table = table.with_line(line)
                    if asked.results:
                        save_table(table.in_order(), asked.results)
                    _say(line)
    return 0


def _say(line: PeerLine) -> None:
    parts = (line.fault, line.tool, line.setting or "ordinary", f"{line.good}/{line.done}")
    sys.stdout.write(" | ".join((*parts, line.seen)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
