"""The strategy that a plan came from, with every decided value written: training it repeats the
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llamafarm.data.request import HubDataset, Mixture
from llamafarm.planning.plan import QuantizationPlan, TrainingPlan
from llamafarm.strategy.dump import with_values
from llamafarm.strategy.model import Strategy

Values = Mapping[str, object]
_PRECISION_SWITCHES = tuple(
    f"hardware.precision.{block}{switch}"
    for block in ("", "cuda.", "mps.", "cpu.")
    for switch in ("use_fp16", "use_bf16", "use_tf32")
)


def resolved_strategy(strategy: Strategy, plan: TrainingPlan) -> Strategy:
    """Paths are absolute, so that the file may lie anywhere; keys that were left out are
    written.
    """
    values = {
        **_model(strategy, plan),
        **_method(plan),
        **_device(plan),
        **_data(strategy, plan),
        **_optimizer(plan),
        **_batch(strategy, plan),
        **_evaluation(strategy, plan),
        **_saving_and_logging(strategy, plan),
        **_run(plan),
    }
    return with_values(strategy, values)


def _model(strategy: Strategy, plan: TrainingPlan) -> Values:
    source = plan.model.source
    if strategy.base_model.id is None:
        name = source.name
    else:
        name = str(source.directory.absolute()) if source.kind == "local" else source.requested
    return {"base_model.id": name, "base_model.torch_dtype": plan.model.dtype}


def _method(plan: TrainingPlan) -> Values:
    adapter = plan.adapter
    if adapter is None:
        engine = plan.llamafactory
        return {"method.type": engine.method if engine else "full_finetune"}
    return {
        "method.type": "lora" if plan.quantization is None else "qlora",
        "method.r": adapter.r,
        "method.alpha": adapter.alpha,
        "method.dropout": adapter.dropout,
        "method.bias": adapter.bias,
        "method.target_modules": adapter.target_modules,
        **({} if plan.quantization is None else _quantization(plan.quantization)),
    }


def _quantization(quantization: QuantizationPlan) -> Values:
    base = "method.quantization"
    return {
        f"{base}.load_in_4bit": quantization.bits == 4,
        f"{base}.load_in_8bit": quantization.bits == 8,
        f"{base}.bnb_4bit_quant_type": quantization.quant_type,
        f"{base}.bnb_4bit_use_double_quant": quantization.double_quant,
        f"{base}.bnb_4bit_compute_dtype": quantization.compute_dtype,
    }


def _device(plan: TrainingPlan) -> Values:
    return {
        "hardware.device": plan.device.device,
        **dict.fromkeys(_PRECISION_SWITCHES),
        "training_args.mixed_precision": plan.device.mixed_precision,
        "training_args.tf32": plan.device.tf32,
    }


def _data(strategy: Strategy, plan: TrainingPlan) -> Values:
    data = plan.data
    values: dict[str, object] = {
        "training_args.max_seq_length": plan.max_length,
        "data_preprocessing.max_length": None,
        "dataset.path": None,
        "dataset.shuffle": data.shuffle,
        "dataset.format": data.data_format,
        "dataset.columns": dict(data.columns),
        "dataset.roles": dict(data.roles),
        "dataset.mask_history": data.mask_history,
    }
    if isinstance(data.train_location, Path):
        values["dataset.train_file"] = _absolute(data.train_location)
        values |= {"dataset.dataset_name": None, "dataset.mix": {}}
    elif isinstance(data.train_location, Mixture):
        values |= {"dataset.train_file": None, "dataset.dataset_name": None}
        values["dataset.mix"] = {_absolute(f.path): f.weight for f in data.train_location.files}
    if isinstance(data.eval_location, Path):
        values["dataset.eval_file"] = _absolute(data.eval_location)
    if isinstance(data.test_location, Path):
        values["dataset.test_file"] = _absolute(data.test_location)
    if not isinstance(data.eval_location, HubDataset):
        share = None if data.eval_rows is not None else data.eval_fraction or None
        values["dataset.eval_split"] = "auto" if data.eval_auto else share
    if not data.eval_wanted:
        values["dataset.eval_file"] = None
    return values


def _absolute(file: Path) -> str:
    return str(file.absolute())


def _optimizer(plan: TrainingPlan) -> Values:
    optimizer = plan.optimizer
    values = {
        "optim": optimizer.name,
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        "label_smoothing_factor": optimizer.label_smoothing,
        "lr_scheduler_type": optimizer.scheduler,
        "lr_scheduler_kwargs": dict(optimizer.scheduler_kwargs),
        "warmup_steps": optimizer.warmup_steps,
    }
    if "adam" in optimizer.name:
        values |= {
            "adam_beta1": optimizer.adam_beta1,
            "adam_beta2": optimizer.adam_beta2,
            "adam_epsilon": optimizer.adam_epsilon,
        }
    return _in_training_args(values)


def _batch(strategy: Strategy, plan: TrainingPlan) -> Values:
    """Either epochs or steps: with both, one would overrule the other."""
    batch = plan.batch
    by_steps = strategy.training_args.max_steps is not None
    values = {
        "per_device_train_batch_size": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.accumulation_steps,
        "num_train_epochs": None if by_steps else batch.num_epochs,
        "max_steps": batch.total_steps if by_steps else None,
        "dataloader_num_workers": batch.num_workers,
    }
    if plan.evaluation.enabled:
        values["per_device_eval_batch_size"] = batch.eval_batch_size
    return _in_training_args(values)


def _evaluation(strategy: Strategy, plan: TrainingPlan) -> Values:
    """Settings of an evaluation that is off stay as they were: they have no effect."""
    evaluation = plan.evaluation
    if not evaluation.enabled:
        return {"training_args.eval_strategy": "no"}
    by_epoch = strategy.training_args.eval_strategy == "epoch"
    values = {
        "eval_strategy": "epoch" if by_epoch else "steps",
        "eval_steps": None if by_epoch else evaluation.every.steps,
        "eval_on_start": evaluation.on_start,
        "metric_for_best_model": evaluation.metric,
        "greater_is_better": evaluation.greater_is_better,
        "load_best_model_at_end": evaluation.load_best,
        "early_stopping_patience": evaluation.patience,
        "early_stopping_threshold": evaluation.threshold,
    }
    return _in_training_args(values)


def _saving_and_logging(strategy: Strategy, plan: TrainingPlan) -> Values:
    logging = plan.logging
    values = {
        "save_total_limit": plan.saving.total_limit,
        "logging_steps": logging.every.steps,
        "logging_first_step": logging.first_step,
        "report_to": logging.report_to,
        "run_name": logging.run_name,
    }
    # Every other way of saying it stands in the strategy already.
    if plan.saving.every.steps and strategy.training_args.save_strategy != "epoch":
        values |= {"save_strategy": "steps", "save_steps": plan.saving.every.steps}
    return _in_training_args(values)


def _run(plan: TrainingPlan) -> Values:
    return {
        "training_args.output_dir": str(plan.output_dir),
        "training_args.seed": plan.seed,
        "training_args.gradient_checkpointing": plan.gradient_checkpointing,
        "training_args.torch_compile": plan.torch_compile,
        "training_args.resume_from_checkpoint": None,
        "on_nonfinite": plan.on_nonfinite,
        "stop_on_overfitting": plan.stop_on_overfitting,
    }


def _in_training_args(values: Values) -> Values:
    return {f"training_args.{name}": value for name, value in values.items()}
