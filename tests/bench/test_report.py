"""The measured part of the page, and nothing else, is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.figures import Measured, figures
from bench.report import BEGIN, END, Machine, Report, Section, render, verdict_line, write_report
from bench.spec import RunSpec

from tests.bench.made_up import BASE, OURS, run, step

MACHINE = Machine("Some CPU", 2, "AVX2", 24 * 1024**3, "Linux")


def report(load_average: float = 0.1) -> Report:
    spec = RunSpec("", "", "", warmup_steps=1, timed_steps=2)
    measured = Measured(
        warmup_steps=1,
        runs={
            "ours": [run([step(2.0)] * 3, load_average=load_average)],
            "base": [run([step(4.0)] * 3)],
        },
        held_out={"ours": 1.9, "base": 1.91},
        flops_per_token=0.5e9,
        limit=1e11,
    )
    lines = figures([OURS, BASE], measured, "base")
    section = Section("A set", spec, measured, lines, 2.5)
    return Report("2026-01-31", "python -m bench --rounds 1", MACHINE, "runs.json", [section])


def test_the_page_says_when_and_with_which_command_it_was_measured() -> None:
    head = render(report()).splitlines()[0]
    assert "Measured 2026-01-31" in head
    assert "`python -m bench --rounds 1`" in head


def test_a_line_holds_speed_ratio_memory_share_and_loss() -> None:
    (line,) = [line for line in render(report()).splitlines() if line.startswith("| Ours")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "Ours",
        "50",
        "2.00 ×",
        "20",
        "2.00 s (2.00 s)",
        "1.20",
        "2.00 GiB",
        "25%",
        "1.9000",
    ]


def test_date_machine_versions_and_settings_are_named() -> None:
    text = render(report())
    for part in ("2026-01-31", "Some CPU", "torch 2.13.0", "`max_steps=3`", "runs.json"):
        assert part in text


def test_a_busy_machine_is_confessed() -> None:
    assert "not quiet" not in render(report())
    assert "not quiet" in render(report(load_average=1.7))


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_report(page, report())
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="does not have the marks"):
        write_report(page, report())
    assert page.read_text() == "nothing here\n"


def test_the_verdict_names_a_target_that_was_missed() -> None:
    (section,) = report().sections
    assert "2.0 x reached" in verdict_line(section, 2.0)
    assert "2.1 x NOT reached" in verdict_line(section, 2.1)
