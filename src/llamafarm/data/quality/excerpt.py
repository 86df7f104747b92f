"""A few words of a row, fit to be printed and kept: one line, no personal data, no control
characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from llamafarm.data.quality.personal import hidden_parts

MAX_CHARACTERS = 80
_BEFORE = 20
_REACH = 400
# The ends of what is looked at may hold half of a secret: so much of them is never shown.
_EDGE = 100


def excerpt(text: str, at: int = 0) -> str:
    """At most MAX_CHARACTERS around text[at], of which a few come before it."""
    low, high = max(0, at - _REACH), at + _REACH
    window = text[low:high]
    parts = hidden_parts(window)
    begin = _EDGE if low > 0 else 0
    end = len(window) - _EDGE if high < len(text) else len(window)
    # A part is never shown in halves.
    begin = next((stop for start, stop, _ in parts if start < begin < stop), begin)
    focus = next((start for start, stop, _ in parts if start < at - low < stop), at - low)
    before = _legible(window, parts, begin, focus).lstrip()
    after = _legible(window, parts, focus, end).rstrip()
    head = "…" if low > 0 or len(before) > _BEFORE else ""
    before = before[-_BEFORE:]
    room = MAX_CHARACTERS - len(head) - len(before)
    if high < len(text) or len(after) > room:
        after = after[: room - 1] + "…"
    return (head + before + after).strip()


def around(text: str, at: int) -> tuple[str, int]:
    """All that an excerpt depends on: a piece of the text, and where text[at] is in it."""
    low = max(0, at - _REACH - 1)
    return text[low : at + _REACH + 1], at - low


def _legible(window: str, parts: Sequence[tuple[int, int, str]], begin: int, end: int) -> str:
    """window[begin:end] on one line, with what is to be shown for each part."""
    pieces, position = [], begin
    for start, stop, shown in parts:
        if begin <= start < end:
            pieces += [_escaped(window[position:start]), shown]
            position = stop
    return "".join([*pieces, _escaped(window[position:end])])


def _escaped(text: str) -> str:
    """White space as single spaces, and everything else that cannot be seen as `\\u200b`."""
    shown = ""
    for char in text:
        if char in "\t\n\r" or unicodedata.category(char).startswith("Z"):
            shown += "" if shown.endswith(" ") else " "
        else:
            shown += char if char.isprintable() else _escape(ord(char))
    return shown


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
