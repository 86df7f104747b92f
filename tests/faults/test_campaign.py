"""The short form of the fault campaign, a test a row; and that it finds what is broken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tests.faults.campaign import (
    crash_points,
    kills,
    lock,
    soak,
    training,
)
from tests.faults.campaign.planted import Planted
from tests.faults.campaign.record import render, result_of
from tests.faults.campaign.row import Case, Row
from tests.faults.campaign.rows import MODULES, load_row
from tests.faults.campaign.workplace import Workplace
from tests.faults.campaign.zygote import WITHOUT_REPORTS, Child

pytestmark = pytest.mark.slow
# The long form draws them.
os.environ[WITHOUT_REPORTS] = "1"


@pytest.mark.parametrize("key", MODULES)
def test_every_case_of_the_row_passes(key: str, tmp_path: Path) -> None:
    cases = list(load_row(key).cases(tmp_path, "short"))
    assert cases
    failed = [f"{case.name}: {case.detail}" for case in cases if not case.passed]
    assert not failed, f"{len(failed)} of {len(cases)}:\n" + "\n".join(failed)


def _found(cases: Iterator[Case]) -> str:
    """Why the first case that fails does; empty when none does."""
    return next((case.detail for case in cases if not case.passed), "")


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, str], None]:
    """Break every child that a row starts."""

    def broken(module: ModuleType, fault: str) -> None:
        def start(
            place: Workplace, argv: Sequence[str], before: Callable[[], object] | None = None
        ) -> Child:
            return training.start(place, argv, Planted(fault, before))

        monkeypatch.setattr(module, "start", start)

    return broken


@pytest.mark.parametrize(
    ("row", "fault", "detail"),
    [
        (crash_points, "writes in place", "checkpoint"),
        (kills, "forgets the optimizer", "other weights"),
        (lock, "takes no lock", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
def test_a_planted_fault_is_found(
    row: ModuleType,
    fault: str,
    detail: str,
    plant: Callable[[ModuleType, str], None],
    tmp_path: Path,
) -> None:
    plant(row, fault)
    found = _found(row.ROW.cases(tmp_path, "short"))
    assert found
    assert detail in found


def test_a_power_failure_finds_what_was_never_fsynced(
    plant: Callable[[ModuleType, str], None], tmp_path: Path
) -> None:
    plant(crash_points, "never fsyncs")
    assert _found(crash_points.power_failures_at_the_end(tmp_path))


def test_growing_memory_is_seen_in_its_slope() -> None:
    slope, error = soak.fit([0.0, 1.0, 2.0, 3.0, 4.0], [5.0, 7.1, 8.9, 11.0, 13.0])
    assert slope == pytest.approx(2.0, abs=0.05)
    assert 0 < error < 0.1


def test_a_row_with_a_failed_case_names_it_in_the_table() -> None:
    cases = [Case("one", True, facts={"kills": 1}), Case("other", False, "torn", {"kills": 1})]
    row = Row("kills", "SIGKILL", "the same weights", lambda workdir, form: iter(cases))
    table = render([result_of(row, "long", cases, 3.0)])
    assert "| SIGKILL | 1 of 2 | the same weights | kills 2 |" in table
    assert "- kills: other" in table
