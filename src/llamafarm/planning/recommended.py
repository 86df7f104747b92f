"""What a plan decided, as a strategy to read, to change and to train: every value with its reason,
taken from the plan's own decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from pydantic import BaseModel

from llamafarm.decision import Decision
from llamafarm.planning import tables
from llamafarm.planning.plan import TrainingPlan
from llamafarm.planning.render import short_field
from llamafarm.planning.resolve import WithoutData
from llamafarm.planning.resolved_strategy import resolved_strategy
from llamafarm.strategy.annotate import Comment
from llamafarm.strategy.dump import with_values
from llamafarm.strategy.fields import field_specs, find_spec
from llamafarm.strategy.model import Strategy

# Fields of the strategy whose decision has another name.
_DECIDED_AS: Mapping[str, str] = {
    "base_model.id": "base_model",
    "training_args.mixed_precision": "precision",
}
_NAMES = frozenset({"title", "description", "backend"})
_OUTPUT_DIR = "training_args.output_dir"
_EVAL_SPLIT = "dataset.eval_split"
_REMARKS = ("warning", "notice")
# Left out they follow from the rows: a batch that does not fit becomes smaller.
_BY_ROWS = (
    "training_args.per_device_train_batch_size",
    "training_args.gradient_accumulation_steps",
)


@dataclass(frozen=True, slots=True)
class OpenField:
    """A value that cannot be decided yet, and by what it will be. value: a likely one."""

    path: str
    reason: str
    value: str = ""


def decision_name(path: str) -> str:
    """What the decision about a field of the strategy is called."""
    return short_field(_DECIDED_AS.get(path, path))


def strategy_of_plan(strategy: Strategy, plan: TrainingPlan, eval_split: float | None) -> Strategy:
    """The strategy with the value of every decision written; it plans the same run.

    eval_split: the share that `auto` came to; None where none was asked for. Data keep the names
    that they were given by.
    """
    decided = {d.field for d in plan.decisions if d.source not in _REMARKS}
    resolved = resolved_strategy(strategy, plan)
    values = {
        path: _value(resolved, path)
        for path in field_specs()
        if not path.startswith("dataset.")
        and (_is_decided(path, decided) or strategy.origin(path) is not None)
    }
    values |= _data_values(strategy, plan, eval_split)
    values[_OUTPUT_DIR] = _output_dir(strategy)
    return with_values(_bare(strategy), _written(values))


def strategy_without_data(strategy: Strategy, found: WithoutData) -> Strategy:
    """The same for what model and machine decide; what the rows decide is left out."""
    decided = {d.field for d in found.decisions if d.source not in _REMARKS}
    adapter = found.method.adapter
    changed: dict[str, object] = {
        "base_model.id": next(d.value for d in found.decisions if d.field == "base_model"),
        "base_model.torch_dtype": found.weights,
        "hardware.device": found.device.device,
        "training_args.mixed_precision": found.device.mixed_precision,
        "training_args.optim": strategy.training_args.optim or "adamw_torch_fused",
        _OUTPUT_DIR: _output_dir(strategy),
    }
    if adapter is not None:
        changed |= {
            "method.r": adapter.r,
            "method.alpha": adapter.alpha,
            "method.target_modules": adapter.target_modules,
        }
    quantization = found.method.quantization
    if quantization is not None:
        base = "method.quantization"
        changed |= {
            f"{base}.load_in_4bit": quantization.bits == 4,
            f"{base}.load_in_8bit": quantization.bits == 8,
            f"{base}.bnb_4bit_compute_dtype": quantization.compute_dtype,
        }
    values = {
        path: changed.get(path, _value(strategy, path))
        for path in field_specs()
        if strategy.origin(path) is not None
        or (_is_decided(path, decided) and path not in _BY_ROWS)
    }
    return with_values(_bare(strategy), _written(values))


def open_fields(
    strategy: Strategy, found: WithoutData, num_parameters: int
) -> tuple[OpenField, ...]:
    """What depends on the rows and nobody settled, with the table's answers for every amount of
    them.
    """
    listed = _open_fields(found, num_parameters, full=found.method.adapter is None)
    return tuple(f for f in listed if strategy.origin(f.path) is None)


def _open_fields(found: WithoutData, num_parameters: int, *, full: bool) -> tuple[OpenField, ...]:
    rows = tables.DATA_ROWS
    rates = (
        (r.name, tables.learning_rate_range(r.from_rows, num_parameters, full_finetune=full))
        for r in rows
    )
    shares = "; ".join(f"{row.use_case} {row.eval_fraction:g}" for row in tables.SPLIT_ROWS)
    sizes = found.sizes
    return (
        OpenField(
            _BY_ROWS[0], f"{sizes.reason}; smaller where the rows are long", str(sizes.micro)
        ),
        OpenField(
            _BY_ROWS[1],
            f"an effective batch of {tables.EFFECTIVE_BATCH} is aimed at",
            str(sizes.accumulation),
        ),
        OpenField("training_args.learning_rate", _by_rows(rates)),
        OpenField("training_args.num_train_epochs", _by_rows((r.name, r.epochs) for r in rows)),
        OpenField(
            "training_args.warmup_steps",
            "a share of the run, " + _by_rows((r.name, f"{r.warmup_fraction:g}") for r in rows),
        ),
        OpenField("training_args.eval_steps", "about ten evaluations a run"),
        OpenField("training_args.gradient_checkpointing", "only when the longest rows need it"),
        OpenField("dataset.path", "a file of rows"),
        OpenField(_EVAL_SPLIT, f"by the number of rows and their use: {shares}"),
    )


def left_out(fields: Iterable[OpenField]) -> tuple[str, ...]:
    """Lines about what is decided when there are rows."""
    lines = [
        f"  {short_field(f.path)}: {f'{f.value}; ' if f.value else ''}{f.reason}" for f in fields
    ]
    return ("Left out, because it depends on the rows:", *lines) if lines else ()


def reasons(
    decisions: Sequence[Decision], paths: Iterable[str], strategy: Strategy
) -> dict[str, Comment]:
    """For each field `source: reason` beside its value, and what else was said of it above.

    strategy: the one that was planned; it knows the flags that no decision is about.
    """
    values = {d.field: d for d in decisions if d.source not in _REMARKS}
    comments: dict[str, Comment] = {}
    for path in paths:
        name = decision_name(path)
        said = tuple(f"{d.source}: {d.reason}" for d in decisions if _remarks_on(d, name))
        decision, origin = values.get(name), strategy.origin(path)
        if decision is not None:
            comments[path] = Comment(said, why(path, decision))
        elif origin is not None:
            comments[path] = Comment(said, f"{origin.kind}: {origin.describe()}")
    return comments


def why(path: str, decision: Decision) -> str:
    """`table: 412 training examples: row 100-1000`; a constant is described instead."""
    spec = find_spec(path)
    meaning = spec.description.partition(". ")[0] if spec is not None else ""
    return f"{decision.source}: {decision.reason or meaning}".rstrip(": .")


def other_remarks(decisions: Sequence[Decision], paths: Iterable[str]) -> list[str]:
    """Warnings and notices about what has no line of its own."""
    written = {decision_name(path) for path in paths}
    return [
        f"{d.source}: {d.reason}"
        for d in decisions
        if d.source in _REMARKS and d.field not in written
    ]


def written_paths(strategy: Strategy) -> tuple[str, ...]:
    """The fields that a file of this strategy has, besides its name."""
    return tuple(path for path in field_specs() if path not in _NAMES and _is_set(strategy, path))


def only(strategy: Strategy, paths: Sequence[str]) -> Strategy:
    """The strategy with nothing but these fields."""
    values = {path: _value(strategy, path) for path in paths if _is_set(strategy, path)}
    return with_values(_bare(strategy), values)


def _is_decided(path: str, decided: Set[str]) -> bool:
    """What is said of an export is whether there could be one."""
    return decision_name(path) in decided and not path.startswith("export.")


def _remarks_on(decision: Decision, name: str) -> bool:
    return decision.source in _REMARKS and decision.field == name


def _data_values(
    strategy: Strategy, plan: TrainingPlan, eval_split: float | None
) -> Mapping[str, object]:
    dataset = strategy.dataset
    own = dataset.model_dump(exclude_unset=True)
    values = {f"dataset.{name}": value for name, value in own.items()}
    if eval_split is not None:
        values[_EVAL_SPLIT] = eval_split
    elif plan.data.eval_fraction and plan.data.eval_rows is None:
        values[_EVAL_SPLIT] = plan.data.eval_fraction
    else:
        values[_EVAL_SPLIT] = None
    return values


def _output_dir(strategy: Strategy) -> str:
    return strategy.training_args.output_dir or f"./fine_tuned_models/{strategy.id}"


def _bare(strategy: Strategy) -> Strategy:
    return Strategy(
        id=strategy.id,
        title=strategy.title,
        description=strategy.description,
        backend=strategy.backend,
    )


def _written(values: Mapping[str, object]) -> dict[str, object]:
    """Without what is left out, and without empty blocks."""
    return {path: value for path, value in values.items() if value not in (None, {}, ())}


def _value(strategy: Strategy, path: str) -> object:
    value: object = strategy
    for name in path.split("."):
        value = getattr(value, name)
    return dict(value) if isinstance(value, Mapping) else value


def _is_set(strategy: Strategy, path: str) -> bool:
    """Whether it would be written: set, and not to nothing."""
    section: object = strategy
    *parents, leaf = path.split(".")
    for name in parents:
        section = getattr(section, name)
    is_set = isinstance(section, BaseModel) and leaf in section.model_fields_set
    return is_set and getattr(section, leaf) not in (None, {}, ())


def _by_rows(answers: Iterable[tuple[str, object]]) -> str:
    return "by the number of rows: " + "; ".join(f"{name}: {answer}" for name, answer in answers)
