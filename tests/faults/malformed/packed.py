"""Compressed files that are cut off, damaged, hold something else, or unpack without end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from .case import Case, Maker, jsonl, refused, row

ROWS = jsonl(*map(row, range(1, 401)))
Pack = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    """One Zstandard frame with a checksum."""
    import zstandard

    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKS: dict[str, Pack] = {".gz": gzip.compress, ".zst": zstd}


def _made(build: Callable[[], bytes]) -> Maker:
    """Bytes that are made when the case runs, not when the table is read."""
    return lambda path: path.write_bytes(build())


def _refused(name: str, ending: str, build: Callable[[], bytes], *said: str) -> Case:
    return refused(f"{ending}: {name}", _made(build), *said, file=f"rows.jsonl{ending}")


def _both(ending: str) -> tuple[Case, ...]:
    """What is the same for both compressions."""
    pack = PACKS[ending]
    file = f"rows.jsonl{ending}"
    good = jsonl(row(1), row(2))

    def read(name: str, content: Callable[[], bytes], **expected: object) -> Case:
        return Case(f"{ending}: {name}", _made(content), file, **expected)  # type: ignore[arg-type]

    return (
        _refused("nothing", ending, lambda: b"", "is empty"),
        _refused("nothing inside", ending, lambda: pack(b""), "is empty"),
        _refused("blank inside", ending, lambda: pack(b"\n" * 9000), "is empty"),
        _refused("one byte of it", ending, lambda: pack(ROWS)[:1], "cut off"),
        _refused("its first bytes", ending, lambda: pack(ROWS)[:5], "cut off"),
        _refused("cut in half", ending, lambda: pack(ROWS)[: len(pack(ROWS)) // 2], "cut off",
                 "copy or download it again", f"{file}:"),
        _refused("its last byte missing", ending, lambda: pack(ROWS)[:-1], "cut off", ":401 "),
        _refused("a changed byte", ending, lambda: _flipped(pack(ROWS)), "damaged"),
        _refused("a changed checksum", ending, lambda: _flipped(pack(ROWS), -6 if ending == ".gz"
                 else -2), "damaged"),
        _refused("text after it", ending, lambda: pack(ROWS) + b"and more", "damaged"),
        _refused("not compressed", ending, lambda: ROWS, "this is not"),
        _refused("a zip archive", ending, _zip, "this is not"),
        _refused("bzip2", ending, lambda: bz2.compress(ROWS), "this is not"),
        _refused("xz", ending, lambda: lzma.compress(ROWS), "this is not"),
        _refused("compressed twice", ending, lambda: pack(pack(ROWS)), "compressed"),
        _refused("the second stream cut off", ending, lambda: pack(good) + pack(good)[:-3],
                 "cut off", ":5 "),
        _refused("the second stream damaged", ending, lambda: pack(good) + _flipped(pack(ROWS)),
                 "damaged"),
        _refused("UTF-16 inside", ending, lambda: pack(good.decode().encode("utf-16")), "UTF-16"),
        _refused(f"named without {ending}", "", lambda: pack(ROWS), f"rows.jsonl{ending}"),
        read("two streams", lambda: pack(good) + pack(jsonl(row(3))), rows=(1, 2, 3)),
        read("an empty stream between", lambda: pack(good) + pack(b"") + pack(jsonl(row(3))),
             rows=(1, 2, 3)),
        read("a row over two streams", lambda: pack(good[:-30]) + pack(good[-30:]), rows=(1, 2)),
        read("a broken row inside", lambda: pack(jsonl(row(1), b"{", row(3))), rows=(1, 3),
             bad={2: "breaks off"}),
        read("Latin-1 inside", lambda: pack(jsonl(row(1), b'{"question": "\xe4"}', row(3))),
             rows=(1, 3), bad={2: "byte 0xE4"}),
        read("BOM and CRLF inside", lambda: pack(b"\xef\xbb\xbf" + row(1) + b"\r\n" + row(2)),
             rows=(1, 2)),
        refused(f"{ending}: a Parquet file inside", _made(lambda: pack(b"PAR1")),
                "Parquet is read as it is", file=f"rows.parquet{ending}"),
        refused(f"{ending}: an unknown kind inside", _made(lambda: pack(b"x")), "not from",
                file=f"rows.pkl{ending}"),
        refused(f"{ending}: no kind inside", _made(lambda: pack(b"x")), "rows are read from",
                file=f"rows{ending}"),
        Case(f"{ending}: a table inside", _made(lambda: pack(b"question,answer\na,b,c\nd,e\n")),
             f"rows.csv{ending}", rows=(3,), bad={2: "3 cells"}),
        refused(f"{ending}: a list inside, cut off", _made(lambda: pack(b"[" + row(1))),
                "not valid JSON", file=f"rows.json{ending}"),
    )  # fmt: skip


def _flipped(data: bytes, place: int | None = None) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2 if place is None else place] ^= 0x55
    return bytes(changed)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rows.jsonl", ROWS)
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("rows.jsonl")
        entry.size = len(ROWS)
        archive.addfile(entry, io.BytesIO(ROWS))
    return buffer.getvalue()


def _with_dictionary() -> bytes:
    import zstandard

    trained = zstandard.train_dictionary(4096, [ROWS[i : i + 200] for i in range(0, 20_000, 50)])
    return zstandard.ZstdCompressor(dict_data=trained).compress(ROWS)


def _with_wide_window() -> bytes:
    import zstandard

    wide = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    buffer = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=wide).stream_writer(
        buffer, closefd=False
    ) as writer:
        writer.write(ROWS)
    return buffer.getvalue()


def _with_skippable_frame() -> bytes:
    return b"\x50\x2a\x4d\x18" + (8).to_bytes(4, "little") + b"a letter" + zstd(jsonl(row(1)))


def _gzip_with_every_header_field() -> bytes:
    body = gzip.compress(jsonl(row(1), row(2)))[10:]
    head = b"\x1f\x8b\x08\x1e" + b"\0" * 6 + b"\x05\0extra" + b"rows.jsonl\0" + b"a comment\0"
    return head + (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little") + body


def bomb(ending: str) -> bytes:
    """A row, and more than 1 GiB of blanks after it, in streams of 16 MiB; small itself."""
    pack = PACKS[ending]
    return pack(jsonl(row(1))) + pack(b" " * 2**24) * 68


OWN = (
    Case(".gz: zeros after the last stream",
         _made(lambda: gzip.compress(jsonl(row(1))) + b"\0" * 512), "rows.jsonl.gz", rows=(1,)),
    Case(".gz: every field in the header", _made(_gzip_with_every_header_field), "rows.jsonl.gz",
         rows=(1, 2)),
    _refused("a wrong length at the end", ".gz", lambda: _flipped(gzip.compress(ROWS), -1),
             "damaged"),
    _refused("a method that nobody has", ".gz", lambda: b"\x1f\x8b\x07" + gzip.compress(ROWS)[3:],
             "damaged", "unknown compression method"),
    _refused("zlib without a header of gzip", ".gz", lambda: zlib.compress(ROWS), "this is not"),
    Case(".gz: a tar archive inside", _made(_tar), "rows.jsonl.gz", rows=tuple(range(2, 401)),
         bad={1: "not valid JSON", 401: "NUL byte"}),
    refused(".gz: a tar archive", _made(_tar), "tar -xf", file="rows.tar.gz"),
    refused(".gz: compressed twice and named so", _made(lambda: gzip.compress(gzip.compress(ROWS))),
            "rows.jsonl.gz.gz", file="rows.jsonl.gz.gz"),
    _refused("a window of 1 GiB", ".zst", _with_wide_window, "window of more than 128 MiB"),
    _refused("a dictionary that is not here", ".zst", _with_dictionary, "rows.jsonl.zst"),
    Case(".zst: a frame that is to be skipped", _made(_with_skippable_frame), "rows.jsonl.zst",
         rows=(1,)),
    refused(".bz2", _made(lambda: bz2.compress(ROWS)), "bunzip2 -k", file="rows.jsonl.bz2"),
    refused(".xz", _made(lambda: lzma.compress(ROWS)), "unxz -k", file="rows.jsonl.xz"),
    refused(".zip", _made(_zip), "unzip", file="rows.zip"),
)  # fmt: skip

CASES = (*_both(".gz"), *_both(".zst"), *OWN)
