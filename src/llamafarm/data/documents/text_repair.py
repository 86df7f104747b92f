"""What is wrong with the characters of a text, put right, with the name of each repair."""

from __future__ import annotations

import re

from llamafarm.data.unicode_form import normalised

MOJIBAKE = "wrongly decoded characters repaired"
CONTROLS = "control characters removed"
INVISIBLE = "invisible characters removed"
SPACES = "special spaces made plain"
UNICODE_FORM = "Unicode form made NFC"

_SUSPECT = re.compile(r"[^\t\n\x20-\x7e]")
# UTF-8 that was read as cp1252, Latin-1, Mac Roman or cp1251: a first byte, then one that follows.
_LOOKS_MISREAD = re.compile(
    "[\xc2-\xf4][\x80-\xbfŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™]|√[©†°±ß®•∂∫]|‚Ä[ôúùîì¶¢]"
    "|[\x80-\x9f]|[РС][ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—™љ›њќћџ\xa0ЎўЈ¤Ґ¦§©Є«¬\xad®Ї°±Ііґµ¶·№є»јЅѕї]"
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\u2028\u2029]")
# Joiners have a meaning between the letters of many scripts, and none between ASCII characters.
_INVISIBLE = re.compile(
    "[\u200b\u2060\ufeff\u00ad\u180e]+|(?<![^\x00-\x7f])[\u200c\u200d]+(?![^\x00-\x7f])"
)
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def repair_text(text: str) -> tuple[str, tuple[str, ...]]:
    """The text without what does not belong in it, and the names of the repairs that were needed.

    Line ends become line feeds; that is no repair.
    """
    if not _SUSPECT.search(text):
        return text, ()
    text = _LINE_ENDS.sub("\n", text)
    repairs: list[str] = []
    for name, repair in _REPAIRS:
        repaired = repair(text)
        if repaired != text:
            repairs.append(name)
            text = repaired
    return text, tuple(repairs)


def _without_mojibake(text: str) -> str:
    if not _LOOKS_MISREAD.search(text):
        return text
    import ftfy

    return str(ftfy.fixes.fix_c1_controls(ftfy.fix_encoding(text)))


def _without_controls(text: str) -> str:
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def _without_invisible(text: str) -> str:
    return _INVISIBLE.sub("", text)


def _plain_spaces(text: str) -> str:
    return _SPACES.sub(" ", text)


def _nfc(text: str) -> str:
    return normalised("NFC", text)


_REPAIRS = (
    (MOJIBAKE, _without_mojibake),
    (CONTROLS, _without_controls),
    (INVISIBLE, _without_invisible),
    (SPACES, _plain_spaces),
    (UNICODE_FORM, _nfc),
)
