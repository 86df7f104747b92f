"""A Hugging Face tokenizer as the vocabulary of a GGUF file, such that llama.cpp makes the tokens
of a text that the model was trained with.

Keys of the result: github.com/ggml-org/ggml, docs/gguf.md, `tokenizer.ggml`. tokenizer.model is not
needed (sentencepiece_scores.py).

Where llama.cpp differs whatever the vocabulary says: it does not normalise to NFC; it leaves the
white space beside a special token where tokenizer.json takes it away (`lstrip`, `rstrip`), but in
models that are named Phi-3 (`needs_phi3_name`); of special tokens that overlap it finds the longest
and not the leftmost; and tokens that are spelled like the end of a turn (Qwen's `</s>`) are special
to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llamafarm.errors import ModelError, Problem, count_of
from llamafarm.export.contents import Vocabulary
from llamafarm.export.pre_tokenizers import (
    SPACE,
    is_byte_level,
    prepends_space,
    recognise,
    steps_of,
)
from llamafarm.export.sentencepiece_scores import scores_of_tokens
from llamafarm.export.tokenizer_files import (
    SUPPORTED_TOKENIZERS,
    AddedToken,
    TokenizerFiles,
    read_tokenizer_files,
)

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
# llama.cpp strips the white space behind every special token of Phi-3 but these.
_NOT_STRIPPING_IN_PHI3 = frozenset({"<unk>", "<s>", "<|endoftext|>"})


def read_vocabulary(directory: Path, num_embeddings: int) -> Vocabulary:
    """The vocabulary with one token for each of the num_embeddings rows of the embedding.

    Rows without a token become `[PAD…]`. Added tokens without a row, which the model cannot have
    seen (Gemma 3 has one for images), are left out. Raises ModelError when the tokenizer is of a
    kind that llama.cpp has not, splits or merges in a way that it cannot follow, or has more tokens
    than there are rows.
    """
    tokenizer = read_tokenizer_files(directory)
    beyond = sum(number >= num_embeddings for number in tokenizer.ids.values())
    if beyond:
        raise ModelError(
            f"the tokenizer in {directory} has {count_of(beyond, 'token')} more than the embedding "
            f"of the model, which has {num_embeddings:,} rows",
            hint="it belongs to another model; take the tokenizer that the model came with",
        )
    return _vocabulary(tokenizer, num_embeddings)


def check_vocabulary_supported(directory: Path) -> None:
    """Raises what read_vocabulary would raise, but for what depends on the model's weights."""
    tokenizer = read_tokenizer_files(directory)
    _vocabulary(tokenizer, max([*tokenizer.ids.values(), *tokenizer.added], default=-1) + 1)


def needs_phi3_name(directory: Path) -> bool:
    """Whether the special tokens take away the white space behind them as those of Phi-3 do.

    llama.cpp does this when `general.name` holds `phi-3` or `phi3`, and only then. A model of such
    a name without these tokens would be tokenised wrongly, or not load at all.
    """
    added = {t.content: t.rstrip for t in read_tokenizer_files(directory).added.values()}
    return {"</s>", *_NOT_STRIPPING_IN_PHI3} <= added.keys() and all(
        stripping != (text in _NOT_STRIPPING_IN_PHI3) for text, stripping in added.items()
    )


def _vocabulary(tokenizer: TokenizerFiles, size: int) -> Vocabulary:
    _check_added_tokens(tokenizer)
    if is_byte_level(tokenizer.whole):
        vocabulary = _byte_level(tokenizer, size)
    elif tokenizer.whole["model"].get("byte_fallback"):
        vocabulary = _with_byte_fallback(tokenizer, size)
    else:
        raise ModelError(
            f"the tokenizer in {tokenizer.directory} knows no bytes, so it loses text that its "
            "vocabulary does not cover; llama.cpp has no such tokenizer",
            hint=SUPPORTED_TOKENIZERS,
        )
    return replace(
        vocabulary,
        bos_id=_below(tokenizer.bos_id, size),
        eos_id=_below(tokenizer.eos_id, size),
        unk_id=_below(tokenizer.unk_id, size),
        pad_id=_below(tokenizer.pad_id, size),
    )


