"""Very many tiny steps with saves and rotation: memory, open files and files on disk stay as they
are.

Memory is what the kernel says (VmRSS), sampled from outside. The slope is fitted over the second
half, when every buffer has found its size. An hour of tiny steps is hundreds of thousands of them,
so the bound of the long form, 1 MB an hour, is a few bytes a step; the short form is too short
to see that, and bounds what 2,000 steps add.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from tests.faults.campaign.outcome import last_lines, run_status, stages
from tests.faults.campaign.row import Case, Form, Row
from tests.faults.campaign.training import start
from tests.faults.campaign.workplace import Workplace, make_workplace

_STEPS: dict[Form, int] = {"short": 2000, "long": 100_000}
# safetensors keeps some bytes of every tensor that it writes: with a save every 50 steps, 0.6 KB a
# save were 3 MB an hour of tiny steps.
_SAVE_EVERY: dict[Form, int] = {"short": 50, "long": 500}
_MEGABYTE = 1e6
_MOST_MEGABYTES_AN_HOUR = 1.0
_MOST_MEGABYTES_IN_THE_SHORT_FORM = 1.0
_KEPT = 2
_SAMPLES_A_SECOND = 10
# A hundred times what it takes: it hangs.
_MOST_SECONDS_A_STEP = 1.0


def cases(workdir: Path, form: Form) -> Iterator[Case]:
    """Memory, open files, files on disk: a case each."""
    steps = _STEPS[form]
    changes = {"max_steps": steps, "save_steps": _SAVE_EVERY[form]}
    place = make_workplace(workdir / "place", {"soak": changes})
    samples, code, stderr = _watch(place, steps)
    status = run_status(place.out("soak"))
    fault = f"exit {code}, {status}: {last_lines(stderr)}" if code or status != "completed" else ""
    yield Case("the run ends", not fault, fault, {"steps": steps})
    second_half = samples[len(samples) // 2 :]
    yield _memory(second_half, samples[-1].seconds, form)
    yield _open_files(second_half)
    yield _files_on_disk(place, second_half)


@dataclass(frozen=True, slots=True)
class _Sample:
    """seconds: since the start; the rest by the process's own account."""

    seconds: float
    rss_bytes: int
    open_files: int
    checkpoints: int


def _watch(place: Workplace, steps: int) -> tuple[list[_Sample], int, str]:
    child = start(place, place.train("soak", "soak"))
    process = Path("/proc") / str(child.pid)
    checkpoints = place.out("soak") / "checkpoints"
    started = time.monotonic()
    samples: list[_Sample] = []
    while child.poll() is None:
        seconds = time.monotonic() - started
        if seconds > steps * _MOST_SECONDS_A_STEP:
            child.signal(signal.SIGKILL)
        try:
            rss = _rss_bytes(process)
            files = len(list((process / "fd").iterdir()))
        except (FileNotFoundError, ProcessLookupError, StopIteration):
            break
        # After the last save come the final model and the summary, which are no part of a slope.
        if checkpoints.exists() and not (checkpoints / f"checkpoint-{steps}").exists():
            kept = len([p for p in checkpoints.iterdir() if not p.name.startswith(".")])
            samples.append(_Sample(seconds, rss, files, kept))
        time.sleep(1 / _SAMPLES_A_SECOND)
    return samples, child.wait(), child.stderr


def _rss_bytes(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def _memory(samples: Sequence[_Sample], seconds: float, form: Form) -> Case:
    x = [s.seconds / 3600 for s in samples]
    y = [s.rss_bytes / _MEGABYTE for s in samples]
    slope, error = fit(x, y)
    grown = slope * (x[-1] - x[0])
    detail = (
        f"{slope:+.2f} ± {1.96 * error:.2f} MB an hour over the second half of {seconds:.0f} s "
        f"({grown:+.3f} MB in it); {y[-1]:.0f} MB held"
    )
    if form == "long":
        passed = slope < _MOST_MEGABYTES_AN_HOUR
    else:
        passed = grown < _MOST_MEGABYTES_IN_THE_SHORT_FORM
    facts = {"MB an hour": slope, "± MB an hour": 1.96 * error, "MB grown": grown}
    return Case("memory", passed, detail, facts)


def fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope of the line of least squares, and its standard error."""
    count = len(x)
    mean_x, mean_y = sum(x) / count, sum(y) / count
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return slope, sqrt(rest / (count - 2) / spread)


def _open_files(samples: Sequence[_Sample]) -> Case:
    # A save has one more open for an instant, and its directory.
    most, least = max(s.open_files for s in samples), min(s.open_files for s in samples)
    usual = sorted(s.open_files for s in samples)[len(samples) // 2]
    detail = f"{least} to {most}, mostly {usual}"
    return Case("open files", most - usual <= 3, detail, {"open files": usual})


def _files_on_disk(place: Workplace, samples: Sequence[_Sample]) -> Case:
    out = place.out("soak")
    most = max(s.checkpoints for s in samples)
    # The best one is kept beside those of the limit, and the new one before the oldest goes.
    left = stages(out)
    passed = most <= _KEPT + 2 and not left
    detail = f"at most {most} checkpoints; left behind: {', '.join(left) or 'nothing'}"
    return Case("files on disk", passed, detail, {"checkpoints at most": most})


ROW = Row(
    key="soak",
    fault="soak: tiny steps, rotation",
    passes_when="memory slope under 1 MB/h, no file leaked",
    cases=cases,
)
