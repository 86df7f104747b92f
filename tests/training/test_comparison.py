"""Base, best and last of a run on the same rows: what it keeps, and what it says of a null."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.data.tokenized import ListRows, PreparedData
from llamafarm.errors import Interrupted
from llamafarm.evaluation.answers import AnsweredRow
from llamafarm.evaluation.metrics import MetricValue
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.files import write_json_atomic
from llamafarm.monitoring.comparison import Comparison
from llamafarm.monitoring.events import CheckpointEvent, EvalEvent, Event, MessageEvent
from llamafarm.monitoring.jsonable import to_jsonable
from llamafarm.monitoring.run_record import read_run_record
from llamafarm.monitoring.verdict import verdict
from llamafarm.planning.plan import SAMPLE_ROWS, TrainingPlan
from llamafarm.training import run as run_module
from llamafarm.training.backends.pytorch import samples
from llamafarm.training.comparison import compare_run
from llamafarm.training.evaluations import read_evaluation

from .runs import Ran, random_rows, run_plan, tiny_data, tiny_plan


class AskedRows(ListRows):
    """Rows with a text, as rows of a dataset have one."""

    def conversation_text(self, row: int) -> tuple[str, str]:
        return f"question {row}", f"answer {row}"


def asked_data() -> PreparedData:
    rows = random_rows(9, 2)
    asked = AskedRows([(rows.input_ids(i), rows.trained(i)) for i in range(len(rows))], "rows")
    return replace(tiny_data(), eval=asked)


def comparison_of(ran: Ran) -> Comparison:
    found = read_run_record(ran.directory.root).comparison
    assert found is not None
    return found


@pytest.fixture(scope="module")
def ran(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Best at step 8 of 12, or so. Shared: do not write into it."""
    plan = tiny_plan(tiny_model_dir, tmp_path_factory.mktemp("runs") / "whole")
    return run_plan(plan, data=asked_data(), report=True)


@pytest.fixture
def plan(tiny_model_dir: Path, tmp_path: Path) -> TrainingPlan:
    return tiny_plan(tiny_model_dir, tmp_path / "run", batch={"total_steps": 8})


def test_every_model_stands_in_the_file_with_its_own_numbers(ran: Ran) -> None:
    found = comparison_of(ran)
    events = {e.step: e for e in ran.events if isinstance(e, EvalEvent)}
    assert found.models[0].name == "base"
    assert {m.name for m in found.models} <= {"base", "best", "last"}
    for model in found.models:
        assert model.eval_loss == pytest.approx(events[model.step].eval_loss)
        assert model.accuracy == pytest.approx(events[model.step].accuracy)
    best = next(m for m in found.models if m.name == "best")
    assert best.step == ran.summary.best_step
    assert best.change == pytest.approx(best.eval_loss - found.models[0].eval_loss)
    assert best.rows_better is not None
    assert best.rows_worse is not None
    assert best.rows_better + best.rows_worse + (best.rows_same or 0) == found.rows == 9
    assert ran.summary.against_base == found.against_base


def test_the_base_and_the_kept_model_answer_a_few_rows(ran: Ran) -> None:
    found = comparison_of(ran).samples
    assert [s.prompt for s in found] == [f"question {i}" for i in range(SAMPLE_ROWS)]
    assert [a.name for a in found[0].answers] == ["base", "best"]
    assert any(s.answers[0].text != s.answers[1].text for s in found)
    page = (ran.directory.root / "report.html").read_text("utf-8")
    assert "question 1" in page


