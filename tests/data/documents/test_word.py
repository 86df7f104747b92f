from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docx
import pytest

from llamafarm.data.documents.ledger import Ledger
from llamafarm.data.documents.recognise import recognise
from llamafarm.data.documents.word import CONTENTS, word_blocks
from llamafarm.errors import DataError

from .made_rows import MOST, Read


def read_word(path: Path) -> Read:
    ledger = Ledger()
    of_file = ledger.of_file("x.docx", "paragraph")
    blocks = list(word_blocks(lambda: path.open("rb"), "x.docx", of_file))
    return Read(blocks, list(recognise(blocks, MOST, of_file)), ledger)


@pytest.fixture
def made(tmp_path: Path) -> Callable[[Callable[[Any], None]], Read]:
    def make(write: Callable[[Any], None]) -> Read:
        document = docx.Document()
        write(document)
        document.save(str(tmp_path / "x.docx"))
        return read_word(tmp_path / "x.docx")

    return make


def test_a_document_is_read_by_its_styles(made: Callable[..., Read]) -> None:
    def write(document: Any) -> None:
        document.add_heading("Handbook", 0)
        document.add_heading("Install", 1)
        document.add_paragraph("Do this:")
        document.add_paragraph("first", style="List Bullet")
        document.add_paragraph("then", style="List Bullet")
        document.add_paragraph("Q: Who reads it?")
        document.add_paragraph("A: Everyone.").add_run("\nEven me.")
        document.sections[0].header.paragraphs[0].text = "Company confidential"

    read = made(write)
    assert read.pairs() == [
        ("Handbook > Install", "Do this:\n\n- first\n- then"),
        ("Who reads it?", "Everyone.\nEven me."),
    ]
    assert [row.number for row in read.rows] == [2, 6]


def test_tables_of_questions_are_pairs(made: Callable[..., Read]) -> None:
    def write(document: Any) -> None:
        table = document.add_table(2, 2)
        for row, column, text in (
            (0, 0, "Question"),
            (0, 1, "Answer"),
            (1, 0, "Why?"),
            (1, 1, "So."),
        ):
            table.cell(row, column).text = text

    assert made(write).pairs() == [("Why?", "So.")]


def test_a_table_of_contents_is_removed_and_counted(made: Callable[..., Read]) -> None:
    def write(document: Any) -> None:
        document.styles.add_style("toc 1", 1)
        document.add_paragraph("Install ... 3", style="toc 1")
        document.add_paragraph("The text of it.")

    read = made(write)
    assert read.texts() == ["The text of it."]
    assert read.changed() == {CONTENTS: 1}


def test_inserted_text_counts_and_deleted_text_does_not(made: Callable[..., Read]) -> None:
    def write(document: Any) -> None:
        from docx.oxml import parse_xml

        space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
        paragraph = document.add_paragraph("It is ")
        for xml in (
            f'<w:ins {space}><w:r><w:t xml:space="preserve">really </w:t></w:r></w:ins>',
            f"<w:del {space}><w:r><w:delText>not </w:delText></w:r></w:del>",
            f"<w:r {space}><w:t>so.</w:t></w:r>",
        ):
            paragraph._p.append(parse_xml(xml))

    assert made(write).texts() == ["It is really so."]


_SPACES = " ".join(
    f'xmlns:{prefix}="{name}"'
    for prefix, name in (
        ("w", "http://schemas.openxmlformats.org/wordprocessingml/2006/main"),
        ("mc", "http://schemas.openxmlformats.org/markup-compatibility/2006"),
        ("v", "urn:schemas-microsoft-com:vml"),
        ("wps", "http://schemas.microsoft.com/office/word/2010/wordprocessingShape"),
    )
)
_BOX = """<w:r {spaces}><mc:AlternateContent>
<mc:Choice Requires="wps"><wps:txbx><w:txbxContent>{inside}</w:txbxContent></wps:txbx></mc:Choice>
<mc:Fallback><v:textbox><w:txbxContent>{inside}</w:txbxContent></v:textbox></mc:Fallback>
</mc:AlternateContent></w:r>"""


def add_box(paragraph: Any) -> None:
    from docx.oxml import parse_xml

    inside = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in ("In a", "text box."))
    paragraph._p.append(parse_xml(_BOX.format(spaces=_SPACES, inside=inside)))


def test_a_text_box_is_read_once(made: Callable[..., Read]) -> None:
    assert made(lambda document: add_box(document.add_paragraph("Before."))).texts() == [
        "Before.\nIn a\ntext box."
    ]


def test_a_text_box_in_a_cell_is_read_once(made: Callable[..., Read]) -> None:
    def write(document: Any) -> None:
        table = document.add_table(2, 2)
        for column, texts in enumerate((("Question", "Why?"), ("Answer", "So."))):
            for row, text in enumerate(texts):
                table.cell(row, column).text = text
        add_box(table.cell(1, 1).paragraphs[0])

    ((_, answer),) = made(write).pairs()
    assert answer.split() == ["So.", "In", "a", "text", "box."]


def test_moved_text_is_read_where_it_was_moved_to(made: Callable[..., Read]) -> None:
    def write(document: Any) -> None:
        from docx.oxml import parse_xml

        for kind, text in (("moveTo", "First."), ("ins", "Second."), ("moveFrom", "First.")):
            xml = f"<w:{kind} {_SPACES}><w:r><w:t>{text}</w:t></w:r></w:{kind}>"
            document.add_paragraph()._p.append(parse_xml(xml))

    assert made(write).texts() == ["First.\n\nSecond."]


@pytest.mark.parametrize("data", [b"", b"junk", b"PK\x03\x04junk", b"%PDF-1.4"])
def test_a_damaged_file_is_refused_with_a_way_out(data: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.docx") as caught:
        list(word_blocks(lambda: io.BytesIO(data), "x.docx", Ledger().of_file("x", "paragraph")))
    assert "save it as .docx" in caught.value.hint


def test_a_zip_that_is_no_document_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.docx", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(DataError, match=r"x\.docx"):
        read_word(tmp_path / "x.docx")
