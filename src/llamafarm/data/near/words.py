"""Texts to word hashes, a block of characters at a time, in numpy.

A word is a run of letters, digits and underscores after NFKC and case folding; a combining mark
belongs to the word before it. In scripts that are written without spaces (Chinese characters, kana,
Thai, Lao, Khmer, Burmese) every character is a word. Hashes are the same in every process.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from llamafarm.data.near.arrays import HALF, Counts, Hashes, Mask, Rows
from llamafarm.data.unicode_form import normalised

_Kinds = npt.NDArray[np.uint8]

_BLOCK_CHARACTERS = 1 << 15
_OTHER, _LETTER, _ALONE, _MARK = range(4)
# Characters from here on are of no script.
_KNOWN_CHARACTERS = 0x40000
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # ideographic marks
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)
_BASE = 0x9E3779B97F4A7C15
_ODD = np.uint64(0xD6E8FEB86659FD93)


def plain_form(text: str) -> str:
    """The text as it is compared: NFKC, without case."""
    return normalised("NFKC", text).casefold()


def word_hashes(texts: Sequence[str]) -> tuple[Hashes, Counts]:
    """64-bit hashes of the words of all texts, one text after another, and the words of each.

    texts: in plain form. Equal words have equal hashes wherever they stand. A run of more than
    32,768 characters without a space is cut into several words.
    """
    hashes: list[Hashes] = []
    counts = np.zeros(len(texts), dtype=np.int64)
    for pieces, owners in _blocks(texts):
        found, of_each = _block_hashes(pieces)
        hashes.append(found)
        np.add.at(counts, owners, of_each)
    return np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64), counts


def _blocks(texts: Sequence[str]) -> Iterator[tuple[list[str], list[int]]]:
    """Pieces of texts, a block's worth at a time, each with the number of its text."""
    pieces: list[str] = []
    owners: list[int] = []
    held = 0
    for owner, text in enumerate(texts):
        for piece in _pieces(text):
            if held + len(piece) > _BLOCK_CHARACTERS:
                yield pieces, owners
                pieces, owners, held = [], [], 0
            pieces.append(piece)
            owners.append(owner)
            held += len(piece)
    if pieces:
        yield pieces, owners


def _pieces(text: str) -> Iterator[str]:
    """A long text, cut at spaces."""
    begin = 0
    while len(text) - begin > _BLOCK_CHARACTERS:
        end = text.rfind(" ", begin + 1, begin + _BLOCK_CHARACTERS)
        end = end if end > begin else begin + _BLOCK_CHARACTERS
        yield text[begin:end]
        begin = end
    if begin < len(text):
        yield text[begin:]


def _block_hashes(pieces: Sequence[str]) -> tuple[Hashes, Counts]:
    """As word_hashes, of pieces that fit into one block.

    With c(i) the mixed code of the character at i, a word from s to e has the polynomial
    sum of c(i) * BASE^(i - s), here as BASE^-s * sum of c(i) * BASE^i modulo 2^64.
    """
    data = "".join(pieces).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(data, dtype=np.uint32)
    lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
    begins = np.cumsum(lengths) - lengths
    inside, starts = _words(codes, begins)
    if not len(starts):
        return np.empty(0, dtype=np.uint64), np.zeros(len(pieces), dtype=np.int64)
    powers, inverse_powers = _powers()
    values = codes.astype(np.uint64)
    values *= _ODD
    values ^= values >> HALF
    values *= inside
    values *= powers[: len(values)]
    hashes = np.add.reduceat(values, starts)
    hashes *= inverse_powers[starts]
    before = np.searchsorted(starts, begins)
    return mixed(hashes), np.diff(before, append=len(starts))


def _words(codes: npt.NDArray[np.uint32], begins: Counts) -> tuple[Mask, Rows]:
    """Which characters are in a word, and where words start. begins: of the pieces, none empty."""
    kinds = _kinds()[np.minimum(codes, _KNOWN_CHARACTERS)]
    first = np.zeros(len(codes), dtype=np.bool_)
    first[begins] = True
    marks = kinds == _MARK
    if marks.any():
        kinds = _with_marks(kinds, marks, first)
    inside = kinds != _OTHER
    starts = inside.copy()
    # A word goes on where both this character and the one before it are letters, or this a mark.
    goes_on = (kinds[1:] == _LETTER) & (kinds[:-1] == _LETTER)
    goes_on |= marks[1:] & inside[:-1]
    starts[1:] &= ~goes_on | first[1:]
    return inside, np.flatnonzero(starts)


def _with_marks(kinds: _Kinds, marks: Mask, first: Mask) -> _Kinds:
    """Marks as what they stand behind: a mark at the start of a piece, or behind a character that
    is in no word, is in none.
    """
    kinds = np.where(marks & first, np.uint8(_OTHER), kinds)
    bearer = np.where(kinds == _MARK, 0, np.arange(len(kinds)))
    return kinds[np.maximum.accumulate(bearer)]


def mixed(hashes: Hashes) -> Hashes:
    """Every bit depends on every bit: a bijection of 64-bit numbers."""
    hashes = hashes ^ (hashes >> HALF)
    hashes *= _ODD
    hashes ^= hashes >> HALF
    hashes *= _ODD
    hashes ^= hashes >> HALF
    return hashes


@cache
def _kinds() -> _Kinds:
    """Kind of each character by its number; one entry more for all that are beyond."""
    kinds = np.zeros(_KNOWN_CHARACTERS + 1, dtype=np.uint8)
    for code in range(_KNOWN_CHARACTERS):
        character = chr(code)
        if character.isalnum() or character == "_":
            kinds[code] = _LETTER
        elif unicodedata.category(character).startswith("M"):
            kinds[code] = _MARK
    for begin, end in _WITHOUT_SPACES:
        part = kinds[begin : end + 1]
        part[part == _LETTER] = _ALONE
    return kinds


@cache
def _powers() -> tuple[Hashes, Hashes]:
    """BASE^i and BASE^-i modulo 2^64 for every place i of a block."""
    count = _BLOCK_CHARACTERS
    base, inverse = np.uint64(_BASE), np.uint64(pow(_BASE, -1, 1 << 64))
    return (
        np.multiply.accumulate(np.full(count, base)),
        np.multiply.accumulate(np.full(count, inverse)),
    )
