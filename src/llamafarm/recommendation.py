"""`recommend` and `init`: the plan that `train` would make, as a strategy file with its reasons.

Like readiness.py it puts rooms together: what is recommended is what planning decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.decision import Decision
from llamafarm.errors import OutputError, Problem, StrategyError, count_of
from llamafarm.monitoring.events import Event
from llamafarm.readiness import Planned, find_model, plan_run

if TYPE_CHECKING:
    from llamafarm.data.report import DataReport
    from llamafarm.hardware.facts import Hardware
    from llamafarm.models.shape import ModelShape
    from llamafarm.models.source import ModelSource
    from llamafarm.planning.plan import Forecast
    from llamafarm.planning.recommended import OpenField
    from llamafarm.planning.resolve import WithoutData
    from llamafarm.strategy.model import Strategy
    from llamafarm.strategy.overrides import Override

DEMO_ROWS = "medical_qa.jsonl"
_PATHS = (
    "base_model.id",
    *(f"dataset.{name}" for name in ("path", "train_file", "eval_file", "test_file")),
)
_EVAL_SPLIT = "dataset.eval_split"
_NAME_RULE = (
    "it names a directory: it begins with a letter or digit, and holds no slash and no control "
    "character"
)


@dataclass(frozen=True)
class RecommendRequest:
    """What a strategy is wanted for. name: of the strategy; file: where it will lie, None: in the
    working directory. for_beginners: the few values worth changing, with what each is for.
    """

    overrides: tuple[Override, ...] = ()
    name: str = "recommended"
    file: Path | None = None
    overwrite: bool = False
    skip_bad_rows: bool = False
    for_beginners: bool = False


@dataclass(frozen=True)
class Recommendation:
    """A strategy file and what it came from. open: what only rows can decide, where there are none;
    forecast and data are None then.
    """

    text: str
    strategy: str
    file: Path | None
    decisions: tuple[Decision, ...]
    open: tuple[OpenField, ...]
    hardware: Hardware
    forecast: Forecast | None = None
    data: DataReport | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The lines a person should not miss."""
        return tuple(d.reason for d in self.decisions if d.source == "warning")


def recommend(request: RecommendRequest, emit: Callable[[Event], None]) -> Recommendation:
    """The strategy for these rows, this model and this machine; without rows for the latter two.

    Written to request.file where one is named. Raises UserError as `train` does, and OutputError
    for a file that exists.
    """
    from llamafarm.strategy.loader import default_strategy

    _check_file(request)
    strategy = _with_table_share(default_strategy(request.name, request.overrides))
    _check_name(strategy)
    if _has_data(strategy):
        made = _with_data(strategy, request, emit)
    else:
        made = _without_data(strategy, request, emit)
    if request.file is not None:
        _write(request.file, made.text)
    return made


def decide_without_data(
    strategy: Strategy, *, allow_download: bool, emit: Callable[[Event], None]
) -> tuple[WithoutData, ModelSource, ModelShape, Hardware]:
    """What model and machine decide on their own."""
    from llamafarm.hardware.probe import bitsandbytes_available, probe
    from llamafarm.models.shape_reader import read_shape
    from llamafarm.planning.resolve import resolve_without_data

    source = find_model(strategy, allow_download=allow_download, emit=emit)
    shape, hardware = read_shape(source.directory), probe()
    found = resolve_without_data(
        strategy,
        hardware,
        source,
        shape,
        working_directory=Path.cwd(),
        bitsandbytes_available=bitsandbytes_available(),
    )
    return found, source, shape, hardware


