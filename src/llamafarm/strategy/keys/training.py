"""Rows of `config.training_args`, and of the same keys under `training` and without a block."""

from __future__ import annotations

from collections.abc import Iterator

from llamafarm.strategy.conversions import EARLY_STOPPING, RATIO, Conversion
from llamafarm.strategy.fields import Schema
from llamafarm.strategy.keys.row import ASKED, Key, alias, notice, own, under
from llamafarm.strategy.nodes import Node
from llamafarm.strategy.values import BadValueError, coerce

_BOOLEAN: Schema = {"type": "boolean"}


def _flag(node: Node, path: str) -> tuple[tuple[str, object], ...]:
    try:
        return ((path, coerce(_BOOLEAN, node)),)
    except ValueError:
        raise BadValueError("true or false", node) from None


_FLAG = Conversion(_flag, _BOOLEAN, "true or false")
_TRACKED = "tokens and tokens per second are always recorded"
_BACKEND = "torch has one backend for mixed precision"
_GENERATION = (
    "generation settings have no part in training; under `export` they go into the Modelfile"
)
GENERATION_KEYS = (
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "num_beams",
)

_ALIASES: tuple[Key, ...] = (
    alias("evaluation_strategy", "training_args.eval_strategy"),
    alias("warmup_ratio", "training_args.warmup_steps", RATIO),
    alias("max_length", "training_args.max_seq_length"),
    alias("cutoff_len", "training_args.max_seq_length"),
    alias("sequence_len", "training_args.max_seq_length"),
    alias("num_epochs", "training_args.num_train_epochs"),
    alias("epochs", "training_args.num_train_epochs"),
    alias("batch_size", "training_args.per_device_train_batch_size"),
    alias("eval_batch_size", "training_args.per_device_eval_batch_size"),
    alias("optimizer", "training_args.optim"),
    alias("lr_scheduler", "training_args.lr_scheduler_type"),
    alias("scheduler", "training_args.lr_scheduler_type"),
    alias("data_seed", "training_args.seed"),
    alias("early_stopping", "training_args.early_stopping_patience", EARLY_STOPPING),
    alias("fp16", ASKED + "fp16", _FLAG),
    alias("bf16", ASKED + "bf16", _FLAG),
    alias("eval_split", "dataset.eval_split"),
)
_NOTICES: tuple[Key, ...] = (
    notice("fp16_backend", _BACKEND),
    notice("half_precision_backend", _BACKEND),
    notice("remove_unused_columns", "only the tokens of a row reach the model"),
    notice("eval_accumulation_steps", "evaluation keeps sums, never logits"),
    notice("overwrite_output_dir", "only the flag --overwrite replaces an existing run"),
    notice("save_safetensors", "weights are always written as safetensors"),
    notice("logging_dir", "TensorBoard's files go to logs/ in the run directory"),
    notice("logging_strategy", "logging goes by logging_steps"),
    notice("include_tokens_per_second", _TRACKED),
    notice("include_num_input_tokens_seen", _TRACKED),
    notice("dataloader_pin_memory", "a batch is one row of tokens, too small to gain from it"),
    notice("group_by_length", "rows carry no padding, so there is nothing to gain from it"),
    notice("hub_token", "the token comes from HF_TOKEN, never from a file"),
    notice("hub_strategy", "an upload happens once, after training"),
    notice("hub_always_push", "an upload happens once, after training"),
    *(notice(name, _GENERATION, "generation") for name in GENERATION_KEYS),
)
# `max_length` is a generation setting where others stand beside it: this row precedes its alias.
_GENERATED_LENGTH = Key(
    "max_length",
    status="notice",
    text=_GENERATION,
    group="generation",
    beside=frozenset(GENERATION_KEYS),
)


def training_rows(place: str) -> Iterator[Key]:
    """All rows of one place: `training_args.`, `training.`, or an empty one for the flat form."""
    return under(place, (_GENERATED_LENGTH, *own("training_args.", ""), *_ALIASES, *_NOTICES))


def native_rows() -> Iterator[Key]:
    """The same for `native.`, where a key without a canonical place is passed on as it is."""
    return under("native.", (*own("training_args.", ""), *_ALIASES))
