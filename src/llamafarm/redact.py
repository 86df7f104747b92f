"""Secrets taken out of what is written for people: messages, logs, records of a run.

Rows of a dataset are never changed by this; `inspect` reports what secrets stand in them.
"""

from __future__ import annotations

import html
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

HIDDEN = "***"
# Shorter values stand in texts by chance.
_MIN_VALUE = 8
# Words are shorter, where there is nothing but letters.
_MIN_LETTERS = 16
_SAYS_SO = (
    r"(?:token|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|secret|passw(?:or)?d|"
    r"passphrase|credentials?)"
)
_VARIABLE = re.compile(
    r"(?:(?:^|_)(?:KEY|PASS|CREDENTIALS?)|_PWD|TOKEN|APIKEY|SECRET|PASSWORD|PASSWD|PASSPHRASE)$"
)
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?P<mark>hf_|sk-|[rs]k_live_|gh[pousr]_|github_pat_|glpat-|npm_|xox[abeoprs]-|pypi-)"
    r"[\w-]{16,300}"
    r"|SG\.[\w-]{16,32}\.[\w-]{16,64}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|AIza[\w-]{35}"
    r"|eyJ[\w-]{8,4000}\.eyJ[\w-]{8,8000}\.[\w-]{8,2000}"
    r")(?![A-Za-z0-9])"
)
_MARKS = (
    *("hf_", "sk-", "k_live_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    *("npm_", "xox", "pypi-", "SG.", "AKIA", "ASIA", "AIza", "eyJ"),
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{0,20000}-----END [A-Z0-9 ]{1,50}-----)?"
)
# A quote may itself stand in a quoted text.
_VALUE = r"""(?:(?P<quote>\\{0,3}["'])(?P<quoted>(?:(?!(?P=quote))(?:\\.|[^\n])){4,2000})
    |(?P<value>[^\s"',;)\]}]{4,}))"""
