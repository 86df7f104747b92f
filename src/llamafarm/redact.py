"""Secrets taken out of what is written for people: messages, logs, records of a run.

Rows of a dataset are never changed by this; `inspect` reports what secrets stand in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
# Shorter values stand in texts by chance.
_MIN_VALUE = 8
_SAYS_SO = (
    r"(?:token|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|secret|passw(?:or)?d|"
    r"passphrase|credentials?)"
)
_VARIABLE = re.compile(r"(?:^|_)(?:TOKEN|KEY|SECRET|PASS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$")
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
_MARKS = ("hf_", "sk-", "k_live_", "gh", "glpat-", "npm_", "xox", "pypi-", "SG.", "A", "eyJ")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{0,20000}-----END [A-Z0-9 ]{1,50}-----)?"
)
_ASSIGNMENT = re.compile(
    rf"""(?i)(?<![\w])(?P<name>(?:[\w.-]{{0,60}}[._-])?{_SAYS_SO})
    (?P<sign>["']?\s{{0,3}}(?:=|:\s)\s{{0,3}}["']?)
    (?P<value>[^\s"',;)\]}}]{{4,}})""",
    re.VERBOSE,
)
# Almost every text is passed over with it.
_NAMED = re.compile(
    r"(?i)(?:token|key|secret|passw(?:or)?d|passphrase|credentials?)[\"']?\s{0,3}[=:]"
)
# Tokens of a vocabulary, and counts of them.
_NO_SECRETS = re.compile(
    r"(?i)(?:bos|eos|pad|unk|sep|cls|mask|end|start|stop|special|added|turn|first|last|max|min|next)"
    r"[._-]token$"
)
_IN_URL = re.compile(r"(?<=://)[^\s/@:]{1,200}:[^\s/@]{1,200}(?=@)")


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The text without tokens, private keys, passwords in addresses, what is assigned to a name
    such as `api_key`, and the values of such variables of the environment.
    """
    if any(mark in text for mark in _MARKS):
        text = _TOKEN.sub(lambda found: (found["mark"] or "") + HIDDEN, text)
    for value in secret_variables(environ).values():
        text = text.replace(value, HIDDEN)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub("-----BEGIN *** PRIVATE KEY-----", text)
    if "://" in text:
        text = _IN_URL.sub(HIDDEN, text)
    return _ASSIGNMENT.sub(_without_value, text) if _NAMED.search(text) else text


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
    is_path = value.startswith(("/", "./", "../", "~"))
    return len(value) >= _MIN_VALUE and not value.isalpha() and not is_path


def _is_secret_name(name: str) -> bool:
    return bool(re.search(rf"(?i)(?:^|[._-]){_SAYS_SO}$", name)) and not _NO_SECRETS.search(name)


def _without_value(found: re.Match[str]) -> str:
    if _NO_SECRETS.search(found["name"]) or found["value"].startswith(("${", HIDDEN)):
        return found[0]
    return f"{found['name']}{found['sign']}{HIDDEN}"
