"""A plan in LLaMA-Factory's words. Pure.

What is asked of its trainer is the training itself: when to evaluate, log, save and end is decided
by this project's process, step by step (`inside.py`), so that both engines mean the same.
"""

from __future__ import annotations

from typing import Any

from llamafarm.planning.plan import LlamaFactoryPlan, OptimizerPlan, TrainingPlan

TRAIN, EVAL = "train", "eval"
ROWS, OUTPUT, MODEL = "rows", "output", "model"
"""Directories beside the file of arguments, in which the trainer is started."""

_FINETUNING_TYPES = {"lora": "lora", "qlora": "lora", "full_finetune": "full", "freeze": "freeze"}


def arguments_of(plan: TrainingPlan, *, has_eval: bool, resume_from: str = "") -> dict[str, Any]:
    """The arguments of `llamafactory-cli train`, in the order a reader wants. resume_from: a
    checkpoint of its own, beside the file.
    """
    engine = plan.llamafactory
    if engine is None:
        raise ValueError("the plan is for another fine-tuner")
    batch, device = plan.batch, plan.device
    return {
        "model_name_or_path": MODEL,
        "trust_remote_code": False,
        "stage": engine.stage,
        "do_train": True,
        **_method(plan, engine),
        # Rows are tokens already; the names stand for what is in dataset_info.json.
        "dataset": TRAIN,
        **({"eval_dataset": EVAL} if has_eval else {}),
        "dataset_dir": ".",
        "tokenized_path": ROWS,
        "template": "empty",
        "cutoff_len": plan.max_length,
        "packing": False,
        "output_dir": OUTPUT,
        **({"resume_from_checkpoint": resume_from} if resume_from else {}),
        "per_device_train_batch_size": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.accumulation_steps,
        "per_device_eval_batch_size": batch.eval_batch_size,
        "max_steps": batch.total_steps,
        **_optimizer(plan.optimizer),
        "disable_shuffling": not batch.shuffle,
        "dataloader_num_workers": batch.num_workers,
        "disable_gradient_checkpointing": not plan.gradient_checkpointing,
        "torch_compile": plan.torch_compile,
        "bf16": device.mixed_precision == "bf16",
        "fp16": device.mixed_precision == "fp16",
        **({"tf32": device.tf32} if device.device.startswith("cuda") else {}),
        "use_cpu": device.device == "cpu",
        "seed": plan.seed,
        # A step whose loss is no number must be seen, and not averaged away.
        "logging_nan_inf_filter": False,
        "logging_strategy": "no",
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        **engine.native,
    }


def _method(plan: TrainingPlan, engine: LlamaFactoryPlan) -> dict[str, Any]:
    values: dict[str, Any] = {"finetuning_type": _FINETUNING_TYPES[engine.method]}
    adapter, quantization = plan.adapter, plan.quantization
    if adapter is not None:
        values |= {
            "lora_rank": adapter.r,
            "lora_alpha": int(adapter.alpha),
            "lora_dropout": adapter.dropout,
            "lora_target": ",".join(adapter.target_modules),
        }
        if adapter.modules_to_save:
            values["additional_target"] = ",".join(adapter.modules_to_save)
        values |= {"use_rslora": True} if adapter.use_rslora else {}
        values |= {"use_dora": True} if adapter.use_dora else {}
    if quantization is not None:
        values |= {"quantization_bit": quantization.bits}
        if quantization.bits == 4:
            values["quantization_type"] = quantization.quant_type
            values["double_quantization"] = quantization.double_quant
    return values


def _optimizer(plan: OptimizerPlan) -> dict[str, Any]:
    values: dict[str, Any] = {
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": plan.scheduler,
        "warmup_steps": plan.warmup_steps,
        "optim": plan.name,
        "weight_decay": plan.weight_decay,
        "adam_beta1": plan.adam_beta1,
        "adam_beta2": plan.adam_beta2,
        "adam_epsilon": plan.adam_epsilon,
        "max_grad_norm": plan.max_grad_norm,
    }
    if plan.scheduler_kwargs:
        values["lr_scheduler_kwargs"] = dict(plan.scheduler_kwargs)
    if plan.neftune_noise_alpha:
        values["neftune_noise_alpha"] = plan.neftune_noise_alpha
    return values


def dataset_info(plan: TrainingPlan, *, has_eval: bool) -> dict[str, Any]:
    """`dataset_info.json`: the rows as text, for a person, and for the tool where it is started by
    hand without `tokenized_path`.
    """
    stage = plan.llamafactory.stage if plan.llamafactory else "sft"
    columns = {
        "pt": {"prompt": "text"},
        "sft": {"prompt": "prompt", "response": "response", "history": "history"},
        "dpo": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    }[stage]
    entry: dict[str, Any] = {"columns": columns, **({"ranking": True} if stage == "dpo" else {})}
    names = (TRAIN, EVAL) if has_eval else (TRAIN,)
    return {name: {"file_name": f"{name}.jsonl", **entry} for name in names}
