"""How much memory a run needs at its peak, from shapes alone.

Activations follow what a layer of the Llama family keeps for its backward pass, counted tensor by
tensor (the counts equal what autograd saves for Llama, Mistral and Qwen2; other architectures keep
up to a third more). Nothing is padded, so a micro-batch holds the tokens of its conversations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llamafarm.data.report import LengthSummary
from llamafarm.hardware.facts import DeviceKind
from llamafarm.models.shape import ModelShape
from llamafarm.planning.method import adapted_layers
from llamafarm.planning.plan import AdapterPlan, Dtype, QuantizationPlan

BYTES: dict[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
# A process with torch, transformers and peft imported; a CUDA context is not in the device's free
# memory any more when that is read, its workspaces are.
RUNTIME_BYTES: dict[DeviceKind, int] = {
    "cpu": 600_000_000,
    "mps": 300_000_000,
    "cuda": 300_000_000,
}
# Bytes per trainable parameter: two moments, in fp32 or in 8 bits; factored or none.
_OPTIMIZER_BYTES = {
    "adamw_torch": 8.0,
    "adamw_torch_fused": 8.0,
    "adamw_8bit": 2.1,
    "paged_adamw_8bit": 2.1,
    "adafactor": 0.1,
    "sgd": 0.0,
}
# The C library's allocator keeps holes between what lives on: this share of the activations that a
# step without checkpointing has (measured on Linux with SmolLM2-135M, 300 to 1,070 tokens a step).
_CPU_HOLES_ADAPTER, _CPU_HOLES_FULL = 0.85, 0.2
# fp32 logits, their log-softmax, and their gradient live at once.
_LOGIT_COPIES = 3


@dataclass(frozen=True, slots=True)
class Workload:
    """What decides the memory of a run. tokens are counted per conversation in train and
    evaluation.
    """

    shape: ModelShape
    weights: Dtype
    mixed_precision: Literal["no", "fp16", "bf16"]
    quantization: QuantizationPlan | None
    adapter: AdapterPlan | None
    num_trainable_parameters: int
    optimizer: str
    device: DeviceKind
    train: LengthSummary
    evaluation: LengthSummary | None
    micro_batch_size: int
    eval_batch_size: int
    gradient_checkpointing: bool


def memory_parts(work: Workload) -> tuple[tuple[str, int], ...]:
    """Name → bytes at the peak, largest first; parts of no size are left out."""
    training = _training_parts(work)
    parts = {
        "runtime": RUNTIME_BYTES[work.device],
        "base weights": weight_bytes(work),
        "adapter": work.num_trainable_parameters * 4 if work.adapter is not None else 0,
        "optimizer": int(work.num_trainable_parameters * _OPTIMIZER_BYTES[work.optimizer]),
        **training,
        # An evaluation comes between two steps: it counts where it needs more than a step.
        "evaluation": max(0, _evaluation_bytes(work) - sum(training.values())),
    }
    present = [(name, size) for name, size in parts.items() if size]
    return tuple(sorted(present, key=lambda part: -part[1]))


def memory_bytes(work: Workload) -> int:
    """The sum of the parts."""
    return sum(size for _, size in memory_parts(work))


def weight_bytes(work: Workload) -> int:
    """The base model: its linear layers quantised or not, the rest in the type of the weights."""
    width = BYTES[work.weights]
    quantization = work.quantization
    if quantization is None:
        return work.shape.num_parameters * width
    linear = _linear_parameters(work.shape)
    rest = max(0, work.shape.num_parameters - linear) * width
    return int(linear * _quantized_width(quantization)) + rest


def micro_batch_tokens(lengths: LengthSummary, rows: int) -> int:
    """Tokens of a demanding micro-batch: its longest conversation, and others at the 95th
    percentile.
    """
    return lengths.longest + (min(rows, lengths.rows) - 1) * lengths.p95


def _quantized_width(quantization: QuantizationPlan) -> float:
    """Bytes per weight: blocks of 64 4-bit weights share a scale, which is quantised too or
    fp32.
    """
    if quantization.bits == 8:
        return 1.0
    return 0.5 + (0.016 if quantization.double_quant else 4 / 64)


def _training_parts(work: Workload) -> dict[str, int]:
    tokens = micro_batch_tokens(work.train, work.micro_batch_size)
    gradient_width = 4 if work.adapter is not None else BYTES[work.weights]
    return {
        "gradients": work.num_trainable_parameters * gradient_width,
        "activations": _activation_bytes(work, tokens),
        "logits": _logit_bytes(work, work.train, tokens),
        "autocast copies": _autocast_bytes(work),
        "allocator": _allocator_bytes(work, tokens),
    }


def _allocator_bytes(work: Workload, tokens: int) -> int:
    """Memory that the process holds and no tensor uses; CUDA's allocator gives it back when
    short.
    """
    if work.device != "cpu":
        return 0
    share = _CPU_HOLES_FULL if work.adapter is None else _CPU_HOLES_ADAPTER
    # Dropped-out copies pass through the allocator whether they are kept or not.
    layer = _layer_bytes_per_token(work, has_dropout=True)
    return int(share * tokens * layer * work.shape.num_layers)


def _activation_bytes(work: Workload, tokens: int) -> int:
    layers = work.shape.num_layers
    layer = _layer_bytes_per_token(work, has_dropout=_has_dropout(work))
    if not work.gradient_checkpointing:
        return tokens * layer * layers
    # Each layer keeps its input; one layer at a time is computed again.
    return tokens * (work.shape.hidden_size * _compute_width(work) * layers + layer)


def _has_dropout(work: Workload) -> bool:
    return work.adapter is not None and work.adapter.dropout > 0


def _layer_bytes_per_token(work: Workload, *, has_dropout: bool) -> int:
    """What one layer keeps for its backward pass, per token: norms in fp32, attention, MLP,
    adapters.
    """
    shape, width = work.shape, _compute_width(work)
    hidden, mlp = shape.hidden_size, shape.intermediate_size
    heads = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    attention = width * (2 * heads + 2 * keys)
    adapter = work.adapter
    if adapter is None:
        norms = 2 * hidden * (4 + 4 + width)
        return norms + attention + width * 4 * mlp
    inputs = _adapter_inputs_per_layer(work, adapter)
    if not has_dropout:
        norms, own = 2 * hidden * (4 + width), 0 if width == 4 else inputs * width
        return norms + attention + width * 4 * mlp + own
    # Every adapter drops out its own copy of the input and keeps it with the mask.
    mask = 4 if work.device == "cpu" else 1
    return 2 * hidden * 4 + attention + width * 3 * mlp + inputs * (width + mask)


def _adapter_inputs_per_layer(work: Workload, adapter: AdapterPlan) -> int:
    """Sum of d_in over the adapted layers of one block."""
    layers = adapted_layers(
        work.shape, adapter.target_modules, adapter.layers_to_transform, adapter.layers_pattern
    )
    return sum(layer.d_in for layer in layers) // max(1, work.shape.num_layers)


def _logit_bytes(work: Workload, lengths: LengthSummary, tokens: int) -> int:
    """The head is computed only where there is a label."""
    share = lengths.trained_tokens / max(1, lengths.total_tokens)
    return int(tokens * share) * work.shape.vocab_size * 4 * _LOGIT_COPIES


def _autocast_bytes(work: Workload) -> int:
    """Autocast keeps a half-precision copy of every fp32 weight that a backward pass needs."""
    if work.mixed_precision == "no" or work.weights != "float32" or work.quantization is not None:
        return 0
    return _linear_parameters(work.shape) * 2


def _evaluation_bytes(work: Workload) -> int:
    """Nothing is kept between layers: one layer, and the logits with their log-softmax."""
    if work.evaluation is None:
        return 0
    tokens = micro_batch_tokens(work.evaluation, work.eval_batch_size)
    logits = _logit_bytes(work, work.evaluation, tokens) * 2 // _LOGIT_COPIES
    layer = _layer_bytes_per_token(work, has_dropout=False)
    return tokens * layer + logits + _autocast_bytes(work)


def _compute_width(work: Workload) -> int:
    return BYTES[work.weights] if work.mixed_precision == "no" else 2


def _linear_parameters(shape: ModelShape) -> int:
    return sum(layer.d_out * layer.d_in for layer in shape.linear_layers)
