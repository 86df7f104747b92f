from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llamafarm.monitoring.report.content import content_of
from llamafarm.monitoring.report.markdown import escape_markdown, render_markdown

from .records import full_record, hostile_record

GOLDEN = Path(__file__).parents[2] / "golden" / "monitoring" / "report.md"


def test_the_report_in_markdown_looks_as_agreed() -> None:
    content = content_of(full_record(Path("/runs/tiny")), "PATH")
    assert render_markdown(content) == GOLDEN.read_text(encoding="utf-8")


def test_texts_of_strangers_make_no_markup() -> None:
    assert escape_markdown("a|b <b> [x](y)\n# c ![](http://x) `d`") == (
        r"a\|b &lt;b&gt; \[x\](y) # c !\[\](http://x) \`d\`"
    )
    text = render_markdown(content_of(hostile_record(Path("/runs/tiny")), "PATH"))
    assert "<script" not in text
    assert "<img" not in text


def test_names_of_metrics_make_no_markup() -> None:
    record = full_record(Path("/runs/tiny"))
    assert record.comparison is not None
    base, *others = record.comparison.models
    models = (replace(base, metrics={"<b>|`x`": 1.0}), *others)
    record = replace(record, comparison=replace(record.comparison, models=models))
    text = render_markdown(content_of(record, "PATH"))
    assert r"| &lt;b&gt;\|\`x\` |" in text
