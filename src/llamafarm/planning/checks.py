"""What a strategy asks for that cannot be trained, found before anything is planned: all of it at
once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from llamafarm.errors import Problem
from llamafarm.models.shape import ModelShape
from llamafarm.planning.explain import problem
from llamafarm.planning.llamafactory import llamafactory_problems
from llamafarm.planning.method import (
    adapted_layers,
    default_or_written_rank,
    layer_index,
    linear_suffixes,
    quantization_bits,
    saved_module_parameters,
    target_modules,
)
from llamafarm.planning.metrics import best_metric_problems
from llamafarm.strategy.model import Strategy

_QLORA_INSTALL = "install it with `uv pip install 'llamafarm[qlora]'`"
_SCHEDULER_SETTINGS: dict[str, frozenset[str]] = {
    "cosine": frozenset({"num_cycles"}),
    "cosine_with_restarts": frozenset({"num_cycles"}),
    "polynomial": frozenset({"lr_end", "power"}),
}


def problems_of(
    strategy: Strategy, shape: ModelShape, device: str, *, bitsandbytes_available: bool
) -> tuple[Problem, ...]:
    """Every fault of the values, in the order of the file's sections."""
    return (
        *_backend(strategy),
        *_quantization(strategy, device, bitsandbytes_available),
        *(_adapter(strategy, shape) if strategy.method.type in ("lora", "qlora") else ()),
        *_optimizer(strategy, device, bitsandbytes_available),
        *_steps(strategy),
        *best_metric_problems(strategy),
    )


def _backend(strategy: Strategy) -> Iterator[Problem]:
    if strategy.backend == "llamafactory":
        yield from llamafactory_problems(strategy)
    elif strategy.method.type == "freeze":
        yield problem(
            strategy,
            "method.type",
            "freeze needs `type: llamafactory` (got type: pytorch)",
            "write `type: lora`, or `type: full_finetune`",
        )


def _quantization(strategy: Strategy, device: str, available: bool) -> Iterator[Problem]:
    method = strategy.method
    quantization = method.quantization
    base = "method.quantization"
    if quantization.load_in_4bit and quantization.load_in_8bit:
        yield problem(
            strategy,
            f"{base}.load_in_8bit",
            "4-bit and 8-bit are both asked for",
            "keep one of them",
        )
    bits = quantization_bits(method)
    if method.type == "qlora" and bits is None:
        yield problem(
            strategy,
            f"{base}.load_in_4bit",
            "qlora needs a quantised base (got load_in_4bit: false)",
            "remove this line, or write `type: lora`",
        )
    if bits is None:
        return
    if method.trains_base:
        yield problem(
            strategy,
            f"{base}.load_in_{bits}bit",
            f"{bits}-bit weights cannot be trained (method.type is {method.type})",
            "write `type: qlora`, or remove the quantisation",
        )
    elif device == "mps":
        yield problem(
            strategy,
            "method.type",
            "bitsandbytes cannot quantise on an Apple GPU",
            "write `type: lora`; `device: cpu` quantises too, more slowly",
        )
    elif not available:
        yield problem(
            strategy,
            "method.type",
            "qlora needs the package bitsandbytes, which is not installed",
            f"{_QLORA_INSTALL}, or write `type: lora`",
        )


def _adapter(strategy: Strategy, shape: ModelShape) -> Iterator[Problem]:
    method = strategy.method
    targets = target_modules(method, shape)
    yield from _unmatched_targets(strategy, shape, targets)
    yield from _layers(strategy, shape, targets)
    layers = adapted_layers(shape, targets, method.layers_to_transform, method.layers_pattern)
    if layers:
        narrowest = min(layers, key=lambda layer: min(layer.d_out, layer.d_in))
        limit = min(narrowest.d_out, narrowest.d_in)
        rank = default_or_written_rank(method, shape)
        if rank > limit:
            yield problem(
                strategy,
                "method.r",
                f"expected at most {limit}, the width of {narrowest.suffix} (got {rank})",
                f"write `r: {limit}` or less; 8 to 64 is usual",
            )
    yield from _modules_to_save(strategy, shape)


