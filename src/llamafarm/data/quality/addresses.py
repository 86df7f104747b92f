"""E-mail addresses, passwords in URLs, and public IP addresses in a text.

Every expression begins with one character or a set of them and is bounded, so that a search takes
time in proportion to the text, whatever the text is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamafarm.data.quality.spans import Span

_LOCAL = re.compile(r"[\w.%+-]{1,64}")
_DOMAIN = re.compile(
    r"@(?<=[\w%+-]@)((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8})([^\W\d_]{2,24})(?![\w-])"
)
# What follows an @ and a dot in file names and in programs.
_FILES = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "json", "html"})
_NO_DOMAINS = _FILES | {"shape", "reshape", "transpose", "dot"}
# git@github.com: names no one.
_NO_PERSONS = frozenset({"git", "hg", "svn"})
_URL_PASSWORD = re.compile(r"://([^\s/:@?#\"'<>]{1,64}):([^\s/@\"'<>]{4,128})@(?=[\w\[])")
_PLACEHOLDERS = frozenset({"password", "passwd", "pass", "pwd", "secret", "token", "changeme"})
_LOOKS_BACK = 200

_IPV4 = re.compile(r"\d(?<![\w.-].)\d{0,2}(?:\.\d{1,3}){3}(?!\w|\.\d|-\d)")
_IPV6 = re.compile(
    r"[0-9A-Fa-f](?<![\w:.].)[0-9A-Fa-f]{0,3}(?::[0-9A-Fa-f]{0,4}){3,7}+(?![\w:]|\.\d)"
)
_VERSION_WORD = re.compile(
    r"(?i)(?:version|release|firmware|build|driver|section|clause|oid|grade to)\W{0,3}$"
)
_MIN_IPV4_DIGITS = 7
# 2000::/3, the only addresses that are routed; `1:2:3:4:5:6:7:8` is a proportion.
_GLOBAL_UNICAST = 0b001
_FIRST_PART = re.compile(r"[.:]")
_IPV6_SIGN = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:")


def emails(text: str) -> Iterator[Span]:
    """Addresses of people and offices; not of repositories, images or matrices."""
    for found in _DOMAIN.finditer(text):
        at = found.start()
        local = _LOCAL.match(text[max(0, at - 64) : at][::-1])
        if local is None or found[2].lower() in _NO_DOMAINS:
            continue
        start = at - local.end()
        name = text[start:at]
        if name.lower() in _NO_PERSONS or _in_login(text, start):
            continue
        yield Span("email", start, found.end(), f"{name[0]}***@{found[1][0]}***.{found[2]}")


def _in_login(text: str, start: int) -> bool:
    """Whether an address is the password and host of a URL."""
    if text[start - 1 : start] != ":":
        return False
    before = text[max(0, start - _LOOKS_BACK) : start].rpartition("://")
    return bool(before[1]) and not any(char.isspace() or char == "/" for char in before[2])


def url_passwords(text: str) -> Iterator[Span]:
    """`https://user:password@host`, unless the password is a placeholder."""
    for found in _URL_PASSWORD.finditer(text):
        password = found[2]
        if password.lower() in _PLACEHOLDERS or password[0] in "<${[%*" or set(password) <= {"x"}:
            continue
        yield Span("url_password", found.start(1), found.end(2), "***:***")


def ip_addresses(text: str) -> Iterator[Span]:
    """Public addresses: private, local and documentation ranges lead to no one.

    Numbers of versions and sections look the same: an IPv4 address needs seven digits, two numbers
    above nine, and no such word before it.
    """
    import ipaddress

    for pattern in (_IPV4, _IPV6):
        for found in pattern.finditer(text):
            written = found[0].removesuffix(":")
            try:
                address = ipaddress.ip_address(written)
            except ValueError:
                continue
            if not address.is_global or address.is_multicast:
                continue
            if address.version == 6 and int(address) >> 125 != _GLOBAL_UNICAST:
                continue
            if address.version == 4 and _like_a_version(text, found.start(), written):
                continue
            end = found.start() + len(written)
            yield Span("ip_address", found.start(), end, f"{_FIRST_PART.split(written)[0]}***")


def may_hold_ip_addresses(text: str, digits: int) -> bool:
    """Whether a search for them may find any. digits: in the whole text."""
    if digits >= _MIN_IPV4_DIGITS and text.count(".") >= 3:
        return True
    return text.count(":") >= 3 and _IPV6_SIGN.search(text) is not None


def _like_a_version(text: str, start: int, written: str) -> bool:
    parts = written.split(".")
    if sum(map(len, parts)) < _MIN_IPV4_DIGITS or sum(len(part) > 1 for part in parts) < 2:
        return True
    return _VERSION_WORD.search(text[max(0, start - 16) : start]) is not None
