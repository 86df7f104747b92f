"""What happened in a run, in order. One frozen dataclass a kind; a sink is anything that takes
them.

`metrics.jsonl` holds one event a line: {"event": kind, …fields}. Fields are plain JSON values;
times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Protocol

from llamafarm.decision import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. recorded: whether it becomes a line of `metrics.jsonl`."""

    kind: ClassVar[str]
    recorded: ClassVar[bool] = True

    def to_json(self) -> dict[str, Any]:
        """The line of `metrics.jsonl`."""
        return {"event": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLevelEvent(Event):
    """The strategy is read, and says how much of what follows a person wants to see."""

    kind: ClassVar[str] = "log_level"
    recorded: ClassVar[bool] = False
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEvent(Event):
    """The run is decided, and nothing has been computed yet; not written to metrics.jsonl (run.json
    keeps it).
    """

    kind: ClassVar[str] = "plan"
    recorded: ClassVar[bool] = False
    strategy_id: str
    output_dir: str
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEvent(Event):
    """The loop is about to take its first step (of this process).

    planned_evaluations: how many this process will make, the one before the first step included; 0:
    not said.
    """

    kind: ClassVar[str] = "start"
    step: int
    total_steps: int
    train_rows: int
    eval_rows: int
    trainable_parameters: int
    device: str
    packed: bool
    planned_evaluations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsEvent(Event):
    """What the run was told to do, for whoever reads its events; before the start event.

    method: lora, qlora, full or freeze; rank, alpha: 0 where there is no adapter; guide_*: what the
    tables say for this model, method and number of rows; warmup_steps, total_steps,
    steps_per_epoch: in optimizer steps; memory_limit_bytes: of the device, 0 where it is not known.
    """

    kind: ClassVar[str] = "settings"
    method: str
    rank: int
    alpha: float
    dropout: float
    total_parameters: int
    trainable_parameters: int
    learning_rate: float
    scheduler: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    num_epochs: float
    total_steps: int
    steps_per_epoch: int
    micro_batch_size: int
    accumulation_steps: int
    num_workers: int
    gradient_checkpointing: bool
    patience: int
    train_rows: int
    eval_rows: int
    guide_learning_rate_low: float
    guide_learning_rate_high: float
    guide_epochs_high: float
    memory_limit_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvent(Event):
    """After an optimizer step. loss: per trained token, over the steps since the last step event;
    tokens, trained_tokens: since the start of the run; tokens_per_second, step_seconds,
    data_seconds: since the last step event.

    step_seconds: spent in steps; data_seconds: spent waiting for their rows; memory_bytes: what the
    device holds now, or the process on a CPU; device_utilisation: percent; None where
    nothing measures it.
    """

    kind: ClassVar[str] = "step"
    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    trained_tokens: int
    tokens_per_second: float
    seconds: float
    step_seconds: float = 0.0
    data_seconds: float = 0.0
    memory_bytes: int = 0
    device_utilisation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalProgressEvent(Event):
    """While an evaluation runs; not written to metrics.jsonl."""

    kind: ClassVar[str] = "eval_progress"
    recorded: ClassVar[bool] = False
    step: int
    rows_done: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalEvent(Event):
    """After an evaluation. step 0 is the base model. eval_loss: per trained token over the whole
    set.

    accuracy: share of trained tokens that the model ranks first; metrics: user metrics by name.
    standard_error: of eval_loss, with rows as the units that were drawn; change: eval_loss minus
    that of the best evaluation before, and its standard error over the same rows. None: it cannot
    be said.
    """

    kind: ClassVar[str] = "eval"
    step: int
    epoch: float
    eval_loss: float
    perplexity: float
    accuracy: float
    rows: int
    trained_tokens: int
    seconds: float
    best: bool
    metrics: Mapping[str, float]
    standard_error: float | None = None
    change: float | None = None
    change_standard_error: float | None = None

    def value_of(self, metric: str) -> float | None:
        """The number that `metric_for_best_model` names, with or without `eval_`; None: not
        measured.
        """
        name = metric.removeprefix("eval_")
        built_in = {
            "loss": self.eval_loss,
            "perplexity": self.perplexity,
            "accuracy": self.accuracy,
        }
        return built_in.get(name, self.metrics.get(metric, self.metrics.get(name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingEvent(Event):
    """A checkpoint is about to be written: what happened so far has to be on disk before it."""

    kind: ClassVar[str] = "saving"
    recorded: ClassVar[bool] = False
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointEvent(Event):
    """A checkpoint is complete on disk. reason: schedule, best, interrupted, last."""

    kind: ClassVar[str] = "checkpoint"
    step: int
    path: str
    reason: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeEvent(Event):
    """The run goes on from a checkpoint (step 0: there was none)."""

    kind: ClassVar[str] = "resume"
    step: int
    path: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveFailedEvent(Event):
    """A checkpoint could not be written, and the run goes on. text: why; kept_step: the newest
    checkpoint that is there (0: none).
    """

    kind: ClassVar[str] = "save_failed"
    step: int
    text: str
    kept_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BestLostEvent(Event):
    """The weights of the best step are not there (not saved, or damaged since). kept_step: the best
    one that is (0: none).
    """

    kind: ClassVar[str] = "best_lost"
    step: int
    lost_step: int
    kept_step: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NonFiniteEvent(Event):
    """A non-finite number was kept away from the weights. what: `loss`, `gradient`, or
    `evaluation loss`; rows: `file:line` of the rows at fault, or of all rows of the step where no
    single one is.
    """

    kind: ClassVar[str] = "nonfinite"
    step: int
    what: str
    action: str
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemoryEvent(Event):
    """Memory ran out and something was made smaller. during: `step`, `evaluation` or `save`;
    tokens: of the micro-batch that did not fit (0: does not apply); action: what was done, in
    words.
    """

    kind: ClassVar[str] = "oom"
    step: int
    during: str
    tokens: int
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingEvent(Event):
    """Something worth a look. rule: its short name; text: with numbers; rows: `file:line`.

    confidence: 0 to 1; numbers: the evidence by name; advice: what to do, in words; patch: values
    to try, by their path in a strategy file's `config`.
    """

    kind: ClassVar[str] = "finding"
    step: int
    rule: str
    text: str
    rows: tuple[str, ...] = ()
    confidence: float = 1.0
    numbers: Mapping[str, float] = field(default_factory=dict)
    advice: str = ""
    patch: Mapping[str, float | int | str | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopEvent(Event):
    """The run ends before its last step. rule: the finding that ended it; empty: no improvement for
    the agreed number of evaluations.
    """

    kind: ClassVar[str] = "early_stop"
    step: int
    best_step: int
    evaluations_without_improvement: int
    rule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent(Event):
    """A line for the person: level is info, notice or warning."""

    kind: ClassVar[str] = "message"
    level: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkEvent(Event):
    """A longer piece of work outside a run. what: in words; done, total: in any unit."""

    kind: ClassVar[str] = "work"
    recorded: ClassVar[bool] = False
    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndEvent(Event):
    """The run is over. status: completed, interrupted, failed. seconds: of the whole run, resumed
    parts included; peak_memory_bytes: of the device, or of the process on a CPU; 0: not measured;
    tokens, trained_tokens: since the start of the run, those of steps without a log line too.
    """

    kind: ClassVar[str] = "end"
    status: str
    step: int
    best_step: int
    seconds: float
    peak_memory_bytes: int = 0
    tokens: int = 0
    trained_tokens: int = 0


class Sink(Protocol):
    """Takes events in order. close() is called once, whatever happened."""

    def handle(self, event: Event) -> None:
        """Take one event."""
        ...

    def close(self) -> None:
        """No more events will come."""
        ...


RECORDED_EVENTS: Mapping[str, type[Event]] = {
    event.kind: event
    for event in (
        SettingsEvent,
        StartEvent,
        StepEvent,
        EvalEvent,
        CheckpointEvent,
        ResumeEvent,
        SaveFailedEvent,
        BestLostEvent,
        NonFiniteEvent,
        OutOfMemoryEvent,
        FindingEvent,
        EarlyStopEvent,
        MessageEvent,
        EndEvent,
    )
}


def event_fields(event: Event | type[Event]) -> tuple[str, ...]:
    """Field names of an event, in order."""
    return tuple(f.name for f in fields(event))
