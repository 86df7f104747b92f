"""One run of this project's own training loop: `python -m bench.engine_llamafarm SPEC.json`.

The loop is the one that `llamafarm train` runs, on a plan written out by hand: given rows in the
given order, no evaluation, no resume points.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.spec import IGNORED_LABEL, EngineRun, Row, RunSpec, Step, peak_rss_bytes, read_rows
from llamafarm.data.report import DataReport, LengthSummary
from llamafarm.data.request import DataRequest
from llamafarm.data.tokenized import ListRows, PreparedData
from llamafarm.hardware.allocator import keep_freed_memory
from llamafarm.hardware.probe import probe
from llamafarm.models.fingerprint import weight_files, weights_fingerprint
from llamafarm.models.shape_reader import read_shape
from llamafarm.models.source import ModelSource
from llamafarm.models.tokenizer import load_tokenizer
from llamafarm.monitoring.events import Event, StartEvent, StepEvent
from llamafarm.planning.plan import (
    AdapterPlan,
    BatchPlan,
    DevicePlan,
    EvaluationPlan,
    Every,
    Forecast,
    LoggingPlan,
    ModelPlan,
    OptimizerPlan,
    SavingPlan,
    TrainingPlan,
)
from llamafarm.training.backends.pytorch.batches import BatchFeed
from llamafarm.training.backends.pytorch.loop import train
from llamafarm.training.job import TrainingJob
from llamafarm.training.run_directory import RunDirectory
from llamafarm.training.signals import StopRequest

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")
NEVER = Every(0)


@dataclass
class StepClock:
    """Takes the loop's events: the time between two step events is everything in between."""

    load_average: float = 0.0
    loaded_rss_bytes: int = 0
    packed: bool = False
    stamps: list[float] = field(default_factory=list)
    events: list[StepEvent] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        if isinstance(event, StartEvent):
            self.load_average = os.getloadavg()[0]
            self.loaded_rss_bytes = peak_rss_bytes()
            self.packed = event.packed
            self.stamps.append(time.perf_counter())
        elif isinstance(event, StepEvent):
            self.stamps.append(time.perf_counter())
            self.events.append(event)


def run(spec: RunSpec) -> EngineRun:
    """Train, and measure every step."""
    keep_freed_memory()  # as `llamafarm train` does
    rows = token_rows(read_rows(Path(spec.rows_file))[: spec.num_rows])
    plan = make_plan(spec, rows)
    directory = RunDirectory(plan.output_dir)
    directory.checkpoints.mkdir(parents=True)
    clock = StepClock()
    job = TrainingJob(
        plan=plan,
        data=PreparedData(rows, None, report_of(rows)),
        tokenizer=load_tokenizer(Path(spec.model_directory)),
        directory=directory,
        emit=clock.emit,
        stop=StopRequest(),
    )
    outcome = train(job)
    steps = measured_steps(clock, plan, rows)
    return EngineRun(
        steps=steps,
        first_loss=steps[0].loss,
        peak_rss_bytes=outcome.peak_memory_bytes,
        loaded_rss_bytes=clock.loaded_rss_bytes,
        load_average=clock.load_average,
        adapter_directory=str(directory.final_model),
        versions={name: version(name) for name in PACKAGES},
        settings={"dropout": 0.0, "shuffle": False, "eval_strategy": "no", "save_strategy": "no"},
    )


def token_rows(rows: list[Row]) -> ListRows:
    """Labels as a mask: the first position has no prediction in front of it."""
    return ListRows(
        [
            (
                row.input_ids,
                [i > 0 and label != IGNORED_LABEL for i, label in enumerate(row.labels)],
            )
            for row in rows
        ]
    )


def measured_steps(clock: StepClock, plan: TrainingPlan, rows: ListRows) -> tuple[Step, ...]:
    """Times and events, with what each step computed as its batch feed lays it out."""
    feed = BatchFeed(rows, plan.batch, plan.seed, packed=clock.packed)
    batches = [feed.batch(event.step) for event in clock.events]
    return tuple(
        Step(
            seconds=end - start,
            tokens=batch.num_tokens,
            trained_tokens=batch.num_labels,
            slots=sum(int(row.input_ids.numel()) for row in batch.rows),
            loss=event.loss,
            grad_norm=event.grad_norm,
        )
        for event, batch, (start, end) in zip(
            clock.events, batches, pairwise(clock.stamps), strict=True
        )
    )


