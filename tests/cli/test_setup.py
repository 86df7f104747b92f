from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY, Mock

import pytest

from llamafarm import api
from llamafarm.data.report import (
    DataReport,
    DropCount,
    DroppedRow,
    DuplicateCounts,
    LeakageReport,
    LeakedRow,
    LengthSummary,
    SourceFile,
    TokenLedger,
    TruncatedRow,
)
from llamafarm.data.rows import RowRef
from llamafarm.decision import Decision
from llamafarm.errors import Problem
from llamafarm.hardware.facts import Cpu, Hardware
from llamafarm.planning.plan import Forecast

from .conftest import Done

Run = Callable[..., Done]
Fake = Callable[..., Mock]
GOLDEN = Path(__file__).parents[1] / "golden" / "cli"
GIB = 1024**3

DATA = DataReport(
    data_format="alpaca",
    files=(
        SourceFile("data.jsonl", "a", 461, "train"),
        SourceFile("more.jsonl", "b", 10, "train", weight=0.5),
    ),
    train=LengthSummary(
        415, 41_234, 20_111, 31, 95, 180, 612, histogram=((32, 1), (64, 100), (1024, 314))
    ),
    eval=LengthSummary(46, 4_500, 2_200, 40, 97, 175, 240),
    split="10 % of data.jsonl, seed 42",
    template="the model's own",
    truncated=(TruncatedRow(RowRef("data.jsonl", 17), 612, 100, "on the third day"),),
    dropped=tuple(DroppedRow(RowRef("data.jsonl", n), "no answer") for n in (3, 5, 8, 9, 11)),
    warnings=(),
    notices=(),
    fingerprint="f",
    ledger=TokenLedger(
        rows_in=471,
        rows_kept=461,
        dropped=(DropCount("unreadable", 3), DropCount("duplicate", 2)),
        tokens=45_734,
        trained_tokens=22_311,
        answers=461,
        answers_end_trained=460,
        rows_truncated=1,
        trained_tokens_cut=100,
        template_sha256="872be49dbb638044ad01b60388f48d46",
    ),
    duplicates=DuplicateCounts(exact=2, near=7, similarity=0.7),
    leakage=(
        LeakageReport(
            "eval",
            rows=46,
            exact=0,
            normalised=0,
            near=1,
            same_prompt=0,
            contained=1,
            forced=True,
            examples=(
                LeakedRow(RowRef("data.jsonl", 7), RowRef("data.jsonl", 2), "near", 0.81),
                LeakedRow(RowRef("data.jsonl", 9), RowRef("data.jsonl", 4), "contained", 0.96),
            ),
        ),
    ),
)
FORECAST = Forecast(
    memory_bytes=GIB + GIB // 2,
    memory_limit_bytes=8 * GIB,
    memory_parts=(("weights", GIB), ("activations", GIB // 2)),
    disk_bytes=40 * 1024**2,
    disk_free_bytes=30 * GIB,
    train_tokens=123_702,
    seconds=151.0,
    tokens_per_second=820.0,
    basis="measured on this machine",
)
HARDWARE = Hardware(
    Cpu("a cpu", 2, "2 of 8 by affinity", "AVX2", False, False, 8 * GIB, 6 * GIB, "cgroup")
)
READY = api.SetupReport(
    ok=True,
    problems=(),
    warnings=("eval_steps exceeds the run", "12 rows are double"),
    decisions=(
        Decision("hardware.device", "cpu", "detected", "no accelerator"),
        Decision("training_args.eval_steps", "500", "warning", "eval_steps exceeds the run"),
    ),
    forecast=FORECAST,
    data=DATA,
    hardware=HARDWARE,
)
FAULTY = api.SetupReport(
    ok=False,
    problems=(
        Problem("unknown key (got 3)", "s.yaml:9", "a.num_train_epoch", "did you mean `x`?"),
        Problem("no such file", "s.yaml:20", "a.dataset.path"),
    ),
    warnings=(),
    decisions=(),
    forecast=None,
    data=None,
    hardware=HARDWARE,
)


def test_setup_prints_decisions_data_and_forecast(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("setup", READY)
    done = llamafarm("setup", "my strategies.yaml", "--strategy", "quick", "--verify-only")
    assert done.code == 0
    assert done.out == (GOLDEN / "setup.txt").read_text(encoding="utf-8")
    fake.assert_called_once_with(
        Path("my strategies.yaml"),
        "quick",
        verify_only=True,
        overrides=(),
        allow_custom_metrics=False,
        sinks=ANY,
    )


def test_a_warning_that_a_decision_has_told_is_not_told_again(
    llamafarm: Run, fake_api: Fake
) -> None:
    fake_api("setup", READY)
    assert llamafarm("setup", "s.yaml").err == "warning: 12 rows are double\n"


def test_setup_names_every_problem_and_exits_with_2(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("setup", FAULTY)
    done = llamafarm("setup", "s.yaml", "--verify-only")
    assert (done.code, done.out) == (2, "")
    assert done.err == (GOLDEN / "setup_problems.txt").read_text(encoding="utf-8")


def test_leakage_is_allowed_by_an_override_like_any_other(llamafarm: Run, fake_api: Fake) -> None:
    fake = fake_api("setup", READY)
    assert llamafarm("setup", "s.yaml", "--allow-leakage").code == 0
    (override,) = fake.call_args.kwargs["overrides"]
    assert (override.path, override.value) == ("dataset.allow_leakage", "true")
    assert override.text == "--allow-leakage"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_leaking_rows_alone_exit_with_3(llamafarm: Run, fake_api: Fake, more: list[str]) -> None:
    fake_api("setup", replace(FAULTY, problems=FAULTY.problems[:1], refused=True))
    assert llamafarm("setup", "s.yaml", *more).code == 3


def test_setup_for_a_program_is_the_contract_s_object(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("setup", READY)
    done = llamafarm("setup", "s.yaml", "--json")
    value = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert list(value) == [
        "ok",
        "problems",
        "warnings",
        "decisions",
        "forecast",
        "data",
        "hardware",
    ]
    assert value["decisions"][0] == {
        "field": "hardware.device",
        "value": "cpu",
        "source": "detected",
        "reason": "no accelerator",
    }
    assert value["data"]["train"]["rows"] == 415


def test_setup_for_a_program_exits_with_2_too(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("setup", FAULTY)
    done = llamafarm("setup", "s.yaml", "--json")
    value = json.loads(done.out)
    assert done.code == 2
    assert (value["ok"], value["problems"][0]["where"]) == (False, "s.yaml:9")


def test_a_time_that_was_not_measured_is_not_promised(llamafarm: Run, fake_api: Fake) -> None:
    forecast = replace(FORECAST, seconds=None, tokens_per_second=None, basis="no run here yet")
    fake_api("setup", replace(READY, forecast=forecast))
    assert "not known before the first steps  (no run here yet)" in llamafarm("setup", "s.yaml").out
