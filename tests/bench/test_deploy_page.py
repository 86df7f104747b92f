"""The measured part of docs/benchmarks-deploy.md: made from results, and honest about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bench.deploy.page import render, write_page
from bench.report import BEGIN, END

from tests.bench.made_up_deploy import MEMORY, PARTS, SPEED, parity_row, part


def cells(text: str, first: str) -> list[list[str]]:
    """Of every line of a table that begins with this cell."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_speed_line_holds_medians_with_their_range_and_the_ratio() -> None:
    (line,) = cells(render({"speed": PARTS["speed"]}, "kept.json"), "F16")
    assert line == [
        "F16",
        "500 MB",
        "250 MB",
        "1.00 s (0.90 … 5.00)",
        "1.50 s (1.40 … 1.60)",
        "1.50 ×",
        "1.56 ×",
        "2.50 s (2.00 … 3.00)",
        "3",
    ]


def test_a_goal_that_was_missed_is_confessed() -> None:
    assert "reached by all" in render({"speed": PARTS["speed"]}, "kept.json")
    slow = replace(SPEED, runs=tuple(replace(r, seconds=9.0) for r in SPEED.runs[3:6]))
    slow = replace(slow, runs=(*SPEED.runs[:3], *slow.runs, *SPEED.runs[6:]))
    assert "**missed** by F16 (10.00 ×)" in render({"speed": part(slow)}, "kept.json")


def test_a_memory_line_names_what_was_imported() -> None:
    text = render({"memory": part(MEMORY, replace(MEMORY, heavy_modules=("torch",)))}, "kept.json")
    clean, heavy = cells(text, "Small")
    assert clean == ["Small", "300 MB", "100 MB", "F16", "80 MB", "500 MB", "no"]
    assert heavy[-1] == "torch"


def test_memory_beyond_the_limit_is_confessed() -> None:
    assert "Kept by all." in render({"memory": PARTS["memory"]}, "kept.json")
    over = part(replace(MEMORY, peak_bytes=600_000_000))
    assert "**Exceeded** by Small to F16" in render({"memory": over}, "kept.json")


def test_parity_shows_the_worst_with_its_limits_and_then_every_model() -> None:
    text = render(PARTS, "kept.json")
    worst, small, tiny = cells(text[text.index("### Parity") :], "F16")
    assert worst == ["F16", "0.02", "0.06", "0.2", "0.05", "0.4", "0.10%", "1.00%"]
    assert small[:4] == ["F16", "Small", "200", "0.01"]
    assert small[5:7] == ["95.0%", "150 of 150"]
    assert tiny[1] == "Tiny"


def test_files_of_one_type_stand_together() -> None:
    rows = [parity_row("One"), parity_row("One", "Q8_0"), parity_row("Two")]
    text = render({**PARTS, "parity": part(*rows)}, "kept.json")
    lines = text[text.index("Each model:") :].splitlines()[4:7]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| F16", "One"],
        ["| F16", "Two"],
        ["| Q8_0", "One"],
    ]


def test_every_part_says_when_where_and_with_what() -> None:
    text = render(PARTS, "kept.json")
    assert text.count("Measured 2026-01-31 on Some CPU, 2 cores (AVX2), 24 GiB, Linux;") == 3
    assert "gguf 0.17.1" in text
    assert "`python -m bench.deploy`" in text
    assert "`bench/results/kept.json`" in text


def test_a_busy_machine_is_confessed() -> None:
    assert "not quiet" not in render(PARTS, "kept.json")
    busy = render({"speed": part(SPEED, load=2.7)}, "kept.json")
    assert "up to 2.7. **The machine was not quiet.**" in busy


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(page, PARTS, "kept.json")
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="does not have the marks"):
        write_page(page, PARTS, "kept.json")
    assert page.read_text() == "nothing here\n"
