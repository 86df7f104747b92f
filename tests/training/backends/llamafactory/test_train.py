"""The real LLaMA-Factory in its own environment, on a tiny model: what a run of it is, and how it
ends.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.data.prepare import prepare
from llamafarm.errors import Interrupted, RunError
from llamafarm.models.tokenizer import load_tokenizer
from llamafarm.monitoring.events import (
    CheckpointEvent,
    EarlyStopEvent,
    EvalEvent,
    EvalProgressEvent,
    Event,
    NonFiniteEvent,
    StartEvent,
    StepEvent,
)
from llamafarm.monitoring.metrics_file import read_events
from llamafarm.planning.plan import Every, LlamaFactoryPlan, TrainingPlan
from llamafarm.training.backends.llamafactory.environment import Environment
from llamafarm.training.checkpoint import verify_checkpoint
from tests.training.runs import (
    Ran,
    random_rows,
    run_plan,
    stock_loss,
    tiny_data,
    tiny_plan,
    write_tiny_model,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("llamafactory_environment")]

LORA = LlamaFactoryPlan("sft", "lora", {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def plan(model: Path, tmp_path: Path) -> TrainingPlan:
    return llamafactory_plan(model, tmp_path / "run")


def llamafactory_plan(model: Path, output_dir: Path, **changes: Any) -> TrainingPlan:
    engine = changes.pop("llamafactory", LORA)
    return tiny_plan(model, output_dir, backend="llamafactory", llamafactory=engine, **changes)


@pytest.fixture(scope="module")
def copies_seen() -> list[int]:
    """Checkpoints of the trainer's own, at every step of `finished`."""
    return []


@pytest.fixture(scope="module")
def finished(
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    llamafactory_environment: Environment,
    copies_seen: list[int],
) -> Ran:
    plan = llamafactory_plan(model, tmp_path_factory.mktemp("whole") / "run")
    output = plan.output_dir / "llamafactory" / "output"

    def look(event: Event) -> None:
        if isinstance(event, StepEvent):
            copies_seen.append(len(list(output.glob("checkpoint-*"))))

    return run_plan(plan, on_event=look)


def on_step(step: int, act: Callable[[], None]) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        if isinstance(event, StepEvent) and event.step == step:
            act()

    return watch


def test_a_run_is_told_evaluated_and_saved_as_any_other(finished: Ran) -> None:
    steps = [e for e in finished.recorded if isinstance(e, StepEvent)]
    assert [e.step for e in steps] == list(range(1, 13))
    assert all(math.isfinite(e.loss) and e.grad_norm > 0 and e.memory_bytes for e in steps)
    assert steps[0].learning_rate == 0.0 and steps[2].learning_rate == pytest.approx(5e-2)
    evaluations = [e for e in finished.recorded if isinstance(e, EvalEvent)]
    assert [e.step for e in evaluations] == [0, 4, 8, 12]
    saved = [e.step for e in finished.recorded if isinstance(e, CheckpointEvent)]
    assert set(saved) >= {5, 10, 12, finished.summary.best_step}
    (start,) = [e for e in finished.recorded if isinstance(e, StartEvent)]
    assert start.device == "cpu" and start.trainable_parameters > 1000
    assert finished.summary.status == "completed"
    assert finished.summary.peak_memory_bytes > 10**8
    assert finished.summary.against_base is not None


def test_its_tokens_are_counted_as_they_are_trained(finished: Ran) -> None:
    """12 steps of 8 rows, 5 in an epoch of 37: 2 epochs, and 16 rows of the third."""
    data = tiny_data().train
    steps = {e.step: e for e in finished.recorded if isinstance(e, StepEvent)}
    assert steps[5].tokens == sum(data.lengths())
    assert steps[10].tokens == 2 * steps[5].tokens
    assert steps[5].trained_tokens == sum(data.trained_counts())