def make_plan(spec: RunSpec, rows: ListRows) -> TrainingPlan:
    """A plan as `resolve` would make it, with this spec's values."""
    model = Path(spec.model_directory)
    shape = read_shape(model)
    source = ModelSource(
        requested=str(model),
        name=str(model),
        kind="local",
        directory=model,
        fingerprint=weights_fingerprint(weight_files(model)),
    )
    adapted = shape.adapted_layers(spec.target_modules)
    return TrainingPlan(
        strategy_id="bench",
        title="bench",
        backend="pytorch",
        output_dir=Path(spec.output_directory) / "run",
        model=ModelPlan(source, shape, "float32"),
        adapter=adapter_plan(spec),
        quantization=None,
        device=DevicePlan("cpu", probe().cpu.name, "no", tf32=False, threads=spec.threads),
        optimizer=optimizer_plan(spec),
        batch=batch_plan(spec),
        evaluation=EvaluationPlan(
            enabled=False,
            on_start=False,
            every=NEVER,
            metric="eval_loss",
            greater_is_better=False,
            load_best=False,
            patience=0,
            threshold=0.0,
        ),
        saving=SavingPlan(NEVER, total_limit=1),
        logging=LoggingPlan(Every(1), first_step=True, report_to=(), run_name="bench"),
        data=data_request(spec),
        data_fingerprint=rows.fingerprint,
        num_trainable_parameters=sum(spec.lora_r * (a.d_in + a.d_out) for a in adapted),
        max_length=int(rows.lengths().max()),
        gradient_checkpointing=False,
        torch_compile=False,
        seed=spec.seed,
        on_nonfinite="stop",
        forecast=no_forecast(),
    )


def adapter_plan(spec: RunSpec) -> AdapterPlan:
    """LoRA without dropout, so that every engine computes the same function."""
    return AdapterPlan(
        r=spec.lora_r,
        alpha=spec.lora_alpha,
        dropout=0.0,
        bias="none",
        target_modules=spec.target_modules,
        modules_to_save=(),
        layers_to_transform=None,
        layers_pattern=None,
        use_rslora=False,
        use_dora=False,
    )


def optimizer_plan(spec: RunSpec) -> OptimizerPlan:
    """Fused AdamW, which is what TRL takes by default too."""
    return OptimizerPlan(
        name="adamw_torch_fused",
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        adam_beta1=spec.adam_beta1,
        adam_beta2=spec.adam_beta2,
        adam_epsilon=spec.adam_epsilon,
        max_grad_norm=spec.max_grad_norm,
        scheduler=spec.scheduler,
        scheduler_kwargs={},
        warmup_steps=0,
        label_smoothing=0.0,
        neftune_noise_alpha=None,
    )


def batch_plan(spec: RunSpec) -> BatchPlan:
    """One pass over the rows, in their order."""
    return BatchPlan(
        micro_batch_size=spec.batch_size,
        accumulation_steps=1,
        eval_batch_size=spec.batch_size,
        steps_per_epoch=spec.total_steps,
        total_steps=spec.total_steps,
        num_epochs=1.0,
        shuffle=False,
        num_workers=0,
    )


def data_request(spec: RunSpec) -> DataRequest:
    """Never carried out: the rows are given."""
    return DataRequest(
        train_location=Path(spec.rows_file),
        eval_location=None,
        test_location=None,
        eval_wanted=False,
        eval_fraction=0.0,
        chat_template="",
        max_length=0,
        seed=spec.seed,
    )


def no_forecast() -> Forecast:
    """Nothing is forecast here."""
    return Forecast(
        memory_bytes=0,
        memory_limit_bytes=0,
        memory_parts=(),
        disk_bytes=0,
        disk_free_bytes=0,
        train_tokens=0,
        seconds=None,
        tokens_per_second=None,
        basis="",
    )


def report_of(rows: ListRows) -> DataReport:
    """The facts of rows that came from no file."""
    lengths = sorted(rows.lengths().tolist())
    summary = LengthSummary(
        rows=len(lengths),
        total_tokens=sum(lengths),
        trained_tokens=int(rows.trained_counts().sum()),
        shortest=lengths[0],
        median=lengths[len(lengths) // 2],
        p95=lengths[int(0.95 * (len(lengths) - 1))],
        longest=lengths[-1],
    )
    values: dict[str, Any] = dict.fromkeys(
        ("files", "truncated", "dropped", "warnings", "notices"), ()
    )
    return DataReport(
        data_format="ids",
        train=summary,
        eval=None,
        split="",
        template="",
        fingerprint=rows.fingerprint,
        **values,
    )


if __name__ == "__main__":
    print(run(RunSpec.read(Path(sys.argv[1]))).to_json())
