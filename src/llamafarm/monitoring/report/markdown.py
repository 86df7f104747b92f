"""The report in Markdown: what stays with a model when it is given to others."""

from __future__ import annotations

from llamafarm.monitoring.markdown import escape_markdown, markdown_table
from llamafarm.monitoring.report.content import Content, ReportedFinding
from llamafarm.monitoring.report.facts import Facts
from llamafarm.monitoring.report.tables import Table


def render_markdown(content: Content) -> str:
    """All parts that are there, as sections; texts of strangers stay texts."""
    sections = [
        f"# {escape_markdown(content.title)}",
        f"{escape_markdown(content.verdict)} {escape_markdown(content.outcome)}",
        _section("Results", _table(content.results)),
        _section("Findings", "\n".join(map(_finding, content.findings))),
        _section("Use", "\n\n".join(f"{u.purpose}:\n\n    {u.text}" for u in content.usage)),
        _section("Data", _facts(content.data)),
        _section("Training", _facts(content.settings)),
        _section("Decisions", _decisions(content)),
        _section("Forecast and fact", _table(content.forecast)),
        _section("Versions", _facts(content.versions)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _finding(finding: ReportedFinding) -> str:
    rule = f"**{escape_markdown(finding.rule)}**: " if finding.rule else ""
    texts = [text.rstrip(".") for text in (finding.text, finding.advice) if text]
    return f"- {rule}{escape_markdown('. '.join(texts))}."


def _facts(facts: Facts) -> str:
    return markdown_table(("", ""), facts) if facts else ""


def _table(table: Table | None) -> str:
    if table is None:
        return ""
    note = f"\n\n{escape_markdown(table.note)}" if table.note else ""
    return markdown_table(tuple(map(escape_markdown, table.header)), table.rows) + note


def _decisions(content: Content) -> str:
    """Without the constants that nobody touched."""
    chosen = [
        (d.field, d.value, d.source, d.reason) for d in content.decisions if d.source != "default"
    ]
    return markdown_table(("value of", "is", "from", "because"), chosen) if chosen else ""
