"""Texts to token ids, each token with the place where it ends.

A byte-level tokenizer loses nothing: the bytes of its tokens, put together, are the text. Places
are then sums of lengths, which is cheaper than to have the tokenizer keep track of them. That it is
so is checked for every text; where it is not, the tokenizer's own offsets tell the places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Spaces, digits, letters of one to four bytes, line ends: what other kinds of tokenizers change. (A
# letter with a separate accent is not among them: those that join the two lose nothing else.)
_PROBE = " a  b\tC 12\n\n\u00fc\u4e16 \U0001f912 x\n"
# A byte that UTF-8 does not have.
_NO_TEXT = b"\xff"


@dataclass(frozen=True, slots=True)
class TextTokens:
    """Tokens of one text. ids and array hold the same: a list is quicker to look into.

    ends: int [tokens], how many characters of the text each token and those before it cover; a
    character of several tokens is covered by the first of them.
    """

    ids: list[int]
    array: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]


class TextTokenizer:
    """A fast tokenizer that adds no special tokens: whoever wrote the texts has written them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pieces = _Pieces(tokenizer)
        self._loses_nothing = self._gives_back(_PROBE)

    def encode(self, texts: Sequence[str]) -> list[TextTokens]:
        """Ids and places of every text."""
        if not self._loses_nothing:
            return self._with_offsets(texts)
        pairs = zip(self._fast_ids(texts), texts, strict=True)
        found = [self._with_lengths(ids, text) for ids, text in pairs]
        missing = [i for i, tokens in enumerate(found) if tokens is None]
        rest = iter(self._with_offsets([texts[i] for i in missing]) if missing else ())
        return [tokens or next(rest) for tokens in found]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids alone."""
        if self._loses_nothing:
            return self._fast_ids(texts)
        found: list[list[int]] = self._call(texts)["input_ids"] if texts else []
        return found

    def _gives_back(self, text: str) -> bool:
        ids = self._fast_ids([text])[0]
        same = ids == self._call([text])["input_ids"][0]
        return same and self._with_lengths(ids, text) is not None

    def _call(self, texts: Sequence[str], **options: bool) -> Any:
        return self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )

    def _fast_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Without offsets. The library keeps a limit that another caller has set: take it away."""
        core = self._tokenizer.backend_tokenizer
        if core.truncation is not None:
            core.no_truncation()
        if core.padding is not None:
            core.no_padding()
        if core.encode_special_tokens:
            core.encode_special_tokens = False
        found = core.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def _with_lengths(self, ids: list[int], text: str) -> TextTokens | None:
        raw = text.encode()
        if b"".join(map(self._pieces.__getitem__, ids)) != raw:
            return None
        array = np.array(ids, dtype=np.int32)
        ends = self._pieces.lengths.take(array).cumsum()
        return TextTokens(ids, array, ends if len(raw) == len(text) else _characters(raw, ends))

    def _with_offsets(self, texts: Sequence[str]) -> list[TextTokens]:
        encoded = self._call(texts, return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [TextTokens(ids, np.array(ids, np.int32), _ends(offsets)) for ids, offsets in pairs]


def _ends(offsets: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """The end of a token may have been trimmed of a space: it never lies before an earlier one."""
    ends = np.fromiter((end for _, end in offsets), np.int64, len(offsets))
    return np.maximum.accumulate(ends)


def _characters(raw: bytes, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many characters begin before each of these places in UTF-8 text."""
    begins = (np.frombuffer(raw, np.uint8) & 0xC0) != 0x80
    return np.concatenate([[0], np.cumsum(begins)])[ends]


class _Pieces(dict[int, bytes]):
    """The bytes of each token of a byte-level vocabulary, as they are asked for; a token of another
    kind is no part of any text.

    lengths: int [ids], of those that were asked for.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        added = tokenizer.added_tokens_decoder
        self.lengths = np.zeros(max([len(tokenizer), *(i + 1 for i in added)]), np.int64)
        self._token_of = tokenizer.convert_ids_to_tokens
        self._bytes = _byte_of_letter()
        for token_id, token in added.items():
            self._add(token_id, token.content.encode())

    def __missing__(self, token_id: int) -> bytes:
        letters = self._token_of(token_id)
        if token_id >= len(self.lengths) or not self._bytes.keys() >= set(letters):
            return _NO_TEXT
        return self._add(token_id, bytes(self._bytes[letter] for letter in letters))

    def _add(self, token_id: int, piece: bytes) -> bytes:
        self.lengths[token_id] = len(piece)
        self[token_id] = piece
        return piece


def _byte_of_letter() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes with: printable ones of Latin-1 stand
    for themselves, the others, in order, for those from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + i): byte for i, byte in enumerate(others)}
