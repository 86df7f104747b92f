"""The data report as one self-contained web page: what was found, and rows with what is trained in
colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from llamafarm.data.preview import MarkedRow
from llamafarm.errors import count_of

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #ffffff; --line: #d9dce1;
  --soft: #5c6370; --on: #c9efd4; --on-ink: #0b3d1d; --warn: #fff3d6; --warn-ink: #5c4300; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #16181c; --line: #33373e; --soft: #9aa2ae; --on: #1d4d2e;
    --on-ink: #d8f5e1; --warn: #46370f; --warn-ink: #ffe3a3; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; white-space: nowrap; vertical-align: top; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
.warning { background: var(--warn); color: var(--warn-ink); padding: .4rem .8rem;
  border-radius: .3rem; margin: .4rem 0; }
.row { border: 1px solid var(--line); border-radius: .4rem; margin: 1rem 0; }
.row header { color: var(--soft); padding: .4rem .8rem; border-bottom: 1px solid var(--line); }
pre { margin: 0; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.5 ui-monospace, monospace; }
mark { background: var(--on); color: var(--on-ink); border-radius: .15rem; }
"""


def data_page(
    title: str,
    facts: Sequence[tuple[str, str]],
    warnings: Iterable[str],
    rows: Sequence[MarkedRow],
) -> str:
    """HTML that loads nothing and runs nothing. facts: label and text; an empty label goes on with
    the one before.
    """
    table = "\n".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{escape(text)}</td></tr>'
        for label, text in facts
    )
    warned = "\n".join(f'<p class="warning">{escape(text)}</p>' for text in warnings)
    shown = "\n".join(_row(row) for row in rows)
    legend = "<p>What the model learns to write is <mark>marked</mark>.</p>" if rows else ""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{warned}
<table>
{table}
</table>
{f"<h2>{count_of(len(rows), 'row')}</h2>" if rows else ""}
{legend}
{shown}
</body>
</html>
"""


def _row(row: MarkedRow) -> str:
    pieces = "".join(
        f"<mark>{escape(piece.text)}</mark>" if piece.trained else escape(piece.text)
        for piece in row.pieces
    )
    trained = f"{row.trained_tokens:,} of them trained"
    head = f"{escape(str(row.source))}: {count_of(row.tokens, 'token')}, {trained}"
    return f'<section class="row"><header>{head}</header><pre>{pieces}</pre></section>'
