"""Rows that only `type: llamafactory` has: its own spellings, and what is passed on to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llamafarm.strategy.conversions import (
    FLASH_ATTENTION,
    LORA_TARGET,
    METHOD_TYPE,
    QUANTIZATION_BIT,
    REMOTE_CODE,
)
from llamafarm.strategy.keys.row import Key, alias
from llamafarm.strategy.keys.training import native_rows

_SPELLINGS: tuple[Key, ...] = (
    alias("model_name_or_path", "base_model.id"),
    alias("model_revision", "base_model.revision"),
    alias("cache_dir", "base_model.cache_dir"),
    Key(
        "trust_remote_code",
        status="refused",
        conversion=REMOTE_CODE,
        text="a model's own code is never run",
    ),
    alias("finetuning_type", "method.type", METHOD_TYPE),
    alias("lora_rank", "method.r"),
    alias("lora_alpha", "method.alpha"),
    alias("lora_dropout", "method.dropout"),
    alias("lora_target", "method.target_modules", LORA_TARGET),
    alias("additional_target", "method.modules_to_save"),
    alias("use_dora", "method.use_dora"),
    alias("use_rslora", "method.use_rslora"),
    alias("quantization_bit", "method.quantization.load_in_4bit", QUANTIZATION_BIT),
    alias("double_quantization", "method.quantization.bnb_4bit_use_double_quant"),
    alias("quantization_type", "method.quantization.bnb_4bit_quant_type"),
    alias("val_size", "dataset.eval_split"),
    alias("max_samples", "dataset.max_samples"),
    alias("preprocessing_num_workers", "dataset.preprocessing_num_workers"),
    alias("dataset", "native.dataset"),
)
_PASSED_ON = (
    "adapter_name_or_path",
    "ddp_timeout",
    "dataset_dir",
    "deepspeed",
    "do_eval",
    "do_predict",
    "do_train",
    "enable_liger_kernel",
    "eval_dataset",
    "flash_attn",
    "freeze_extra_modules",
    "freeze_trainable_layers",
    "freeze_trainable_modules",
    "loraplus_lr_ratio",
    "mask_history",
    "overwrite_cache",
    "packing",
    "pissa_init",
    "plot_loss",
    "quantization_method",
    "rope_scaling",
    "shift_attn",
    "stage",
    "template",
    "tokenized_path",
    "train_on_prompt",
    "upcast_layernorm",
    "use_unsloth",
)
_WRAPPER: tuple[Key, ...] = (
    alias("dataset.custom_template", "native.custom_template"),
    alias("framework.flash_attention", "native.flash_attn", FLASH_ATTENTION),
    alias("environment.deepspeed_config", "native.deepspeed"),
)


def llamafactory_rows() -> Iterator[Key]:
    """Both historic shapes: the wrapper's blocks; the tool's flat keys, also under `native`."""
    flat = (*_SPELLINGS, *(alias(name, f"native.{name}") for name in _PASSED_ON))
    native = (
        *(replace(row, path=f"native.{row.path}") for row in _SPELLINGS),
        *native_rows(),
        alias("native.*", "native.*"),
    )
    return (replace(row, backend="llamafactory") for row in (*_WRAPPER, *flat, *native))
