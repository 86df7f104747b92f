"""What lies at a path in the place of a file of rows, and names that files may have."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from .case import Case, Maker, jsonl, refused, row

ROWS = jsonl(row(1), row(2))


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "a.jsonl").write_bytes(ROWS)


def _socket(path: Path) -> None:
    """Its own name is short: a socket may not have a long one."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def _loop(path: Path) -> None:
    other = path.with_name("other.jsonl")
    path.symlink_to(other)
    other.symlink_to(path)


def _link(target: str) -> Maker:
    return lambda path: path.symlink_to(target)


def _below_a_file(path: Path) -> None:
    path.parent.write_bytes(ROWS)


def _no_permission(path: Path) -> None:
    path.write_bytes(ROWS)
    path.chmod(0)


def _sparse(path: Path) -> None:
    """A megabyte of NUL that takes no room on the disk, after two rows."""
    path.write_bytes(ROWS)
    os.truncate(path, 1_000_000)


def _nothing(path: Path) -> None:
    """No file of this name."""


CASES = (
    refused("file: missing", _nothing, "does not exist", "looked in"),
    refused("file: missing, another is near", lambda p: p.with_name("row.jsonl").write_bytes(ROWS),
            "does not exist", "did you mean", "row.jsonl?"),
    refused("file: in a directory that is missing", _nothing, "does not exist either",
            file="nowhere/rows.jsonl"),
    refused("file: below another file", _below_a_file, "does not exist", file="a.jsonl/b.jsonl"),
    refused("file: a directory", _directory, "is a directory; it holds a.jsonl", "name one file"),
    refused("file: an empty directory", Path.mkdir, "is a directory"),
    refused("file: a pipe", os.mkfifo, "is a pipe, not a regular file"),
    refused("file: a socket", _socket, "is a socket, not a regular file"),
    refused("file: a link to itself", lambda p: p.symlink_to(p), "Too many levels of symbolic"),
    refused("file: a loop of two links", _loop, "Too many levels of symbolic"),
    refused("file: a link to nothing", _link("gone.jsonl"), "is a link to gone.jsonl, which does"),
    refused("file: a link to a directory", _link("."), "is a directory"),
    refused("file: /dev/zero", _link("/dev/zero"), "is a device, not a regular file"),
    refused("file: /dev/null", _link("/dev/null"), "is a device, not a regular file"),
    refused("file: /dev/full", _link("/dev/full"), "is a device, not a regular file"),
    refused("file: without permission", _no_permission, "cannot be read: Permission denied"),
    refused("file: a name that is too long", _nothing, "File name too long",
            file="a" * 300 + ".jsonl"),
    refused("file: a name with NUL", _nothing, "is no file name", file="a\0b.jsonl"),
    refused("file: no ending", ROWS, "a file without ending", file="rows"),
    refused("file: .txt", ROWS, "llamafarm prepare", file="rows.txt"),
    refused("file: .xlsx", b"PK\x03\x04", "save the sheet as CSV", file="rows.xlsx"),
    refused("file: .arrow", b"ARROW1", "to_parquet", file="rows.arrow"),
    refused("file: .pkl, never unpickled", b"\x80\x04.", "rows are read from", file="rows.pkl"),
    Case("file: a megabyte of NUL after the rows", _sparse, rows=(1, 2), bad={3: "a NUL byte"}),
    Case("file: a name with a newline", jsonl(row(1), b"{"), "a\nb.jsonl", rows=(1,),
         bad={2: "breaks off"}),
    Case("file: a name with an escape sequence", jsonl(row(1), b"{"), "a\x1b[31mb.jsonl", rows=(1,),
         bad={2: "breaks off"}),
    Case("file: a name that is not UTF-8", jsonl(row(1), b"{"), os.fsdecode(b"r\xff.jsonl"),
         rows=(1,), bad={2: "breaks off"}),
    Case("file: a name with spaces and quotes", jsonl(row(1), b"{"), "my 'rows'.jsonl", rows=(1,),
         bad={2: "breaks off"}),
    Case("file: an ending in capitals", ROWS, "ROWS.JSONL", rows=(1, 2)),
)  # fmt: skip
