"""The files of a fast tokenizer as values, without the libraries that would run it.

tokenizer.json decides how text is split and merged: it is what the model was trained with.
tokenizer_config.json adds flags and roles, the model's configurations add ids of roles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.errors import ModelError
from llamafarm.models.config import read_json

SUPPORTED_TOKENIZERS = (
    "byte-level BPE (e.g. Llama 3, Qwen, SmolLM) and BPE with byte fallback (e.g. Llama 2, "
    "Mistral, Gemma) can be converted"
)
_FLAGS = ("content", "special", "normalized", "single_word", "rstrip")
# Settings of a BPE model that change how it merges.
_UNKNOWN_SETTINGS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is cut out of the text before the rest is split, with tokenizer.json's flags.

    normalized: it is looked for in the text as the normalizer leaves it. single_word: only between
    other words. rstrip: with the white space behind it.
    """

    content: str
    special: bool = False
    normalized: bool = True
    single_word: bool = False
    rstrip: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """A BPE tokenizer. whole: tokenizer.json. ids: by the text of a token, without the added ones
    that stand outside of the vocabulary. merges: in order of rank. added: by id.

    bos_id and so on: None where the tokenizer has no such token.
    """

    directory: Path
    whole: Mapping[str, Any]
    ids: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    added: Mapping[int, AddedToken]
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    pad_id: int | None


def read_tokenizer_files(directory: Path) -> TokenizerFiles:
    """Raises ModelError when tokenizer.json is missing, broken, or not a BPE that is known."""
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise ModelError(
            f"{directory} has no tokenizer.json",
            hint='make one: python -c "import transformers as t; '
            f"t.AutoTokenizer.from_pretrained('{directory}').save_pretrained('{directory}')\"",
        )
    whole = read_json(file)
    config = _read_if_there(directory / "tokenizer_config.json")
    try:
        _check_model(file, whole["model"])
        ids = dict(whole["model"]["vocab"])
        merges = merges_of(whole)
        added = _added_tokens(whole, config)
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise ModelError(
            f"{file} is not a tokenizer's file ({type(fault).__name__}: {fault})",
            hint="download the model again",
        ) from fault
    by_text = ids | {token.content: number for number, token in added.items()}
    bos, eos, unk, pad = (
        _role_id(directory, config, role, by_text) for role in ("bos", "eos", "unk", "pad")
    )
    return TokenizerFiles(directory, whole, ids, merges, added, bos, eos, unk, pad)


def merges_of(tokenizer_json: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Pairs in order of rank. Both forms are read: `"a b"`, and `["a", "b"]` of newer files."""
    return tuple(_pair(merge) for merge in tokenizer_json["model"]["merges"])


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _check_model(file: Path, model: Mapping[str, Any]) -> None:
    kind = model.get("type") or ("BPE" if "merges" in model else "nameless")
    if kind != "BPE":
        raise ModelError(
            f"{file} is a {kind} tokenizer, which is not converted", hint=SUPPORTED_TOKENIZERS
        )
    unknown = [name for name in _UNKNOWN_SETTINGS if model.get(name)]
    if unknown:
        raise ModelError(
            f"{file} uses {' and '.join(unknown)}, which llama.cpp does not know",
            hint=SUPPORTED_TOKENIZERS,
        )


def _added_tokens(whole: Mapping[str, Any], config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """tokenizer_config.json may give a token other flags, as transformers reads it."""
    entries = {int(entry["id"]): entry for entry in whole.get("added_tokens") or ()}
    for number, entry in (config.get("added_tokens_decoder") or {}).items():
        if entries.get(int(number), {}).get("content") == entry["content"]:
            entries[int(number)] = entries[int(number)] | entry
    return {n: AddedToken(**{k: e[k] for k in _FLAGS if k in e}) for n, e in entries.items()}


def _role_id(
    directory: Path, config: Mapping[str, Any], role: str, by_text: Mapping[str, int]
) -> int | None:
    """By the text of the token, or else the id that the model's configuration names."""
    token = config.get(f"{role}_token")
    text = token.get("content") if isinstance(token, dict) else token
    if isinstance(text, str) and text in by_text:
        return by_text[text]
    known = set(by_text.values())
    named = _configured_ids(directory, f"{role}_token_id")
    return next((number for number in named if number in known), None)


def _configured_ids(directory: Path, key: str) -> Iterator[int]:
    model = _read_if_there(directory / "config.json")
    generation = _read_if_there(directory / "generation_config.json")
    for settings in (model, model.get("text_config") or {}, generation):
        value = settings.get(key)
        first = value[0] if isinstance(value, list) and value else value
        if type(first) is int:
            yield first


def _read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
