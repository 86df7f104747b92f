from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llamafarm.monitoring.report.charts import charts_of
from llamafarm.monitoring.report.content import content_of
from llamafarm.monitoring.report.page import render_page
from llamafarm.monitoring.run_record import RunRecord

from .records import FINDING, HOSTILE, SETTINGS, full_record, hostile_record

GOLDEN = Path(__file__).parents[2] / "golden" / "monitoring" / "report.txt"
BLOCKS = {"h1", "h2", "h3", "h4", "p", "tr", "li", "div", "dt", "dd", "pre", "summary", "footer"}


class Page(HTMLParser):
    """What a browser would make of it: the texts of blocks, tags with attributes, scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._skip = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._skip = tag
            self.scripts += [""] if tag == "script" else []
        elif tag in BLOCKS:
            self.text += "\n"
        elif tag in ("td", "th", "small", "a", "span"):
            self.text += " | "

    def handle_endtag(self, tag: str) -> None:
        self._skip = "" if tag == self._skip else self._skip

    def handle_data(self, data: str) -> None:
        if self._skip == "script":
            self.scripts[-1] += data
        elif not self._skip:
            self.text += data

    @property
    def lines(self) -> list[str]:
        lines = (re.sub(r"[ |]*\|[ |]*", " | ", " ".join(x.split())) for x in self.text.split("\n"))
        return [line.strip(" |") for line in lines if line.strip(" |")]


def page_of(record: RunRecord) -> tuple[str, Page]:
    html = render_page(content_of(record), charts_of(record.events), {"loss": b"picture"})
    return html, Page(html)


def test_the_page_says_everything_in_this_order() -> None:
    _, page = page_of(full_record(Path("/runs/tiny")))
    assert page.lines == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_what_is_not_known_is_left_out() -> None:
    record = replace(
        full_record(Path("/runs/tiny"), ()),
        started=None,
        resumed=(),
        seed=None,
        strategy_yaml="",
        versions={},
        decisions=(),
        model=None,
        data=None,
        hardware=None,
        forecast=None,
        actual=None,
        comparison=None,
    )
    _, page = page_of(record)
    assert "None" not in page.text
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "h2"]
    assert sections == ["findings", "use", "versions"]
    assert not page.scripts


@pytest.mark.parametrize("tag", ["script", "img", "iframe", "link", "object", "form"])
def test_markup_in_texts_of_strangers_becomes_no_tag(tag: str) -> None:
    known = [t for t, _ in page_of(full_record(Path("/runs/tiny")))[1].tags]
    hostile = [t for t, _ in page_of(hostile_record(Path("/runs/tiny")))[1].tags]
    assert hostile.count(tag) == known.count(tag)


def test_markup_in_texts_of_strangers_is_shown_as_text() -> None:
    html, page = page_of(hostile_record(Path("/runs/tiny")))
    # Title twice, and every other place it was put in.
    assert page.text.count(HOSTILE) >= 20
    assert HOSTILE not in html
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_texts_in_the_plots_cannot_end_their_script() -> None:
    _, page = page_of(hostile_record(Path("/runs/tiny")))
    data = page.scripts[0]
    assert "<" not in data
    assert HOSTILE in json.dumps(json.loads(data), ensure_ascii=False).replace('\\"', '"')


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_loaded() -> None:
    _, page = page_of(full_record(Path("/runs/tiny")))
    policy = next(a for t, a in page.tags if t == "meta" and "http-equiv" in a)["content"]
    assert policy is not None
    _, *scripts = page.scripts
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy == (
        f"default-src 'none'; script-src {hashes}; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    loaded = [a for t, a in page.tags if t in ("script", "link", "img", "iframe") if "href" in a]
    sources = [a["src"] for _, a in page.tags if a.get("src")]
    assert not loaded
    assert all(source and source.startswith("data:") for source in sources)


def test_the_page_is_smaller_than_two_megabytes() -> None:
    html, _ = page_of(full_record(Path("/runs/tiny")))
    assert len(html.encode()) < 2_000_000


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("running", "Still running, at step 12 of 12."),
        ("failed", "Failed at step 12: the disk is full."),
        ("interrupted", "Interrupted at step 12: --resume goes on with it."),
        ("stopped", "Ended at step 12 without a word: --resume goes on with it."),
        ("completed", "Hardly learning: the learning rate is too low."),
    ],
)
def test_the_first_sentence_says_how_it_ended(status: str, said: str) -> None:
    record = replace(full_record(Path("/runs/tiny")), status=status, error="the disk is full")
    assert content_of(record).verdict == said


def test_the_evidence_of_a_finding_is_in_units_that_are_read() -> None:
    numbers = {"memory_bytes": 2.0**30, "steps": 12_000.0, "share": 0.12345, "odd": math.nan}
    found = replace(FINDING, numbers=numbers)
    record = full_record(Path("/runs/tiny"), (SETTINGS, found))
    assert content_of(record).findings[0].numbers == (
        ("memory", "1.0 GiB"),
        ("steps", "12,000"),
        ("share", "0.1235"),
    )


def test_a_stopped_run_is_told_how_to_go_on_and_a_running_one_nothing() -> None:
    record = replace(full_record(Path("/runs/my run")), has_model=False, status="stopped")
    assert [usage.text for usage in content_of(record).usage] == [
        "llamafarm train --strategy-file '/runs/my run'/strategy.yaml --resume"
    ]
    assert content_of(replace(record, status="running")).usage == ()


def test_without_a_paired_comparison_the_evaluations_make_the_table() -> None:
    results = content_of(replace(full_record(Path("/runs/tiny")), comparison=None)).results
    assert results is not None
    assert results.header == ("", "step", "eval loss", "perplexity", "accuracy", "change")
    assert [row[:3] for row in results.rows] == [
        ("base", "0", "2.2310"),
        ("best", "8", "1.8390"),
        ("last", "12", "1.8500"),
    ]
    assert results.rows[1][-1] == "-17.6 %"
