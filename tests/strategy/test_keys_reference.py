from __future__ import annotations

from pathlib import Path

from llamafarm.strategy.keys import keys
from llamafarm.strategy.keys_reference import render_keys_reference

PAGE = Path(__file__).parents[2] / "docs" / "STRATEGY_KEYS.md"


def test_the_page_is_what_the_program_would_write() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_keys_reference(), (
        "run: python -m llamafarm.strategy.keys_reference > docs/STRATEGY_KEYS.md"
    )


def test_every_key_has_a_place_on_the_page() -> None:
    page = render_keys_reference()
    for key in keys():
        if key.backend == "" and key.status != "structure":
            name = key.name.replace("*", "NAME")
            assert name in page, key.path


def test_tables_are_whole() -> None:
    table = [line for line in render_keys_reference().splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in table)
    assert {line.count("|") for line in table} == {3, 6}
