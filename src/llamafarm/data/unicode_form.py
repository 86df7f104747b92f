"""Unicode normal forms in linear time, whatever the text."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Literal

# Combining marks behind one letter that real text may have: UAX #15, stream-safe text format.
MOST_MARKS = 30
_FIRST_MARK, _LAST_MARK = 0x300, 0x1E94A


def normalised(form: Literal["NFC", "NFKC"], text: str) -> str:
    """unicodedata.normalize, but for runs of more than MOST_MARKS combining marks.

    These are sorted piece by piece: as a whole, Python sorts them by insertion, which takes hours
    for a megabyte of them.
    """
    if text.isascii():
        return text
    return "".join(unicodedata.normalize(form, piece) for piece in _long_runs().split(text))


@cache
def _long_runs() -> re.Pattern[str]:
    codes = (chr(code) for code in range(_FIRST_MARK, _LAST_MARK + 1))
    marks = "".join(character for character in codes if unicodedata.combining(character))
    return re.compile(f"([{marks}]{{{MOST_MARKS}}})(?=[{marks}])")
