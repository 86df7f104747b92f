"""Files compressed with gzip or Zstandard, read as the bytes that they hold.

Nothing is unpacked to disk, and little of it is in memory at a time.
"""

from __future__ import annotations

import io
import shlex
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from llamafarm.errors import DataError, Problem

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_UNPACKED_BYTES = 2**30
MAX_RATIO = 200
MAX_WINDOW_BYTES = 2**27
_BUFFER_BYTES = 2**16


class _Unpacker(Protocol):
    """One compressed stream: what zlib and zstandard have in common."""

    def decompress(self, data: bytes, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Compression:
    """title: as messages name it; magic: how a file begins; step: bytes unpacked at once, so few
    that the worst file unpacks to some ten megabytes; command: unpacks a file to standard output;
    padding: zeros may stand after a stream.
    """

    title: str
    magic: bytes
    step: int
    unpacker: Callable[[], _Unpacker]
    fault: Callable[[], type[Exception]]
    command: str
    padding: bool = False


def _gzip_unpacker() -> _Unpacker:
    return zlib.decompressobj(wbits=31)


def _gzip_fault() -> type[Exception]:
    return zlib.error


def _zstd_unpacker() -> _Unpacker:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    unpacker: _Unpacker = decompressor.decompressobj()
    return unpacker


def _zstd_fault() -> type[Exception]:
    import zstandard

    fault: type[Exception] = zstandard.ZstdError
    return fault


_COMPRESSIONS: Mapping[str, _Compression] = {
    ".gz": _Compression(
        title="gzip",
        magic=b"\x1f\x8b",
        step=2**14,
        unpacker=_gzip_unpacker,
        fault=_gzip_fault,
        command="gunzip -c",
        padding=True,
    ),
    ".zst": _Compression(
        title="Zstandard",
        magic=b"\x28\xb5\x2f\xfd",
        step=2**11,
        unpacker=_zstd_unpacker,
        fault=_zstd_fault,
        command="zstd -dc --long=31",
    ),
}
ENDINGS = tuple(_COMPRESSIONS)


def without_compression(path: Path) -> Path:
    """The name of the file inside: `rows.jsonl` for `rows.jsonl.gz`; any other path as it is."""
    return path.with_suffix("") if path.suffix.lower() in _COMPRESSIONS else path


def unpack_command(name: str) -> str:
    """What to type to have a compressed file on standard output; empty for any other file."""
    compression = _COMPRESSIONS.get(Path(name).suffix.lower())
    return f"{compression.command} {shlex.quote(name)}" if compression else ""


def refuse_hidden_compression(path: Path, head: bytes, name: str) -> None:
    """Raise DataError when a file begins as a compressed one does and is not named like one."""
    if path.suffix.lower() in _COMPRESSIONS:
        return
    for ending, compression in _COMPRESSIONS.items():
        if head.startswith(compression.magic):
            raise DataError(
                f"{name} holds {compression.title} data",
                hint="name it so, and it is read as it is: "
                f"`mv {shlex.quote(name)} {shlex.quote(name + ending)}`",
            )


def refuse_double_compression(path: Path, head: bytes, name: str) -> None:
    """Raise DataError when what a compressed file holds is compressed again. head: its first bytes,
    unpacked.
    """
    if path.suffix.lower() not in _COMPRESSIONS:
        return
    inside = without_compression(Path(name))
    for ending, compression in _COMPRESSIONS.items():
        if head.startswith(compression.magic):
            again = shlex.quote(f"{inside}{ending}")
            raise DataError(
                f"{name} is compressed twice: it holds {compression.title} data",
                hint=f"unpack it once: `{unpack_command(name)} > {again}`",
            )


def open_bytes(path: Path, name: str) -> BinaryIO:
    """The bytes of a file, unpacked when its name ends in .gz or .zst.

    Reading raises DataError when the data is damaged or cut off, when it needs a window larger than
    MAX_WINDOW_BYTES, and when it unpacks to more than MAX_UNPACKED_BYTES and more than MAX_RATIO
    times its size. Opening raises OSError.
    """
    file = path.open("rb")
    compression = _COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return file
    return io.BufferedReader(_Unpacked(file, name, compression), _BUFFER_BYTES)


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of an open file, and how far they have been read."""

    def __init__(self, file: BinaryIO, name: str, compression: _Compression) -> None:
        self._file = file
        self._name = name
        self._compression = compression
        self._packed_bytes = 0
        self._unpacked_bytes = 0
        self._line_ends = 0
        self._chunks = self._checked_chunks()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill as much of the buffer as is at hand; 0 at the end."""
        target = memoryview(buffer).cast("B")
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        taken = min(len(target), len(self._rest))
        target[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken

    def _checked_chunks(self) -> Iterator[bytes]:
        try:
            for chunk in self._raw_chunks():
                self._unpacked_bytes += len(chunk)
                self._line_ends += chunk.count(b"\n")
                self._refuse_bomb()
                if chunk:
                    yield chunk
        except self._compression.fault() as fault:
            raise self._damaged(str(fault)) from fault

    def _raw_chunks(self) -> Iterator[bytes]:
        """A file may hold several streams, one after the other."""
        unpacker: _Unpacker | None = None
        while data := self._file.read(self._compression.step):
            self._packed_bytes += len(data)
            while data:
                if unpacker is None:
                    data = data.lstrip(b"\0") if self._padding() else data
                    if not data:
                        break
                    unpacker = self._compression.unpacker()
                yield unpacker.decompress(data)
                data = unpacker.unused_data
                if unpacker.eof:
                    unpacker = None
        if unpacker is not None:
            raise self._refused("the file is cut off", "copy or download it again")

    def _padding(self) -> bool:
        return self._compression.padding and self._unpacked_bytes > 0

    def _refuse_bomb(self) -> None:
        unpacked, packed = self._unpacked_bytes, self._packed_bytes
        if unpacked > MAX_UNPACKED_BYTES and unpacked > MAX_RATIO * packed:
            raise self._refused(
                f"unpacks to more than {MAX_UNPACKED_BYTES // 2**30} GiB and to more than "
                f"{MAX_RATIO} times its size, as a file does that is made to fill the memory",
                f"if it is what it should be, unpack it yourself: {self._command()}",
            )

    def _damaged(self, reason: str) -> DataError:
        title = self._compression.title
        if "too much memory" in reason:
            return self._refused(
                f"needs a window of more than {MAX_WINDOW_BYTES // 2**20} MiB to be unpacked",
                f"unpack it yourself: {self._command()}",
            )
        if not self._unpacked_bytes and ("header" in reason or "Unknown frame" in reason):
            return self._refused(f"this is not {title} data ({reason})", "check the file's name")
        return self._refused(f"damaged {title} data ({reason})", "copy or download it again")

    def _command(self) -> str:
        unpacked = without_compression(Path(self._name))
        return f"`{unpack_command(self._name)} > {shlex.quote(str(unpacked))}`"

    def _refused(self, message: str, hint: str) -> DataError:
        reached = f"byte {self._packed_bytes:,} of the file, {self._unpacked_bytes:,} unpacked"
        where = f"{self._name}:{self._line_ends + 1}"
        return DataError(
            f"{self._name} cannot be unpacked",
            [Problem(f"{message} (at {reached})", where=where, hint=hint)],
        )
