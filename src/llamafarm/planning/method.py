"""What is trained: adapters by architecture, how the frozen base is held, and how many parameters
move.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llamafarm.decision import Decision
from llamafarm.errors import StrategyError, count_of
from llamafarm.hardware.precision import Dtype, PrecisionChoice
from llamafarm.models.shape import LinearLayer, ModelShape
from llamafarm.planning import tables
from llamafarm.planning.explain import asked, is_written, notice, settled, shown, warning
from llamafarm.planning.llamafactory import unfrozen_parameters
from llamafarm.planning.plan import AdapterPlan, QuantizationPlan
from llamafarm.strategy.model import Method, Strategy, TorchDtype

ALL_LINEAR = ("all-linear",)


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """adapter None: the whole model is trained."""

    adapter: AdapterPlan | None
    quantization: QuantizationPlan | None
    num_trainable_parameters: int
    decisions: tuple[Decision, ...]


def choose_method(
    strategy: Strategy, shape: ModelShape, device: str, precision: PrecisionChoice
) -> MethodChoice:
    """Adapters, quantisation and the number of trainable parameters. `checks.problems_of` comes
    first.
    """
    method = strategy.method
    decisions = [_type_decision(strategy)]
    if method.trains_base:
        frozen = method.type == "freeze"
        trainable = unfrozen_parameters(strategy, shape) if frozen else shape.num_parameters
        decisions += [_trainable_decision(trainable, shape), *_unused_adapter_settings(strategy)]
        return MethodChoice(None, None, trainable, tuple(decisions))
    adapter, adapter_decisions = _adapter(strategy, shape)
    quantization, quantization_decisions = _quantization(strategy, device, precision)
    trainable = adapter_num_parameters(shape, adapter)
    decisions += [
        *adapter_decisions,
        *quantization_decisions,
        _trainable_decision(trainable, shape),
    ]
    return MethodChoice(adapter, quantization, trainable, tuple(decisions))


def lora_num_parameters(layer_shapes: Sequence[tuple[int, int]], rank: int) -> int:
    """Trainable parameters LoRA adds: sum of rank * (d_in + d_out) over the adapted layers.

    layer_shapes: (d_out, d_in) of each adapted weight, as torch stores it. Source: arXiv
    2106.09685, section 4.2. Raises StrategyError if rank < 1 or rank > min(d_out, d_in) of any
    layer.
    """
    narrowest = min((min(d_out, d_in) for d_out, d_in in layer_shapes), default=rank)
    if not 1 <= rank <= narrowest:
        raise StrategyError(
            f"a LoRA rank of {rank} does not fit",
            hint=f"write a method.r from 1 to {narrowest}: a larger one adds nothing to the "
            "narrowest adapted layer",
        )
    return sum(rank * (d_in + d_out) for d_out, d_in in layer_shapes)


def adapter_num_parameters(shape: ModelShape, adapter: AdapterPlan) -> int:
    """Parameters of LoRA, DoRA's magnitudes (one per output), and modules that are trained whole.

    Biases (`bias` other than none) are not counted: the shape does not know which layers have one.
    """
    layers = adapted_layers(
        shape, adapter.target_modules, adapter.layers_to_transform, adapter.layers_pattern
    )
    count = lora_num_parameters([(layer.d_out, layer.d_in) for layer in layers], adapter.r)
    if adapter.use_dora:
        count += sum(layer.d_out for layer in layers)
    return count + sum(saved_module_parameters(shape, name) for name in adapter.modules_to_save)


def adapted_layers(
    shape: ModelShape,
    target_modules: tuple[str, ...],
    layers_to_transform: tuple[int, ...] | None = None,
    layers_pattern: str | None = None,
) -> tuple[LinearLayer, ...]:
    """The linear layers that get an adapter, chosen as PEFT chooses them."""
    matched = shape.adapted_layers(target_modules)
    if layers_to_transform is None:
        return matched
    wanted = set(layers_to_transform)
    return tuple(layer for layer in matched if layer_index(layer.name, layers_pattern) in wanted)


def layer_index(name: str, pattern: str | None) -> int | None:
    """Index of the block in a module's name, under the list `pattern` or the first numbered one."""
    list_name = re.escape(pattern) if pattern else r"[^.]+"
    found = re.search(rf"(?:^|\.){list_name}\.(\d+)\.", name)
    return int(found.group(1)) if found else None


