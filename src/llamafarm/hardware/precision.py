"""In which number formats the run calculates, from what was asked for and what the device can do.
Pure.

A format that the device lacks, or only emulates, is never used, whatever a copied recipe says: on a
CPU without native bf16 a matrix product in bf16 takes 60 to 100 times as long as in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llamafarm.decision import Decision, place, written
from llamafarm.errors import Problem, StrategyError
from llamafarm.hardware.choose import find_accelerator
from llamafarm.hardware.facts import Hardware
from llamafarm.strategy.model import MixedPrecision, Strategy

Dtype = Literal["float32", "float16", "bfloat16"]

PRECISION = "hardware.precision"
MIXED_PRECISION = "training_args.mixed_precision"
TORCH_DTYPE = "base_model.torch_dtype"
TF32 = "training_args.tf32"
_SHOWN: dict[MixedPrecision, str] = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}
_HALF: dict[MixedPrecision, Dtype] = {"fp16": "float16", "bf16": "bfloat16"}
_FORMAT_OF: dict[Dtype, MixedPrecision] = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """weights: type of the base weights in memory; mixed_precision: autocast type of the matrix
    products.
    """

    weights: Dtype
    mixed_precision: MixedPrecision
    tf32: bool
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class _Abilities:
    """What a device calculates natively. preferred: what it is given when nothing was asked for,
    and why.
    """

    native: frozenset[MixedPrecision]
    preferred: MixedPrecision
    evidence: str
    lacks: dict[MixedPrecision, str]
    has_tf32: bool


@dataclass(frozen=True, slots=True)
class _Flag:
    """A switch that somebody set, and its dotted path."""

    value: bool
    path: str


def choose_precision(strategy: Strategy, device: str, hardware: Hardware) -> PrecisionChoice:
    """Base weights, autocast and TF32 for this device, with a decision for each and a warning for
    each refusal.

    `training_args.mixed_precision` wins over the switches of the device in use, and those over the
    flat ones. Raises StrategyError when fp16 and bf16 are both asked for on the device in use.
    """
    kind = device.partition(":")[0]
    able = _abilities(device, hardware)
    flags = {name: _flag(strategy, kind, name) for name in ("use_fp16", "use_bf16", "use_tf32")}
    _refuse_both(strategy, flags["use_fp16"], flags["use_bf16"])
    mixed, mixed_decisions = _mixed_precision(strategy, able, flags["use_fp16"], flags["use_bf16"])
    weights, weights_decisions = _weights(strategy, able, mixed)
    tf32, tf32_decisions = _tf32(strategy, able, mixed, flags["use_tf32"])
    return PrecisionChoice(
        weights, mixed, tf32, (*mixed_decisions, *weights_decisions, *tf32_decisions)
    )


def _abilities(device: str, hardware: Hardware) -> _Abilities:
    accelerator = find_accelerator(device, hardware.accelerators)
    if accelerator is None:
        return _cpu_abilities(hardware)
    native: set[MixedPrecision] = {"no"}
    native |= {"bf16"} if accelerator.has_bf16 else set()
    native |= {"fp16"} if accelerator.has_fp16 else set()
    if accelerator.kind == "mps":
        why = "fp32 is the stable format on Apple GPUs"
        absent = "this macOS has no {} on the GPU"
        lacks: dict[MixedPrecision, str] = {f: absent.format(f) for f in ("fp16", "bf16")}
        return _Abilities(frozenset(native), "no", why, lacks, has_tf32=False)
    major, minor = accelerator.compute_capability or (0, 0)
    version = f"compute capability {major}.{minor}"
    no_bf16, no_fp16 = f"{version} has no bf16", f"{version} has no fast fp16"
    preferred: MixedPrecision
    if accelerator.has_bf16:
        preferred, why = "bf16", f"{version} has bf16"
    elif accelerator.has_fp16:
        preferred, why = "fp16", no_bf16
    else:
        preferred, why = "no", f"{no_bf16} and no fast fp16"
    lacks = {"bf16": no_bf16, "fp16": no_fp16}
    return _Abilities(frozenset(native), preferred, why, lacks, accelerator.has_tf32)


def _cpu_abilities(hardware: Hardware) -> _Abilities:
    cpu = hardware.cpu
    slow = "60 to 100 times slower than fp32"
    emulated: dict[MixedPrecision, str] = {
        "bf16": f"bf16 is emulated on this CPU ({cpu.capability}), {slow}",
        "fp16": f"fp16 is emulated on a CPU, {slow}",
    }
    if cpu.has_native_bf16:
        native: frozenset[MixedPrecision] = frozenset({"no", "bf16"})
        why = f"this CPU has native bf16 ({'AMX' if cpu.has_amx else cpu.capability})"
        return _Abilities(native, "bf16", why, emulated, has_tf32=False)
    return _Abilities(frozenset({"no"}), "no", emulated["bf16"], emulated, has_tf32=False)


def _flag(strategy: Strategy, kind: str, name: str) -> _Flag | None:
    """A switch as it holds for this kind of device; None when nobody set it."""
    precision = strategy.hardware.precision
    own = getattr(getattr(precision, kind), name)
    if own is not None:
        return _Flag(own, f"{PRECISION}.{kind}.{name}")
    flat = getattr(precision, name)
    return None if flat is None else _Flag(flat, f"{PRECISION}.{name}")


def _refuse_both(strategy: Strategy, fp16: _Flag | None, bf16: _Flag | None) -> None:
    if fp16 and bf16 and fp16.value and bf16.value:
        raise StrategyError(
            "fp16 and bf16 are both asked for on one device",
            [
                Problem(
                    f"{fp16.path} and {bf16.path} are both true",
                    where=place(strategy.origin(bf16.path)),
                    path=bf16.path,
                    hint="keep one of them; bf16 where the device has it",
                )
            ],
        )


def _mixed_precision(
    strategy: Strategy, able: _Abilities, fp16: _Flag | None, bf16: _Flag | None
) -> tuple[MixedPrecision, list[Decision]]:
    asked, path = _asked(strategy, able, fp16, bf16)
    decisions = _conflicts(strategy, fp16, bf16)
    if asked is None:
        return able.preferred, [
            Decision(PRECISION, _SHOWN[able.preferred], "detected", able.evidence),
            *decisions,
        ]
    if asked in able.native:
        return asked, [written(PRECISION, _SHOWN[asked], strategy.origin(path)), *decisions]
    used = _instead(asked, able, fp16)
    text = f"{path} asks for {asked}, and {_SHOWN[used]} is used: {able.lacks[asked]}"
    return used, [
        Decision(PRECISION, _SHOWN[used], "detected", able.lacks[asked]),
        Decision(PRECISION, _SHOWN[used], "warning", text),
        *decisions,
    ]


def _asked(
    strategy: Strategy, able: _Abilities, fp16: _Flag | None, bf16: _Flag | None
) -> tuple[MixedPrecision | None, str]:
    """The format that was asked for, and where. Switching off the preferred one asks for fp32."""
    if strategy.training_args.mixed_precision is not None:
        return strategy.training_args.mixed_precision, MIXED_PRECISION
    switches: tuple[tuple[MixedPrecision, _Flag | None], ...] = (("bf16", bf16), ("fp16", fp16))
    for name, flag in switches:
        if flag is not None and flag.value:
            return name, flag.path
    for name, flag in switches:
        if flag is not None and able.preferred in (name, "no"):
            return "no", flag.path
    return None, ""


def _instead(asked: MixedPrecision, able: _Abilities, fp16: _Flag | None) -> MixedPrecision:
    """What stands in for a format that the device lacks: fp16 for bf16 on a GPU, fp32 otherwise."""
    may_use_fp16 = "fp16" in able.native and able.preferred == "fp16"
    refused = fp16 is not None and not fp16.value
    return "fp16" if asked == "bf16" and may_use_fp16 and not refused else "no"


def _conflicts(strategy: Strategy, fp16: _Flag | None, bf16: _Flag | None) -> list[Decision]:
    """A warning where the switches say something else than training_args.mixed_precision, which
    wins.
    """
    mixed = strategy.training_args.mixed_precision
    if mixed is None:
        return []
    switches: tuple[tuple[MixedPrecision, _Flag | None], ...] = (("fp16", fp16), ("bf16", bf16))
    return [
        Decision(
            PRECISION,
            _SHOWN[mixed],
            "warning",
            f"{_named(strategy, MIXED_PRECISION)} is {mixed} and wins over "
            f"{_named(strategy, flag.path)}, which is {str(flag.value).lower()}",
        )
        for name, flag in switches
        if flag is not None and flag.value != (name == mixed)
    ]


def _named(strategy: Strategy, path: str) -> str:
    origin = strategy.origin(path)
    return path if origin is None else f"{path} ({origin.describe()})"


def _weights(
    strategy: Strategy, able: _Abilities, mixed: MixedPrecision
) -> tuple[Dtype, list[Decision]]:
    """Frozen weights are held in the format of the products; trained ones in fp32, where small
    updates survive.
    """
    asked = strategy.base_model.torch_dtype
    trained = _trains_base_weights(strategy)
    automatic: Dtype = "float32" if trained else _HALF.get(mixed, "float32")
    if asked == "auto":
        reason = "trained weights stay in fp32" if trained else f"the precision is {_SHOWN[mixed]}"
        return automatic, [Decision(TORCH_DTYPE, automatic, "detected", reason)]
    if asked == "float16" and trained:
        refusal = "the loss scaling of fp16 cannot train fp16 weights"
    else:
        name = _FORMAT_OF[asked]
        refusal = "" if name in able.native else able.lacks[name]
    if not refusal:
        return asked, [written(TORCH_DTYPE, asked, strategy.origin(TORCH_DTYPE))]
    text = f"{TORCH_DTYPE} asks for {asked}, and {automatic} is used: {refusal}"
    return automatic, [
        Decision(TORCH_DTYPE, automatic, "detected", refusal),
        Decision(TORCH_DTYPE, automatic, "warning", text),
    ]


def _trains_base_weights(strategy: Strategy) -> bool:
    method = strategy.method
    return method.trains_base or bool(method.modules_to_save) or method.bias != "none"


def _tf32(
    strategy: Strategy, able: _Abilities, mixed: MixedPrecision, flag: _Flag | None
) -> tuple[bool, list[Decision]]:
    """TF32 shortens the mantissa of fp32 products: on by default only where half precision is used
    anyway.
    """
    own = strategy.training_args.tf32
    asked = own if own is not None else flag.value if flag is not None else None
    path = TF32 if own is not None or flag is None else flag.path
    if asked and not able.has_tf32:
        text = f"{path} has no effect: this device has no TF32"
        return False, [Decision(TF32, "false", "warning", text)]
    if asked is not None:
        return asked, [written(TF32, str(asked).lower(), strategy.origin(path))]
    if not able.has_tf32:
        return False, []
    used = mixed != "no"
    reason = "half precision is used anyway" if used else "fp32 products keep all their digits"
    return used, [Decision(TF32, str(used).lower(), "default", reason)]
