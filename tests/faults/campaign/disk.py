"""The disk refuses: at every operation of a save, once or from then on. What was good stays good, a
save that failed does not end the run, and the message says what is needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from llamafarm.training.checkpoint import list_checkpoints
from tests.faults.campaign.conditions import LittleRoom
from tests.faults.campaign.outcome import (
    Reference,
    check_records,
    file_hashes,
    last_lines,
    newest_step,
    read_events,
    run_status,
    stages,
    weights_hash,
)
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.shim import REFUSED, Fault, Operation, Shim, read_log
from tests.faults.campaign.together import Job, chance_of, each
from tests.faults.campaign.training import resume_to_the_end, start, train_reference
from tests.faults.campaign.workplace import Workplace, make_workplace
from tests.faults.campaign.zygote import Child

_STRATEGY = "disk"
_GOOD, _REFUSED_STEP, _LAST_STEP = 2, 4, 6
_BYTES = re.compile(r"[\d,]+ bytes")
# Without these, what failed cannot be taken away either.
_NO_REMOVAL = ("EROFS", "EIO")


def cases(workdir: Path, form: Form) -> Iterator[Case]:
    """A case for every operation and error."""
    place = make_workplace(workdir / "place")
    reference = train_reference(place, _STRATEGY)
    faults = _short(reference) if form == "short" else _long(reference)
    yield from each(_refusals(place, reference, faults))
    yield from each(_real_disks(place, reference, 2 if form == "short" else 20))


@dataclass(frozen=True)
class _Refusal:
    """A fault, and the operation it hits first. inside: of the second save, after a good one."""

    fault: Fault
    operation: Operation
    inside: bool

    @property
    def name(self) -> str:
        lasting = "from then on" if self.fault.lasting else "once"
        done = self.operation
        return f"{self.fault.what} {lasting} at {done.number}: {done.kind} {done.path}"


def _all(reference: Reference) -> list[_Refusal]:
    """Every error at every operation that can end in it, once and from then on."""
    first, last = _second_save(reference.operations)
    found = []
    for what, kinds in REFUSED.items():
        ranked = (o for o in reference.operations if o.kind in kinds)
        for rank, operation in enumerate(ranked, start=1):
            for lasting in (False, True):
                fault = Fault(what, rank, _when(operation), lasting=lasting)
                inside = first <= operation.number < last
                found.append(_Refusal(fault, operation, inside))
    return found


def _when(operation: Operation) -> Literal["before", "within"]:
    return "within" if operation.kind == "write" else "before"


def _second_save(operations: tuple[Operation, ...]) -> tuple[int, int]:
    """Number of its first operation, and of the first one after it and its rotation."""
    first = next(o.number for o in operations if f"checkpoint-{_REFUSED_STEP}" in o.path)
    after = (o for o in operations if o.number > first and o.phase not in ("save", "rotate"))
    return first, next(after).number


def _short(reference: Reference) -> list[_Refusal]:
    """Every operation of the save once, with the errors and both ways in turn."""
    by_operation: dict[int, list[_Refusal]] = {}
    for refusal in _all(reference):
        if refusal.inside:
            by_operation.setdefault(refusal.operation.number, []).append(refusal)
    chance = chance_of("disk")
    return [chance.choice(refusals) for refusals in by_operation.values()]


def _long(reference: Reference) -> list[_Refusal]:
    """Everything at the save; at the rest of the run each error once."""
    return [r for r in _all(reference) if r.inside or not r.fault.lasting]


def _refusals(place: Workplace, reference: Reference, refusals: list[_Refusal]) -> Iterator[Job]:
    for number, refusal in enumerate(refusals):
        yield refusal.name, partial(_refuse, place, reference, refusal, f"refused-{number}")
    for name, free in (("no room at all", 0), ("room for half of a checkpoint", 30_000)):
        yield name, partial(_little_room, place, reference, name, free)


def _refuse(place: Workplace, reference: Reference, refusal: _Refusal, name: str) -> list[Case]:
    out, log = place.out(name), place.root / f"{name}.log"
    child = start(place, place.train(_STRATEGY, name), Shim(out, log, refusal.fault))
    code = child.wait()
    _, done = read_log(log)
    found = "" if done else "the fault was never reached"
    found = found or _fault_of(child, code, out, reference, refusal)
    found = found or resume_to_the_end(place, _STRATEGY, name, reference)
    if not found:
        shutil.rmtree(out)
    return [Case(refusal.name, not found, found, {"refused": 1})]


def _fault_of(child: Child, code: int, out: Path, reference: Reference, refusal: _Refusal) -> str:
    stderr, fault = child.stderr, refusal.fault
    if "Traceback" in stderr or code not in (0, 1, 2):
        return f"exit {code}: {last_lines(stderr)}"
    if code == 2 and refusal.operation.phase not in ("start", ".lock"):
        return f"exit 2 is for the user's input: {last_lines(stderr)}"
    if refusal.inside and not fault.lasting and code:
        return f"one save failed, and the run ended with exit {code}: {last_lines(stderr)}"
    if refusal.inside and newest_step(out) < _GOOD:
        return f"checkpoint-{_GOOD} was good, and the newest is now {newest_step(out)}"
    if found := check_records(out) or _final_fault(out, reference):
        return found
    if code == 0 and run_status(out) != "completed":
        return f"exit 0, and run.json says {run_status(out)}"
    stuck = fault.lasting and fault.what in _NO_REMOVAL
    if (left := stages(out)) and not stuck:
        return f"left behind: {', '.join(left)}"
    if code == 0 and _stands(out):
        return ""  # what was refused was of no weight: an old checkpoint goes at the next save
    return _message_fault(stderr, refusal)


def _final_fault(out: Path, reference: Reference) -> str:
    """It is the reference's; or, where the best step could not be saved, the best that was."""
    final = out / "final_model"
    if not final.exists() or file_hashes(final) == reference.files:
        return ""
    saved = {weights_hash(c.path) for c in list_checkpoints(out / "checkpoints")}
    return "" if weights_hash(final) in saved else "final_model is of no step that was saved"


