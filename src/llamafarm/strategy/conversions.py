"""How a value that is written in another way than the model's becomes the model's.

A conversion takes the node and the canonical path that its row of the key table names, and returns
(canonical path, value) pairs: none when what was written is the default anyway. The model checks
each pair afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from llamafarm.strategy.fields import Schema
from llamafarm.strategy.model import (
    FORMAT_ALIASES,
    DataFormat,
    LogLevel,
    OptimizerName,
    Tracker,
)
from llamafarm.strategy.nodes import MappingNode, Node, ScalarNode
from llamafarm.strategy.shares import AUTO, NAMED_SHARES
from llamafarm.strategy.values import (
    BadValueError,
    coerce,
    did_you_mean,
    expected,
    nearest,
    read_value,
)

Pairs = tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Conversion:
    """schema: JSON Schema of what may be written; takes: the same in words.

    remarks: lines about values that are accepted and set nothing.
    """

    apply: Callable[[Node, str], Pairs]
    schema: Schema = field(default_factory=dict)
    takes: str = ""
    remarks: Mapping[str, str] = field(default_factory=dict)


def one_of(
    choices: Mapping[str, Pairs], *, also: str = "", remarks: Mapping[str, str] | None = None
) -> Conversion:
    """Names in any case, each with what it sets. also: those that messages do not offer."""
    unlisted = frozenset(also.split())
    listed = [name for name in choices if name not in unlisted]
    takes = "one of " + ", ".join(listed)

    def apply(node: Node, _: str) -> Pairs:
        if isinstance(node, ScalarNode) and node.text.lower() in choices:
            return choices[node.text.lower()]
        text = node.text if isinstance(node, ScalarNode) else ""
        close = nearest(text, listed)
        raise BadValueError(takes, node, did_you_mean(close) if close else "")

    written = [*choices, *(int(name) for name in choices if name.isdecimal())]
    return Conversion(apply, {"enum": written}, takes, remarks or {})


def _names(node: Node, path: str, every: tuple[str, ...]) -> Pairs:
    """A list, or one text with commas. every: the words that mean every linear layer."""
    if isinstance(node, ScalarNode) and not node.is_null:
        names = tuple(part.strip() for part in node.text.split(",") if part.strip())
    else:
        value = read_value(path, node)
        names = value if isinstance(value, tuple) else ()
    if len(names) == 1 and names[0] in every:
        return ((path, ALL_LINEAR),)
    wrong = [name for name in names if not name.replace(".", "").replace("_", "").isalnum()]
    if wrong or not names:
        raise BadValueError(MODULE_NAMES.takes, node, "name each module, as in [q_proj, v_proj]")
    return ((path, names),)


def _number(node: Node, what: str, minimum: float, below: float) -> float:
    try:
        value = coerce({"type": "number"}, node)
    except ValueError:
        raise BadValueError(what, node) from None
    if not isinstance(value, (int, float)) or not minimum <= value < below:
        raise BadValueError(what, node)
    return float(value)


def _percent(node: Node, path: str) -> Pairs:
    """10, `10%`, a fraction below one as it is, or a word of the seed's table."""
    is_percentage = False
    if isinstance(node, ScalarNode) and isinstance(node.value, str):
        word = node.text.strip().lower()
        if word == AUTO or word in NAMED_SHARES:
            return ((path, NAMED_SHARES.get(word, word)),)
        is_percentage = word.endswith("%")
        if is_percentage:
            node = ScalarNode(word[:-1], node.line, quoted=False)
    value = _number(node, PERCENT.takes, 1e-9, 100)
    is_share = value < 1 and not is_percentage
    return ((path, value if is_share else round(value / 100, 12)),)


def _ratio(node: Node, path: str) -> Pairs:
    return ((path, _number(node, "a number >= 0 and < 1", 0, 1)),)


def _eval_split(node: Node, path: str) -> Pairs:
    """A fraction in (0, 1), `10%`, or the name of a Hub split."""
    if not isinstance(node, ScalarNode) or isinstance(node.value, bool) or node.is_null:
        raise BadValueError(EVAL_SPLIT.takes, node)
    percent = node.text.strip().endswith("%")
    try:
        number = float(node.text.strip().removesuffix("%"))
    except ValueError:
        return ((path, node.text),)
    share = round(number / 100, 12) if percent else number
    if not 0 < share < 1:
        hint = f"{number:g} percent is `{number / 100:g}`" if 1 <= number < 100 else ""
        raise BadValueError(EVAL_SPLIT.takes, node, hint)
    return ((path, share),)


