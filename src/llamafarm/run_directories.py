"""The runs under a directory: which there are, what became of each, and what set them apart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamafarm.errors import LlamafarmError, OutputError, UserError
from llamafarm.monitoring.events import EvalEvent
from llamafarm.monitoring.run_comparison import (
    NamedRun,
    RowsEvaluated,
    RunComparison,
    compare_runs,
)
from llamafarm.monitoring.run_overview import UNREADABLE, RunOverview, overview_of, sort_runs
from llamafarm.monitoring.run_record import (
    RUN_FILE,
    RunRecord,
    find_run,
    is_so,
    read_run_record,
)

DEFAULT_DIRECTORY = Path("fine_tuned_models")
MOST_RUNS = 1000
_DEEPEST = 4
_MOST_DIRECTORIES = 20_000
# A loss per token that was summed in another order.
_SAME_LOSS = 1e-4

ReadRun = Callable[[Path], RunRecord]


@dataclass(frozen=True, slots=True)
class RunList:
    """The runs under a directory. is_whole: whether all of them are in it, which is not so beyond
    MOST_RUNS.
    """

    directory: Path
    runs: tuple[RunOverview, ...]
    is_whole: bool = True


def list_runs(directory: Path = DEFAULT_DIRECTORY, *, sort: str = "started") -> RunList:
    """Every run at or under a directory, also one that goes on, was stopped, or cannot be read.
    sort: a key of SORT_KEYS. Raises OutputError where there is no directory.
    """

    def read(root: Path) -> RunOverview:
        record = read_run_record(root, need_events=False)
        return overview_of(name_below(root, directory), record)

    return overview_runs(directory, find_runs(directory), read, sort=sort)


def overview_runs(
    directory: Path,
    roots: Sequence[Path],
    read: Callable[[Path], RunOverview],
    *,
    sort: str = "started",
) -> RunList:
    """The list of runs that were found, also of those that `read` fails for."""
    found = [_overview(root, directory, read) for root in roots[:MOST_RUNS]]
    return RunList(directory, sort_runs(found, sort), len(roots) <= MOST_RUNS)


def find_runs(directory: Path) -> tuple[Path, ...]:
    """The run directories at or under a directory, links left out, at most one more than
    MOST_RUNS. Raises OutputError where there is no directory.
    """
    if not is_so(directory.is_dir):
        what = "is a file" if is_so(directory.exists) else "does not exist"
        raise OutputError(
            f"the directory {directory} {what}",
            hint="name the directory that the runs are in; `train` writes to "
            f"{DEFAULT_DIRECTORY}/ unless told otherwise",
        )
    found: list[Path] = []
    for root in _run_directories(directory):
        found.append(root)
        if len(found) > MOST_RUNS:
            break
    return tuple(found)


def _run_directories(directory: Path) -> Iterator[Path]:
    """In the order of their names; what lies inside of a run is no further run."""
    waiting = [(directory, 0)]
    for _ in range(_MOST_DIRECTORIES):
        if not waiting:
            return
        place, depth = waiting.pop()
        if is_so((place / RUN_FILE).is_file):
            yield place
        elif depth < _DEEPEST:
            waiting += [(inside, depth + 1) for inside in reversed(_directories_in(place))]


def _directories_in(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:  # not ours to read
        return []
    return [place / name for name in sorted(names) if not name.startswith(".")]


def _overview(root: Path, directory: Path, read: Callable[[Path], RunOverview]) -> RunOverview:
    try:
        return read(root)
    except LlamafarmError as error:
        problem = error.summary
    except OSError as error:
        problem = error.strerror or str(error)
    return RunOverview(name_below(root, directory), root, UNREADABLE, problems=(problem,))


def name_below(root: Path, directory: Path) -> str:
    """How a run is called in the list of a directory: its path below it, or its own name."""
    below = root.relative_to(directory).as_posix()
    return (root.name or root.absolute().name) if below == "." else below


def compare(
    runs: Sequence[Path], directory: Path = DEFAULT_DIRECTORY, *, read: ReadRun = read_run_record
) -> RunComparison:
    """Two or more runs, the first being the reference. A name that is no path here is looked for in
    the directory. Raises UserError.
    """
    roots = [_find(path, directory) for path in runs]
    if len(set(roots)) < len(roots):
        twice = next(root for root in roots if roots.count(root) > 1)
        raise UserError(f"{twice} is named twice", hint="name every run once")
    if len(roots) < 2:
        raise UserError("there is nothing to compare one run with", hint="name two or more runs")
    names = _short_names(roots)
    return compare_runs([named_run(n, read(root)) for n, root in zip(names, roots, strict=True)])


def _find(path: Path, directory: Path) -> Path:
    elsewhere = directory / path
    is_here = is_so(path.exists) or not is_so(elsewhere.exists)
    return find_run(path if is_here else elsewhere).resolve()


def _short_names(roots: Sequence[Path]) -> list[str]:
    """The last part of every path, or as many as tell them apart."""
    for count in range(1, max(len(root.parts) for root in roots)):
        names = ["/".join(root.parts[-count:]) for root in roots]
        if len(set(names)) == len(names):
            return names
    return [str(root) for root in roots]


def named_run(name: str, record: RunRecord) -> NamedRun:
    """A run to compare, with the loss of every evaluation row under the weights that it kept."""
    from llamafarm.training.evaluations import read_evaluation

    kept = record.summary.eval_loss
    if kept is None:
        return NamedRun(name, record, why_not="it was not evaluated")
    last = [e.step for e in record.events if isinstance(e, EvalEvent)][-1:]
    for step in dict.fromkeys((record.summary.best_step, *last)):
        found = None if step is None else read_evaluation(record.root / "evaluations", step)
        if found and found.by_row.tokens and abs(found.by_row.loss - kept) <= _SAME_LOSS:
            return NamedRun(name, record, RowsEvaluated(found.sources, found.by_row))
    why_not = "evaluations/ does not have the losses of the step that is kept"
    return NamedRun(name, record, why_not=why_not)
