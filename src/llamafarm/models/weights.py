"""Weights from safetensors into memory: all of them, or an error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamafarm.errors import HardwareError, ModelError, RunError, count_of
from llamafarm.models.config import load_config
from llamafarm.models.faults import model_faults
from llamafarm.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llamafarm.planning.plan import Dtype, QuantizationPlan


def load_weights(
    directory: Path,
    dtype: Dtype,
    device: str,
    quantization: QuantizationPlan | None = None,
    attn_implementation: str = "sdpa",
    use_cache: bool = True,
) -> PreTrainedModel:
    """The model of a directory that check_model_directory has passed, in evaluation mode.

    Raises ModelError for weights that are damaged or do not fit the configuration, RunError when
    memory does not suffice.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(directory)
    _keep_to_installed_kernels()
    options: dict[str, Any] = {
        "attn_implementation": supported_attention(config, attn_implementation)
    }
    if quantization is not None:
        options["quantization_config"] = _bitsandbytes(quantization)
    if quantization is not None or device != "cpu":
        options["device_map"] = {"": device}
    summary, hint = f"{directory} cannot be loaded", "if a file is damaged, download it again"
    with model_faults(summary, hint=hint), _memory_faults(directory, device), quiet_transformers():
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{directory} is incomplete: {count_of(len(missing), 'weight')} missing "
            f"({', '.join(missing[:3])})",
            hint="download the model again; what is missing would be random numbers",
        )
    model.config.use_cache = use_cache
    if quantization is not None:
        _keep_one_format(model)
    return model.eval()


def _keep_to_installed_kernels() -> None:
    """Where the package `kernels` is installed, transformers downloads compiled code from the Hub
    for some architectures, unasked.
    """
    from transformers.integrations import hub_kernels

    if hasattr(hub_kernels, "_kernels_enabled"):
        hub_kernels._kernels_enabled = False


def supported_attention(config: Any, attn_implementation: str) -> str:
    """`eager` for the few architectures without fused attention: the same numbers, more memory."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    has_sdpa = getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "_supports_sdpa", True)
    return "eager" if attn_implementation == "sdpa" and not has_sdpa else attn_implementation


def _bitsandbytes(plan: QuantizationPlan) -> Any:
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise HardwareError(
            "quantised base weights need bitsandbytes, which is not installed",
            hint="pip install 'llamafarm[qlora]', or take method type lora",
        )
    if plan.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=plan.quant_type,
        bnb_4bit_use_double_quant=plan.double_quant,
        bnb_4bit_compute_dtype=getattr(torch, plan.compute_dtype),
    )


def _keep_one_format(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking a 4-bit layer at its first evaluation.

    On a CPU with AVX512-BF16 it rounds the scales to bf16 in place, so that a run would train
    another base after an evaluation than before it; and it fails on layers narrower than a block.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextlib.contextmanager
def _memory_faults(directory: Path, device: str) -> Iterator[None]:
    """Out of memory is no fault of the files."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as fault:
        raise RunError(
            f"{directory} does not fit into the memory of {device}",
            hint="take a smaller model, or method type qlora",
        ) from fault