def test_the_answers_are_those_of_the_final_model_and_of_its_base(
    ran: Ran, tiny_model_dir: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from llamafarm.evaluation.answers import answer_row
    from llamafarm.evaluation.generation import Generator
    from llamafarm.models.tokenizer import load_tokenizer
    from llamafarm.planning.plan import SAMPLE_TOKENS

    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    rows = asked_data().eval
    assert rows is not None
    tokenizer = load_tokenizer(tiny_model_dir)

    def answers(model: object) -> list[str]:
        generator = Generator(model, tokenizer)
        return [answer_row(generator, rows, i, SAMPLE_TOKENS).answer for i in range(SAMPLE_ROWS)]

    of_base = answers(base)
    tuned = answers(PeftModel.from_pretrained(base, ran.directory.final_model))
    found = comparison_of(ran).samples
    assert [s.answers[0].text for s in found] == of_base
    assert [s.answers[1].text for s in found] == tuned


def test_a_learning_rate_of_0_is_no_difference_everywhere(plan: TrainingPlan) -> None:
    null = replace(plan, optimizer=replace(plan.optimizer, learning_rate=0.0))
    done = run_plan(null, data=asked_data(), report=True)
    found = comparison_of(done)
    assert found.against_base is not None
    assert (found.against_base.verdict, found.against_base.change) == ("no difference", 0.0)
    assert all(m.verdict.startswith("no difference") for m in found.models[1:])
    assert "no difference from the base model" in verdict(done.summary)
    record = json.loads(done.directory.summary_file.read_text())
    assert record["against_base"]["verdict"] == "no difference"
    page = (done.directory.root / "report.html").read_text("utf-8")
    assert "no difference from the base model" in page
    assert "no difference: every row is the same" in page
    for sample in found.samples:
        assert len({answer.text for answer in sample.answers}) == 1


def test_an_interrupted_run_is_compared_as_far_as_it_got_and_again_at_its_end(
    plan: TrainingPlan,
) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, CheckpointEvent) and event.step == 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_plan(plan, on_event=on_event)
    found = read_run_record(plan.output_dir).comparison
    assert found is not None
    assert [(m.name, m.step) for m in found.models] == [("base", 0), ("best", 4)]
    done = run_plan(plan, resume=True)
    assert max(m.step for m in comparison_of(done).models) == 8


