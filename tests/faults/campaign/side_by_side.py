"""The table of docs/reliability.md that puts the tools beside each other, made of
docs/campaign/peers.json: `python -m tests.faults.campaign.side_by_side`.
"""

from __future__ import annotations

from pathlib import Path

from tests.faults.campaign.peers import PeerLine, PeerTable, load_table

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "docs" / "campaign" / "peers.json"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"


def render(table: PeerTable) -> str:
    """A fault a line, a tool a column: how often it ended well, of how often it was done."""
    tools = list(dict.fromkeys(line.tool for line in table.lines))
    cells = {(x.fault, x.setting, x.tool): x for x in table.lines}
    kinds = list(dict.fromkeys((x.fault, x.setting) for x in table.lines))
    good_when = {x.fault: x.good_when for x in table.lines}
    rows = [["fault", *tools, "good when"], ["---", *("---:" for _ in tools), "---"]]
    for fault, setting in kinds:
        counts = [_count(cells.get((fault, setting, tool))) for tool in tools]
        rows.append([f"{fault}{f' (`{setting}`)' if setting else ''}", *counts, good_when[fault]])
    days = sorted({line.measured for line in table.lines})
    measured = (
        f"Measured {' and '.join(days)} on {table.machine}, with {', '.join(table.versions)}: "
        f"`{table.command}`. What was seen in each case is in `docs/campaign/peers.json`. "
        f"{table.not_driven}."
    )
    return "\n".join([*("| " + " | ".join(row) + " |" for row in rows), "", measured])


def _count(line: PeerLine | None) -> str:
    return "" if line is None else f"{line.good} of {line.done}"


def page_with(table: PeerTable, page: str) -> str:
    """The page with this table between the marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{render(table)}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with(load_table(RESULTS), PAGE.read_text("utf-8")), "utf-8")
