"""What the plan of a run says to those who read its events."""

from __future__ import annotations

from llamafarm.monitoring.events import SettingsEvent
from llamafarm.planning import tables
from llamafarm.planning.plan import TrainingPlan


def settings_event(plan: TrainingPlan, train_rows: int, eval_rows: int) -> SettingsEvent:
    """The values that a reader judges a run by, those of the tables beside them."""
    adapter, optimizer, batch = plan.adapter, plan.optimizer, plan.batch
    guide_rate = tables.learning_rate_range(
        train_rows, plan.model.shape.num_parameters, full_finetune=adapter is None
    )
    if plan.data.answers == "paired":
        guide_rate = tables.PAIRS_LEARNING_RATE
    return SettingsEvent(
        method=_method(plan),
        rank=adapter.r if adapter else 0,
        alpha=adapter.alpha if adapter else 0.0,
        dropout=adapter.dropout if adapter else 0.0,
        total_parameters=plan.model.shape.num_parameters,
        trainable_parameters=plan.num_trainable_parameters,
        learning_rate=optimizer.learning_rate,
        scheduler=optimizer.scheduler,
        warmup_steps=optimizer.warmup_steps,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        num_epochs=batch.num_epochs,
        total_steps=batch.total_steps,
        steps_per_epoch=batch.steps_per_epoch,
        micro_batch_size=batch.micro_batch_size,
        accumulation_steps=batch.accumulation_steps,
        num_workers=batch.num_workers,
        gradient_checkpointing=plan.gradient_checkpointing,
        patience=plan.evaluation.patience,
        train_rows=train_rows,
        eval_rows=eval_rows,
        guide_learning_rate_low=guide_rate.low,
        guide_learning_rate_high=guide_rate.high,
        guide_epochs_high=tables.data_row(train_rows).epochs.high,
        memory_limit_bytes=plan.forecast.memory_limit_bytes,
    )


def _method(plan: TrainingPlan) -> str:
    if plan.adapter is None:
        return "freeze" if plan.llamafactory and plan.llamafactory.method == "freeze" else "full"
    return "lora" if plan.quantization is None else "qlora"
