from __future__ import annotations

import pytest

from llamafarm.monitoring.events import (
    BestLostEvent,
    CheckpointEvent,
    EarlyStopEvent,
    Event,
    FindingEvent,
    MessageEvent,
    NonFiniteEvent,
    OutOfMemoryEvent,
    ResumeEvent,
    SaveFailedEvent,
)
from llamafarm.monitoring.lines import event_line, trouble_text
from llamafarm.monitoring.run_state import RunState

from .events_of_a_run import (
    end_event,
    eval_event,
    eval_progress_event,
    start_event,
    step_event,
)


def last_line(*events: Event) -> str | None:
    state, line = RunState(), None
    for second, event in enumerate(events):
        state.add(event, float(second))
        line = event_line(event, state)
    return line


def test_a_step_says_where_it_is_and_how_long_the_rest_takes() -> None:
    line = last_line(start_event(total_steps=40), step_event(11), step_event(12, 1.8341))
    assert line == "step 12/40  loss 1.834  lr 1.0e-03  100 tok/s  eta 0:05"


def test_a_step_before_anything_is_known_promises_no_time() -> None:
    assert last_line(step_event(1)) == "step 1/?  loss 2.000  lr 1.0e-03  100 tok/s"


def test_an_evaluation_is_compared_with_the_base_model() -> None:
    line = last_line(eval_event(0, 2.231), step_event(12, 1.8), eval_event(12, 1.9125, best=True))
    assert line == ("eval at step 12: loss 1.913 (base 2.231), perplexity 6.77, gap +0.113, best")


def test_the_evaluation_of_the_base_model_says_so() -> None:
    assert last_line(eval_event(0, 2.231, best=True)) == (
        "eval at step 0: loss 2.231, perplexity 9.31, the base model"
    )


def test_a_resumed_run_may_not_know_its_base() -> None:
    assert last_line(start_event(step=8), eval_event(9, 2.0)) == (
        "eval at step 9: loss 2.000, perplexity 7.39"
    )


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            start_event(),
            "training 460,800 parameters on cpu: 96 rows, 12 steps; 10 rows for evaluation",
        ),
        (
            ResumeEvent(step=8, path="c/checkpoint-8", note=""),
            "going on after step 8 (c/checkpoint-8)",
        ),
        (
            ResumeEvent(step=0, path="", note="no checkpoint yet: starting at step 0"),
            "no checkpoint yet: starting at step 0",
        ),
        (
            NonFiniteEvent(step=3, what="loss", action="skip", rows=("a:1", "a:2", "a:3", "a:4")),
            (
                "warning: step 3: the loss is not finite; the step is left out "
                "(rows a:1, a:2, a:3 and 1 more)"
            ),
        ),
        (
            NonFiniteEvent(step=3, what="gradient", action="stop", rows=("a:1",)),
            "warning: step 3: the gradient is not finite; the run ends (rows a:1)",
        ),
        (
            NonFiniteEvent(step=4, what="evaluation loss", action="skip", rows=("e:7",)),
            (
                "warning: step 4: the evaluation loss is not finite; it cannot be the best "
                "(rows e:7)"
            ),
        ),
        (
            NonFiniteEvent(step=4, what="evaluation loss", action="stop", rows=()),
            "warning: step 4: the evaluation loss is not finite; the run ends",
        ),
        (
            SaveFailedEvent(step=5, text="checkpoint-5: disk full", kept_step=4),
            (
                "warning: checkpoint-5: disk full. The run goes on and tries again; the newest "
                "checkpoint that is there: checkpoint-4"
            ),
        ),
        (
            SaveFailedEvent(step=5, text="disk full", kept_step=0),
            (
                "warning: disk full. The run goes on and tries again; the newest checkpoint that "
                "is there: none"
            ),
        ),
        (
            BestLostEvent(step=12, lost_step=12, kept_step=8, text="not written"),
            "warning: step 12, the best so far, is lost (not written); the best is now step 8",
        ),
        (
            BestLostEvent(step=9, lost_step=4, kept_step=0, text="damaged"),
            (
                "warning: step 4, the best so far, is lost (damaged); the best is now the next "
                "one evaluated"
            ),
        ),
        (
            OutOfMemoryEvent(step=7, during="step", tokens=4096, action="smaller parts"),
            "warning: out of memory in step 7 (4,096 tokens at once): smaller parts",
        ),
        (
            OutOfMemoryEvent(step=8, during="evaluation", tokens=0, action="2 rows at a time"),
            "warning: out of memory in the evaluation after step 8: 2 rows at a time",
        ),
        (
            OutOfMemoryEvent(step=8, during="save", tokens=0, action="written again"),
            "warning: out of memory in the save after step 8: written again",
        ),
        (
            FindingEvent(
                step=41, rule="spike", text="step 41 stands out", rows=("a:9", "a:2", "a:3", "a:4")
            ),
            "finding: step 41 stands out (rows a:9, a:2, a:3 and 1 more)",
        ),
        (FindingEvent(step=1, rule="r", text="odd"), "finding: odd"),
        (
            FindingEvent(step=1, rule="r", text="odd", advice="learning rate 2e-04"),
            "finding: odd; try: learning rate 2e-04",
        ),
        (
            EarlyStopEvent(step=9, best_step=6, evaluations_without_improvement=3),
            "stopping at step 9: nothing better than step 6 in 3 evaluations",
        ),
        (MessageEvent(level="info", text="hello"), "hello"),
        (MessageEvent(level="notice", text="hello"), "notice: hello"),
        (end_event(), "completed at step 12 after 1:01"),
        (end_event(status="interrupted"), None),
        (
            CheckpointEvent(step=1, path="c", reason="interrupted", bytes=1, seconds=0.1),
            "saved c",
        ),
        (CheckpointEvent(step=1, path="c", reason="schedule", bytes=1, seconds=0.1), None),
        (eval_progress_event(3), None),
    ],
)
def test_what_a_person_should_know_is_one_line(event: Event, line: str | None) -> None:
    assert last_line(event) == line


def test_only_trouble_has_a_text_of_its_own() -> None:
    for event in (start_event(), step_event(1), end_event(), MessageEvent(level="info", text="x")):
        assert trouble_text(event) is None
