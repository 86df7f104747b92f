from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llamafarm.data.quality import languages
from llamafarm.data.quality.observer import QualityObserver
from llamafarm.data.quality.report import MAX_EXAMPLES, QualityReport
from llamafarm.data.rows import Conversation, Message, RowRef, Segment
from tests.data.quality.conversations import chat, finding_of, plain_rows, qa, report_of


def test_good_rows_have_no_findings() -> None:
    report = report_of(plain_rows(100))
    assert report.findings == () and report.notes == ()
    assert report.languages == (("en", 100),) and report.scripts == (("Latin", 100),)


def test_nothing_seen_is_a_report_too() -> None:
    report = report_of([])
    assert (report.rows, report.sides, report.prompts, report.findings) == (0, (), None, ())


def test_rows_are_counted_by_side() -> None:
    observer = QualityObserver()
    for line, side in enumerate(("train", "eval", "train", "test"), start=1):
        observer.see(qa("Why?", "Because.", line), side)
    assert dict(observer.report().sides) == {"train": 2, "eval": 1, "test": 1}


def test_warnings_come_before_notices() -> None:
    rows = [qa("Why?", "fish &amp; chips"), chat("u:Why?", line=2), qa("a\x00?", "Yes", 3)]
    report = report_of(rows)
    levels = [finding.level for finding in report.findings]
    assert levels == sorted(levels, key=("warning", "notice").index)
    assert {finding.kind for finding in report.warnings} == {"no_answer", "control_character"}
    assert [finding.kind for finding in report.notices] == ["html"]


def test_all_rows_are_counted_and_ten_are_shown() -> None:
    report = report_of([qa(f"Why {i}?", "fish &amp; chips", i) for i in range(1, 26)])
    finding = finding_of(report, "html")
    assert finding is not None and finding.rows == 25
    assert [example.source.line for example in finding.examples] == list(range(1, MAX_EXAMPLES + 1))


def test_a_report_survives_json() -> None:
    rows = [*plain_rows(30), qa("half \ud800?", "ann@a-b.org \ud83d"), chat("u:x", "u:y")]
    report = report_of(rows)
    adapter = TypeAdapter(QualityReport)
    text = json.dumps(adapter.dump_python(report, mode="json"), ensure_ascii=False)
    assert adapter.validate_json(text.encode()) == report
    assert finding_of(report, "lone_surrogate") is not None


def test_a_report_may_be_asked_for_twice_and_again_later() -> None:
    observer = QualityObserver()
    observer.see(qa("Why?", "ann@a-b.org"), "train")
    first = observer.report()
    assert observer.report() == first
    observer.see(qa("Why?", "bob@a-b.org", 2), "train")
    assert observer.report().findings[0].rows == 2 and first.findings[0].rows == 1


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "SAMPLE_ROWS", 100)
    observer = QualityObserver()
    tracemalloc.start()
    kept = []
    # Answers are forgotten every 1025 rows: at these numbers as many are known.
    for number in range(6 * 1025 + 1):
        text = f"Number {number} is at {number}@a-b.org, and is a fine number."
        observer.see(qa(f"Who is number {number}?", text, number), "train")
        if number in (2 * 1025, 6 * 1025):
            kept.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert kept[1] - kept[0] < 50_000


def test_seeing_rows_does_not_load_the_language_model() -> None:
    code = (
        "import sys\n"
        "from llamafarm.data.quality.observer import QualityObserver\n"
        "from tests.data.quality.conversations import qa\n"
        "row = qa('Why?', 'Because the liver stores sugar for the night.')\n"
        "QualityObserver().see(row, 'train')\n"
        "print({'py3langid', 'torch', 'transformers'} & set(sys.modules))"
    )
    # In a process of its own: here another test may have loaded them.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


_TEXTS = st.text(st.characters(), max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), _TEXTS)),
    st.lists(st.tuples(_TEXTS, st.booleans())),
    _TEXTS,
)
def test_no_row_is_too_strange_to_be_looked_at(
    turns: list[tuple[str, str]], pieces: list[tuple[str, bool]], text: str
) -> None:
    observer = QualityObserver()
    source = RowRef("r", 1)
    messages = tuple(Message(role, content) for role, content in turns)  # type: ignore[arg-type]
    observer.see(Conversation(source, messages), "train")
    observer.see(Conversation(source, segments=tuple(Segment(*piece) for piece in pieces)), "eval")
    observer.see(Conversation(source, text=text), "test")
    report = observer.report()
    assert report.rows == 3
    for finding in report.findings:
        assert finding.rows >= len(finding.examples) >= 1
        assert all(len(e.excerpt) <= 80 and e.excerpt.isprintable() for e in finding.examples)