def _with_data(
    strategy: Strategy, request: RecommendRequest, emit: Callable[[Event], None]
) -> Recommendation:
    from llamafarm.planning.recommended import strategy_of_plan
    from llamafarm.planning.resolve import split_row_count
    from llamafarm.strategy.shares import auto_share

    planned = plan_run(
        strategy, skip_bad_rows=request.skip_bad_rows, allow_download=True, emit=emit
    )
    plan, report = planned.plan, planned.data.report
    share = auto_share(split_row_count(report)) if plan.data.eval_auto else None
    written = _with_paths(strategy_of_plan(strategy, plan, share), request.file)
    text = _text(written, strategy, plan.decisions, (), request, _run_facts(planned))
    return Recommendation(
        text,
        strategy.id,
        request.file,
        plan.decisions,
        (),
        planned.hardware,
        plan.forecast,
        report,
    )


def _without_data(
    strategy: Strategy, request: RecommendRequest, emit: Callable[[Event], None]
) -> Recommendation:
    from llamafarm.planning.recommended import open_fields, strategy_without_data

    found, source, shape, hardware = decide_without_data(strategy, allow_download=True, emit=emit)
    still_open = open_fields(strategy, found, shape.num_parameters)
    facts = [
        "data      none given: what depends on the rows is left out",
        _model_fact(source.name, shape.num_parameters),
        f"machine   {found.device.name}",
    ]
    written = _with_paths(strategy_without_data(strategy, found), request.file)
    text = _text(written, strategy, found.decisions, still_open, request, facts)
    return Recommendation(text, strategy.id, request.file, found.decisions, still_open, hardware)


def _text(
    strategy: Strategy,
    planned: Strategy,
    decisions: Sequence[Decision],
    still_open: Sequence[OpenField],
    request: RecommendRequest,
    facts: Sequence[str],
) -> str:
    """strategy: what is written; planned: what it was decided from."""
    from llamafarm.planning import first_strategy
    from llamafarm.planning.recommended import (
        left_out,
        only,
        other_remarks,
        reasons,
        written_paths,
    )
    from llamafarm.redact import redact
    from llamafarm.strategy.annotate import Comment, annotate
    from llamafarm.strategy.dump import to_yaml

    remarks = other_remarks(decisions, written_paths(strategy))
    if request.for_beginners:
        strategy = only(strategy, tuple(first_strategy.FIELDS))
    comments = reasons(decisions, written_paths(strategy), planned)
    if request.for_beginners:
        for path, comment in comments.items():
            taught = (first_strategy.FIELDS[path], *comment.above)
            comments[path] = replace(comment, above=taught)
        comments |= {path: Comment((text,)) for path, text in first_strategy.BLOCKS.items()}
    for block in ("training_args", ""):
        fields = [f for f in still_open if f.path.startswith("training_args.") == bool(block)]
        before = comments.get(block, Comment())
        comments[block] = replace(before, below=left_out(fields))
    head = [*(first_strategy.HEAD if request.for_beginners else _HEAD), "", *_indented(facts)]
    head += ["", *_how_to_use(strategy.id, request, with_data=not still_open)]
    head += ["", *remarks] if remarks else []
    secret_free = {
        path: Comment(tuple(map(redact, c.above)), redact(c.beside), c.below)
        for path, c in comments.items()
    }
    return annotate(to_yaml(strategy), secret_free, [redact(line) for line in head])


_HEAD = (
    "What `train` decides for these rows, this model and this machine, written out. Behind each",
    "value stands who chose it: a table of the guide, what was detected, a flag, or a default.",
)


def _how_to_use(name: str, request: RecommendRequest, *, with_data: bool) -> list[str]:
    import shlex

    file = shlex.quote(str(request.file)) if request.file is not None else "FILE"
    more = "" if with_data else " --dataset ROWS"
    more += " --skip-bad-rows" if request.skip_bad_rows else ""
    lines = [f"  llamafarm train --strategy-file {file}{more}"]
    if request.for_beginners:
        lines.insert(0, f"  llamafarm setup {file} --verify-only")
        lines.insert(1, f"  llamafarm info {name} --strategy-file {file}")
    return lines