def _byte_level(tokenizer: TokenizerFiles, size: int) -> Vocabulary:
    rows = {number: (text, _NORMAL) for text, number in tokenizer.ids.items()}
    for number, token in tokenizer.added.items():
        rows[number] = (token.content, _CONTROL if token.special else _USER_DEFINED)
    tokens, types = _filled(tokenizer, rows, size)
    return Vocabulary(
        model="gpt2",
        pre=recognise(tokenizer.whole),
        tokens=tokens,
        token_types=types,
        # llama.cpp parts a merge at its space; one in a piece is written as GPT-2 writes it.
        merges=tuple(" ".join(p.replace(" ", "Ġ") for p in pair) for pair in tokenizer.merges),
    )


def _with_byte_fallback(tokenizer: TokenizerFiles, size: int) -> Vocabulary:
    _check_bytes(tokenizer)
    prefix = prepends_space(tokenizer.whole)
    added = {token.content for token in tokenizer.added.values()}
    scores = scores_of_tokens(tokenizer.ids, tokenizer.merges, added)
    rows = {number: (text, _piece_type(text)) for text, number in tokenizer.ids.items()}
    for number, token in tokenizer.added.items():
        rows[number] = _added_piece(token, is_merged=token.content in scores)
    unknown = tokenizer.unk_id
    if unknown is not None and unknown not in (tokenizer.bos_id, tokenizer.eos_id):
        rows[unknown] = (rows[unknown][0], _UNKNOWN)
    tokens, types = _filled(tokenizer, rows, size)
    lowest = -float(len(scores))
    return Vocabulary(
        model="llama",
        pre="default",
        tokens=tokens,
        token_types=types,
        scores=tuple(scores.get(token, lowest) for token in tokens),
        add_space_prefix=prefix,
    )


def _piece_type(text: str) -> int:
    return _BYTE if _BYTE_TOKEN.fullmatch(text) else _NORMAL


def _added_piece(token: AddedToken, *, is_merged: bool) -> tuple[str, int]:
    """Text and type. llama.cpp looks for added tokens before it writes spaces as `▁`.

    A run of `▁` that is looked for as it stands (Gemma's) comes from spaces by merging, as a normal
    token does.
    """
    if token.special:
        return token.content, _CONTROL
    if token.normalized:
        return token.content.replace(SPACE, " "), _USER_DEFINED
    return token.content, _NORMAL if is_merged and SPACE in token.content else _USER_DEFINED


def _filled(
    tokenizer: TokenizerFiles, rows: Mapping[int, tuple[str, int]], size: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Tokens and types, one for each id below size. llama.cpp stops where two have one text."""
    filled = [rows.get(number, (f"[PAD{number}]", _UNUSED)) for number in range(size)]
    tokens = tuple(text for text, _ in filled)
    twice = [text for text, count in Counter(tokens).items() if count > 1]
    if twice:
        raise ModelError(
            f"two tokens of the tokenizer in {tokenizer.directory} would have the same text in "
            f"llama.cpp: {', '.join(map(repr, twice))}",
            hint="take out the one that was added to the tokenizer",
        )
    return tokens, tuple(kind for _, kind in filled)


def _below(number: int | None, size: int) -> int | None:
    return number if number is not None and number < size else None


def _check_added_tokens(tokenizer: TokenizerFiles) -> None:
    """Refuse added tokens that llama.cpp would find where tokenizer.json does not."""
    prepends = any(step["type"] == "Prepend" for step in steps_of(tokenizer.whole, "normalizer"))
    problems = [
        Problem(reason, path=token.content)
        for token in tokenizer.added.values()
        for reason, applies in (
            ("found only as a word of its own (single_word)", token.single_word),
            ("found only behind a space (normalized)", prepends and token.normalized),
        )
        if applies
    ]
    if problems:
        raise ModelError(
            f"the tokenizer in {tokenizer.directory} has added tokens that llama.cpp would find in "
            "more places",
            problems,
            hint="add them as AddedToken(…, normalized=False, single_word=False), then train",
        )


def _check_bytes(tokenizer: TokenizerFiles) -> None:
    """llama.cpp stops at a byte that it has no token for."""
    ids = tokenizer.ids
    missing = [
        f"<0x{byte:02X}>"
        for byte in range(256)
        if f"<0x{byte:02X}>" not in ids and not (byte < 128 and chr(byte) in ids)
    ]
    if missing:
        raise ModelError(
            f"the tokenizer in {tokenizer.directory} lacks {count_of(len(missing), 'byte')}, the "
            f"first is {missing[0]}",
            hint=SUPPORTED_TOKENIZERS,
        )
