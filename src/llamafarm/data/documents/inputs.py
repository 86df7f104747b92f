"""Which files are read, what kind each is, and that the output is none of them."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from llamafarm.data.compressed import open_bytes, without_compression
from llamafarm.data.documents.ledger import Unit
from llamafarm.data.documents.request import PrepareRequest
from llamafarm.data.readers import display_name, nearest_hint
from llamafarm.errors import DataError, OutputError, Problem, UserError, count_of

Kind = Literal["text", "Markdown", "HTML", "Word", "PDF", "JSONL", "JSON", "CSV", "TSV", "Parquet"]
_ENDINGS: Mapping[Kind, str] = {
    "text": ".txt .text",
    "Markdown": ".md .markdown",
    "HTML": ".html .htm .xhtml",
    "Word": ".docx",
    "PDF": ".pdf",
    "JSONL": ".jsonl .ndjson .jsonlines",
    "JSON": ".json",
    "CSV": ".csv",
    "TSV": ".tsv .tab",
    "Parquet": ".parquet .pq",
}
_KINDS: Mapping[str, Kind] = {
    ending: kind for kind, endings in _ENDINGS.items() for ending in endings.split()
}
SUPPORTED = ", ".join(endings.split()[0] for endings in _ENDINGS.values())
_DOCUMENTS = frozenset({"text", "Markdown", "HTML", "Word", "PDF"})
_UNITS: Mapping[Kind, Unit] = {
    "Word": "paragraph",
    "PDF": "page",
    "JSON": "record",
    "Parquet": "record",
}
_NEEDED: Mapping[Kind, tuple[str, str]] = {
    "HTML": ("lxml", "lxml"),
    "Word": ("docx", "python-docx"),
    "PDF": ("pypdf", "pypdf"),
}
_WAYS_OUT = {
    ".doc": "save it as .docx",
    ".odt": "save it as .docx",
    ".rtf": "save it as .docx",
    ".epub": "save it as .html or .txt",
    ".xlsx": "save the sheet as CSV (UTF-8)",
    ".xls": "save the sheet as CSV (UTF-8)",
    ".zip": "unpack it first, and name the directory",
    ".xml": "save what it says as .txt or .html",
}
_FILES_NAMED = 3


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read. name: as messages show it."""

    path: Path
    name: str
    kind: Kind

    @property
    def unit(self) -> Unit:
        """What its parts are numbered by."""
        return _UNITS.get(self.kind, "line")

    @property
    def is_document(self) -> bool:
        """Whether rows are to be found in it; the others hold rows already."""
        return self.kind in _DOCUMENTS

    def open(self) -> BinaryIO:
        """Its bytes, unpacked where it is compressed. Raises OSError."""
        file = open_bytes(self.path, self.name)
        if self.kind not in ("Word", "PDF") or without_compression(self.path) == self.path:
            return file
        with file:  # these two are read from their end
            return io.BytesIO(file.read())


@dataclass(frozen=True, slots=True)
class Inputs:
    """notices: which files of a directory are left out."""

    files: tuple[InputFile, ...]
    notices: tuple[str, ...]


def find_inputs(paths: Sequence[Path]) -> Inputs:
    """The files that these paths mean, each once; directories with all that lies in them, hidden
    files aside.

    Raises DataError that names every path that cannot be read, UserError where a package is missing
    for one of them.
    """
    files: list[InputFile] = []
    problems: list[Problem] = []
    notices: list[str] = []
    for path in paths:
        try:
            found: Inputs | Problem = _in_directory(path) if path.is_dir() else _single(path)
        except OSError as fault:
            message = f"cannot be read: {fault.strerror or fault}"
            found = Problem(message, where=display_name(path))
        if isinstance(found, Problem):
            problems.append(found)
        else:
            files += found.files
            notices += found.notices
    if problems:
        raise DataError(f"{count_of(len(problems), 'input')} cannot be read", problems)
    once = _each_once(files)
    if len(once) < len(files):
        notices.append(f"{count_of(len(files) - len(once), 'file')} named twice, read once")
    _check_packages(once)
    return Inputs(once, tuple(notices))


def check_output(request: PrepareRequest, files: Sequence[InputFile]) -> None:
    """Raise OutputError where writing would replace an input, or a file without `overwrite`."""
    output = request.output
    name = display_name(output)
    if not output.exists():
        return
    if output.is_dir():
        raise OutputError(f"the output {name} is a directory", hint=f"--output {name}/data.jsonl")
    if any(file.path.samefile(output) for file in files):
        raise OutputError(
            f"the output {name} is one of the inputs",
            hint="write it somewhere else: an input is never replaced",
        )
    if not request.overwrite:
        raise OutputError(f"the output {name} exists already", hint="replace it with --overwrite")


def _kind_of(path: Path) -> Kind | None:
    return _KINDS.get(without_compression(path).suffix.lower())


def _single(path: Path) -> Inputs | Problem:
    name = display_name(path)
    if not path.exists():
        return Problem("does not exist", where=name, hint=nearest_hint(path))
    if not path.is_file():
        return Problem("is not a regular file", where=name, hint="save it into a file first")
    kind = _kind_of(path)
    if kind is not None:
        return Inputs((InputFile(path, name, kind),), ())
    suffix = without_compression(path).suffix.lower()
    found = f"a file named {suffix}" if suffix else "a file without ending"
    hint = _WAYS_OUT.get(suffix, "if it is text, give it the ending .txt")
    return Problem(f"expected one of {SUPPORTED}, found {found}", where=name, hint=hint)


def _in_directory(directory: Path) -> Inputs | Problem:
    files: list[InputFile] = []
    others: list[Path] = []
    for path in _walk(directory):
        kind = _kind_of(path)
        if kind is None:
            others.append(path)
        else:
            files.append(InputFile(path, display_name(path), kind))
    if not files:
        return Problem(
            "no file in this directory can be read",
            where=display_name(directory),
            hint=f"looked for files named {SUPPORTED}",
        )
    return Inputs(tuple(files), tuple(_left_out(directory, others)))


def _walk(directory: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(directory):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield path


def _left_out(directory: Path, others: Sequence[Path]) -> list[str]:
    if not others:
        return []
    named = ", ".join(str(path.relative_to(directory)) for path in others[:_FILES_NAMED])
    more = f" and {len(others) - _FILES_NAMED:,} more" if len(others) > _FILES_NAMED else ""
    count = count_of(len(others), "file")
    return [f"{display_name(directory)}: {count} of other kinds not read: {named}{more}"]


def _each_once(files: Sequence[InputFile]) -> tuple[InputFile, ...]:
    found: dict[tuple[int, int], InputFile] = {}
    for file in files:
        status = file.path.stat()
        found.setdefault((status.st_dev, status.st_ino), file)
    return tuple(found.values())


def _check_packages(files: Sequence[InputFile]) -> None:
    missing = {
        kind: package
        for kind, (module, package) in _NEEDED.items()
        if any(file.kind == kind for file in files) and importlib.util.find_spec(module) is None
    }
    if missing:
        kinds, packages = " and ".join(missing), ", ".join(missing.values())
        raise UserError(
            f"{kinds} files are read with packages that are not installed: {packages}",
            hint="pip install 'llamafarm[documents]'",
        )
