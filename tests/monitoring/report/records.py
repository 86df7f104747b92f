"""Run records for tests: one with everything in it, in fixed values, and hostile texts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from llamafarm.data.report import (
    DataReport,
    DropCount,
    DroppedRow,
    DuplicateCounts,
    LeakageReport,
    LengthSummary,
    SourceFile,
    TokenLedger,
)
from llamafarm.data.rows import RowRef
from llamafarm.decision import Decision
from llamafarm.hardware.facts import Hardware
from llamafarm.models.source import ModelSource
from llamafarm.monitoring.comparison import ComparedModel, Comparison, Sample, SampleAnswer
from llamafarm.monitoring.events import Event, FindingEvent, OutOfMemoryEvent, SettingsEvent
from llamafarm.monitoring.run_record import Actual, RunRecord
from llamafarm.monitoring.summary import summarise
from llamafarm.planning.plan import Forecast
from tests.hardware.recorded import make_cpu
from tests.monitoring.events_of_a_run import events_of_a_run

HOSTILE = '</script><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 2">'

SETTINGS = SettingsEvent(
    method="lora",
    rank=8,
    alpha=16.0,
    dropout=0.05,
    total_parameters=134_515_008,
    trainable_parameters=460_800,
    learning_rate=2e-4,
    scheduler="cosine",
    warmup_steps=1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    num_epochs=1.0,
    total_steps=12,
    steps_per_epoch=12,
    micro_batch_size=4,
    accumulation_steps=2,
    num_workers=0,
    gradient_checkpointing=False,
    patience=3,
    train_rows=96,
    eval_rows=10,
    guide_learning_rate_low=1e-4,
    guide_learning_rate_high=3e-4,
    guide_epochs_high=5.0,
)
FINDING = FindingEvent(
    step=12,
    rule="learning_rate_too_low",
    text="the training loss fell by 0.02 in 12 steps",
    rows=("train.jsonl:3", "train.jsonl:9"),
    confidence=0.75,
    numbers={"fall": 0.0213, "steps": 12.0},
    advice="Raise the learning rate.",
    patch={"training_args.learning_rate": 6e-4},
)
OUT_OF_MEMORY = OutOfMemoryEvent(
    step=5, during="step", tokens=2048, action="micro-batches of 1,024 tokens from now on"
)


def data_report() -> DataReport:
    return DataReport(
        data_format="qa",
        files=(SourceFile("train.jsonl", "49b4" * 16, 106, "train"),),
        train=LengthSummary(96, 9600, 4800, 20, 95, 180, 240),
        eval=LengthSummary(10, 1000, 500, 22, 96, 170, 200),
        split="10 % of 106 rows: 10 evaluation rows, drawn with seed 42",
        template="368 characters",
        truncated=(),
        dropped=(DroppedRow(RowRef("train.jsonl", 17), "no answer", "empty"),),
        warnings=("1 row has no answer",),
        notices=(),
        fingerprint="304e" * 16,
        ledger=TokenLedger(
            107, 106, (DropCount("empty", 1),), 10_600, 5_300, 106, 106, 0, 0, "872b" * 16
        ),
        duplicates=DuplicateCounts(2, 1, 0.7),
        leakage=(LeakageReport("eval", 10, 0, 0, 0, 0, 0, False, ()),),
    )


def comparison() -> Comparison:
    return Comparison(
        rows=10,
        models=(
            ComparedModel("base", 0, 2.231, 9.31, 0.41),
            ComparedModel("best", 8, 1.839, 6.29, 0.52, -0.392, -0.45, -0.33, 9, 1),
            ComparedModel("last", 12, 1.85, 6.36, 0.52, -0.381, -0.44, -0.31, 9, 1),
        ),
        samples=(
            Sample(
                "eval.jsonl:2",
                "What is a fever?",
                "A body temperature above 38 °C.",
                (SampleAnswer("base", "It is a"), SampleAnswer("best", "A temperature above 38.")),
            ),
        ),
        note="Intervals: 1,000 bootstrap samples of the rows.",
    )


def full_record(root: Path, events: tuple[Event, ...] | None = None) -> RunRecord:
    """Twelve steps with all that a record can hold. root: need not be there."""
    if events is None:
        *others, end = events_of_a_run()
        events = (SETTINGS, *others, OUT_OF_MEMORY, FINDING, end)
    return RunRecord(
        root=root,
        id="tiny-20260102-030405-abcdef",
        status="completed",
        title="Tiny assistant",
        strategy="tiny",
        run_name="tiny",
        command="llamafarm train --strategy tiny",
        error="",
        started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        ended=datetime(2026, 1, 2, 3, 5, 6, tzinfo=UTC),
        resumed=(datetime(2026, 1, 2, 3, 4, 30, tzinfo=UTC),),
        strategy_sha256="527a" * 16,
        strategy_yaml="tiny: {}\n",
        seed=42,
        data_fingerprint="304e" * 16,
        versions={"llamafarm": "2.0.0", "torch": "2.13.0"},
        decisions=(
            Decision("learning_rate", "0.0002", "table", "96 rows: row 50-100"),
            Decision("method.bias", "none", "default", ""),
            Decision("eval_steps", "4", "warning", "eval_steps=500 exceeds the 12 steps"),
        ),
        model=ModelSource("smollm2-135m-instruct", "smollm2", "packaged", Path("m"), "9e7a" * 16),
        data=data_report(),
        hardware=Hardware(make_cpu("Test CPU", 2, 16), (), "Linux", "3.11.7", "2.13.0"),
        forecast=Forecast(2 << 30, 8 << 30, (), 1 << 26, 1 << 36, 2400, 60.0, 40.0, "a guess"),
        actual=Actual(3 << 29, 61.0, 2400, 100.0),
        comparison=comparison(),
        summary=summarise(events),
        events=events,
        unread=(),
        has_model=True,
    )


def hostile_record(root: Path) -> RunRecord:
    """Markup wherever a stranger's text can stand."""
    record = full_record(root)
    report = data_report()
    told = replace(FINDING, text=f"odd {HOSTILE}", advice=HOSTILE, rule="odd", rows=(HOSTILE,))
    events = (*record.events[:-1], replace(OUT_OF_MEMORY, action=HOSTILE), told, record.events[-1])
    sample = Sample(HOSTILE, HOSTILE, HOSTILE, (SampleAnswer("best", HOSTILE),))
    return replace(
        record,
        id=HOSTILE,
        title=f"Tiny {HOSTILE}",
        strategy=HOSTILE,
        command=HOSTILE,
        strategy_yaml=HOSTILE,
        versions={"torch": HOSTILE},
        decisions=(Decision(HOSTILE, HOSTILE, "strategy", HOSTILE),),
        model=ModelSource(HOSTILE, HOSTILE, "local", Path("m"), "9e7a", HOSTILE),
        data=replace(
            report,
            dropped=(DroppedRow(RowRef(HOSTILE, 3), HOSTILE, "empty"),),
            warnings=(HOSTILE,),
        ),
        comparison=replace(comparison(), samples=(sample,), note=HOSTILE),
        events=events,
        summary=summarise(events),
        unread=(HOSTILE,),
    )
