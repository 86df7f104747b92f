"""`info`: every value of a strategy as `train` would decide it, with its origin and its reason.

What cannot be decided, because rows or a model are missing, is shown as the file has it, and what
is missing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.decision import Decision, place
from llamafarm.errors import LlamafarmError, Problem, UserError
from llamafarm.monitoring.events import Event
from llamafarm.readiness import NotPlannedError, notice_text, plan_run, problems_of

if TYPE_CHECKING:
    from llamafarm.strategy.model import Strategy

_REMARKS = ("warning", "notice")


@dataclass(frozen=True)
class StrategyInfo:
    """Every value of a strategy, with its origin. unknown: what kept values from being decided."""

    id: str
    title: str
    description: str
    decisions: tuple[Decision, ...]
    notices: tuple[str, ...]
    file: Path | None = None
    unknown: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class FieldInfo:
    """One value. decision: None where the plan has no line for it; left_out: what holds when nobody
    writes it; table: rows of the guide that speak of it.
    """

    path: str
    decision: Decision | None
    remarks: tuple[Decision, ...]
    meaning: str
    allowed: str
    left_out: str
    table: tuple[tuple[str, str], ...]


def explain(strategy: Strategy, *, resolved: bool, emit: Callable[[Event], None]) -> StrategyInfo:
    """resolved False: only what the file says; nothing is read. Downloads nothing either way."""
    from llamafarm.strategy.describe import LEFT_OUT, describe_values

    static = describe_values(strategy)
    decided, unknown = _decided(strategy, emit) if resolved else ((), ())
    if decided and not unknown:
        # A plan has everything that is left out and has a value.
        static = tuple(d for d in static if d.value != LEFT_OUT)
    return StrategyInfo(
        strategy.id,
        strategy.title,
        strategy.description,
        _with_places(strategy, _together(decided, static)),
        tuple(notice_text(notice) for notice in strategy.notices),
        strategy.file,
        unknown,
    )


def explain_field(info: StrategyInfo, name: str) -> FieldInfo:
    """One of its values. name: a path, or the end of one. Raises UserError for any other name."""
    from llamafarm.planning.recommended import decision_name
    from llamafarm.planning.render import short_field
    from llamafarm.planning.tables import rows_about
    from llamafarm.strategy.fields import field_specs
    from llamafarm.strategy.values import expected

    path = _path_of(name, info)
    spec = field_specs()[path]
    names = {short_field(path), decision_name(path)}
    about = [d for d in info.decisions if d.field in names]
    values = [d for d in about if d.source not in _REMARKS]
    meaning, _, left_out = spec.description.partition("Left out: ")
    return FieldInfo(
        path=path,
        decision=values[0] if values else None,
        remarks=tuple(d for d in about if d.source in _REMARKS),
        meaning=meaning.strip(),
        allowed=expected(spec.schema, spec.description),
        left_out=left_out.rstrip(".") or _shown(spec.default),
        table=rows_about(path),
    )


def _decided(
    strategy: Strategy, emit: Callable[[Event], None]
) -> tuple[tuple[Decision, ...], tuple[Problem, ...]]:
    """What `train` would decide; where it cannot, what model and machine decide on their own."""
    from llamafarm.recommendation import decide_without_data

    faults: list[LlamafarmError] = []
    try:
        planned = plan_run(
            strategy, skip_bad_rows=False, allow_download=False, emit=emit, problems=faults
        )
        return planned.plan.decisions, ()
    except NotPlannedError as stopped:
        of_data = stopped.decisions
    unknown = tuple(problem for fault in faults for problem in problems_of(fault))
    try:
        found, *_ = decide_without_data(strategy, allow_download=False, emit=_silent)
    except UserError:
        return of_data, unknown
    by_rows = {"per_device_train_batch_size", "gradient_accumulation_steps"}
    by_rows |= {"effective_batch_size", "per_device_eval_batch_size"}
    settled = [
        d for d in found.decisions if d.field not in by_rows or d.source in ("flag", "strategy")
    ]
    return (*settled, *(d for d in of_data if d.field != "seed")), unknown


def _silent(_: Event) -> None:
    """What the first look has told already."""


def _together(decided: Sequence[Decision], static: Sequence[Decision]) -> tuple[Decision, ...]:
    """Planning's lines in their order, then what planning has no line for; all named as planning
    names them.
    """
    from llamafarm.planning.recommended import decision_name
    from llamafarm.planning.render import short_field

    known = {d.field for d in decided if d.source not in _REMARKS}
    rest = [d for d in static if decision_name(d.field) not in known]
    return (*decided, *(replace(d, field=short_field(d.field)) for d in rest))


def _with_places(strategy: Strategy, decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """`quick, line 10` as `strategies.yaml:10`: an editor finds it."""
    places: Mapping[str, str] = {
        origin.describe(): place(origin)
        for origin in strategy.origins.values()
        if origin.kind == "strategy"
    }

    def placed(decision: Decision) -> Decision:
        head, mark, note = decision.reason.partition(": ")
        if decision.source != "strategy" or head not in places:
            return decision
        return replace(decision, reason=f"{places[head]}{mark}{note}")

    return tuple(map(placed, decisions))


def _path_of(name: str, info: StrategyInfo) -> str:
    """The field of this path, of this name in the list, or the only one whose path ends so."""
    from llamafarm.planning.recommended import decision_name
    from llamafarm.strategy.fields import field_specs
    from llamafarm.strategy.values import did_you_mean, nearest

    paths = tuple(field_specs())
    listed = [path for path in paths if decision_name(path) == name]
    if name in paths or listed:
        return name if name in paths else listed[0]
    if follows := next((d for d in info.decisions if d.field == name), None):
        why = f" ({follows.reason})" if follows.reason else ""
        text = f"`{name}` is no field: {follows.value} follows from the others{why}"
        raise UserError(text, hint="`info NAME` lists the fields")
    found = [path for path in paths if path.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"`{name}` may mean {len(found)} fields: {', '.join(found)}"
        raise UserError(message, hint=f"write one of them, such as `--field {found[0]}`")
    last = {path.rpartition(".")[2]: path for path in reversed(paths)}
    close = nearest(name.rpartition(".")[2], last)
    hint = did_you_mean([last[close[0]]]) if close else "`info NAME` lists them"
    raise UserError(f"a strategy has no field `{name}`", hint=hint)


def _shown(default: object) -> str:
    from llamafarm.planning.explain import shown

    return "none" if default in ("", (), {}) else shown(default)
