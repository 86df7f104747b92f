"""Bytes of any encoding to lines of text; how the encoding was found is kept for the report."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from llamafarm.data.documents.ledger import FileLedger
from llamafarm.data.documents.word_set import word_set
from llamafarm.errors import DataError

Opener = Callable[[], BinaryIO]

STRAY_BYTES = "bytes that are not UTF-8 read as cp1252"
NO_CHARACTER = "bytes that are no character replaced by \ufffd"

_WITH_STRAY = "with stray bytes of cp1252"
_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 1 << 16
_SAMPLE_BYTES = 1 << 16
_PIECE_CHARS = 1 << 16
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
# Asked of charset-normalizer, which knows a hundred more: those that text files are found in.
_CANDIDATES = word_set(
    "cp1252 cp1250 cp1251 cp1253 cp1254 cp1255 cp1256 cp1257 koi8_r iso8859_2 iso8859_5 "
    "iso8859_7 mac_roman cp437 cp850 cp866 shift_jis cp932 euc_jp gb18030 big5 euc_kr cp949"
)
_STRAY = re.compile("[\udc80-\udcff]")
_UNDEFINED_IN_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
# Signs of cp1252 that stand inside words only where the bytes are letters of another code page.
_SIGN_IN_WORD = re.compile(r"(?<=[^\W\d_])[¡-©¬®-±³-¶¸¹»-¿×÷†‡‰‹›™](?=[^\W\d_])")
_TWO_FOREIGN_LETTERS = re.compile("[^\\W\\d_a-zA-Z](?=[^\\W\\d_a-zA-Z])")
_DECLARATION = b'<meta charset="x">'
_OTHER_KINDS = (
    (b"%PDF-", "a PDF file", ".pdf"),
    (b"PK\x03\x04", "a zip archive, as Word files are", ".docx"),
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"\x1f\x8b", "a gzip file", ".gz"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", ".zst"),
)


@dataclass(frozen=True, slots=True)
class TextEncoding:
    """codec: as Python names it; found_by: empty for UTF-8 without a mark.

    stray: UTF-8 in which single bytes are not; they are read as cp1252.
    """

    codec: str
    title: str
    found_by: str = ""
    stray: bool = False

    def __str__(self) -> str:
        return f"{self.title} ({self.found_by})" if self.found_by else self.title

    def text_of(self, file: BinaryIO) -> io.TextIOWrapper:
        """The file as text, its line ends as line feeds; stray bytes are still to be read."""
        errors = "surrogateescape" if self.stray else "replace"
        return io.TextIOWrapper(file, self.codec, errors=errors, newline=None)

    @property
    def is_plain_utf8(self) -> bool:
        """Whether every reader of UTF-8 takes the file as it is."""
        return self.codec in ("utf-8", "utf-8-sig") and not self.stray


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line without its ending, or a piece of a long one. goes_on: the next piece is its rest."""

    text: str
    number: int
    goes_on: bool = False


def find_encoding(opener: Opener, name: str, declared: str = "") -> TextEncoding:
    """The encoding of a file: by its mark, its zero bytes, its bytes as UTF-8, what it declares of
    itself, or by what its words look like.

    Raises DataError for a file that is no text.
    """
    with opener() as file:
        head = file.read(_HEAD_BYTES)
    for mark, codec, title in _BOMS:
        if head.startswith(mark):
            found = TextEncoding(codec, title, "byte order mark")
            return _with_stray_bytes(opener, found) if codec == "utf-8-sig" else found
    _refuse_other_kinds(head, name)
    if b"\0" in head:
        wide = _wide_encoding(head)
        if wide:
            return TextEncoding(
                wide, wide.upper().replace("-LE", "LE").replace("-BE", "BE"), "no mark"
            )
        _refuse_binary(head, name)
    seen = _seen_as_utf8(opener)
    if not seen.stray:
        return TextEncoding("utf-8", "UTF-8")
    if seen.multibyte > seen.stray:
        return TextEncoding("utf-8", "UTF-8", _WITH_STRAY, stray=True)
    sample = bytes(seen.sample)
    if not declared:
        return _guess(sample)
    codec = _declared_codec(declared, sample)
    if codec:
        return TextEncoding(codec, declared, "as it declares")
    guess = _guess(sample)
    return replace(guess, found_by=f"{guess.found_by}; not {declared}, as it declares")


def _with_stray_bytes(opener: Opener, marked: TextEncoding) -> TextEncoding:
    """UTF-8 with its mark, whose bytes may still be of another encoding in places."""
    if not _seen_as_utf8(opener).stray:
        return marked
    return replace(marked, found_by=f"{marked.found_by}, {_WITH_STRAY}", stray=True)


def _seen_as_utf8(opener: Opener) -> _Utf8Statistics:
    seen = _Utf8Statistics()
    with opener() as file:
        for chunk in iter(partial(file.read, _CHUNK_BYTES), b""):
            seen.add(chunk)
        seen.finish()
    return seen