def saved_module_parameters(shape: ModelShape, name: str) -> int:
    """Parameters of the modules that `modules_to_save` would train whole under this name."""
    linear = shape.adapted_layers((name,))
    other = [m for m in shape.other_modules if m.name == name or m.name.endswith("." + name)]
    return sum(layer.d_out * layer.d_in for layer in linear) + sum(m.num_parameters for m in other)


def linear_suffixes(shape: ModelShape) -> tuple[str, ...]:
    """Names of the linear layers of the language model without their position, in the model's
    order.
    """
    return tuple(dict.fromkeys(layer.suffix for layer in shape.linear_layers))


def target_modules(method: Method, shape: ModelShape) -> tuple[str, ...]:
    """What LoRA adapts: as written, or every linear layer by its short name."""
    if method.target_modules in (None, ALL_LINEAR):
        return linear_suffixes(shape)
    return method.target_modules or ()


def quantization_bits(method: Method) -> Literal[4, 8] | None:
    """How many bits a weight of the frozen base has; None: it is not quantised."""
    quantization = method.quantization
    if quantization.load_in_8bit:
        return 8
    if quantization.load_in_4bit or (
        method.type == "qlora" and quantization.load_in_4bit is not False
    ):
        return 4
    return None


def default_or_written_rank(method: Method, shape: ModelShape) -> int:
    """The rank: as written, else the table's, cut to the narrowest layer that is adapted."""
    if method.r is not None:
        return method.r
    layers = shape.adapted_layers(target_modules(method, shape))
    narrowest = min((min(layer.d_out, layer.d_in) for layer in layers), default=1)
    return max(1, min(tables.default_rank(shape.num_parameters), narrowest))


def _type_decision(strategy: Strategy) -> Decision:
    method = strategy.method
    value = "qlora" if quantization_bits(method) else method.type
    if is_written(strategy, "method.type"):
        return asked(strategy, "method.type", value)
    if value == "qlora":
        path = "method.quantization.load_in_8bit"
        path = path if method.quantization.load_in_8bit else "method.quantization.load_in_4bit"
        origin = asked(strategy, path, True)
        return Decision("method.type", value, origin.source, f"{origin.reason}: quantised base")
    return Decision("method.type", value, "default", "")


def _adapter(strategy: Strategy, shape: ModelShape) -> tuple[AdapterPlan, list[Decision]]:
    method = strategy.method
    rank, rank_decisions = _rank(strategy, shape)
    alpha = method.alpha if method.alpha is not None else 2.0 * rank
    adapter = AdapterPlan(
        r=rank,
        alpha=alpha,
        dropout=method.dropout,
        bias=method.bias,
        target_modules=target_modules(method, shape),
        modules_to_save=method.modules_to_save,
        layers_to_transform=method.layers_to_transform,
        layers_pattern=method.layers_pattern,
        use_rslora=method.use_rslora,
        use_dora=method.use_dora,
    )
    decisions = [
        *rank_decisions,
        asked(strategy, "method.alpha", alpha)
        if method.alpha is not None
        else Decision("method.alpha", shown(alpha), "default", "2 r"),
        *_unusual_alpha(strategy, rank, alpha),
        settled(strategy, "method.dropout", method.dropout),
        *_unusual_dropout(method.dropout),
        _targets_decision(strategy, shape, adapter),
        settled(strategy, "method.bias", method.bias),
    ]
    optional = (
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
        "use_rslora",
        "use_dora",
    )
    for name in optional:
        if is_written(strategy, f"method.{name}"):
            decisions.append(asked(strategy, f"method.{name}", getattr(method, name)))
    return adapter, decisions


def _rank(strategy: Strategy, shape: ModelShape) -> tuple[int, list[Decision]]:
    rank = default_or_written_rank(strategy.method, shape)
    row = tables.size_row(shape.num_parameters)
    size = f"{row.billions:.3g}B parameters"
    if strategy.method.r is None:
        reason = f"{size}: row {row.name}, rank {row.rank}"
        if rank < tables.default_rank(shape.num_parameters):
            reason += f"; no more than {rank}, the width of the narrowest layer"
        return rank, [Decision("method.r", str(rank), "table", reason)]
    decisions = [asked(strategy, "method.r", rank)]
    if rank not in row.rank:
        text = f"method.r={rank} is outside what the table advises for {size}: {row.rank}"
        decisions.append(warning("method.r", rank, text))
    return rank, decisions


