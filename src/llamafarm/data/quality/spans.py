"""A place in a text that names a person or opens a door, and what is shown in its stead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PersonalKind = Literal[
    "email", "phone", "iban", "card", "ip_address", "secret", "private_key", "url_password"
]


@dataclass(frozen=True, slots=True)
class Span:
    """text[start:end] is of this kind; shown: what may be printed of it."""

    kind: PersonalKind
    start: int
    end: int
    shown: str
