"""Telephone numbers in a text: the international form, common national forms, and any number that
a word like `Tel.` announces.

Most numbers in training data are none: dates, versions, ISBNs, prices, and plain integers are left
alone. Every expression begins with a set of characters and never goes back, so that a search takes
time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from llamafarm.data.quality.spans import Span

_NUMBER = re.compile(
    r"[+(\d](?<![\w+.,/=#&$€£-].)(?:"
    r"(?<=\+)[1-9](?:[ \u00a0.\-/()]{0,2}\d){6,14}+"
    r"|(?<=\()[2-9]\d\d\)[ \u00a0.-]?[2-9]\d\d[ \u00a0.-]\d{4}"
    r"|(?<=\()0\d{1,4}\)(?:[ \u00a0.\-/]?\d{2,8}){1,4}+"
    r"|(?<=0)\d{1,4}(?:[ \u00a0.\-/]\d{2,8}){1,4}+"
    r"|(?<=[2-9])\d\d([.-])[2-9]\d\d\1\d{4}"
    r"|(?<=1)[ .-]\(?[2-9]\d\d\)?[ .-][2-9]\d\d[ .-]\d{4}"
    r")(?![\w%]|[.,\-/]\d)"
)
_RUN = re.compile(r"[(\d](?<![\w+.,/=-].)\d?(?:[ \u00a0.\-/()]{0,2}\d){6,14}+(?![\w%])")
_CUE = re.compile(
    r"(?i)(?:(?<![^\W_])(?:tel|phone|telephone|mobile|mob|cell|cellphone|fax|whatsapp|sms|hotline"
    r"|call|t[ée]l[ée]phone|t[ée]l|portable|telefon\w{0,6}|handy|mobil|mobilnummer|rufnummer"
    r"|tel[ée]fono|m[óo]vil|celular|cellulare|telefone|telefoon|телефон\w{0,3}|тел|моб)\b"
    r"|电话|電話|手机|手機|携帯|전화)"
    r"\W{0,4}(?:(?:numbers?|no|nr|nummer|n[úu]mero|num[ée]ro|номер|is|at|on|me|us|号码|番号)\W{0,3}){0,3}$"
)
_CUE_REACH = 32
_BYTE_BEFORE = re.compile(r"(?:^|\W)[0-9a-fA-F]{2} $")
_BYTE_AFTER = re.compile(r" [0-9a-fA-F]{2}(?:\W|$)")
# 02110-1301, of the United States.
_POSTAL_CODE = [5, 4]
_NOT_DIGIT = re.compile(r"\D+")
_DATE = re.compile(
    r"(?:19|20)\d\d[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d\d"
)


def phones(text: str) -> Iterator[Span]:
    """Numbers by their form, then numbers by the word before them."""
    for found in _NUMBER.finditer(text):
        if _is_number(found[0]) and not _among_bytes(text, found):
            yield _span(found)
    for found in _RUN.finditer(text):
        start = found.start()
        before = text[max(0, start - _CUE_REACH) : start]
        if _CUE.search(before) and not _DATE.match(found[0]):
            yield _span(found)


def _span(found: re.Match[str]) -> Span:
    return Span("phone", found.start(), found.end(), f"{found[0][:3].rstrip()}***")


def _is_number(written: str) -> bool:
    if written.startswith("+"):
        return _is_international(written)
    if written.lstrip("(").startswith("0"):
        return _is_national(written)
    return True


def _is_international(written: str) -> bool:
    """E.164 has 8 to 15 digits in use; `+1.41421356` is a number of another kind."""
    digits = _NOT_DIGIT.sub("", written)
    separators = _NOT_DIGIT.findall(written[1:])
    return 8 <= len(digits) <= 15 and separators != ["."] and not digits.endswith("000000")


def _is_national(written: str) -> bool:
    """A number with a trunk zero: 9 to 12 digits, grouped as people group them.

    Groups of two follow one another in France or Switzerland; elsewhere a group of two after the
    first is a date, and groups that are all of one length are a table.
    """
    groups = re.findall(r"\d+", written)
    sizes = [len(group) for group in groups]
    if not 9 <= sum(sizes) <= 12 or sizes == _POSTAL_CODE or _DATE.match(written):
        return False
    if set("".join(groups)) <= {"0", "1"} or _is_counting(groups):
        return False
    if 2 in sizes[1:]:
        return sizes[-2:] == [2, 2] and len(sizes) >= 4
    return len(sizes) == 2 or len(set(sizes)) > 1


def _is_counting(groups: Sequence[str]) -> bool:
    """`01 02 03 04 05`."""
    steps = {int(after) - int(before) for before, after in pairwise(groups)}
    return len(groups) > 2 and len(steps) == 1


def _among_bytes(text: str, found: re.Match[str]) -> bool:
    """Whether pairs of digits go on before or after it, as in a dump of bytes."""
    around = (text[max(0, found.start() - 4) : found.start()], text[found.end() : found.end() + 4])
    return bool(_BYTE_BEFORE.search(around[0]) or _BYTE_AFTER.match(around[1]))
