"""Every YAML block of the documentation is a strategy file that loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.strategy.loader import load_strategy, load_strategy_file
from tests.docs.pages import PAGES, ROOT, Block, blocks

YAML = [block for page in PAGES for block in blocks(page, "yaml", "yml")]


def test_there_are_blocks_in_both_strategy_pages() -> None:
    pages = {block.page.name for block in YAML}
    assert {"PYTORCH_TRAINING_GUIDE.md", "STRATEGY_EXAMPLES.md"} <= pages


@pytest.mark.parametrize("block", YAML, ids=str)
def test_block_loads(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "strategies.yaml"
    path.write_text(block.text, encoding="utf-8")
    entries = load_strategy_file(path, environ={}).entries
    assert entries
    for entry in entries:
        strategy = load_strategy(path, entry.id, environ={})
        assert strategy.id == entry.id
        # An example shows keys that do something.
        assert [notice.path for notice in strategy.notices] == []


def test_examples_page_names_every_shipped_strategy_and_no_other() -> None:
    text = (ROOT / "docs" / "STRATEGY_EXAMPLES.md").read_text("utf-8")
    shipped = load_strategy_file(ROOT / "demos" / "strategies.yaml", environ={}).entries
    table = text.split("| Strategy | For |")[1].split("\n\n")[0]
    listed = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert listed == [entry.id for entry in shipped]
