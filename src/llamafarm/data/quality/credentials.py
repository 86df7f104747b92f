"""Keys and tokens in a text, by the marks that their issuers give them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamafarm.data.quality.spans import Span

# A text without any of these holds no token: the search for one is saved.
_MARKS_WITH_LINE = ("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "_live_", "npm_")
_MARKS_WITH_HYPHEN = ("sk-", "xox", "glpat-", "pypi-")
_TOKEN = re.compile(
    r"[sghAxenprS](?<![\w-].)(?:"
    r"(?P<sk>(?<=s)k-[\w-]{20,250}+)"
    r"|(?P<stripe>(?<=[sr])k_live_[A-Za-z0-9]{16,128}+)"
    r"|(?P<hf>(?<=h)f_[A-Za-z0-9]{30,64}+)"
    r"|(?P<gh>(?<=g)h[pousr]_[A-Za-z0-9]{36,255}+|(?<=g)ithub_pat_\w{50,255}+)"
    r"|(?P<glpat>(?<=g)lpat-[\w-]{20,64}+)"
    r"|(?P<aws>(?<=A)(?:KIA|SIA)[A-Z0-9]{16})"
    r"|(?P<google>(?<=A)Iza[\w-]{35})"
    r"|(?P<slack>(?<=x)ox[abeoprs]-[A-Za-z0-9-]{10,250}+)"
    r"|(?P<jwt>(?<=e)yJ[\w-]{8,4000}+\.eyJ[\w-]{8,8000}+\.[\w-]{8,2000}+)"
    r"|(?P<npm>(?<=n)pm_[A-Za-z0-9]{36})"
    r"|(?P<pypi>(?<=p)ypi-AgE[\w-]{50,500}+)"
    r"|(?P<sendgrid>(?<=S)G\.[\w-]{16,32}+\.[\w-]{32,64}+)"
    r")(?![A-Za-z0-9])"
)
_SHOWN = re.compile(r"[A-Za-z]+[-_.]?")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{0,20000}+-----END [A-Z0-9 ]{1,50}-----)?"
)
# A word such as `sk-learn-like-names` has no digits; `sk-xxxxxxxx` says nothing.
_MIN_DISTINCT = 8


def holds_marks(text: str) -> bool:
    """Whether a search for tokens may find any."""
    return (
        "eyJ" in text
        or "AKIA" in text
        or "ASIA" in text
        or "AIza" in text
        or "SG." in text
        or ("-" in text and any(mark in text for mark in _MARKS_WITH_HYPHEN))
        or ("_" in text and any(mark in text for mark in _MARKS_WITH_LINE))
    )


def secrets(text: str) -> Iterator[Span]:
    """API keys and tokens, long enough to be real."""
    for found in _TOKEN.finditer(text):
        body = found[0].partition("-")[2] if found.lastgroup == "sk" else found[0]
        varied = len(set(body)) >= _MIN_DISTINCT
        if varied and (found.lastgroup == "slack" or any(char.isdigit() for char in body)):
            shown = _SHOWN.match(found[0])
            yield Span("secret", found.start(), found.end(), f"{shown[0][:6] if shown else ''}***")


def private_keys(text: str) -> Iterator[Span]:
    """PEM private keys, to their end where it stands in the text, else to the text's end."""
    for found in _PRIVATE_KEY.finditer(text):
        end = found.end() if "-----END" in found[0] else len(text)
        yield Span("private_key", found.start(), end, "-----BEGIN *** PRIVATE KEY-----")
