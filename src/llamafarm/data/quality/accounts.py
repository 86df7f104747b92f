"""Bank accounts and payment cards in a text, told from other numbers by their check digits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamafarm.data.quality.spans import Span

# Characters of an IBAN by country (the SWIFT registry, ISO 13616).
_REGISTRY = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29
ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20
LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25
QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20
"""
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _REGISTRY.split()}
_IBAN = re.compile(r"[A-Z](?<!\w.)[A-Z]\d\d(?=[ \u00a0]?[A-Z0-9]{4})")
_LONGEST_WRITTEN_IBAN = 44
_CARD = re.compile(r"[2-6](?<![\w.,+/=-].)\d{3}(?:[ \u00a0-]?\d){9,15}+(?![\w%]|[.,-]\d)")
_CARD_GROUPS = ([4, 4, 4, 4], [4, 6, 5], [4, 6, 4], [4, 4, 4, 4, 3])


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers whose length and check digits are right."""
    for found in _IBAN.finditer(text):
        end = _iban_end(text, found.start(), _IBAN_LENGTHS.get(found[0][:2], 0))
        if end:
            yield Span("iban", found.start(), end, f"{found[0][:2]}***")


def _iban_end(text: str, start: int, length: int) -> int:
    """Where the IBAN that begins at start ends; 0 when there is none."""
    written = text[start : start + _LONGEST_WRITTEN_IBAN]
    iban = written.replace(" ", "").replace("\u00a0", "")[:length]
    if not length or len(iban) < length or not _remainder_is_one(iban):
        return 0
    places = [start + i for i, char in enumerate(written) if char not in " \u00a0"]
    end = places[length - 1] + 1
    return 0 if text[end : end + 1].isalnum() else end


def _remainder_is_one(iban: str) -> bool:
    """ISO 7064 MOD 97-10, with letters from A = 10 on."""
    if not (iban.isascii() and iban.isalnum() and iban.isupper()):
        return False
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1


def cards(text: str) -> Iterator[Span]:
    """Numbers that an issuer of payment cards may give out and whose Luhn digit is right."""
    for found in _CARD.finditer(text):
        groups = re.findall(r"\d+", found[0])
        digits = "".join(groups)
        grouped = len(groups) == 1 or [len(group) for group in groups] in _CARD_GROUPS
        if grouped and _issued(digits) and _luhn(digits):
            yield Span("card", found.start(), found.end(), f"{digits[0]}***")


def _issued(digits: str) -> bool:
    """Whether a card network uses these first digits with so many in all."""
    length, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    if digits[0] == "4":
        return length in (13, 16, 19)
    if two in (34, 37):
        return length == 15
    if two in (36, 38, 39) or 300 <= three <= 305:
        return length == 14
    if two == 62 or two in (50, 56, 57, 58):
        return 16 <= length <= 19
    ranges = 51 <= two <= 55 or 2221 <= four <= 2720 or 3528 <= four <= 3589
    return length == 16 and (ranges or four == 6011 or two == 65 or 644 <= three <= 649)


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    doubled = (divmod(2 * int(digit), 10) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(a + b for a, b in doubled)) % 10 == 0
