"""The findings of a run together: once each, live as in the end, over a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from llamafarm.monitoring.diagnosis import Diagnosis, diagnose
from llamafarm.monitoring.events import Event, FindingEvent, OutOfMemoryEvent
from llamafarm.monitoring.metrics_file import event_line, read_events

from .hand_made import events, falling, healthy, settings, wave

TURNED = {0: 2.4, 10: 2.0, 20: 2.1, 30: 2.3, 40: 2.5}


def overfitted() -> list[Event]:
    return events(falling(by=0.04), TURNED)


def live(run: list[Event], diagnosis: Diagnosis | None = None) -> list[Event]:
    """The events with what was found, as metrics.jsonl has them."""
    diagnosis = diagnosis or Diagnosis()
    made: list[Event] = []
    for event in run:
        made += [event, *diagnosis.add(event)]
    return made


def findings(run: list[Event]) -> list[FindingEvent]:
    return [event for event in run if isinstance(event, FindingEvent)]


def test_every_rule_speaks_once() -> None:
    told = [finding.rule for finding in diagnose(overfitted())]
    assert told == ["overfitting", "wasted_epochs"]


def test_a_recorded_run_is_diagnosed_as_it_was_live() -> None:
    run = live(overfitted())
    assert list(diagnose(run)) == findings(run) != []


def test_a_recorded_spike_is_kept_and_counts() -> None:
    spikes: list[Event] = [
        FindingEvent(step=n, rule="spike", text="", rows=(f"a:{n}",)) for n in (20, 25, 30)
    ]
    run = healthy()
    told = [f.rule for f in diagnose([*run[:-2], *spikes, *run[-2:]])]
    assert told == ["spike"] * 3 + ["unstable_loss"]


def test_the_loop_learns_of_overfitting_in_words() -> None:
    diagnosis = Diagnosis()
    assert diagnosis.overfitting == ""
    live(overfitted(), diagnosis)
    assert diagnosis.overfitting.startswith("the eval loss rose from 2.000 at step 10")


@pytest.mark.parametrize("cut", range(1, 46, 4))
def test_a_run_that_was_cut_anywhere_finds_the_same(cut: int) -> None:
    """A process that goes on starts with what is recorded; it tells its settings again."""
    whole = live(overfitted())
    first, rest = overfitted()[:cut], overfitted()[cut:]
    recorded = live(first)
    again = live([settings(), *rest], Diagnosis(recorded))
    assert findings(recorded) + findings(again) == findings(whole)


def test_findings_are_of_numbers_that_json_can_hold(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    run = live(overfitted())
    file.write_bytes(b"".join(event_line(event) for event in run))
    assert read_events(file) == run


def _cases() -> dict[str, list[Event]]:
    high, low = settings(learning_rate=3e-3), settings(learning_rate=1e-6)
    small = settings(rank=4, alpha=8.0)  # the model that it is planned for allows 8
    slow = {0: 4.4, 10: 4.35, 20: 4.3, 30: 4.28, 40: 4.25}
    flat = {0: 2.4, 10: 2.0, 20: 2.001, 30: 1.999, 40: 2.0}
    up_and_down = {0: 2.4, 5: 2.1, 10: 2.5, 15: 2.0, 20: 2.4, 25: 1.9, 40: 1.85}
    learnt = [max(0.1, 2.4 - 0.02 * n - (0.05 * (n - 10) if n > 10 else 0)) for n in range(1, 41)]
    shortage = OutOfMemoryEvent(step=40, during="step", tokens=9, action="smaller parts")
    run = healthy()

    def exploding(number: int) -> float:
        return 2.4 if number < 4 else 6.0 + wave(number)

    return {
        "overfitting": overfitted(),
        "wasted_epochs": overfitted(),
        "suspiciously_low_loss": events(learnt, {0: 2.4, 10: 2.0, 20: 1.2, 30: 0.5, 40: 0.1}),
        "learning_rate_too_high": events(exploding, {0: 2.4, 40: 6.0}, told=high),
        "learning_rate_too_low": events(falling(by=0.0), {0: 2.4, 40: 2.39}, told=low),
        "adapter_not_learning": events(falling(by=0.0), {0: 2.4, 40: 2.4}),
        "unstable_loss": events(falling(), up_and_down),
        "underfitting": events(falling(4.4, 0.004), slow, told=small),
        "plateau": events(lambda n: 2.0 + wave(n), flat, told=small),
        "memory_pressure": [*run[:-2], shortage, *run[-2:]],
        "slow_training": healthy(data_seconds=2.0),
    }


@pytest.mark.parametrize("rule", _cases())
def test_every_finding_has_text_numbers_confidence_and_advice(rule: str) -> None:
    (found,) = [f for f in diagnose(_cases()[rule]) if f.rule == rule]
    assert found.text and found.advice and found.numbers
    assert 0.5 <= found.confidence <= 1
    assert all(math.isfinite(value) for value in found.numbers.values())
    json.dumps(dict(found.patch))


STRATEGY = """
tuned:
  components:
    fine_tuner:
      type: pytorch
      config:
        method: {type: lora, r: 8, alpha: 16, dropout: 0.05}
        training_args: {num_train_epochs: 4, per_device_train_batch_size: 4}
        dataset: {train_file: rows.jsonl}
"""


@pytest.mark.parametrize("rule", _cases())
def test_every_patch_makes_a_strategy_that_can_be_planned(
    rule: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model_dir: Path,
    cache_dir: Path,
) -> None:
    import yaml

    from llamafarm.api import setup

    (found,) = [f for f in diagnose(_cases()[rule]) if f.rule == rule]
    strategies = yaml.safe_load(STRATEGY)
    config = strategies["tuned"]["components"]["fine_tuner"]["config"]
    config["base_model"] = str(tiny_model_dir)
    assert found.patch
    for path, value in found.patch.items():
        section, key = path.split(".")
        config.setdefault(section, {})[key] = value
    rows = [{"question": f"Which is {n}?", "answer": f"It is number {n * n}."} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "strategies.yaml"
    file.write_text(yaml.safe_dump(strategies))
    monkeypatch.chdir(tmp_path)
    report = setup(file, "tuned")
    assert report.problems == () and report.forecast is not None
    written = {decision.field for decision in report.decisions if decision.source == "strategy"}
    # Where nothing leaks, nothing is decided about leaks.
    paths = {path.removeprefix("training_args.") for path in found.patch}
    assert paths - {"dataset.allow_leakage"} <= written
