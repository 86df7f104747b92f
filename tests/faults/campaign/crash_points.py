"""A crash after every single change that a save, a rotation, the final model or an export makes:
what is found is the old state or the new one, and --resume ends as if nothing had happened.

A process that is killed leaves the disk as the last system call left it. So one run, copied after
every operation, shows what a kill at each of them leaves; equal copies are resumed once. The long
form also kills for real, in the middle of writes too, and takes the power away.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.faults.campaign.outcome import (
    Reference,
    check_state,
    file_hashes,
    last_lines,
    newest_step,
    read_events,
)
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.shim import Fault, Operation, Shim, read_log
from tests.faults.campaign.together import Job, each
from tests.faults.campaign.training import copy_of, resume_to_the_end, start, train_reference
from tests.faults.campaign.workplace import Workplace, make_workplace

_SEEDS = range(3)
_TYPES = ("q8_0", "f16")


def cases(workdir: Path, form: Form) -> Iterator[Case]:
    """A case for every operation."""
    place = make_workplace(workdir / "place")
    reference = train_reference(place, "short")
    whole = _Copied(place, "short", reference, "a run", form)
    yield from whole.cases()
    finished = _Copied(place, "short", reference, "a finished run resumed", form, _is_final)
    copy_of(place.out("reference-short"), finished.out)
    yield from finished.cases()
    damaged = _Copied(place, "short", reference, "a damaged checkpoint replaced", form, _is_save)
    copy_of(whole.two_checkpoints(), damaged.out)
    _flip_a_byte(damaged.out / "checkpoints" / f"checkpoint-{newest_step(damaged.out)}")
    yield from damaged.cases()
    yield from _exports(place, place.out("reference-short"))
    if form == "long":
        many = train_reference(place, "lora")
        yield from _Copied(place, "lora", many, "a run of many saves", form).cases()
        yield from each(_real_crashes(place, reference))


# What a kill after each operation leaves, by copies.


def _always(operation: Operation) -> bool:
    return True


def _is_final(operation: Operation) -> bool:
    return operation.phase == "final_model"


def _is_save(operation: Operation) -> bool:
    return operation.phase in ("save", "rotate")


@dataclass(frozen=True)
class _Copied:
    """A run in `out`, which may hold an earlier one, copied after every operation. chosen: which of
    them are cases.
    """

    place: Workplace
    strategy: str
    reference: Reference
    what: str
    form: Form
    chosen: Callable[[Operation], bool] = _always

    @property
    def name(self) -> str:
        return self.what.replace(" ", "-")

    @property
    def out(self) -> Path:
        return self.place.out(self.name)

    @property
    def _log(self) -> Path:
        return self.place.root / f"{self.name}.log"

    def _copy(self, operation: Operation) -> Path:
        return self.place.out(f"{self.name}-after") / str(operation.number)

    def two_checkpoints(self) -> Path:
        """The copy from just before the first rotation."""
        operations, _ = read_log(self._log)
        pairs = pairwise(operations)
        return self._copy(next(a for a, b in pairs if b.phase == "rotate"))

    def cases(self) -> Iterator[Case]:
        """Run it, look at every copy, resume the copies that differ."""
        had_final, had_checkpoint = (self.out / "final_model").exists(), newest_step(self.out)
        shim = Shim(self.out, self._log, copies=self.place.out(f"{self.name}-after"))
        child = start(self.place, self.place.train(self.strategy, self.name, "--resume"), shim)
        if code := child.wait():
            yield Case(self.what, passed=False, detail=f"exit {code}: {last_lines(child.stderr)}")
            return
        operations, _ = read_log(self._log)
        faults: dict[int, str] = {}
        for operation in operations:
            copy = self._copy(operation)
            faults[operation.number] = _state_fault(copy, self.reference, had_final)
            if (now := newest_step(copy)) < had_checkpoint:
                fault = f"checkpoint-{had_checkpoint} was good; the newest is now {now or 'none'}"
                faults[operation.number] = fault
            had_checkpoint = now
        names = {o.number: f"{self.what}, after {_told(o, len(operations))}" for o in operations}
        yield from each(self._resumes(tuple(filter(self.chosen, operations)), names, faults))

    def _resumes(
        self, operations: Sequence[Operation], names: Mapping[int, str], faults: Mapping[int, str]
    ) -> Iterator[Job]:
        for group in self._alike(operations):

            def resumed(group: Sequence[Operation] = group) -> list[Case]:
                name = str(self._copy(group[-1]).relative_to(self.place.out("")))
                fault = resume_to_the_end(self.place, self.strategy, name, self.reference)
                return [
                    Case(
                        names[o.number],
                        passed=not (faults[o.number] or fault),
                        detail=faults[o.number] or fault,
                        facts={"points": 1, "resumed": float(o is group[-1])},
                    )
                    for o in group
                ]

            yield names[group[0].number], resumed

    def _alike(self, operations: Sequence[Operation]) -> list[list[Operation]]:
        """Operations that left the same, but for what is inside a stage. In the long form, the
        stages count too. The last of a group stands for it: it has most in its stage.
        """
        groups: dict[str, list[Operation]] = {}
        for operation in operations:
            key = _tree_hash(self._copy(operation), with_stages=self.form == "long")
            groups.setdefault(key, []).append(operation)
        return list(groups.values())


def _state_fault(out: Path, reference: Reference, final_from_the_start: bool) -> str:
    if final_from_the_start and not (out / "final_model").exists():
        return "final_model was there before, and is gone"
    try:
        read_events(out)
    except ValueError as error:
        return f"metrics.jsonl has a line that is none: {error}"
    return check_state(out, reference)


def _told(operation: Operation, count: int) -> str:
    to = f" to {operation.to}" if operation.to else ""
    return f"{operation.number} of {count}: {operation.kind} {operation.path}{to}"


def _tree_hash(directory: Path, *, with_stages: bool = True) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if with_stages or not any(part.startswith(".tmp-") for part in relative.parent.parts):
            digest.update(f"{relative}\0".encode())
            digest.update(path.read_bytes() if path.is_file() else b"/")
            digest.update(b"\0")
    return digest.hexdigest()


def _flip_a_byte(checkpoint: Path) -> None:
    file = next(checkpoint.glob("adapter_model.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


# Exports.


@dataclass(frozen=True)
class _Export:
    """One `convert`. old: what the target holds before, where it holds something."""

    place: Workplace
    source: Path
    name: str
    arguments: tuple[str, ...]
    old: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return self.place.root / f"export-{self.name}"

    def argv(self, folder: Path) -> tuple[str, ...]:
        return ("convert", str(self.source), str(folder / "made"), *self.arguments)


def _exports(place: Workplace, source: Path) -> Iterator[Case]:
    gguf = ("--format", "gguf", "--no-verify", "--quantization")
    first = _Export(place, source, "gguf", (*gguf, _TYPES[0]), {})
    yield from _copied_export(first)
    safetensors = _Export(place, source, "safetensors", ("--format", "safetensors"), {})
    yield from _copied_export(safetensors)
    old = file_hashes(first.folder / "made")
    replaced = _Export(place, source, "replaced", (*gguf, _TYPES[1]), old)
    copy_of(first.folder / "made", replaced.folder / "made")
    yield from _copied_export(replaced)


def _copied_export(export: _Export) -> Iterator[Case]:
    export.folder.mkdir(exist_ok=True)
    log = export.place.root / f"export-{export.name}.log"
    copies = export.place.root / f"export-{export.name}-after"
    overwrite = ("--overwrite",) if export.old else ()
    shim = Shim(export.folder, log, copies=copies)
    child = start(export.place, (*export.argv(export.folder), *overwrite), shim)
    what = f"convert ({export.name})"
    if code := child.wait():
        yield Case(what, passed=False, detail=f"exit {code}: {last_lines(child.stderr)}")
        return
    new = file_hashes(export.folder / "made")
    operations, _ = read_log(log)
    same: dict[str, list[Operation]] = {}
    for operation in operations:
        same.setdefault(_tree_hash(copies / str(operation.number)), []).append(operation)

    def again(group: list[Operation]) -> list[Case]:
        folder = copies / str(group[0].number)
        fault = _export_fault(export, folder, new)
        return [
            Case(f"{what}, after {_told(o, len(operations))}", not fault, fault, {"points": 1})
            for o in group
        ]

    yield from each((what, partial(again, group)) for group in same.values())
    shutil.rmtree(copies)


def _export_fault(export: _Export, folder: Path, new: Mapping[str, str]) -> str:
    made = folder / "made"
    found = file_hashes(made) if made.exists() else {}
    if found not in (export.old, new):
        return "the target is neither absent nor whole"
    overwrite = ("--overwrite",) if found else ()
    child = start(export.place, (*export.argv(folder), *overwrite))
    if code := child.wait():
        return f"the same command again: exit {code}: {last_lines(child.stderr)}"
    return "" if file_hashes(made) == new else "the same command again made other files"


# Real kills, and power failures.


def _real_crashes(place: Workplace, reference: Reference) -> Iterator[Job]:
    for operation in reference.operations:
        faults = [Fault("kill", operation.number, "after")]
        if operation.kind == "write":
            faults.append(Fault("kill", operation.number, "within"))
        faults += [Fault("power", operation.number, "after", seed=seed) for seed in _SEEDS]
        for fault in faults:
            seed = f" ({fault.seed})" if fault.what == "power" else ""
            told = _told(operation, len(reference.operations))
            name = f"{fault.what}{seed} {fault.when} {told}"
            yield name, partial(_crash, place, reference, fault, name)


def power_failures_at_the_end(workdir: Path) -> Iterator[Case]:
    """The last operations of a run: whatever was not made durable before is at stake."""
    place = make_workplace(workdir / "place")
    reference = train_reference(place, "short")
    for operation in reference.operations[-3:]:
        for seed in _SEEDS:
            fault = Fault("power", operation.number, "after", seed=seed)
            yield from _crash(place, reference, fault, f"power ({seed}) after {operation.number}")


def _crash(place: Workplace, reference: Reference, fault: Fault, what: str) -> list[Case]:
    name = f"{fault.what}-{fault.when}-{fault.at}-{fault.seed}"
    out, log = place.out(name), place.root / f"{name}.log"
    child = start(place, place.train("short", name), Shim(out, log, fault))
    code = child.wait()
    found = ""
    if code != -signal.SIGKILL:
        found = f"exit {code} instead of a crash: {last_lines(child.stderr)}"
    found = found or check_state(out, reference)
    found = found or resume_to_the_end(place, "short", name, reference)
    if not found:
        shutil.rmtree(out)
        shutil.rmtree(log.with_suffix(".shadow"), ignore_errors=True)
        log.unlink()
    return [Case(what, not found, found, {"points": 1, f"{fault.what} for real": 1})]


ROW = Row(
    key="crash",
    fault="crash after every single write, fsync and rename of save, rotate, best, export",
    passes_when="the old state or the new one, never neither",
    cases=cases,
)
