"""Nothing is reported about engines that did not do the same work."""

from __future__ import annotations

import pytest
from bench.checks import NotComparableError, check
from bench.judge import Verdict

from tests.bench.made_up import BASE, OURS, REGROUPED, run, step

STEPS = [step(tokens=100), step(tokens=90)]
VERDICT = Verdict(2.5, 2.6, {"ours": 2.0, "base": 2.0, "regrouped": 2.1})


def test_engines_that_agree_pass() -> None:
    runs = {"ours": [run(STEPS)], "base": [run(STEPS, first_loss=2.50009)]}
    check(runs, VERDICT, [OURS, BASE])


def test_another_loss_before_the_first_step_is_refused() -> None:
    runs = {"ours": [run(STEPS)], "base": [run(STEPS, first_loss=2.501)]}
    with pytest.raises(NotComparableError, match="base, round 1: loss before the first step"):
        check(runs, VERDICT, [OURS, BASE])


@pytest.mark.parametrize("first_loss", [float("nan"), float("inf")])
def test_a_first_loss_that_is_no_number_is_refused(first_loss: float) -> None:
    with pytest.raises(NotComparableError, match="loss before the first step"):
        check({"ours": [run(STEPS, first_loss=first_loss)]}, VERDICT, [OURS])


def test_a_step_without_a_gradient_is_named() -> None:
    dead = [step(), step(grad_norm=0.0)]
    with pytest.raises(NotComparableError, match=r"no gradient in steps \[2\]"):
        check({"ours": [run(dead)]}, VERDICT, [OURS])


def test_an_adapter_that_learnt_something_else_is_refused() -> None:
    verdict = Verdict(2.5, 2.6, {"ours": 2.0, "base": 2.03})
    with pytest.raises(NotComparableError, match="more than 1 %"):
        check({"ours": [run(STEPS)], "base": [run(STEPS)]}, verdict, [OURS, BASE])


def test_an_adapter_that_learnt_nothing_is_refused() -> None:
    verdict = Verdict(2.5, 2.6, {"ours": 2.6})
    with pytest.raises(NotComparableError, match="not below the base model's"):
        check({"ours": [run(STEPS)]}, verdict, [OURS])


def test_other_tokens_in_a_step_are_refused() -> None:
    runs = {"ours": [run(STEPS)], "base": [run(STEPS[::-1])]}
    with pytest.raises(NotComparableError, match="its steps hold other tokens"):
        check(runs, VERDICT, [OURS, BASE])


def test_an_engine_that_regroups_rows_is_held_to_the_whole_run() -> None:
    runs = {"ours": [run(STEPS)], "regrouped": [run(STEPS[::-1])]}
    check(runs, VERDICT, [OURS, REGROUPED])
    runs["regrouped"] = [run(STEPS[:1])]
    with pytest.raises(NotComparableError, match="it trained on other tokens"):
        check(runs, VERDICT, [OURS, REGROUPED])


def test_all_faults_are_told_at_once() -> None:
    runs = {"ours": [run([step(grad_norm=0.0)], first_loss=9.0)], "base": [run(STEPS)]}
    with pytest.raises(NotComparableError) as raised:
        check(runs, VERDICT, [OURS, BASE])
    assert len(str(raised.value).splitlines()) == 3