def _run_facts(planned: Planned) -> list[str]:
    from llamafarm.monitoring.formats import format_bytes, format_duration

    plan, report = planned.plan, planned.data.report
    sides = f"{count_of(report.train.rows, 'row')} to train on"
    if report.eval is not None:
        sides += f", {report.eval.rows:,} to evaluate on"
    if report.rows_dropped:
        sides += f", {report.rows_dropped:,} left out"
    outlook = plan.forecast
    need = (
        f"{format_bytes(outlook.memory_bytes)} of memory, "
        f"{format_bytes(outlook.disk_bytes)} of disk"
    )
    if outlook.seconds is not None:
        need += f", about {format_duration(outlook.seconds)}"
    return [
        f"data      {sides}; {report.train.total_tokens:,} tokens in an epoch",
        _model_fact(plan.model.source.name, plan.model.shape.num_parameters),
        f"machine   {plan.device.name}",
        f"forecast  {need}",
    ]


def _model_fact(name: str, num_parameters: int) -> str:
    return f"model     {name}, {num_parameters / 1e9:.3g}B parameters"


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _has_data(strategy: Strategy) -> bool:
    data = strategy.dataset
    named = (data.path, data.train_file, data.dataset_name)
    return bool(data.mix) or any(name is not None for name in named)


def _with_table_share(strategy: Strategy) -> Strategy:
    """The split table decides the share where nobody does; a Hub dataset may have splits."""
    from llamafarm.strategy.dump import with_values

    data = strategy.dataset
    decided = data.eval_split or data.eval_rows or data.eval_file or data.stable_split
    if decided or not _has_data(strategy):
        return strategy
    return with_values(strategy, {_EVAL_SPLIT: "auto"})


def _with_paths(strategy: Strategy, file: Path | None) -> Strategy:
    """Names of data files as they are found from where the strategy will lie; demo data keep
    theirs.
    """
    from llamafarm.strategy.dump import with_values

    here = Path.cwd()
    target = here if file is None else Path(os.path.normpath(file.absolute().parent))
    changed: dict[str, object] = {}
    for path in _PATHS:
        section, _, leaf = path.partition(".")
        name = getattr(getattr(strategy, section), leaf)
        if name and target != here and _is_there(name):
            absolute = here / _at_home(name)
            inside = absolute.is_relative_to(target)
            changed[path] = str(absolute.relative_to(target) if inside else absolute)
    return with_values(strategy, changed) if changed else strategy


def _is_there(name: str) -> bool:
    """Whether it is a path from here: a file or directory, or the file of `FILE#NAME`."""
    paths = (_at_home(name), _at_home(name.partition("#")[0]))
    return any(os.path.exists(path) for path in paths if path)  # noqa: PTH110


def _at_home(name: str) -> str:
    return os.path.expanduser(name)  # noqa: PTH111  # see planning.locations


def _check_name(strategy: Strategy) -> None:
    """Raises StrategyError for a name that no strategy can have."""
    from llamafarm.strategy.annotate import one_line
    from llamafarm.strategy.containers import read_layout
    from llamafarm.strategy.dump import to_yaml
    from llamafarm.strategy.yaml_reader import parse_yaml

    layout = read_layout(parse_yaml(to_yaml(strategy), "--name"), Path("--name"))
    problems = [*layout.problems, *(problem for _, problem in layout.broken)]
    if problems:
        raise StrategyError(
            f'no strategy can be called "{one_line(strategy.id)}"',
            [Problem(_NAME_RULE, where="--name")],
        )


def _check_file(request: RecommendRequest) -> None:
    file = request.file
    if file is not None and os.path.isdir(file):  # noqa: PTH112  # a name may be too long
        raise OutputError(f"{file} is a directory", hint="name a file in it")
    if file is None or request.overwrite or not os.path.lexists(file):
        return
    raise OutputError(
        f"{file} exists", hint="name another file, or write --overwrite to replace it"
    )


def _write(file: Path, text: str) -> None:
    from llamafarm.files import make_directory, write_text_atomic

    try:
        make_directory(file.absolute().parent)
        write_text_atomic(file, text)
    except OSError as fault:
        raise OutputError(f"{file} cannot be written: {fault.strerror or fault}") from fault