def test_its_losses_are_those_of_stock_peft(finished: Ran, model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    rows = tiny_data().eval
    assert rows is not None
    base = AutoModelForCausalLM.from_pretrained(model)
    evaluations = {e.step: e for e in finished.recorded if isinstance(e, EvalEvent)}
    assert evaluations[0].eval_loss == pytest.approx(stock_loss(base, rows), abs=1e-5)
    tuned = PeftModel.from_pretrained(base, finished.directory.final_model)
    best = evaluations[finished.summary.best_step or 0]
    assert best.eval_loss == pytest.approx(stock_loss(tuned, rows), abs=1e-5)


def test_the_rows_of_an_evaluation_are_kept_with_their_places(finished: Ran) -> None:
    kept = json.loads((finished.directory.evaluations / "step-0.json").read_text())
    rows = tiny_data().eval
    assert rows is not None
    assert kept["sources"] == [str(rows.source(i)) for i in range(len(rows))]
    assert kept["tokens"] == rows.trained_counts().tolist()


def test_what_was_large_is_gone_and_what_was_asked_for_stays(finished: Ran) -> None:
    place = finished.directory.root / "llamafactory"
    names = {path.name for path in place.iterdir()}
    assert names == {
        "dataset_info.json",
        "eval.jsonl",
        "llamafactory.log",
        "train.jsonl",
        "train.yaml",
    }


def test_a_run_that_is_stopped_saves_first_and_goes_on_to_the_same_weights(
    plan: TrainingPlan, finished: Ran
) -> None:
    with pytest.raises(Interrupted) as stopped:
        run_plan(plan, on_event=on_step(6, lambda: signal.raise_signal(signal.SIGTERM)))
    assert stopped.value.exit_code == 143
    run = json.loads((plan.output_dir / "run.json").read_text())
    assert run["status"] == "interrupted"
    newest = max(plan.output_dir.glob("checkpoints/checkpoint-*"), key=lambda p: int(p.name[11:]))
    assert int(newest.name[11:]) >= 6
    assert verify_checkpoint(newest) == ""
    resumed = run_plan(plan, resume=True)
    steps = [e for e in resumed.recorded if isinstance(e, StepEvent)]
    assert [e.step for e in steps] == list(range(1, 13))
    whole = [e.loss for e in finished.recorded if isinstance(e, StepEvent)]
    assert [e.loss for e in steps] == whole
    assert resumed.weights_hash == finished.weights_hash


def test_a_signal_in_the_last_evaluation_leaves_it_to_the_resume(plan: TrainingPlan) -> None:
    long = replace(tiny_data(), eval=random_rows(400, 2))
    plan = replace(plan, batch=replace(plan.batch, total_steps=2, eval_batch_size=1))

    def stop(event: Event) -> None:
        # A second one would end this process at once.
        if isinstance(event, EvalProgressEvent) and event.step == 2 and event.rows_done == 4:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_plan(plan, data=long, on_event=stop)
    evaluated = [e.step for e in read_events(plan.output_dir / "metrics.jsonl") if is_eval(e)]
    assert evaluated == [0]
    resumed = run_plan(plan, data=long, resume=True)
    assert [e.step for e in resumed.recorded if is_eval(e)] == [0, 2]
    assert resumed.summary.status == "completed"
    assert resumed.summary.best_step == 2


def is_eval(event: Event) -> bool:
    return isinstance(event, EvalEvent)


def test_what_the_trainer_saves_is_kept_once(finished: Ran, copies_seen: list[int]) -> None:
    """Its own copies would fill the disk."""
    assert len(copies_seen) == 12
    assert set(copies_seen) == {0}


def test_a_logging_window_that_a_stop_cuts_is_told_whole(plan: TrainingPlan, finished: Ran) -> None:
    """From every step of the run that was never stopped: a mean over trained tokens."""
    quiet = replace(plan, logging=replace(plan.logging, every=Every(6), first_step=False))

    def stop(event: Event) -> None:
        if isinstance(event, EvalEvent) and event.step == 4:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_plan(quiet, on_event=stop)
    steps = [e for e in run_plan(quiet, resume=True).recorded if isinstance(e, StepEvent)]
    assert [e.step for e in steps] == [6, 12]
    every = [e for e in finished.recorded if isinstance(e, StepEvent)]
    tokens = [0, *(e.trained_tokens for e in every)]
    counts = [after - before for before, after in itertools.pairwise(tokens)]
    for told, part in zip(steps, (slice(0, 6), slice(6, 12)), strict=True):
        losses, weights = [e.loss for e in every][part], counts[part]
        mean = sum(x * n for x, n in zip(losses, weights, strict=True)) / sum(weights)
        assert told.loss == pytest.approx(mean, rel=1e-6)


def test_a_process_that_dies_fails_the_run_and_loses_nothing(
    plan: TrainingPlan, finished: Ran
) -> None:
    def kill() -> None:
        (child,) = children_of(os.getpid())
        os.kill(child, signal.SIGKILL)

    with pytest.raises(RunError) as failed:
        run_plan(plan, on_event=on_step(7, kill))
    assert "LLaMA-Factory was ended by SIGKILL" in failed.value.summary
    assert "llamafactory.log" in failed.value.hint
    run = json.loads((plan.output_dir / "run.json").read_text())
    assert run["status"] == "failed"
    resumed = run_plan(plan, resume=True)
    assert resumed.weights_hash == finished.weights_hash


def test_code_in_the_state_of_its_trainer_is_not_run(
    plan: TrainingPlan, finished: Ran, tmp_path: Path
) -> None:
    """Who can write a checkpoint can write its manifest, too."""
    shutil.copytree(finished.directory.root, plan.output_dir)
    numbers = {int(p.name[11:]): p for p in plan.output_dir.glob("checkpoints/checkpoint-*")}
    newest = numbers.pop(max(number for number in numbers if number < 12))
    for other in numbers.values():
        shutil.rmtree(other)
    mark = tmp_path / "run by the pickle"
    for file in newest.glob("llamafactory_*.pt*"):
        file.write_bytes(pickle.dumps(_Hostile(str(mark))))
    manifest = json.loads((newest / "manifest.json").read_text())
    for entry in manifest["files"]:
        data = (newest / entry["name"]).read_bytes()
        entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (newest / "manifest.json").write_text(json.dumps(manifest))
    assert verify_checkpoint(newest) == ""
    with pytest.raises(RunError) as failed:
        run_plan(plan, resume=True)
    assert "weights_only" in failed.value.summary or "Unpickling" in failed.value.summary
    assert not mark.exists()


class _Hostile:
    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self._mark),))