def _unusual_alpha(strategy: Strategy, rank: int, alpha: float) -> list[Decision]:
    """rsLoRA scales by another rule, for which the guide has no range."""
    usual = tables.Range(rank, 2 * rank)
    if strategy.method.use_rslora or alpha in usual:
        return []
    text = f"method.alpha={shown(alpha)} is outside the usual r to 2 r ({usual})"
    return [notice("method.alpha", alpha, f"{text}: it acts like another learning rate")]


def _unusual_dropout(dropout: float) -> list[Decision]:
    if dropout in tables.DROPOUT:
        return []
    text = f"method.dropout={shown(dropout)} is above the usual {tables.DROPOUT}"
    return [warning("method.dropout", dropout, f"{text}: little may be learnt")]


def _targets_decision(strategy: Strategy, shape: ModelShape, adapter: AdapterPlan) -> Decision:
    path = "method.target_modules"
    layers = adapted_layers(
        shape, adapter.target_modules, adapter.layers_to_transform, adapter.layers_pattern
    )
    count = count_of(len(layers), "layer")
    if strategy.method.target_modules is not None:
        return asked(strategy, path, adapter.target_modules, count)
    reason = f"every linear layer of {shape.architecture} except the head: {count}"
    return Decision(path, shown(adapter.target_modules), "default", reason)


def _quantization(
    strategy: Strategy, device: str, precision: PrecisionChoice
) -> tuple[QuantizationPlan | None, list[Decision]]:
    written = strategy.method.quantization
    bits = quantization_bits(strategy.method)
    if bits is None:
        return None, []
    compute, decisions = _compute_dtype(strategy, written.bnb_4bit_compute_dtype, precision)
    plan = QuantizationPlan(
        bits, written.bnb_4bit_quant_type, written.bnb_4bit_use_double_quant, compute
    )
    base = "method.quantization"
    path = f"{base}.load_in_{bits}bit"
    lines = [
        asked(strategy, path, True)
        if is_written(strategy, path)
        else Decision(path, "true", "default", "method.type is qlora")
    ]
    if bits == 4:
        for name in ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant"):
            lines.append(settled(strategy, f"{base}.{name}", getattr(written, name)))
        lines += decisions
    elif device == "cpu":
        text = "8-bit weights are slow on a CPU, which emulates fp16; 4-bit weights are not"
        lines.append(warning(path, True, text))
    return plan, lines


def _compute_dtype(
    strategy: Strategy, requested: TorchDtype, precision: PrecisionChoice
) -> tuple[Dtype, list[Decision]]:
    """As written where the device calculates in it natively, else the precision of the run."""
    path = "method.quantization.bnb_4bit_compute_dtype"
    own: dict[str, Dtype] = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}
    automatic = own[precision.mixed_precision]
    if requested == "auto":
        return automatic, [Decision(path, automatic, "detected", "the precision of the run")]
    if requested in ("float32", automatic):
        return requested, [asked(strategy, path, requested)]
    text = (
        f"{path} asks for {requested}, and {automatic} is used: "
        f"this run calculates in {precision.mixed_precision.replace('no', 'fp32')}"
    )
    return automatic, [
        Decision(path, automatic, "detected", "the precision of the run"),
        warning(path, automatic, text),
    ]


def _trainable_decision(trainable: int, shape: ModelShape) -> Decision:
    share = trainable / (shape.num_parameters or 1)
    return Decision(
        "method.trainable_parameters",
        f"{trainable:,}",
        "detected",
        f"{share:.2%} of {shape.num_parameters:,}",
    )


def _unused_adapter_settings(strategy: Strategy) -> list[Decision]:
    """Adapter settings that somebody wrote beside full fine-tuning."""
    names = (
        "r",
        "alpha",
        "dropout",
        "bias",
        "target_modules",
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
        "use_rslora",
        "use_dora",
    )
    return [
        warning(
            f"method.{name}",
            getattr(strategy.method, name),
            f"method.{name} has no effect: method.type is {strategy.method.type}, which has no "
            "adapter",
        )
        for name in names
        if is_written(strategy, f"method.{name}")
    ]
