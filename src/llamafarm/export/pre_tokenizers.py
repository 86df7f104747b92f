"""How a tokenizer splits text before it merges, and llama.cpp's name for it.

A GGUF file holds no regexes: it names one of the splits that are compiled into llama.cpp
(src/llama-vocab.cpp, `llm_tokenizer_bpe`). The names are found here by what tokenizer.json says,
never by what a model is called. Where several of llama.cpp's names stand for the same split, the
one that leaves decoded text as it is was taken.

llama.cpp normalises nothing. NFC, which some families ask for, is accepted because text is nearly
always in NFC already; text that is not becomes other tokens there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llamafarm.errors import ModelError, Problem
from llamafarm.export.tokenizer_files import merges_of

SPACE = "▁"

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CL100K = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
)
_QWEN2 = _CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = (
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
    + _SPACES
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES
_O200K = (
    f"{_WORD}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_WORD}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}" + _SIGNS
)
_TEKKEN = f"{_WORD}{_UPPER}*{_LOWER}+|{_WORD}{_UPPER}+{_LOWER}*" + r"|\p{N}" + _SIGNS
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES
)
# Every character is part of a match: keeping only the matches is the same as splitting at them.
_GAPLESS = frozenset({_CL100K, _QWEN2, _QWEN35, _O200K, _TEKKEN})

_BYTES = "ByteLevel"
_WORDS = "ByteLevel with the regex of GPT-2"
_DIGITS = "Digits, each alone"


@dataclass(frozen=True, slots=True)
class _Split:
    """One of llama.cpp's splits. steps: as `_described` writes them. normalizers: that may come
    before it. ignores_merges: whether llama.cpp takes a whole word that is a token as it is.
    """

    name: str
    steps: tuple[str, ...]
    normalizers: tuple[str, ...] = ("",)
    ignores_merges: bool = False


def _regex(pattern: str) -> str:
    return f"Split at {pattern}"


_EITHER = ("", "NFC")
_SPLITS = (
    _Split("gpt-2", (_WORDS,)),
    _Split("olmo", (_WORDS,), ("NFC",)),
    _Split("smollm", (_DIGITS, _WORDS)),
    _Split("command-r", (_DIGITS, _WORDS), ("NFC",)),
    _Split("llama-bpe", (_regex(_CL100K), _BYTES), ignores_merges=True),
    _Split("dbrx", (_regex(_CL100K), _BYTES)),
    _Split("qwen2", (_regex(_QWEN2), _BYTES), _EITHER),
    _Split("qwen35", (_regex(_QWEN35), _BYTES), _EITHER),
    _Split("gpt-4o", (_regex(_O200K), _BYTES)),
    _Split("tekken", (_regex(_TEKKEN), _BYTES), ignores_merges=True),
    _Split(
        "deepseek-coder",
        (
            _regex(r"[\r\n]"),
            _regex(r"\s?\p{L}+"),
            _regex(r"\s?\p{P}+"),
            _regex("[一-龥ࠀ-一가-퟿]+"),
            _DIGITS,
            _BYTES,
        ),
    ),
    _Split(
        "deepseek-v3",
        (_regex(r"\p{N}{1,3}"), _regex("[一-龥぀-ゟ゠-ヿ]+"), _regex(_DEEPSEEK3), _BYTES),
    ),
)
# What Metaspace does with a text's start, and whether llama.cpp then puts a space in front of every
# text and of what follows a special token. `first` is only about the start of a whole text, which
# in a chat format is a special token.
_METASPACE = {"always": True, "first": False, "never": False}


def steps_of(tokenizer_json: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The steps of a `normalizer` or `pre_tokenizer`; sequences within sequences laid flat."""
    return list(_flattened(tokenizer_json.get(key)))


def recognise(tokenizer_json: Mapping[str, Any]) -> str:
    """llama.cpp's `pre` of a byte-level BPE tokenizer.json.

    Raises ModelError that shows the structure when llama.cpp has no such split.
    """
    steps = tuple(_described(step) for step in steps_of(tokenizer_json, "pre_tokenizer"))
    normalizer = ", ".join(str(step["type"]) for step in steps_of(tokenizer_json, "normalizer"))
    found = [s for s in _SPLITS if s.steps == steps and normalizer in s.normalizers]
    if not found:
        raise _unknown_split(normalizer, steps)
    ignores = bool(tokenizer_json["model"].get("ignore_merges"))
    exact = [split.name for split in found if split.ignores_merges == ignores]
    if exact or _merges_lead_to_every_token(tokenizer_json):
        return exact[0] if exact else found[0].name
    raise ModelError(
        "tokenizer.json has words that its merges do not lead to, and "
        f"{'takes' if ignores else 'does not take'} them whole (ignore_merges); llama.cpp's "
        f"{found[0].name} does the opposite",
        hint="the Hugging Face directory can be deployed as it is",
    )


