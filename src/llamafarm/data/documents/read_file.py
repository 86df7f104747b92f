"""One file to the rows in it, whatever kind it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llamafarm.data.documents.blocks import Block
from llamafarm.data.documents.decode import TextEncoding, find_encoding, read_text_lines
from llamafarm.data.documents.found import FoundRow
from llamafarm.data.documents.html import HEAD_BYTES, declared_encoding, html_blocks
from llamafarm.data.documents.inputs import InputFile
from llamafarm.data.documents.ledger import FileLedger
from llamafarm.data.documents.markdown import markdown_blocks
from llamafarm.data.documents.pdf import pdf_blocks
from llamafarm.data.documents.recognise import recognise
from llamafarm.data.documents.row_files import file_rows
from llamafarm.data.documents.text_lines import text_blocks
from llamafarm.data.documents.word import word_blocks
from llamafarm.errors import DataError


def encoding_of(file: InputFile) -> TextEncoding | None:
    """The encoding of a file, None where its format has none of its own.

    Raises DataError for a file that is no text, or cannot be read.
    """
    if file.kind in ("Word", "PDF", "Parquet"):
        return None
    try:
        declared = ""
        if file.kind == "HTML":
            with file.open() as opened:
                declared = declared_encoding(opened.read(HEAD_BYTES))
        return find_encoding(file.open, file.name, declared)
    except OSError as fault:
        raise _unreadable(file, fault) from fault


def rows_of(
    file: InputFile, encoding: TextEncoding | None, most: int, folder: Path, ledger: FileLedger
) -> Iterator[FoundRow]:
    """The rows of a file. most: characters that a row may have; folder: for what is kept on disk
    meanwhile.

    Raises DataError for a file that cannot be read, also in the middle of it.
    """
    try:
        if file.is_document:
            yield from recognise(_blocks(file, encoding, ledger), most, ledger)
        else:
            yield from file_rows(file, encoding, folder, ledger)
    except OSError as fault:
        raise _unreadable(file, fault) from fault


def _blocks(file: InputFile, encoding: TextEncoding | None, ledger: FileLedger) -> Iterator[Block]:
    if encoding is None:
        read = word_blocks if file.kind == "Word" else pdf_blocks
        return read(file.open, file.name, ledger)
    lines = read_text_lines(file.open, encoding, ledger)
    match file.kind:
        case "HTML":
            page = "".join(line.text if line.goes_on else f"{line.text}\n" for line in lines)
            return html_blocks(page, file.name, ledger)
        case "Markdown":
            return markdown_blocks(lines, ledger)
    return text_blocks(lines, ledger)


def _unreadable(file: InputFile, fault: OSError) -> DataError:
    return DataError(f"{file.name} cannot be read: {fault.strerror or fault}")
