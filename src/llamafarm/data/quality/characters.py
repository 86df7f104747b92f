"""Characters that should not be in a text: the remains of a wrong encoding, of a web page, of a
terminal; and characters that nobody sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamafarm.data.quality.report import Finding, Level
from llamafarm.data.quality.row import QualityRow
from llamafarm.data.quality.scripts import CONTINUATION, Makeup
from llamafarm.data.quality.tally import Tally
from llamafarm.errors import count_of

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Joiners and direction marks belong to Indic, Arabic and Hebrew writing, and to emoji, but not
# between two Latin letters; Thai, Lao, Myanmar and Khmer mark the ends of words with U+200B.
_ALWAYS_ODD = r"\u00ad\u2060-\u206f\u202a-\u202e\ufeff"
_ODD_JOINER = r"|[A-Za-z][\u200c-\u200f](?=[A-Za-z])"
_INVISIBLE = re.compile(rf"[\u200b{_ALWAYS_ODD}]{_ODD_JOINER}")
_INVISIBLE_IN_UNSPACED = re.compile(rf"[{_ALWAYS_ODD}]{_ODD_JOINER}")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_TAGS = re.compile(r"[\U000e0000-\U000e007f]")
_FLAG = "\U0001f3f4"

# UTF-8 read as Windows-1252 or Latin-1: a first byte and those that continue it, as letters; then
# the same of MacRoman and Windows-1251. Each begins with what good text rarely has.
_MAYBE_MOJIBAKE = re.compile(
    f"[{CONTINUATION}](?:(?<=[\u00c2-\u00df].)|(?<=[\u00e0-\u00ef].)[{CONTINUATION}]"
    f"|(?<=[\u00f0-\u00f4].)[{CONTINUATION}]{{2}}|(?<=‚)Ä|(?<=√.)|(?<=вЂ.)|(?<=[ВГРС].)[ВГРС])"
)

_ENTITY = re.compile(
    r"&(?:amp|lt|gt|quot|apos|nbsp|[lr][sd]quo|[mn]dash|hellip|copy|[aeiou](?:acute|grave|uml|circ)"
    r"|ccedil|ntilde|szlig|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});"
)
_TAG = re.compile(
    r"</?(?:br|p|div|span|a|b|i|u|em|strong|font|li|ul|ol|h[1-6]|table|t[rdh]|img|script|style"
    r"|blockquote|sup|sub|center|hr)\b[^<>]{0,200}+>",
    re.IGNORECASE,
)

_PREPARE = "`llamafarm prepare --input FILE --output CLEAN.jsonl`"
_CUT_INVISIBLE = (
    rf"data_preprocessing.remove_patterns: ['[\u200b{_ALWAYS_ODD}\U000e0000-\U000e007f]']"
)
# kind: what is said after the number of rows, advice, level.
_TEXTS: dict[str, tuple[str, str, Level]] = {
    "mojibake": (
        "with letters that were read in a wrong encoding (as in `cafÃ©`)",
        f"read the source again as UTF-8, or repair them: {_PREPARE}",
        "warning",
    ),
    "replacement_character": (
        "with U+FFFD, which stands for letters that are lost",
        "read the source again in its true encoding: what is lost cannot be repaired",
        "warning",
    ),
    "control_character": (
        "with control characters",
        r"data_preprocessing.remove_patterns: ['[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]']",
        "warning",
    ),
    "lone_surrogate": (
        "with half of a character (a lone surrogate), which no tokenizer can read",
        r"write whole characters, e.g. `\ud83d\ude00` and not `\ud83d` alone",
        "warning",
    ),
    "invisible_character": (
        "with characters that nobody sees (zero width, or turning the direction of text)",
        _CUT_INVISIBLE,
        "notice",
    ),
    "html": (
        "with HTML tags or entities outside of code",
        f"if they come from web pages, make the rows anew from those: {_PREPARE}",
        "notice",
    ),
}


def trouble_in(text: str, made_of: Makeup) -> Iterator[tuple[str, int]]:
    """(kind, position of the first) of all that is wrong with the characters of a text."""
    if made_of.suspect and (at := _mojibake(text)) >= 0:
        yield "mojibake", at
    if made_of.unseen:
        yield from _unseen(text)
    if ("<" in text or "&" in text) and (at := _markup(text)) >= 0:
        yield "html", at


def _first(kind: str, pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, int]]:
    if found := pattern.search(text):
        yield kind, found.start()


def _unseen(text: str) -> Iterator[tuple[str, int]]:
    if (at := text.find("\ufffd")) >= 0:
        yield "replacement_character", at
    yield from _first("control_character", _CONTROL, text)
    yield from _first("lone_surrogate", _SURROGATE, text)
    invisible = _INVISIBLE_IN_UNSPACED if _UNSPACED.search(text) else _INVISIBLE
    if found := invisible.search(text):
        yield "invisible_character", found.start()
    elif _FLAG not in text:
        yield from _first("invisible_character", _TAGS, text)


def _mojibake(text: str) -> int:
    """Where it begins, or -1. Candidates are rare; ftfy, which is slower, judges them."""
    for found in _MAYBE_MOJIBAKE.finditer(text):
        from ftfy.badness import is_bad

        if is_bad(text[max(0, found.start() - 2) : found.end() + 2]):
            return max(0, found.start() - 1)
    return -1


def _markup(text: str) -> int:
    """Where the first tag or entity is, or -1; in a text with code they are meant to be there."""
    found = [match for match in (_TAG.search(text), _ENTITY.search(text)) if match]
    if not found or "`" in text or "html" in text.lower():
        return -1
    return min(match.start() for match in found)


class CharactersCheck:
    """Counts a row once for each kind of trouble."""

    def __init__(self) -> None:
        self._tallies = {kind: Tally() for kind in _TEXTS}

    def see(self, row: QualityRow) -> None:
        """One more row."""
        for kind, at in trouble_in(row.text, row.makeup):
            self._tallies[kind].add(row.source, row.text, at)

    def findings(self) -> list[Finding]:
        """The kinds that there are."""
        return [
            tally.finding(kind, f"{count_of(tally.rows, 'row')} {text}", advice, level)
            for kind, (text, advice, level) in _TEXTS.items()
            if (tally := self._tallies[kind]).rows
        ]
