"""Bytes to lines, and lines to text: UTF-8, with or without a byte order mark, and a way out for
everything else.
"""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from llamafarm.data.compressed import unpack_command, without_compression
from llamafarm.data.records import BadRow
from llamafarm.data.rows import RowRef
from llamafarm.errors import DataError, Problem

UTF8_BOM = codecs.BOM_UTF8
_WIDE_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)

MAX_LINE_BYTES = 2**28
_PIECE_BYTES = 2**20
NUL_HINT = "NUL bytes are left where writing a file was cut off: write it again"


@dataclass(frozen=True, slots=True)
class LongLine:
    """Stands for a line of more than MAX_LINE_BYTES, whose text is not kept. length: in bytes."""

    length: int

    def refused(self, source: RowRef) -> BadRow:
        """The line as a row that cannot be used."""
        message = (
            f"a line of {self.length:,} bytes; a row may have {MAX_LINE_BYTES:,} "
            f"({MAX_LINE_BYTES // 2**20} MiB)"
        )
        hint = "one row a line: lines end with LF or CRLF"
        return BadRow(source, (Problem(message, where=str(source), hint=hint),))


def read_lines(file: BinaryIO) -> Iterator[bytes | LongLine]:
    """The lines of a file with their endings. Of a line that is too long nothing is kept."""
    piece = min(_PIECE_BYTES, MAX_LINE_BYTES + 1)
    for line in iter(partial(file.readline, piece), b""):
        yield line if len(line) < piece else _whole_line(file, line, piece)


def _whole_line(file: BinaryIO, line: bytes, piece: int) -> bytes | LongLine:
    """The line that begins like this: in pieces, because a line may be the whole file."""
    pieces, length = [line], len(line)
    while line and not line.endswith(b"\n"):
        line = file.readline(piece)
        length += len(line)
        if length > MAX_LINE_BYTES:
            pieces.clear()
        else:
            pieces.append(line)
    return b"".join(pieces) if length <= MAX_LINE_BYTES else LongLine(length)


def conversion_hint(name: str, encoding: str) -> str:
    """The line to type that makes UTF-8 of a file."""
    path = without_compression(Path(name))
    target = shlex.quote(str(path.with_name(f"{path.stem}.utf8{path.suffix}")))
    unpack = unpack_command(name)
    convert = f"iconv -f {encoding} -t UTF-8"
    command = f"{unpack} | {convert}" if unpack else f"{convert} {shlex.quote(name)}"
    return f"save it as UTF-8, e.g. `{command} > {target}`"


def refuse_wide_encoding(head: bytes, name: str) -> None:
    """Raise DataError for UTF-16 and UTF-32, told by the byte order mark or by a NUL in every other
    byte.
    """
    encoding = next((label for mark, label in _WIDE_BOMS if head.startswith(mark)), "")
    encoding = encoding or _utf32_without_mark(head)
    if not encoding and _alternates_with_nul(head):
        encoding = "UTF-16LE" if head[1:2] == b"\0" else "UTF-16BE"
    if encoding:
        shown = head[:2].hex(" ").upper()
        raise DataError(
            f"{name} is not UTF-8",
            [
                Problem(
                    f"byte 1 of the file begins {encoding} text ({shown}); expected UTF-8",
                    where=f"{name}:1",
                    hint=conversion_hint(name, encoding),
                )
            ],
        )


def _utf32_without_mark(head: bytes) -> str:
    """No character needs more than three of its four bytes, and nearly all need two at most."""
    characters = len(head) // 4
    zeros = [head[place::4].count(0) for place in range(4)]
    if characters and zeros[2] + zeros[3] > 1.9 * characters and zeros[0] < 0.1 * characters:
        return "UTF-32LE"
    if characters and zeros[0] + zeros[1] > 1.9 * characters and zeros[3] < 0.1 * characters:
        return "UTF-32BE"
    return ""


def _alternates_with_nul(head: bytes) -> bool:
    """Latin text in UTF-16 has a NUL in nearly every other byte, on one side only."""
    half = len(head) // 2
    even, odd = head[0::2].count(0), head[1::2].count(0)
    return half > 0 and max(even, odd) > half * 0.4 and min(even, odd) < half * 0.1


def decode_line(line: bytes, source: RowRef, offset: int) -> str | BadRow:
    """The text of one line; offset: bytes of the file before it."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as fault:
        return BadRow(
            source,
            (
                Problem(
                    f"byte 0x{line[fault.start]:02X} at column {fault.start + 1} (byte "
                    f"{offset + fault.start + 1:,} of the file) is not UTF-8",
                    where=str(source),
                    hint=conversion_hint(source.file, "ISO-8859-1"),
                ),
            ),
        )
