"""Rows of `components.fine_tuner.config` beside the training arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llamafarm.strategy.conversions import (
    CONVERSATION_TEMPLATE,
    FULL_FINETUNING,
    LORA_TARGET,
    MODEL_NAME,
    PERCENT,
    REMOTE_CODE,
)
from llamafarm.strategy.keys.row import Key, alias, notice, own

_PLACED = "the planner places the model on its device"
_FAST_TOKENIZER = "tokenizers are always the fast ones"
_LOADED_ONCE = "weights are always read straight into place"
_PER_DEVICE = "what fits the device in use is planned; `hardware` and `training_args` are obeyed"

BASE_MODEL: tuple[Key, ...] = (
    alias("base_model.huggingface_id", "base_model.id"),
    alias("base_model.id", "base_model.id"),
    alias("base_model", "base_model.id"),
    replace(alias("base_model.name", "base_model.id", MODEL_NAME), quiet=True),
    alias("base_model.custom_model_path", "base_model.id"),
    alias("base_model.revision", "base_model.revision"),
    alias("base_model.cache_dir", "base_model.cache_dir"),
    alias("base_model.torch_dtype", "base_model.torch_dtype"),
    alias("base_model.dtype", "base_model.torch_dtype"),
    alias("base_model.load_in_4bit", "method.quantization.load_in_4bit"),
    alias("base_model.load_in_8bit", "method.quantization.load_in_8bit"),
    Key(
        "base_model.trust_remote_code",
        status="refused",
        conversion=REMOTE_CODE,
        text="a model's own code is never run",
    ),
    notice("base_model.device_map", _PLACED),
    notice("base_model.low_cpu_mem_usage", _LOADED_ONCE),
    notice("base_model.use_auth_token", "the token comes from HF_TOKEN"),
)

METHOD: tuple[Key, ...] = (
    *own("method."),
    alias("method", "method.type"),
    alias("method.lora_r", "method.r"),
    alias("method.rank", "method.r"),
    alias("method.lora_alpha", "method.alpha"),
    alias("method.lora_dropout", "method.dropout"),
    *own("method.quantization.", "method.quantization_config."),
    notice("method.task_type", "only causal language models are trained"),
    alias("lora_r", "method.r"),
    alias("lora_rank", "method.r"),
    alias("rank", "method.r"),
    alias("lora_alpha", "method.alpha"),
    alias("lora_dropout", "method.dropout"),
    alias("lora_target", "method.target_modules", LORA_TARGET),
    alias("full_finetuning", "method.type", FULL_FINETUNING),
    alias("load_in_4bit", "method.quantization.load_in_4bit"),
    alias("load_in_8bit", "method.quantization.load_in_8bit"),
)

HARDWARE: tuple[Key, ...] = (
    *own("hardware."),
    alias("environment.device", "hardware.device"),
    alias("hardware.optimization.gradient_checkpointing", "training_args.gradient_checkpointing"),
    alias(
        "hardware.optimization.gradient_accumulation_steps",
        "training_args.gradient_accumulation_steps",
    ),
    alias("hardware.optimization.mixed_precision", "training_args.mixed_precision"),
    alias("framework.gradient_checkpointing", "training_args.gradient_checkpointing"),
    alias("environment.seed", "training_args.seed"),
    alias("environment.num_gpus", "distributed.num_gpus"),
    notice("framework.use_fast_tokenizer", _FAST_TOKENIZER),
    notice("environment.low_cpu_mem_usage", _LOADED_ONCE),
    notice("optimization.cuda", _PER_DEVICE, "optimization"),
    notice("optimization.mps", _PER_DEVICE, "optimization"),
    notice("optimization.cpu", _PER_DEVICE, "optimization"),
    replace(
        notice("framework.flash_attention", "the attention kernel is chosen by the device"),
        backend="pytorch",
    ),
    replace(
        notice("packing", "rows are always packed, without padding, where the model allows it"),
        backend="pytorch",
    ),
)


def dataset_rows(place: str) -> Iterator[Key]:
    """Rows of a `dataset` block; place: `dataset.` beside `components`, or below `config`."""
    yield from own("dataset.", place)
    yield alias(place + "val_split", "dataset.eval_split")
    yield alias(place + "eval_percent", "dataset.eval_split", PERCENT)
    yield alias(place + "conversation_template", "dataset.format", CONVERSATION_TEMPLATE)


def training_rows_of_dataset(place: str) -> Iterator[Key]:
    """Keys of a `dataset` block that say something about the training, where it does not."""
    yield alias(place + "max_length", "training_args.max_seq_length")
    yield alias(place + "seed", "training_args.seed")