def _train_split(node: Node, path: str) -> Pairs:
    """The name of a Hub split; a number is the share of rows to train on."""
    if isinstance(node, ScalarNode) and isinstance(node.value, (int, float)):
        share = _number(node, TRAIN_SPLIT.takes, 1e-9, 1)
        return (("dataset.eval_split", round(1 - share, 12)),)
    return ((path, read_value(path, node)),)


def _lower(node: Node, path: str) -> Pairs:
    if isinstance(node, ScalarNode):
        node = ScalarNode(node.text.lower(), node.line, quoted=True)
    return ((path, read_value(path, node)),)


def _trackers(node: Node, path: str) -> Pairs:
    """`none` on its own is the empty list."""
    value = read_value(path, node)
    return ((path, () if value == ("none",) else value),)


def _model_name(node: Node, path: str) -> Pairs:
    """The short names of the llamafactory wrapper stand for Hub ids; `custom` for another key."""
    value = read_value(path, node)
    if value == "custom":
        return ()
    return ((path, MODEL_IDS.get(str(value), value)),)


def _switch(on: Pairs, off: Pairs = ()) -> Callable[[Node, str], Pairs]:
    def apply(node: Node, _: str) -> Pairs:
        return on if _truth(node) else off

    return apply


def _truth(node: Node) -> bool:
    try:
        return bool(coerce(_BOOLEAN, node))
    except ValueError:
        raise BadValueError(expected(_BOOLEAN), node) from None


def _remote_code(node: Node, _: str) -> Pairs:
    if _truth(node):
        raise BadValueError(
            "false: a model's own code is never run",
            node,
            "use a model whose architecture transformers supports",
        )
    return ()


def _profile(node: Node, path: str) -> Pairs:
    """`mobile: q4_0`, or `mobile: {method: q4_0, description: …}`."""
    if isinstance(node, MappingNode):
        method = node.get("method")
        unknown = [key for key in node.keys() if key not in ("method", "description")]  # noqa: SIM118
        if method is None or unknown:
            raise BadValueError(PROFILE.takes, node)
        node = method.value
    return _lower(node, path)


def _flash_attention(node: Node, path: str) -> Pairs:
    """true is LLaMA-Factory's fa2, false its sdpa; a name stays."""
    if isinstance(node, ScalarNode) and isinstance(node.value, bool):
        return ((path, "fa2" if node.value else "sdpa"),)
    if not isinstance(node, ScalarNode) or node.is_null:
        raise BadValueError(FLASH_ATTENTION.takes, node)
    return ((path, node.text),)


_BOOLEAN: Schema = {"type": "boolean"}
_FRACTION: Schema = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
_TRACKER: Schema = {"enum": list(get_args(Tracker))}
_TEXTS: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

MODEL_IDS: Mapping[str, str] = {
    "llama3.2-3b": "meta-llama/Llama-3.2-3B-Instruct",
    "llama3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "llama3.1-70b": "meta-llama/Llama-3.1-70B-Instruct",
    "mistral-7b": "mistralai/Mistral-7B-Instruct-v0.3",
    "codellama-13b": "codellama/CodeLlama-13b-Instruct-hf",
}

