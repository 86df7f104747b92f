from __future__ import annotations

from dataclasses import replace

import pytest

from llamafarm.monitoring.comparison import PairedChange
from llamafarm.monitoring.events import FindingEvent
from llamafarm.monitoring.summary import RunSummary, summarise
from llamafarm.monitoring.verdict import run_verdict, verdict

from .events_of_a_run import end_event, events_of_a_run, overfitting_event, start_event, step_event


def summary_with(*rules: str) -> RunSummary:
    *events, end = events_of_a_run()
    found = [FindingEvent(step=12, rule=rule, text="") for rule in rules]
    return summarise([*events, *found, end])


def test_a_run_that_was_best_at_its_end_was_improving() -> None:
    summary = replace(summary_with(), best_step=12)
    assert verdict(summary) == "improving: the eval loss was lowest at the last step"


def test_a_run_that_was_best_before_improved_until_then() -> None:
    assert verdict(summary_with()) == "improved until step 8 of 12"


def test_overfitting_names_the_step_after_which_it_began() -> None:
    *events, end = events_of_a_run()
    assert verdict(summarise([*events, overfitting_event(), end])) == "overfitting after step 8"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("plateau", "plateau: the loss no longer falls"),
        ("underfitting", "underfitting: it could learn more than it did"),
        ("learning_rate_too_high", "diverged: the learning rate is too high"),
        ("learning_rate_too_low", "hardly learning: the learning rate is too low"),
        ("adapter_not_learning", "not learning: the trained weights have no effect"),
        ("unstable_loss", "unstable: the loss jumps"),
        (
            "suspiciously_low_loss",
            "too good to be true: the evaluation rows may have been trained on",
        ),
    ],
)
def test_what_was_found_is_the_verdict(rule: str, text: str) -> None:
    assert verdict(summary_with(rule)) == text


def test_what_makes_the_numbers_worthless_comes_first() -> None:
    found = summary_with("wasted_epochs", "plateau", "overfitting", "suspiciously_low_loss")
    assert verdict(found).startswith("too good to be true")


@pytest.mark.parametrize("rule", ["spike", "wasted_epochs", "memory_pressure", "slow_training"])
def test_what_says_nothing_of_the_result_does_not_decide(rule: str) -> None:
    assert verdict(summary_with(rule)) == "improved until step 8 of 12"


def test_a_run_without_evaluation_knows_nothing() -> None:
    summary = summarise([start_event(), step_event(1), end_event(1)])
    assert verdict(summary) == (
        "not evaluated: nothing is known about other data than the training rows"
    )


def test_no_better_than_the_base_is_no_improvement() -> None:
    assert verdict(replace(summary_with(), eval_loss=2.3)) == "no better than the base model"


@pytest.mark.parametrize(("perplexity", "said"), [(99.0, False), (134.2, True)])
def test_a_perplexity_above_a_hundred_is_called_high(perplexity: float, said: bool) -> None:
    text = verdict(replace(summary_with(), perplexity=perplexity))
    assert text.endswith("; a perplexity of 134.20 is high") == said


NULL = PairedChange(0.0, 0.0, 0.0, 0, 0, 10, "no difference")
WORSE = PairedChange(0.2, 0.1, 0.3, 1, 9, 0, "worse")
FEW = PairedChange(-0.4, None, None, 3, 0, 0, "too few rows")
BETTER = PairedChange(-0.4, -0.5, -0.3, 9, 1, 0, "better")


@pytest.mark.parametrize(
    ("paired", "text"),
    [
        (NULL, "no difference from the base model: the change is inside the noise"),
        (WORSE, "worse than the base model"),
        (FEW, "improved until step 8 of 12; too few evaluation rows to be sure"),
        (BETTER, "improved until step 8 of 12"),
    ],
)
def test_the_paired_comparison_decides_whether_it_improved(paired: PairedChange, text: str) -> None:
    assert verdict(replace(summary_with(), against_base=paired)) == text


def test_what_explains_a_null_result_comes_before_it() -> None:
    summary = replace(summary_with("learning_rate_too_low"), against_base=NULL)
    assert verdict(summary) == (
        "hardly learning: the learning rate is too low; no difference from the base model: the "
        "change is inside the noise"
    )


def test_a_finished_run_says_its_verdict_as_a_sentence() -> None:
    done = run_verdict(summary_with(), status="completed", error="", total_steps=12)
    assert done == "Improved until step 8 of 12."


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("running", "Still running, at step 12 of 40."),
        ("failed", "Failed at step 12: the disk is full."),
        ("interrupted", "Interrupted at step 12: --resume goes on with it."),
        ("stopped", "Ended at step 12 without a word: --resume goes on with it."),
    ],
)
def test_any_other_run_says_how_it_ended(status: str, text: str) -> None:
    error = "the disk\nis full."
    assert run_verdict(summary_with(), status=status, error=error, total_steps=40) == text


def test_a_best_step_by_another_metric_says_nothing_of_the_lowest_loss() -> None:
    summary = replace(summary_with(), best_step=12, best_metric=0.41)
    assert verdict(summary) == "improving: the last step is the best one"
