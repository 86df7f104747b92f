from __future__ import annotations

from dataclasses import replace

import pytest

from llamafarm.monitoring.events import FindingEvent
from llamafarm.monitoring.summary import RunSummary, summarise
from llamafarm.monitoring.verdict import verdict

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
