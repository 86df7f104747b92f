"""What a text is made of: its script, by the Unicode blocks of its letters, its digits, and whether
any character in it asks for a closer look.

One pass over the text, because this is done for every row; what it finds saves all other passes
over nearly every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

# First and last code point of the blocks that hold a script's letters (Unicode 16, plane 0).
_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "Latin": (
        (0x41, 0x5A),
        (0x61, 0x7A),
        (0xC0, 0xD6),
        (0xD8, 0xF6),
        (0xF8, 0x24F),
        (0x1E00, 0x1EFF),
        (0xFF21, 0xFF3A),
        (0xFF41, 0xFF5A),
    ),
    "Greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "Armenian": ((0x531, 0x587),),
    "Hebrew": ((0x591, 0x5F4), (0xFB1D, 0xFB4F)),
    "Arabic": ((0x610, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "Devanagari": ((0x900, 0x97F), (0xA8E0, 0xA8FF)),
    "Bengali": ((0x980, 0x9FF),),
    "Gurmukhi": ((0xA00, 0xA7F),),
    "Gujarati": ((0xA80, 0xAFF),),
    "Odia": ((0xB00, 0xB7F),),
    "Tamil": ((0xB80, 0xBFF),),
    "Telugu": ((0xC00, 0xC7F),),
    "Kannada": ((0xC80, 0xCFF),),
    "Malayalam": ((0xD00, 0xD7F),),
    "Sinhala": ((0xD80, 0xDFF),),
    "Thai": ((0xE00, 0xE7F),),
    "Lao": ((0xE80, 0xEFF),),
    "Tibetan": ((0xF00, 0xFFF),),
    "Myanmar": ((0x1000, 0x109F),),
    "Georgian": ((0x10A0, 0x10FF), (0x1C90, 0x1CBF), (0x2D00, 0x2D2F)),
    "Hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)),
    "Ethiopic": ((0x1200, 0x139F), (0x2D80, 0x2DDF)),
    "Khmer": ((0x1780, 0x17FF),),
    "Mongolian": ((0x1800, 0x18AF),),
    "Japanese": ((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D)),
    "Han": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),
}
_NAMES = tuple(_BLOCKS)
_JAPANESE, _HAN = _NAMES.index("Japanese"), _NAMES.index("Han")
_KINDS = len(_NAMES)
# The numbers in the table below: scripts, then these.
_OTHER, _DIGIT, _SUSPECT, _UNSEEN = _KINDS, _KINDS + 1, _KINDS + 2, _KINDS + 3
# Second and later bytes of UTF-8 as Windows-1252 and Latin-1 show them.
CONTINUATION = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
# Controls, invisible characters, halves of characters (also of those beyond plane 0), U+FFFD.
_UNSEEN_RANGES = (
    *((0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD)),
    *((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0xFEFF, 0xFEFF), (0xFFFD, 0xFFFD)),
    (0xD800, 0xDFFF),
)

_NOT_LETTERS = bytes(b for b in range(256) if not chr(b).isascii() or not chr(b).isalpha())
_NOT_DIGITS_OR_CONTROLS = bytes(
    b for b in range(256) if (32 <= b != 127 and not 48 <= b <= 57) or b in b"\t\n\r"
)
# A text needs so many bytes of letters in UTF-8 before its script means anything.
_MIN_BYTES = 20
_KANA_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Makeup:
    """script: that of most letters, empty where letters are few; digits: 0 to 9.

    suspect: a character that wrong encodings make, and good writers use; unseen: one that should
    be in no text.
    """

    script: str
    digits: int
    suspect: bool
    unseen: bool


def makeup(text: str) -> Makeup:
    """What a text is made of. Kana among Han letters make it Japanese."""
    if text.isascii():
        return _ascii_makeup(text.encode())
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    counts = np.bincount(_table().take(units), minlength=_UNSEEN + 1).tolist()
    return Makeup(
        _main_script(counts[:_KINDS]), counts[_DIGIT], counts[_SUSPECT] > 0, counts[_UNSEEN] > 0
    )


def _ascii_makeup(text: bytes) -> Makeup:
    kept = text.translate(None, _NOT_DIGITS_OR_CONTROLS)
    unseen = bool(kept) and not kept.isdigit()
    digits = len(kept) if not unseen else sum(kept.count(b"%d" % digit) for digit in range(10))
    latin = len(text.translate(None, _NOT_LETTERS)) >= _MIN_BYTES
    return Makeup("Latin" if latin else "", digits, False, unseen)


def _main_script(counts: list[int]) -> str:
    if counts[_JAPANESE] > _KANA_SHARE * counts[_HAN]:
        counts[_JAPANESE] += counts[_HAN]
        counts[_HAN] = 0
    letters = max(counts)
    script = _NAMES[counts.index(letters)]
    return script if letters * _bytes_a_letter(script) >= _MIN_BYTES else ""


def _bytes_a_letter(script: str) -> int:
    """In UTF-8: a letter of more bytes says more."""
    first = _BLOCKS[script][0][0]
    return 1 if first < 0x80 else 2 if first < 0x800 else 3


@cache
def _table() -> npt.NDArray[np.uint8]:
    """For each UTF-16 unit, what it is: the number of a script, or one of the kinds after them."""
    table = np.full(0x10000, _OTHER, dtype=np.uint8)
    for number, blocks in enumerate(_BLOCKS.values()):
        for first, last in blocks:
            table[first : last + 1] = number
    table[0x30:0x3A] = _DIGIT
    table[0xA0:0xC0] = _SUSPECT
    for char in CONTINUATION[3:]:
        table[ord(char)] = _SUSPECT
    for first, last in _UNSEEN_RANGES:
        table[first : last + 1] = _UNSEEN
    return table