def is_byte_level(tokenizer_json: Mapping[str, Any]) -> bool:
    """Whether the tokens are bytes, written with GPT-2's stand-ins for them."""
    return any(step["type"] == "ByteLevel" for step in steps_of(tokenizer_json, "pre_tokenizer"))


def prepends_space(tokenizer_json: Mapping[str, Any]) -> bool:
    """Whether a `▁` tokenizer puts a space in front of a text and of what follows special tokens.

    llama.cpp does so for every such piece or for none (`add_space_prefix`). Exact: `Prepend`, and
    no prefix at all. Metaspace `always` adds none where the piece starts with a space already,
    llama.cpp does; `first` adds one at the start of a text that is no special token, llama.cpp
    does not. Raises ModelError when spaces are treated in a way that llama.cpp has not.
    """
    normalizers = steps_of(tokenizer_json, "normalizer")
    pre_tokenizers = steps_of(tokenizer_json, "pre_tokenizer")
    names = [_space_step(step) for step in normalizers]
    replaced = names in (["replace"], ["prepend", "replace"])
    # Gemma splits at spaces, of which its normalizer has left none.
    if replaced and all(step.get("pattern") == {"String": " "} for step in pre_tokenizers):
        return names[0] == "prepend"
    if not normalizers and len(pre_tokenizers) == 1:
        step = pre_tokenizers[0]
        scheme = str(step.get("prepend_scheme", ""))
        keeps_words_together = step.get("split") is False and step.get("replacement") == SPACE
        if step["type"] == "Metaspace" and keeps_words_together and scheme in _METASPACE:
            return _METASPACE[scheme]
    raise ModelError(
        "tokenizer.json treats spaces in a way that llama.cpp does not know",
        [
            Problem(f"{kind}: {_shown(step)}")
            for kind, steps in (("normalizer", normalizers), ("pre_tokenizer", pre_tokenizers))
            for step in steps
        ],
        hint="known are Prepend and Replace (Llama 2), Replace (Gemma), Metaspace with split false",
    )


def _flattened(part: Any) -> Iterator[Mapping[str, Any]]:
    if part is None:
        return
    if not isinstance(part, dict) or "type" not in part:
        raise ModelError(
            f"tokenizer.json has a step without a type: {part}", hint="download the model again"
        )
    if part["type"] != "Sequence":
        yield part
        return
    for inner in part.get("pretokenizers") or part.get("normalizers") or ():
        yield from _flattened(inner)


def _described(step: Mapping[str, Any]) -> str:
    """A step as `_SPLITS` writes it; one that is in no split, as it stands."""
    kind = step["type"]
    pattern = step.get("pattern", {}).get("Regex") if kind == "Split" else None
    if pattern is not None:
        # Some files hold the characters themselves, others their escapes.
        pattern = pattern.replace("\r", r"\r").replace("\n", r"\n")
        behaviour = (step.get("behavior"), bool(step.get("invert")))
        kept_only = behaviour == ("Removed", True) and pattern in _GAPLESS
        if behaviour == ("Isolated", False) or kept_only:
            return _regex(pattern)
    if kind == "Digits" and step.get("individual_digits"):
        return _DIGITS
    if kind == "ByteLevel" and not step.get("add_prefix_space", True):
        return _WORDS if step.get("use_regex", True) else _BYTES
    return _shown(step)


def _shown(step: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key}: {value}" for key, value in step.items() if key != "type")
    return f"{step['type']} ({settings})" if settings else str(step["type"])


def _space_step(step: Mapping[str, Any]) -> str:
    if step["type"] == "Prepend" and step.get("prepend") == SPACE:
        return "prepend"
    if step["type"] == "Replace" and step.get("pattern") == {"String": " "}:
        return "replace" if step.get("content") == SPACE else ""
    return ""


def _merges_lead_to_every_token(tokenizer_json: Mapping[str, Any]) -> bool:
    """Then it makes no difference whether a word that is a token is merged or taken whole."""
    from tokenizers.models import BPE

    model = tokenizer_json["model"]
    added = {token["content"] for token in tokenizer_json.get("added_tokens", ())}
    bpe = BPE(vocab=model["vocab"], merges=list(merges_of(tokenizer_json)))
    return all(len(bpe.tokenize(token)) == 1 for token in model["vocab"].keys() - added)


def _unknown_split(normalizer: str, steps: tuple[str, ...]) -> ModelError:
    problems = [Problem(f"normalizer: {normalizer}")] if normalizer else []
    problems += [Problem(step) for step in steps]
    known = ", ".join(split.name for split in _SPLITS)
    return ModelError(
        "the way this tokenizer splits text is not known to llama.cpp",
        problems,
        hint=f"known are those of {known}; the Hugging Face directory can be deployed as it is",
    )