def test_answers_that_fail_cost_a_line_and_not_the_run(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no room for a cache")

    monkeypatch.setattr(samples, "sample_answers", fail)
    done = run_plan(plan, data=asked_data())
    assert done.summary.status == "completed"
    assert comparison_of(done).samples == ()
    said = [e.text for e in done.events if isinstance(e, MessageEvent)]
    assert "there are no sample answers: RuntimeError: no room for a cache" in said


def test_a_comparison_that_cannot_be_written_costs_a_line_and_not_the_run(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(run_module, "write_comparison", fail)
    done = run_plan(plan)
    assert done.summary.status == "completed"
    assert done.summary.against_base is None
    said = [e.text for e in done.events if isinstance(e, MessageEvent)]
    assert "base, best and last are not compared: the disk is full" in said


def test_answers_do_not_change_what_is_trained(plan: TrainingPlan, ran: Ran) -> None:
    bare = run_plan(replace(plan, batch=replace(plan.batch, total_steps=12)))
    assert bare.weights_hash == ran.weights_hash


def keep(directory: Path, step: int, losses: RowLosses, answer: str = "", score: float = 0) -> None:
    directory.mkdir(exist_ok=True)
    answers = [AnsweredRow(f"r:{i}", "ask", "ref", answer) for i in range(8)] if answer else []
    values = {
        "step": step,
        "sources": [f"r:{i}" for i in range(len(losses.losses))],
        **to_jsonable(losses),
        "answers": to_jsonable(answers),
        "metrics": to_jsonable({"m": MetricValue(score, (score,) * 8)}) if answer else {},
    }
    write_json_atomic(directory / f"step-{step}.json", values)


def row_losses(*losses: float) -> RowLosses:
    return RowLosses(losses, (10,) * len(losses))


def test_a_last_step_inside_the_noise_of_the_best_one_is_called_that(tmp_path: Path) -> None:
    keep(tmp_path, 0, row_losses(*[2.0] * 8))
    keep(tmp_path, 4, row_losses(*[1.0 + i / 100 for i in range(8)]))
    keep(tmp_path, 8, row_losses(*[1.0 + i / 100 + (-1) ** i / 50 for i in range(8)]))
    found = compare_run(tmp_path, 4, load_best=True)
    assert found is not None
    assert found.last_against_best is not None
    assert found.last_against_best.verdict == "no difference"
    assert "Last against best: no difference: inside the noise (change" in found.note
    assert found.against_base is not None
    assert found.against_base.verdict == "better"
    last = compare_run(tmp_path, 4, load_best=False)
    assert last is not None
    assert last.against_base is not None
    assert last.against_base.change == pytest.approx(last.models[2].change)


def test_answers_that_evaluations_kept_are_compared_and_shown(tmp_path: Path) -> None:
    keep(tmp_path, 0, row_losses(*[2.0] * 8), "old", 0.25)
    keep(tmp_path, 4, row_losses(*[1.0] * 8), "new", 0.5)
    found = compare_run(tmp_path, 4, load_best=True)
    assert found is not None
    assert [a.text for a in found.samples[0].answers] == ["old", "new"]
    assert len(found.samples) == SAMPLE_ROWS
    (change,) = found.models[1].metric_changes
    assert (change.score, change.paired.change, change.paired.verdict) == ("m", 0.25, "better")
    opposite = compare_run(tmp_path, 4, load_best=True, less_is_better=["m"])
    assert opposite is not None
    assert opposite.models[1].metric_changes[0].paired.verdict == "worse"
    evaluation = read_evaluation(tmp_path, 4)
    assert evaluation is not None
    assert evaluation.metrics["m"] == MetricValue(0.5, (0.5,) * 8)


def test_without_evaluations_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert compare_run(tmp_path / "none", 0, load_best=True) is None
    keep(tmp_path, 0, row_losses(2.0, float("nan")))
    assert compare_run(tmp_path, 0, load_best=True) is None


def test_without_a_base_best_and_last_stand_alone(tmp_path: Path) -> None:
    keep(tmp_path, 4, row_losses(1.0, 2.0))
    keep(tmp_path, 8, row_losses(1.1, 2.0))
    found = compare_run(tmp_path, 4, load_best=True)
    assert found is not None
    assert [m.name for m in found.models] == ["best", "last"]
    assert found.against_base is None
    assert found.models[0].change is None


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": [0, 0]},
        {"tokens": [-1, 5]},
        {"tokens": [float("inf"), 5]},
        {"tokens": [10**400, 5]},
        {"losses": [10**400, 1.0]},
        {"correct": [1]},
        {"sources": None},
    ],
)
def test_an_evaluation_that_no_run_writes_is_none(tmp_path: Path, changes: object) -> None:
    keep(tmp_path, 4, row_losses(1.0, 2.0))
    assert read_evaluation(tmp_path, 4) is not None
    path = tmp_path / "step-4.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))  # type: ignore[dict-item]
    assert read_evaluation(tmp_path, 4) is None


def test_a_pipe_or_a_nest_in_the_place_of_an_evaluation_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "step-4.json")
    assert read_evaluation(tmp_path, 4) is None
    (tmp_path / "step-8.json").write_text("[" * 99_999)
    assert read_evaluation(tmp_path, 8) is None


def test_a_base_that_is_slow_leaves_time_for_the_answer_beside_it(
    plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    answer = samples.answer_row

    def counted(*args: Any, max_seconds: float) -> AnsweredRow:
        given.append(max_seconds)
        return answer(*args, max_seconds=max_seconds)

    monkeypatch.setattr(samples, "answer_row", counted)
    run_plan(plan, data=asked_data())
    assert given[0] <= samples.SAMPLE_SECONDS / 2 < given[1]


def test_a_last_step_that_is_the_best_one_too_has_one_name(plan: TrainingPlan) -> None:
    last_is_kept = replace(plan.evaluation, load_best=False)
    found = comparison_of(run_plan(replace(plan, evaluation=last_is_kept), data=asked_data()))
    assert found.models[-1].step == 8
    assert found.samples[0].answers[-1].name == found.models[-1].name