def _stands(out: Path) -> bool:
    """Whether every save was made all the same."""
    saved = {e["step"] for e in read_events(out) if e["event"] == "checkpoint"}
    return {_GOOD, _REFUSED_STEP, _LAST_STEP} <= saved


def _message_fault(stderr: str, refusal: _Refusal) -> str:
    """What was refused must be told, with the path; where the disk is full, with the bytes."""
    number = "EIO" if refusal.fault.what == "fsync" else refusal.fault.what
    text = os.strerror(getattr(errno, number))
    line = next((line for line in stderr.splitlines() if text in line), "")
    if not line:
        return f"nothing says {text!r}: {last_lines(stderr)}"
    if "/runs/" not in line:
        return f"the path is not named: {line}"
    if number in ("ENOSPC", "EDQUOT") and refusal.inside and not _BYTES.search(stderr):
        return f"how many bytes are needed is not told: {line}"
    return ""


def _little_room(place: Workplace, reference: Reference, what: str, free_bytes: int) -> list[Case]:
    name = what.replace(" ", "-")
    child = start(place, place.train(_STRATEGY, name), LittleRoom(free_bytes))
    code, out = child.wait(), place.out(name)
    fault = _full_disk_fault(child, code, out, reference)
    fault = fault or resume_to_the_end(place, _STRATEGY, name, reference)
    return [Case(what, not fault, fault, {"refused": 1})]


def _full_disk_fault(child: Child, code: int, out: Path, reference: Reference) -> str:
    stderr = child.stderr
    if code not in (0, 1) or "Traceback" in stderr:
        return f"exit {code}: {last_lines(stderr)}"
    if code == 1 and not _BYTES.search(stderr):
        return f"how many bytes are needed is not told: {last_lines(stderr)}"
    if left := stages(out):
        return f"left behind: {', '.join(left)}"
    return check_records(out) or _final_fault(out, reference)


# Real file systems that are full, where they can be mounted.


def _real_disks(place: Workplace, reference: Reference, count: int) -> Iterator[Job]:
    needed = _disk_bytes(place.out(f"reference-{_STRATEGY}"))
    if not _can_mount(place.root / "probe"):
        return
    for number in range(count):
        size = int(needed * (number + 1) / (count + 1))
        name = f"a file system of {size // 1024} KiB"
        yield name, partial(_fill, place, reference, name, size)


def _disk_bytes(directory: Path) -> int:
    return sum(512 * path.lstat().st_blocks for path in directory.rglob("*"))


def _fill(place: Workplace, reference: Reference, what: str, size: int) -> list[Case]:
    name = what.replace(" ", "-")
    out = place.out(name)
    with _mounted(out, size):
        child = start(place, place.train(_STRATEGY, name))
        code = child.wait()
        fault = _full_disk_fault(child, code, out, reference)
        if not fault and code:
            _mount(out, "remount,size=100m")
            fault = resume_to_the_end(place, _STRATEGY, name, reference)
        facts = {"real full disks": 1.0, "ended with exit 1": float(code == 1)}
        return [Case(what, not fault, fault, facts)]


@contextlib.contextmanager
def _mounted(directory: Path, size: int) -> Iterator[None]:
    directory.mkdir()
    _mount(directory, f"size={size}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def _mount(directory: Path, options: str) -> None:
    line = ["mount", "-t", "tmpfs", "-o", options, "none", str(directory)]
    subprocess.run(line, check=True, capture_output=True)


def _can_mount(directory: Path) -> bool:
    """Only root may, and not in every container."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError), _mounted(directory, 1 << 20):
        return True
    return False


ROW = Row(
    key="disk",
    fault="disk full, read-only, EIO, fsync failure at each write",
    passes_when="last good checkpoint usable, message names path and bytes",
    cases=cases,
)
