from __future__ import annotations

import io
from pathlib import Path

import pytest

from llamafarm.data.documents.ledger import Ledger
from llamafarm.data.documents.pdf import (
    EMPTY_PAGE,
    HYPHENS,
    RUNNING_LINES,
    pdf_blocks,
)
from llamafarm.data.documents.recognise import recognise
from llamafarm.errors import DataError

from .made_files import write_pdf
from .made_rows import MOST, Read

BODY = [
    "A paragraph that fills the whole width of the line and goes on in the exam-",
    "ple below it, as printed text does when it is set in lines of one width and",
    "ends somewhere.",
]


def read_pdf(path: Path) -> Read:
    ledger = Ledger()
    of_file = ledger.of_file("x.pdf", "page")
    blocks = list(pdf_blocks(lambda: path.open("rb"), "x.pdf", of_file))
    return Read(list(blocks), list(recognise(blocks, MOST, of_file)), ledger)


def test_lines_become_paragraphs_and_divided_words_are_put_together(tmp_path: Path) -> None:
    read = read_pdf(write_pdf(tmp_path / "x.pdf", [[*BODY, "", *BODY]]))
    whole = (
        "A paragraph that fills the whole width of the line and goes on in the example below it, "
        "as printed text does when it is set in lines of one width and ends somewhere."
    )
    assert read.texts() == [f"{whole}\n\n{whole}"]
    assert read.changed() == {HYPHENS: 2}


def test_headers_footers_and_page_numbers_are_removed_and_counted(tmp_path: Path) -> None:
    pages = [
        [
            "Clinic handbook 2026",
            f"About {topic}.",
            *BODY,
            f"End of {topic}.",
            f"Page {number} of 4",
        ]
        for number, topic in enumerate(("fever", "sleep", "pain", "rest"), start=1)
    ]
    read = read_pdf(write_pdf(tmp_path / "x.pdf", pages))
    (text,) = read.texts()
    assert "handbook" not in text
    assert "of 4" not in text
    assert text.count("ends somewhere.") == 4
    assert text.count("End of") == 4
    assert read.changed()[RUNNING_LINES] == 4


def test_questions_are_pairs_with_the_page_they_stand_on(tmp_path: Path) -> None:
    pages = [
        ["Q: What is it?", "A: A thing that goes on", "1"],
        ["over the page.", "Q: Two?", "A: 2", "2"],
    ]
    read = read_pdf(write_pdf(tmp_path / "x.pdf", pages))
    assert read.pairs() == [("What is it?", "A thing that goes on over the page."), ("Two?", "2")]
    assert [row.number for row in read.rows] == [1, 2]


def test_items_of_a_list_stay_lines(tmp_path: Path) -> None:
    read = read_pdf(write_pdf(tmp_path / "x.pdf", [["Things:", "- rest", "- a lot of tea"]]))
    assert read.texts() == ["Things:\n- rest\n- a lot of tea"]


def test_a_page_without_text_is_named(tmp_path: Path) -> None:
    read = read_pdf(write_pdf(tmp_path / "x.pdf", [BODY, [], BODY]))
    assert read.dropped() == {EMPTY_PAGE: ["x.pdf page 2"]}


def test_a_scanned_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "x.pdf", [[], []])
    with pytest.raises(DataError, match="holds no text on its 2 pages") as caught:
        read_pdf(path)
    assert "OCR" in caught.value.hint


def test_an_encrypted_file_is_refused(tmp_path: Path) -> None:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(PdfReader(write_pdf(tmp_path / "x.pdf", [BODY])))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    with pytest.raises(DataError, match="is encrypted"):
        read_pdf(tmp_path / "locked.pdf")


@pytest.mark.parametrize("data", [b"", b"junk", b"%PDF-1.4\njunk", b"PK\x03\x04"])
def test_a_damaged_file_is_refused_without_noise(
    data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"x\.pdf cannot be read as PDF"):
        list(pdf_blocks(lambda: io.BytesIO(data), "x.pdf", Ledger().of_file("x", "page")))
    assert capsys.readouterr().err == ""
