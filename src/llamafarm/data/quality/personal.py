"""Hints of personal data and of secrets in a text: whether it holds any, and the text without.

Hints, not proof: names, postal addresses and health data have no form that a pattern could know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llamafarm.data.quality.accounts import cards, ibans
from llamafarm.data.quality.addresses import (
    emails,
    ip_addresses,
    may_hold_ip_addresses,
    url_passwords,
)
from llamafarm.data.quality.credentials import holds_marks, private_keys, secrets
from llamafarm.data.quality.phones import phones
from llamafarm.data.quality.scripts import makeup
from llamafarm.data.quality.spans import PersonalKind, Span

# Every key and token has a digit, an IPv6 address too; the other numbers have more.
_MIN_DIGITS = 1
_MIN_PHONE_DIGITS, _MIN_IBAN_DIGITS, _MIN_CARD_DIGITS = 7, 8, 13
# Keys of kinds that nobody knows yet, and the lines of a PEM file, whose head may be far away.
_LONG_TOKEN = re.compile(r"[A-Za-z0-9+/=_-]{33,}+")


@dataclass(frozen=True, slots=True)
class _Search:
    """may: a quick test that saves the search in nearly every text (text, its digits)."""

    kind: PersonalKind
    may: Callable[[str, int], bool]
    find: Callable[[str], Iterator[Span]]


_SEARCHES = (
    _Search("private_key", lambda text, _: "PRIVATE KEY" in text, private_keys),
    _Search("url_password", lambda text, _: "@" in text and "://" in text, url_passwords),
    _Search("secret", lambda text, digits: digits >= _MIN_DIGITS and holds_marks(text), secrets),
    _Search("email", lambda text, _: "@" in text, emails),
    _Search("iban", lambda _, digits: digits >= _MIN_IBAN_DIGITS, ibans),
    _Search("card", lambda _, digits: digits >= _MIN_CARD_DIGITS, cards),
    _Search("phone", lambda _, digits: digits >= _MIN_PHONE_DIGITS, phones),
    _Search("ip_address", may_hold_ip_addresses, ip_addresses),
)


def first_of_each_kind(text: str, digits: int) -> list[Span]:
    """Where each kind stands first, for the kinds that the text holds.

    digits: how many of 0 to 9 are in the text.
    """
    if digits < _MIN_DIGITS and "@" not in text and "PRIVATE KEY" not in text:
        return []
    found = []
    for search in _SEARCHES:
        if search.may(text, digits) and (span := next(search.find(text), None)) is not None:
            found.append(span)
    return found


def hidden_parts(text: str) -> list[tuple[int, int, str]]:
    """(start, end, what to show) of all that should not be shown, in order, without overlaps.

    For short texts: more is hidden than is reported, such as any long token.
    """
    digits = makeup(text).digits
    parts = [
        (span.start, span.end, span.shown)
        for search in _SEARCHES
        if search.may(text, digits)
        for span in search.find(text)
    ]
    parts += [(found.start(), found.end(), found[0][:4] + "***") for found in _long_tokens(text)]
    return _without_overlaps(sorted(parts))


def _long_tokens(text: str) -> Iterator[re.Match[str]]:
    for found in _LONG_TOKEN.finditer(text):
        if any(char.isdigit() for char in found[0]):
            yield found


def _without_overlaps(parts: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Parts that touch become one: it shows what the first of them shows."""
    merged: list[tuple[int, int, str]] = []
    for start, end, shown in parts:
        if merged and start < merged[-1][1]:
            before = merged[-1]
            merged[-1] = (before[0], max(before[1], end), before[2])
        else:
            merged.append((start, end, shown))
    return merged