def test_a_killed_parent_leaves_no_orphan(plan: TrainingPlan, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "from tests.training.runs import run_plan\n"
        "plan = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "run_plan(plan, on_event=lambda e: print(e.kind, flush=True))\n"
    )
    (tmp_path / "plan").write_bytes(pickle.dumps(plan))
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "plan")],
        cwd=Path(__file__).parents[4],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    for line in parent.stdout:
        if line.strip() == "step":
            break
    (child,) = children_of(parent.pid)
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not is_alive(child):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {child} outlived its parent")


def test_a_number_that_is_not_finite_never_reaches_the_weights(plan: TrainingPlan) -> None:
    hot = replace(plan, optimizer=replace(plan.optimizer, learning_rate=1e30, max_grad_norm=0.0))
    with pytest.raises(RunError) as failed:
        run_plan(hot)
    assert "not finite" in failed.value.summary
    for checkpoint in plan.output_dir.glob("checkpoints/*"):
        assert verify_checkpoint(checkpoint) == ""
    events = [json.loads(line) for line in (plan.output_dir / "metrics.jsonl").open()]
    assert any(e["event"] == NonFiniteEvent.kind for e in events) or "weights" in str(failed.value)


def test_patience_ends_the_run(plan: TrainingPlan) -> None:
    evaluation = replace(plan.evaluation, every=Every(1), patience=1, threshold=100.0)
    ran = run_plan(replace(plan, evaluation=evaluation))
    (early,) = [e for e in ran.recorded if isinstance(e, EarlyStopEvent)]
    assert early.step == 2
    assert ran.summary.steps == 2