_ASSIGNMENT = re.compile(
    rf"""(?i)(?P<name>{_SAYS_SO})(?P<sign>\\{{0,3}}["']?\s{{0,3}}[=:]\s{{0,3}}){_VALUE}""",
    re.VERBOSE,
)
_FLAG = re.compile(
    rf"(?i)(?<![\w-])(?P<name>--(?:[\w.-]{{0,60}}[._-])?{_SAYS_SO})(?P<sign>\s{{1,3}})(?!-){_VALUE}",
    re.VERBOSE,
)
_FLAG_ALONE = re.compile(rf"(?i)--(?:[\w.-]{{0,60}}[._-])?{_SAYS_SO}")
# Almost every text is passed over with it.
_NAMED = re.compile(
    r"(?i)(?:token|key|secret|passw(?:or)?d|passphrase|credentials?)[\\\"']{0,4}\s{0,3}[=:]"
)
_BEARER = re.compile(
    r"(?i)(?P<name>\bbearer\s{1,3}|\bauthorization[\\\"']{0,4}\s{0,3}[=:]\s{0,3}[\\\"']{0,4}"
    r"(?:(?:basic|token|bearer)\s{1,3})?)(?=[\w.~+/=-]{0,100}[0-9]|[\w.~+/=-]{20})[\w.~+/=-]{8,4000}"
)
# A measure is no secret either.
_NO_VALUE = re.compile(r"(?i)none|null|true|false|-?[0-9]+\.[0-9]+(?:e[+-]?[0-9]+)?")
# Tokens of a vocabulary, and counts of them.
_NO_SECRETS = re.compile(
    r"(?i)(?<![a-z])(?:bos|eos|pad|unk|sep|cls|mask|end|start|stop|special|added|turn|first|last|max|min|next|per)"
    r"[ ._-]token$"
)
# The last @ ends a password, which may hold others; a number before a slash is a port.
_IN_URL = re.compile(
    r"(?<=://)(?:[^\s/@:\"'<>]{0,200}:(?![0-9]{1,5}/)[^\s\"'<>]{1,300}|[^\s/@:\"'<>]{20,300})"
    r"(?=@[\w.\[-])"
)
_SIGNED_URL = re.compile(r"(?i)(?<=[?&])((?:x-(?:amz|goog)-)?(?:signature|sig)=)[^\s&\"'<>]{8,}")


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text without tokens, private keys, passwords in addresses, what is assigned to a name
    such as `api_key`, and the values of such variables of the environment.
    """
    if any(mark in text for mark in _MARKS):
        text = _TOKEN.sub(lambda found: (found["mark"] or "") + HIDDEN, text)
    for value in secret_variables(environ).values():
        for spelling in _spellings(value):
            text = text.replace(spelling, HIDDEN)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub("-----BEGIN *** PRIVATE KEY-----", text)
    if "://" in text:
        text = _SIGNED_URL.sub(rf"\g<1>{HIDDEN}", _IN_URL.sub(HIDDEN, text))
    lower = text.lower()
    if "bearer" in lower or "authorization" in lower:
        text = _BEARER.sub(rf"\g<name>{HIDDEN}", text)
    if "--" in text:
        text = _FLAG.sub(_without_value, text)
    return _ASSIGNMENT.sub(_without_value, text) if _NAMED.search(text) else text


def redact_command(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> str:
    """A command line as it is typed, each argument redacted; `--api-key` hides the next one."""
    shown = []
    hides_next = False
    for argument in arguments:
        hides = hides_next and not argument.startswith("-")
        shown.append(HIDDEN if hides else redact(argument, environ))
        hides_next = bool(_FLAG_ALONE.fullmatch(argument)) and not _NO_SECRETS.search(argument)
    return shlex.join(shown)


def redact_values(value: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """A copy of a value of JSON with every text in it redacted, and texts under a name such as
    `api_key` hidden.
    """
    if isinstance(value, str):
        return redact(value, environ)
    if isinstance(value, Mapping):
        return {
            name: HIDDEN
            if isinstance(item, str) and item and _is_secret_name(str(name))
            else redact_values(item, environ)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_values(item, environ) for item in value]
    return value


def secret_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables whose name or value is that of a secret, with their values; the longest first.

    A word and the path of a file are no secrets, whatever the variable is called.
    """
    found = {
        name: value
        for name, value in environ.items()
        if (_VARIABLE.search(name.upper()) and _may_be_secret(value)) or _TOKEN.fullmatch(value)
    }
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _may_be_secret(value: str) -> bool:
    if len(value) < (_MIN_LETTERS if value.isalpha() else _MIN_VALUE):
        return False
    # One in 64 keys of some services begins with a slash.
    is_path = value.startswith(("/", "./", "../")) and os.path.lexists(value)
    return not (is_path or value.startswith("~/"))


def _spellings(value: str) -> list[str]:
    """A value as it is, and as Python, JSON, a shell, an address and HTML write it; the longest
    first.
    """
    found = {
        value,
        repr(value)[1:-1],
        # As repr spells it beside a quote of the other kind.
        repr(value + "'\"")[1:-4],
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        shlex.quote(value).removeprefix("'").removesuffix("'"),
        quote(value, safe=""),
        html.escape(value),
    }
    return sorted(found, key=lambda spelling: -len(spelling))


def _is_secret_name(name: str) -> bool:
    return bool(re.search(rf"(?i){_SAYS_SO}$", name)) and not _NO_SECRETS.search(name)


def _without_value(found: re.Match[str]) -> str:
    name = found.string[max(0, found.start() - 20) : found.end("name")]
    value = found["quoted"] or found["value"]
    is_told = value == HIDDEN or value.startswith("${") or _NO_VALUE.fullmatch(value)
    if is_told or _NO_SECRETS.search(name):
        return found[0]
    return f"{found['name']}{found['sign']}{found['quote'] or ''}{HIDDEN}"
