"""What is due between two steps, whatever takes the steps. The loop's tests have the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from llamafarm.errors import RunError
from llamafarm.evaluation.answers import Answered
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.monitoring.events import Event, StartEvent, StepEvent
from llamafarm.planning.plan import Every
from llamafarm.training.course import STEPS_WITHOUT_ONE, Course, StepNumbers, metric_value
from llamafarm.training.job import TrainingJob
from llamafarm.training.keeper import CheckpointKeeper
from llamafarm.training.run_directory import RunDirectory
from llamafarm.training.signals import StopRequest
from llamafarm.training.state import LoopState

from .runs import tiny_data, tiny_plan

RESULT = LossResult.of_rows(RowLosses((1.0, 2.0), (3, 1), (2, 1)))


@dataclass
class Keeper:
    """Saves nothing, and remembers what it was asked for."""

    saved_step: int = 0
    works: bool = True
    reasons: list[str] = field(default_factory=list)

    def due(self, state: LoopState, *, last: bool) -> bool:
        return last

    def save(self, state: LoopState, reason: str) -> bool:
        self.reasons.append(reason)
        return self.works


@dataclass
class Way:
    """A course, and what it told."""

    course: Course
    keeper: Keeper
    events: list[Event]


def way(model: Path, root: Path, *, keeper: Keeper | None = None, **changes: Any) -> Way:
    """12 steps; state: of the loop."""
    state = changes.pop("state", LoopState())
    plan = tiny_plan(model, root / "run", **changes)
    events: list[Event] = []
    job = TrainingJob(plan, tiny_data(), None, RunDirectory(root), events.append, StopRequest())
    kept = keeper or Keeper()
    return Way(Course(job, cast(CheckpointKeeper, kept), state), kept, events)


@pytest.mark.parametrize(
    ("state", "evaluation", "steps"),
    [
        (LoopState(), {"every": Every(4)}, [0, 4, 8, 12]),
        (LoopState(), {"every": Every(5)}, [0, 5, 10, 12]),
        (LoopState(), {"every": Every(5, delay=6)}, [0, 10, 12]),
        (LoopState(), {"on_start": False, "every": Every(0)}, [12]),
        (LoopState(step=4, evaluated_step=4), {"every": Every(4)}, [8, 12]),
        (LoopState(step=4, evaluated_step=0), {"every": Every(4)}, [4, 8, 12]),
        (LoopState(), {"enabled": False}, []),
    ],
)
def test_every_step_that_is_due_is_evaluated_once(
    tiny_model_dir: Path,
    tmp_path: Path,
    state: LoopState,
    evaluation: dict[str, Any],
    steps: list[int],
) -> None:
    found = []
    course = way(tiny_model_dir, tmp_path, state=state, evaluation=evaluation).course
    for step in range(state.step, 13):
        state.step = step
        while course.evaluation_due:
            found.append(step)
            state.evaluated_step = step
    assert found == steps


@pytest.mark.parametrize(
    ("state", "evaluation", "count"),
    [
        (LoopState(), {"every": Every(4)}, 4),
        (LoopState(), {"every": Every(5), "on_start": False}, 3),
        (LoopState(step=5, evaluated_step=4), {"every": Every(4)}, 2),
        (LoopState(), {"enabled": False}, 0),
    ],
)
def test_the_start_says_how_many_evaluations_come(
    tiny_model_dir: Path,
    tmp_path: Path,
    state: LoopState,
    evaluation: dict[str, Any],
    count: int,
) -> None:
    found = way(tiny_model_dir, tmp_path, state=state, evaluation=evaluation)
    found.course.announce(trainable_parameters=7, device="cpu", packed=False)
    (start,) = [e for e in found.events if isinstance(e, StartEvent)]
    assert (start.planned_evaluations, start.trainable_parameters) == (count, 7)


def test_a_step_tells_of_all_steps_since_the_last_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    state = LoopState(step=3, loss_sum=6.0, loss_tokens=4, window_tokens=50, window_seconds=2.0)
    found = way(tiny_model_dir, tmp_path, state=state)
    found.course.tell_step(StepNumbers(learning_rate=0.1, grad_norm=2.0, memory_bytes=9))
    found.course.tell_step(StepNumbers(learning_rate=0.1, grad_norm=2.0))
    first, second = [e for e in found.events if isinstance(e, StepEvent)]
    assert (first.loss, first.tokens_per_second, first.memory_bytes) == (1.5, 25.0, 9)
    # Every step since then was left out.
    assert math.isnan(second.loss) and second.tokens_per_second == 0.0


@pytest.mark.parametrize(
    ("step", "keeper", "can_save", "text", "saves"),
    [
        (0, Keeper(), False, "before the first step; nothing is lost in {place}", 0),
        (5, Keeper(), True, "after step 5 of 12; everything up to there is in {place}", 1),
        (5, Keeper(5), False, "after step 5 of 12; everything up to there is in {place}", 0),
        (
            5,
            Keeper(3),
            False,
            "after step 5 of 12, which could not be saved; everything up to step 3 is in {place}",
            0,
        ),
        (
            5,
            Keeper(3, works=False),
            True,
            "after step 5 of 12, which could not be saved; everything up to step 3 is in {place}",
            1,
        ),
    ],
)
def test_who_leaves_says_what_is_kept(
    tiny_model_dir: Path,
    tmp_path: Path,
    step: int,
    keeper: Keeper,
    can_save: bool,
    text: str,
    saves: int,
) -> None:
    found = way(tiny_model_dir, tmp_path, keeper=keeper, state=LoopState(step=step))
    error = found.course.leave(15, can_save=can_save)
    assert (error.summary, error.exit_code) == (text.format(place=tmp_path), 143)
    assert error.hint == "the same command with --resume goes on from there"
    assert found.keeper.reasons == ["interrupted"] * saves


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (LoopState(step=4, best_step=4), "best"),
        (LoopState(step=12, best_step=4), "last"),
        (LoopState(step=8, best_step=4, stopped_early=True), "last"),
        (LoopState(step=5, best_step=4), "schedule"),
    ],
)
def test_a_save_says_what_made_it_due(
    tiny_model_dir: Path, tmp_path: Path, state: LoopState, reason: str
) -> None:
    found = way(tiny_model_dir, tmp_path, state=state)
    assert found.course.save()
    assert found.keeper.reasons == [reason]


def test_a_run_that_leaves_out_all_of_its_first_steps_ends(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    course = way(tiny_model_dir, tmp_path).course
    for step, skipped in ((11, 11), (12, 11)):
        course.require_a_step(step, skipped, "nothing is learnt", "look")
    with pytest.raises(RunError, match="nothing is learnt") as caught:
        course.require_a_step(12, 12, "nothing is learnt", "look")
    assert caught.value.hint == "look"


def test_a_long_run_is_given_some_steps_to_begin(tiny_model_dir: Path, tmp_path: Path) -> None:
    course = way(tiny_model_dir, tmp_path, batch={"total_steps": 1000}).course
    course.require_a_step(STEPS_WITHOUT_ONE - 1, STEPS_WITHOUT_ONE - 1, "x", "")
    course.require_a_step(STEPS_WITHOUT_ONE, STEPS_WITHOUT_ONE - 1, "x", "")
    with pytest.raises(RunError):
        course.require_a_step(STEPS_WITHOUT_ONE, STEPS_WITHOUT_ONE, "x", "")


@pytest.mark.parametrize(
    ("metric", "value"),
    [("eval_loss", 1.25), ("perplexity", math.exp(1.25)), ("accuracy", 0.75)],
)
def test_the_loss_and_what_follows_from_it_can_choose_the_best(metric: str, value: float) -> None:
    assert metric_value(metric, RESULT, Answered()) == value


def test_a_metric_that_failed_chooses_nothing() -> None:
    assert math.isnan(metric_value("rouge_l", RESULT, Answered()))