@pytest.mark.parametrize("method", ["full_finetune", "freeze"])
def test_weights_of_the_base_are_trained_and_load_in_stock_transformers(
    plan: TrainingPlan, method: str
) -> None:
    from transformers import AutoModelForCausalLM

    native = {"freeze_trainable_layers": 1} if method == "freeze" else {}
    engine = LlamaFactoryPlan("sft", method, native)
    ran = run_plan(
        replace(
            plan,
            adapter=None,
            llamafactory=engine,
            batch=replace(plan.batch, total_steps=4),
            optimizer=replace(plan.optimizer, learning_rate=1e-3),
        )
    )
    rows = tiny_data().eval
    assert rows is not None
    tuned = AutoModelForCausalLM.from_pretrained(ran.directory.final_model)
    base = AutoModelForCausalLM.from_pretrained(plan.model.source.directory)
    changed = {
        name
        for name, weight in tuned.state_dict().items()
        if not bool((weight == base.state_dict()[name]).all())
    }
    assert any("layers.1." in name for name in changed)
    assert any("layers.0." in name for name in changed) == (method == "full_finetune")
    best = [e for e in ran.recorded if isinstance(e, EvalEvent) and e.best][-1]
    assert best.eval_loss == pytest.approx(stock_loss(tuned, rows), abs=1e-5)


def test_text_is_trained_on_as_a_whole_for_continued_pre_training(plan: TrainingPlan) -> None:
    ran = run_plan(
        replace(
            plan,
            llamafactory=LlamaFactoryPlan("pt", "lora", {}),
            batch=replace(plan.batch, total_steps=4),
        )
    )
    data = tiny_data()
    assert data.eval is not None
    evaluation = next(e for e in ran.recorded if isinstance(e, EvalEvent))
    assert evaluation.trained_tokens == sum(data.eval.lengths()) - len(data.eval)
    steps = [e for e in ran.recorded if isinstance(e, StepEvent)]
    assert all(e.tokens - e.trained_tokens == 8 * e.step for e in steps)


def test_the_difference_of_two_answers_is_learnt(plan: TrainingPlan, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"w{i} w{i + 1}", "chosen": f"w{i} w40 w41", "rejected": f"w{i} w50 w51 w52"}
        for i in range(40)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = replace(plan.data, train_location=file, eval_fraction=0.2, answers="paired")
    data = prepare(request, load_tokenizer(plan.model.source.directory), cache_dir=tmp_path)
    ran = run_plan(
        replace(
            plan,
            data=request,
            llamafactory=LlamaFactoryPlan("dpo", "lora", {"pref_beta": 0.2}),
            optimizer=replace(plan.optimizer, learning_rate=1e-2),
        ),
        data=data,
    )
    evaluations = [e for e in ran.recorded if isinstance(e, EvalEvent)]
    assert evaluations[0].eval_loss == pytest.approx(math.log(2), abs=1e-6)
    assert evaluations[0].rows == evaluations[0].trained_tokens == 8
    assert evaluations[-1].eval_loss < evaluations[0].eval_loss - 0.05
    assert evaluations[-1].accuracy == 1.0
    kept = json.loads((ran.directory.evaluations / "step-0.json").read_text())
    assert all("pairs.jsonl" in source for source in kept["sources"])


def test_a_native_key_that_needs_a_package_says_what_to_install(plan: TrainingPlan) -> None:
    engine = LlamaFactoryPlan("sft", "full_finetune", {"use_galore": True})
    with pytest.raises(RunError) as failed:
        run_plan(replace(plan, adapter=None, llamafactory=engine))
    assert "galore" in failed.value.summary.lower()
    assert "uv pip install --python" in failed.value.hint


def children_of(pid: int) -> list[int]:
    """Direct children that run `inside.py`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == pid and b"inside.py" in line:
            found.append(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