def read_text_lines(
    opener: Opener, encoding: TextEncoding, ledger: FileLedger
) -> Iterator[SourceLine]:
    """The lines of a file, whatever they end with; a line of more than 65,536 characters comes in
    pieces that end between words, where there are any.
    """
    with opener() as file, encoding.text_of(file) as text:
        number, rest = 1, ""
        for piece in iter(partial(text.readline, _PIECE_CHARS), ""):
            piece = rest + piece
            ended = piece.endswith("\n") or len(piece) < _PIECE_CHARS
            piece, rest = (piece.removesuffix("\n"), "") if ended else _cut_between_words(piece)
            piece = mended(piece, number, encoding, ledger)
            yield SourceLine(piece, number, goes_on=not ended)
            number += ended
        if rest:
            yield SourceLine(mended(rest, number, encoding, ledger), number)


def _cut_between_words(piece: str) -> tuple[str, str]:
    cut = piece.rfind(" ") + 1
    return (piece[:cut], piece[cut:]) if cut else (piece, "")


def mended(text: str, number: int, encoding: TextEncoding, ledger: FileLedger) -> str:
    """The text with its stray bytes read as cp1252; what could not be decoded is noted."""
    if encoding.stray and _STRAY.search(text):
        ledger.changed(STRAY_BYTES, number)
        return _STRAY.sub(_from_cp1252, text)
    if "\ufffd" in text and encoding.title != "UTF-8":
        ledger.changed(NO_CHARACTER, number)
    return text


def _from_cp1252(stray: re.Match[str]) -> str:
    return bytes([ord(stray.group()) - 0xDC00]).decode("cp1252", errors="replace")


def _refuse_other_kinds(head: bytes, name: str) -> None:
    for magic, title, ending in _OTHER_KINDS:
        if head.startswith(magic):
            raise DataError(
                f"{name} is {title}", hint=f"name it so: its name ends in {ending} then"
            )


def _refuse_binary(head: bytes, name: str) -> None:
    zeros = head.count(0)
    if zeros > len(head) * 0.01:
        raise DataError(
            f"{name} is no text: {zeros:,} of its first {len(head):,} bytes are zero",
            hint="leave it out, or save it as text",
        )


def _wide_encoding(head: bytes) -> str:
    """UTF-16 or UTF-32 without a mark: the one that reads as text with spaces and line ends."""
    best, most = "", 0.05
    for codec in _WIDE:
        width = 4 if "32" in codec else 2
        try:
            text = head[: len(head) // width * width].decode(codec)
        except UnicodeDecodeError as fault:
            # A pair of surrogates may be cut at the end of the head.
            if fault.start < len(head) - 4:
                continue
            text = head[: fault.start].decode(codec)
        if "\0" in text or not text:
            continue
        share = sum(text.count(character) for character in " \n.,;:-0123456789") / len(text)
        if share > most:
            best, most = codec, share
    return best


class _Utf8Statistics:
    """Characters of several bytes and bytes that are none, and a sample of lines that have them."""

    def __init__(self) -> None:
        self.multibyte = 0
        self.stray = 0
        self.sample = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def add(self, chunk: bytes, *, final: bool = False) -> None:
        """Take the next bytes of the file."""
        text = self._decoder.decode(chunk, final)
        if text.isascii():
            return
        stray = len(_STRAY.findall(text))
        self.stray += stray
        self.multibyte += len(text) - stray - len(text.encode("ascii", "ignore"))
        for line in chunk.split(b"\n"):
            if len(self.sample) >= _SAMPLE_BYTES:
                break
            if not line.isascii():
                self.sample += line[:_SAMPLE_BYTES] + b"\n"

    def finish(self) -> None:
        """No bytes are left."""
        self.add(b"", final=True)


def _declared_codec(declared: str, sample: bytes) -> str:
    """The codec of a declared name; empty where it is none, or does not read the sample.

    A declaration is read as ASCII, so that UTF-16 and the like cannot be meant.
    """
    try:
        name = codecs.lookup(declared).name
        codec = "cp1252" if name == "iso8859-1" else name
        reads = _DECLARATION.decode(codec) == _DECLARATION.decode("ascii")
        sample.decode(codec)
    except (LookupError, UnicodeError):
        return ""
    return codec if reads else ""


def _guess(sample: bytes) -> TextEncoding:
    """Western text unless its letters say otherwise: short texts fit many code pages."""
    if _reads_as_western(sample):
        return TextEncoding("cp1252", "cp1252", "detected")
    from charset_normalizer import from_bytes

    found = from_bytes(sample, cp_isolation=sorted(_CANDIDATES), enable_fallback=False).best()
    codec = found.encoding if found is not None else "latin-1"
    return TextEncoding(codec, codec, "detected")


def _reads_as_western(sample: bytes) -> bool:
    """In Western languages accented letters rarely stand together, and signs never inside words."""
    if _UNDEFINED_IN_CP1252.search(sample):
        return False
    text = sample.decode("cp1252")
    foreign = sum(character.isalpha() and not character.isascii() for character in text)
    together = len(_TWO_FOREIGN_LETTERS.findall(text))
    signs = len(_SIGN_IN_WORD.findall(text))
    return together <= 0.3 * foreign and signs <= 0.05 * foreign