def _unmatched_targets(
    strategy: Strategy, shape: ModelShape, targets: tuple[str, ...]
) -> Iterator[Problem]:
    path = "method.target_modules"
    present = linear_suffixes(shape)
    if not targets:
        found = "is empty" if strategy.method.target_modules is not None else "has no linear layer"
        yield problem(strategy, path, f"nothing to adapt: {path} {found}", _listing(present))
    for target in targets:
        if not shape.adapted_layers((target,)):
            yield problem(
                strategy,
                path,
                f"no linear layer of {shape.architecture} is called {target}",
                _nearest(target, present),
            )


def _layers(strategy: Strategy, shape: ModelShape, targets: tuple[str, ...]) -> Iterator[Problem]:
    method = strategy.method
    indices = method.layers_to_transform
    if indices is None:
        if method.layers_pattern is not None:
            yield problem(
                strategy,
                "method.layers_pattern",
                "layers_pattern has no effect without layers_to_transform",
                "add `layers_to_transform: [0, 1, …]`, or remove this line",
            )
        return
    matched = shape.adapted_layers(targets)
    present = {layer_index(layer.name, method.layers_pattern) for layer in matched} - {None}
    missing = [index for index in indices if index not in present]
    if not present and matched:
        yield problem(
            strategy,
            "method.layers_pattern",
            f"no list of layers is called {method.layers_pattern} in {matched[0].name}",
            "remove this line: the list is found by itself",
        )
    elif missing or not indices:
        listed = ", ".join(map(str, missing)) or "nothing"
        yield problem(
            strategy,
            "method.layers_to_transform",
            f"expected indices from 0 to {shape.num_layers - 1} (got {listed})",
            "remove this line to adapt every layer",
        )


def _modules_to_save(strategy: Strategy, shape: ModelShape) -> Iterator[Problem]:
    present = tuple(
        dict.fromkeys(
            [*linear_suffixes(shape), *(m.name.rsplit(".", 1)[-1] for m in shape.other_modules)]
        )
    )
    for name in strategy.method.modules_to_save:
        if saved_module_parameters(shape, name) == 0:
            yield problem(
                strategy,
                "method.modules_to_save",
                f"no module of {shape.architecture} is called {name}",
                _nearest(name, present),
            )


def _optimizer(strategy: Strategy, device: str, available: bool) -> Iterator[Problem]:
    args = strategy.training_args
    if args.optim is not None and args.optim.endswith("8bit"):
        instead = "write `optim: adamw_torch`"
        if device == "mps":
            message = f"{args.optim} needs bitsandbytes, which has no Apple GPU"
            yield problem(strategy, "training_args.optim", message, instead)
        elif not available:
            message = f"{args.optim} needs the package bitsandbytes, which is not installed"
            yield problem(
                strategy, "training_args.optim", message, f"{_QLORA_INSTALL}, or {instead}"
            )
    allowed = _SCHEDULER_SETTINGS.get(args.lr_scheduler_type, frozenset())
    for name in args.lr_scheduler_kwargs:
        if name not in allowed:
            yield problem(
                strategy,
                "training_args.lr_scheduler_kwargs",
                f"the {args.lr_scheduler_type} schedule has no setting {name}",
                _listing(tuple(sorted(allowed))) if allowed else "it has none: remove this line",
            )


def _steps(strategy: Strategy) -> Iterator[Problem]:
    args = strategy.training_args
    for name in ("eval_steps", "save_steps", "logging_steps", "warmup_steps"):
        value = getattr(args, name)
        if value is not None and value > 1 and value != int(value):
            yield problem(
                strategy,
                f"training_args.{name}",
                f"expected whole steps, or a fraction of the run below 1 (got {value:g})",
                f"write `{name}: {round(value)}`",
            )


def _nearest(name: str, present: Iterable[str]) -> str:
    names = tuple(present)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean `{near[0]}`? {_listing(names)}" if near else _listing(names)


def _listing(names: tuple[str, ...]) -> str:
    return f"there are: {', '.join(names)}" if names else "there are none"
