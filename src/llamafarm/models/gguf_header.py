"""Values of a GGUF header, read without trust: every length and count is held against what is left
of the file before a byte is read or a list is made for it.

Format: github.com/ggml-org/ggml, docs/gguf.md. Whatever is wrong is a ValueError that says which
key or tensor is at fault.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any

# Far above what a model needs: the largest vocabularies have a quarter of a million tokens, kept in
# four arrays of a few MB.
_MOST_HEADER_BYTES = 1 << 28
_MOST_ARRAY_VALUES = 1 << 23
_LONGEST_TEXT = 1 << 24
_DEEPEST_ARRAY = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_TYPE_NAMES = {
    0: "uint8",
    1: "int8",
    2: "uint16",
    3: "int16",
    4: "uint32",
    5: "int32",
    6: "float32",
    7: "bool",
    _STRING: "string",
    _ARRAY: "array",
    10: "uint64",
    11: "int64",
    12: "float64",
}
_NUMBERS = {code: struct.Struct("<" + code) for code in _SCALARS.values()}
# In the file: a string has its length before it, an array its type and its count.
_SMALLEST = {
    **{kind: _NUMBERS[code].size for kind, code in _SCALARS.items()},
    _STRING: 8,
    _ARRAY: 12,
}


class HeaderReader:
    """Reads little-endian values one after the other, never beyond the end of the file.

    subject: what the values belong to, for messages; set it when another key or tensor begins.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._end = min(len(data), _MOST_HEADER_BYTES)
        self._values_left = _MOST_ARRAY_VALUES
        self.position = 0
        self.subject = "the header"

    def number(self, code: str) -> Any:
        """One number, as the struct module calls its type."""
        layout = _NUMBERS[code]
        (value,) = layout.unpack_from(self._data, self._take(layout.size))
        return value

    def count(self, smallest: int) -> int:
        """How many things follow, of at least `smallest` bytes each."""
        count: int = self.number("Q")
        room = (self._end - self.position) // smallest
        if count > room:
            raise self.fault(f"{count:,} are announced, and there is room for {room:,} at most")
        return count

    def text(self, longest: int = _LONGEST_TEXT) -> str:
        """A string of at most `longest` bytes."""
        length = self.number("Q")
        if length > longest:
            raise self.fault(f"a text of {length:,} bytes; at most {longest:,} are read")
        start = self._take(length)
        try:
            return self._data[start : self.position].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fault("a text that is not UTF-8") from None

    def value(self) -> tuple[str, Any]:
        """A value with its type before it, as the format names it: `uint32`, `string[]`, …"""
        start = self.position
        kind = self.number("I")
        value = self._value(kind, 0)
        if kind != _ARRAY:
            return _TYPE_NAMES[kind], value
        (item,) = _NUMBERS["I"].unpack_from(self._data, start + 4)
        return f"{_TYPE_NAMES[item]}[]", value

    def fault(self, message: str) -> ValueError:
        """The message with what it is about, to be raised."""
        return ValueError(f"{self.subject}: {message}")

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array(depth + 1)
        if kind not in _SCALARS:
            raise self.fault(f"a value of the unknown type {kind}")
        return self.number(_SCALARS[kind])

    def _array(self, depth: int) -> list[Any]:
        if depth > _DEEPEST_ARRAY:
            raise self.fault(f"arrays inside arrays, more than {_DEEPEST_ARRAY} deep")
        kind = self.number("I")
        if kind not in _SMALLEST:
            raise self.fault(f"an array of the unknown type {kind}")
        count = self.count(_SMALLEST[kind])
        self._values_left -= count
        if self._values_left < 0:
            raise self.fault(f"arrays of more than {_MOST_ARRAY_VALUES:,} values in all")
        if kind in _SCALARS:
            layout = struct.Struct(f"<{count}{_SCALARS[kind]}")
            return list(layout.unpack_from(self._data, self._take(layout.size)))
        return [self._value(kind, depth) for _ in range(count)]

    def _take(self, size: int) -> int:
        """Step over the next bytes; where they start."""
        start = self.position
        if size > self._end - start:
            raise self.fault(f"the file ends here, {size:,} bytes before the end of a value")
        self.position = start + size
        return start


def shown(name: str) -> str:
    """A name that a stranger wrote, fit for a message."""
    return repr(name if len(name) <= 64 else name[:63] + "…")