ALL_LINEAR = ("all-linear",)
MODULE_NAMES = Conversion(
    lambda node, path: _names(node, path, ("all-linear",)),
    _TEXTS,
    "a list of module names, or all-linear",
)
LORA_TARGET = Conversion(
    lambda node, path: _names(node, path, ("all", "all-linear")),
    _TEXTS,
    "module names, or all",
)
METHOD_TYPE = one_of(
    {
        "lora": (("method.type", "lora"),),
        "qlora": (("method.type", "qlora"),),
        "full_finetune": (("method.type", "full_finetune"),),
        "dora": (("method.type", "lora"), ("method.use_dora", True)),
        "rslora": (("method.type", "lora"), ("method.use_rslora", True)),
        "freeze": (("method.type", "freeze"),),
        "full": (("method.type", "full_finetune"),),
    },
    also="full",
)
FULL_FINETUNING = Conversion(
    _switch((("method.type", "full_finetune"),)), _BOOLEAN, "true or false"
)
EARLY_STOPPING = Conversion(
    _switch((), (("training_args.early_stopping_patience", 0),)), _BOOLEAN, "true or false"
)
QUANTIZATION_BIT = one_of(
    {
        "4": (("method.quantization.load_in_4bit", True),),
        "8": (("method.quantization.load_in_8bit", True),),
    }
)
PERCENT = Conversion(
    _percent,
    {
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100},
            {"type": "string"},
        ]
    },
    "a percentage, or one of auto, robust, research",
)
RATIO = Conversion(_ratio, _FRACTION, "a number >= 0 and < 1")
EVAL_SPLIT = Conversion(
    _eval_split,
    {
        "anyOf": [
            {"type": "string"},
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        ]
    },
    "a fraction above 0 and below 1, auto, or the name of a Hub split",
)
TRAIN_SPLIT = Conversion(
    _train_split,
    {
        "anyOf": [
            {"type": "string"},
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        ]
    },
    "the name of a Hub split, or a fraction above 0 and below 1",
)
LOWER = Conversion(_lower, {"type": "string"}, "text")
_LEVELS: tuple[str, ...] = get_args(LogLevel)
LOG_LEVEL = Conversion(
    _lower,
    {"enum": [*_LEVELS, *(level.upper() for level in _LEVELS)]},
    "one of " + ", ".join(_LEVELS),
)
TRACKERS = Conversion(
    _trackers,
    {"anyOf": [_TRACKER, {"type": "array", "items": _TRACKER}]},
    f"a list of {', '.join(get_args(Tracker))}",
)
MODEL_NAME = Conversion(_model_name, {"type": "string"}, "a model, or one of its short names")
REMOTE_CODE = Conversion(_remote_code, {"enum": [False]}, "false")
PROFILE = Conversion(
    _profile,
    {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"method": {"type": "string"}, "description": {"type": "string"}},
                "required": ["method"],
                "additionalProperties": False,
            },
        ]
    },
    "a GGUF type, or a mapping with `method`",
)
FLASH_ATTENTION = Conversion(
    _flash_attention,
    {"anyOf": [_BOOLEAN, {"type": "string"}]},
    "true, false, or LLaMA-Factory's name of a kernel",
)
EXPORT_FORMAT = one_of(
    {
        "ollama": (("export.to_ollama", True),),
        "gguf": (("export.to_gguf", True),),
        "pytorch": (),
        "safetensors": (),
    },
    remarks=dict.fromkeys(
        ("pytorch", "safetensors"), "final_model is in safetensors after every run"
    ),
)
OPTIMIZER = one_of(
    {
        **{name: (("training_args.optim", name),) for name in get_args(OptimizerName)},
        "adamw": (("training_args.optim", "adamw_torch"),),
        "adamw_bnb_8bit": (("training_args.optim", "adamw_8bit"),),
    },
    also="adamw adamw_bnb_8bit",
)
_FILE_TYPES = ("jsonl", "json", "csv", "parquet")
DATA_FORMAT = one_of(
    {
        **{name: (("dataset.format", name),) for name in get_args(DataFormat)},
        **{alias: (("dataset.format", name),) for alias, name in FORMAT_ALIASES.items()},
        **dict.fromkeys(_FILE_TYPES, ()),
    },
    also=" ".join((*FORMAT_ALIASES, *_FILE_TYPES)),
    remarks=dict.fromkeys(
        _FILE_TYPES,
        "a file's type is read from its name; `format` is the shape of the rows, recognised by "
        "their keys when left out",
    ),
)
CONVERSATION_TEMPLATE = one_of(
    {
        "alpaca": (("dataset.format", "alpaca"),),
        "sharegpt": (("dataset.format", "sharegpt"),),
        "openai": (("dataset.format", "messages"),),
        "custom": (),
    },
    remarks={"custom": "the shape of the rows is recognised by their keys"},
)
