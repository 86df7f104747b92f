from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from llamafarm.errors import OutputError
from llamafarm.monitoring.events import (
    BestLostEvent,
    FindingEvent,
    NonFiniteEvent,
    OutOfMemoryEvent,
)
from llamafarm.monitoring.summary import (
    Finding,
    RunSummary,
    summarise,
)

from .events_of_a_run import (
    end_event,
    eval_event,
    events_of_a_run,
    overfitting_event,
    start_event,
    step_event,
)

FIELDS = [
    "status",
    "steps",
    "train_loss",
    "eval_loss",
    "base_eval_loss",
    "perplexity",
    "best_step",
    "best_metric",
    "train_tokens",
    "trained_tokens",
    "tokens_per_second",
    "runtime_seconds",
    "peak_memory_bytes",
    "findings",
    "against_base",
    "last_against_best",
    "metrics",
    "base_metrics",
]


def test_the_summary_has_the_fields_of_the_contract() -> None:
    assert list(summarise(events_of_a_run()).to_json()) == FIELDS


def test_the_losses_are_those_of_the_best_step() -> None:
    summary = summarise(events_of_a_run())
    assert (summary.status, summary.steps, summary.best_step) == ("completed", 12, 8)
    assert (summary.base_eval_loss, summary.eval_loss, summary.best_metric) == (2.231, 1.839, 1.839)
    assert summary.perplexity == pytest.approx(math.exp(1.839))
    assert summary.train_loss == pytest.approx((1.95 + 1.9 + 1.85 + 1.8) / 4)
    assert summary.gap == pytest.approx(1.839 - 1.875)


def test_the_losses_are_those_of_the_last_step_where_that_one_is_kept() -> None:
    summary = summarise(events_of_a_run(), load_best=False)
    assert (summary.eval_loss, summary.best_step, summary.best_metric) == (1.85, 8, 1.839)
    assert summary.train_loss == pytest.approx((1.75 + 1.7 + 1.65 + 1.6) / 4)


def test_the_best_metric_is_the_one_that_was_asked_for() -> None:
    events = [step_event(1), eval_event(1, 2.0, best=True, bleu=0.25)]
    assert summarise(events, metric="eval_bleu").best_metric == 0.25


def test_tokens_time_and_memory_are_those_of_the_whole_run() -> None:
    summary = summarise(events_of_a_run())
    assert (summary.train_tokens, summary.trained_tokens) == (2400, 1200)
    assert (summary.runtime_seconds, summary.peak_memory_bytes) == (61.0, 3 * 1024**3 // 2)


def test_tokens_per_second_are_all_tokens_over_all_time() -> None:
    fast = replace(step_event(1), tokens=100, tokens_per_second=100.0)
    slow = replace(step_event(2), tokens=200, tokens_per_second=25.0)
    assert summarise([fast, slow]).tokens_per_second == pytest.approx(200 / (1 + 4))


def test_a_run_without_evaluation_has_its_mean_training_loss() -> None:
    summary = summarise([start_event(), step_event(1, 2.0), step_event(2, 1.0), end_event(2)])
    assert (summary.train_loss, summary.eval_loss, summary.best_step) == (1.5, None, None)


def test_nothing_at_all_can_be_summed_up() -> None:
    summary = summarise([])
    assert (summary.status, summary.steps, summary.tokens_per_second) == ("running", 0, None)


def test_a_summary_is_read_back_as_it_was_written() -> None:
    summary = summarise(events_of_a_run())
    assert RunSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


def test_a_nonfinite_number_is_null_in_the_summary() -> None:
    summary = replace(summarise(events_of_a_run()), perplexity=math.inf)
    assert json.loads(json.dumps(summary.to_json(), allow_nan=False))["perplexity"] is None


def test_a_summary_that_lacks_fields_is_refused() -> None:
    value = summarise(events_of_a_run()).to_json()
    del value["eval_loss"], value["steps"]
    with pytest.raises(OutputError, match="lacks steps, eval_loss"):
        RunSummary.from_json({**value, "of_a_later_version": 1})


def test_where_the_best_was_lost_the_numbers_are_those_of_the_kept_one() -> None:
    lost = BestLostEvent(step=8, lost_step=8, kept_step=4, text="disk full")
    *events, end = events_of_a_run()
    summary = summarise([*events, lost, end])
    assert (summary.best_step, summary.eval_loss, summary.best_metric) == (4, 2.0, 2.0)
    assert summary.train_loss == pytest.approx((2.15 + 2.1 + 2.05 + 2.0) / 4)
    assert summary.findings == (
        Finding(
            "best_lost", 8, "step 8, the best so far, is lost (disk full); the best is now step 4"
        ),
    )


def test_findings_are_what_was_found_and_what_went_wrong_in_order() -> None:
    found = overfitting_event()
    trouble = [
        OutOfMemoryEvent(step=2, during="step", tokens=9, action="smaller parts"),
        NonFiniteEvent(step=3, what="loss", action="skip", rows=("a:1",)),
        found,
    ]
    assert summarise([start_event(), *trouble, step_event(3)]).findings == (
        Finding("oom", 2, "out of memory in step 2 (9 tokens at once): smaller parts"),
        Finding(
            "nonfinite", 3, "step 3: the loss is not finite; the step is left out", rows=("a:1",)
        ),
        Finding("overfitting", 12, found.text, 0.999, found.numbers, found.advice, found.patch),
    )


@pytest.mark.parametrize("count", [20, 21, 1020])
def test_of_very_many_findings_the_first_are_kept_and_the_others_counted(count: int) -> None:
    found = [FindingEvent(step=n, rule="spike", text=f"step {n}") for n in range(count)]
    findings = [finding.text for finding in summarise(found).findings]
    assert findings[:20] == [f"step {n}" for n in range(20)]
    more = {
        20: [],
        21: ["and 1 more in metrics.jsonl"],
        1020: ["and 1,000 more in metrics.jsonl"],
    }
    assert findings[20:] == more[count]


def test_the_first_of_a_kind_is_kept_however_many_there_were_of_another() -> None:
    found = [FindingEvent(step=n, rule="spike", text=f"step {n}") for n in range(30)]
    rules = [finding.rule for finding in summarise([*found, overfitting_event()]).findings]
    assert rules == ["spike"] * 20 + ["overfitting", "more"]


def test_the_bare_texts_of_an_earlier_version_are_read_as_findings() -> None:
    value = {**summarise(events_of_a_run()).to_json(), "findings": ["step 3 stands out"]}
    assert RunSummary.from_json(value).findings == (Finding("", 0, "step 3 stands out"),)


def test_a_finding_is_read_back_as_it_was_written() -> None:
    summary = summarise([*events_of_a_run(), overfitting_event()])
    value = json.loads(json.dumps(summary.to_json()))
    value["findings"][0]["of_a_later_version"] = 1
    assert RunSummary.from_json(value) == summary
    value["findings"][0]["numbers"]["rise"] = None
    assert math.isnan(RunSummary.from_json(value).findings[0].numbers["rise"])


def test_a_summary_of_before_there_were_metrics_is_read() -> None:
    value = summarise(events_of_a_run()).to_json()
    for later in ("findings", "against_base", "last_against_best", "metrics", "base_metrics"):
        del value[later]
    found = RunSummary.from_json(value)
    assert (found.eval_loss, found.metrics, found.base_metrics) == (1.839, {}, {})
