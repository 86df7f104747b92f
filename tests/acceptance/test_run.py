"""One run: what a person sees while it goes on, and what is left when it is over."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from . import seed
from .observed import Observed, observe
from .typed import changed_directory, events_of, inputs_of, plan_of, type_in, write_rows

STEPS = 12
TRAIN = "train --strategy-file my_strategy.yaml --dataset data.jsonl"


def prepare(directory: Path, *lines: str) -> None:
    """my_strategy.yaml with more lines in training_args, and the tracking block of the seed."""
    text = seed.MY_STRATEGY.replace("eval_steps: 100", "eval_steps: 3")
    text += "".join(f"          {line}\n" for line in lines)
    tracking = seed.pasted(seed.TRACKING).partition("type: pytorch\n")[2]
    (directory / "my_strategy.yaml").write_text(text + tracking, "utf-8")
    write_rows(directory / "data.jsonl", 40)


@pytest.fixture(scope="module")
def run(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """Twelve steps with a warm-up of four, evaluated every third."""
    lines = ("learning_rate: 1.0e-2", "warmup_steps: 4", f"max_steps: {STEPS}")
    with changed_directory(tmp_path_factory.mktemp("run")) as directory:
        prepare(directory, *lines)
        return observe(TRAIN, "--base-model", str(model_dir))


def losses(done_dir: Path) -> list[float]:
    return [event["loss"] for event in events_of(done_dir, "step")]


@pytest.mark.seed(135)
def test_every_step_shows_its_training_loss(run: Observed) -> None:
    shown = re.findall(r"^step (\d+)/12  loss (\d+\.\d{3})", run.done.err, re.MULTILINE)
    events = events_of(run.run_dir, "step")
    assert shown == [(str(e["step"]), f"{e['loss']:.3f}") for e in events]
    assert len(shown) == STEPS


@pytest.mark.seed(41, 136, 281)
def test_every_evaluation_shows_eval_loss_perplexity_and_the_gap(run: Observed) -> None:
    line = r"^eval at step (\d+): loss [\d.]+ \(base [\d.]+\), perplexity [\d.]+, gap [+-][\d.]+"
    assert re.findall(line, run.done.err, re.MULTILINE) == ["3", "6", "9", "12"]
    assert "eval at step 0: loss " in run.done.err
    assert [e["step"] for e in events_of(run.run_dir, "eval")] == [0, 3, 6, 9, 12]


@pytest.mark.seed(42, 137)
def test_a_new_best_is_shown_when_it_is_found(run: Observed) -> None:
    shown = re.findall(r"^eval at step (\d+): .*, best$", run.done.err, re.MULTILINE)
    assert shown == [str(e["step"]) for e in events_of(run.run_dir, "eval") if e["best"]]
    summary = json.loads((run.run_dir / "summary.json").read_text("utf-8"))
    assert shown[-1] == str(summary["best_step"])


@pytest.mark.seed(138, 289)
def test_the_final_summary_has_the_verdict_and_every_number(run: Observed) -> None:
    summary = json.loads((run.run_dir / "summary.json").read_text("utf-8"))
    base, best = summary["base_eval_loss"], summary["eval_loss"]
    assert best < base
    change = f"eval loss {base:.3f} → {best:.3f} ({100 * (best / base - 1):+.1f} %)"
    gap = best - summary["train_loss"]
    verdict = f"{change}, best at step {summary['best_step']} of {STEPS}; gap {gap:+.3f}"
    assert verdict in run.done.out
    for name in ("eval loss", "perplexity", "best step", "gap", "time", "speed", "peak memory"):
        assert re.search(rf"^  {name}  ", run.done.out, re.MULTILINE), name
    for number in ("train_loss", "perplexity", "tokens_per_second", "runtime_seconds"):
        assert summary[number] > 0
    assert summary["peak_memory_bytes"] > 2**20


@pytest.mark.seed(231)
def test_the_learning_rate_warms_up_then_decays_and_is_logged(run: Observed) -> None:
    rates = [event["learning_rate"] for event in events_of(run.run_dir, "step")]
    assert rates[:5] == pytest.approx([0, 2.5e-3, 5e-3, 7.5e-3, 1e-2])
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))


@pytest.mark.seed(231)
@pytest.mark.parametrize(("line", "steps"), [("warmup_steps: 5", 5), ("warmup_ratio: 0.2", 3)])
def test_warm_up_is_given_in_steps_or_as_a_share(
    line: str, steps: int, model_dir: Path, tmp_path: Path
) -> None:
    prepare(tmp_path, line, f"max_steps: {STEPS}")
    assert plan_of(TRAIN, "--base-model", str(model_dir)).optimizer.warmup_steps == steps


@pytest.mark.seed(231)
@pytest.mark.parametrize("name", ["linear", "cosine", "constant_with_warmup"])
def test_the_schedule_is_the_one_that_is_named(name: str, model_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, f"lr_scheduler_type: {name}")
    assert plan_of(TRAIN, "--base-model", str(model_dir)).optimizer.scheduler == name


@pytest.mark.seed(42, 137, 264, 265, 282)
def test_the_final_model_is_the_best_step_and_the_last_is_kept_beside_it(
    model_dir: Path, tmp_path: Path
) -> None:
    """The loss falls from the first step on; asked to call that worse, the run keeps the first."""
    prepare(tmp_path, "learning_rate: 1.0e-2", "greater_is_better: true")
    seen = observe(TRAIN, "--base-model", str(model_dir), "--set", "eval_steps=1")
    summary = json.loads((seen.run_dir / "summary.json").read_text("utf-8"))
    evaluations = {e["step"]: e["eval_loss"] for e in events_of(seen.run_dir, "eval") if e["step"]}
    best = max(evaluations, key=lambda step: evaluations[step])
    assert summary["best_step"] == best < summary["steps"]
    assert summary["best_metric"] == summary["eval_loss"] == evaluations[best]
    checkpoints = seen.run_dir / "checkpoints"
    name = "adapter_model.safetensors"
    kept = (seen.run_dir / "final_model" / name).read_bytes()
    assert kept == (checkpoints / f"checkpoint-{best}" / name).read_bytes()
    assert kept != (checkpoints / f"checkpoint-{summary['steps']}" / name).read_bytes()


@pytest.mark.seed(43)
def test_a_run_that_no_longer_improves_is_stopped(model_dir: Path, tmp_path: Path) -> None:
    prepare(tmp_path, "learning_rate: 1.0e-9", f"max_steps: {STEPS}")
    seen = observe(TRAIN, "--base-model", str(model_dir), "--set", "eval_steps=1")
    (stopped,) = events_of(seen.run_dir, "early_stop")
    assert stopped["step"] == 4
    assert len(seen.steps) == 4
    assert "stopping at step 4: nothing better than step" in seen.done.err


@pytest.mark.seed(39, 43, 279)
def test_evaluation_best_model_and_early_stopping_are_on_by_default(
    model_dir: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "data.jsonl", 115)
    inputs = inputs_of("train --dataset data.jsonl", "--base-model", str(model_dir))
    evaluation = inputs.plan.evaluation
    assert (evaluation.enabled, evaluation.on_start, evaluation.load_best) == (True, True, True)
    assert (evaluation.metric, evaluation.patience, evaluation.threshold) == ("eval_loss", 3, 1e-4)
    assert 8 <= inputs.plan.batch.total_steps / evaluation.every.steps <= 12
    assert inputs.data.eval is not None
    assert (len(inputs.data.train), len(inputs.data.eval)) == (103, 12)


@pytest.mark.seed(39, 279, 287)
def test_training_without_evaluation_is_possible_and_warned_about(
    model_dir: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "data.jsonl", 40)
    (tmp_path / "my_strategy.yaml").write_text(
        seed.MY_STRATEGY.replace('eval_strategy: "steps"', 'eval_strategy: "no"'), "utf-8"
    )
    seen = observe(TRAIN, "--base-model", str(model_dir), "--set", "max_steps=2")
    assert events_of(seen.run_dir, "eval") == []
    assert seen.plan is not None and seen.plan.batch.steps_per_epoch == 5  # all 40 rows
    texts = " ".join(seen.plan.warnings)
    assert "every row is trained on, and no number tells learning from memorising" in texts
    assert "final_model is the last step" in texts
    assert "warning" in seen.done.err


@pytest.mark.seed(25, 270, 271, 272, 273)
def test_the_tracking_lines_leave_metrics_event_files_and_checkpoints(run: Observed) -> None:
    assert len(events_of(run.run_dir, "step")) == STEPS
    assert any((run.run_dir / "logs").glob("events.out.tfevents.*"))
    kept = sorted(path.name for path in (run.run_dir / "checkpoints").iterdir())
    assert kept == ["checkpoint-12", "checkpoint-6", "checkpoint-9"]
    assert json.loads((run.run_dir / "run.json").read_text("utf-8"))["status"] == "completed"


@pytest.mark.seed(273)
def test_without_checkpoints_only_the_best_and_the_last_are_written(
    model_dir: Path, tmp_path: Path
) -> None:
    prepare(tmp_path, "max_steps: 3", "save_steps: 1", "learning_rate: 1.0e-2")
    text = (tmp_path / "my_strategy.yaml").read_text("utf-8")
    text = text.replace("save_checkpoints: true", "save_checkpoints: false")
    (tmp_path / "my_strategy.yaml").write_text(text, "utf-8")
    seen = observe(TRAIN, "--base-model", str(model_dir))
    assert {e["step"] for e in events_of(seen.run_dir, "checkpoint")} == {3}
    assert (seen.run_dir / "final_model" / "adapter_model.safetensors").is_file()
    assert any("save_steps" in w and "has no effect" in w for w in _warnings(seen))


def _warnings(seen: Observed) -> Sequence[str]:
    assert seen.plan is not None
    return seen.plan.warnings


@pytest.mark.seed(34)
def test_the_run_records_what_it_was_made_of(run: Observed) -> None:
    record = json.loads((run.run_dir / "run.json").read_text("utf-8"))
    text = (run.run_dir / "strategy.yaml").read_bytes()
    assert record["strategy_sha256"] == hashlib.sha256(text).hexdigest()
    data = (run.run_dir.parents[1] / "data.jsonl").read_bytes()
    assert hashlib.sha256(data).hexdigest() in [f["sha256"] for f in record["data"]["files"]]
    assert set(record["versions"]) >= {"llamafarm", "torch", "transformers", "peft"}
    fields = {decision["field"] for decision in record["decisions"]}
    assert fields >= {"device", "precision", "learning_rate", "method.r", "seed"}
    assert record["seed"] == 42


@pytest.mark.seed(34, 36, 314)
def test_the_written_strategy_plans_the_same_run(run: Observed) -> None:
    written = yaml.safe_load((run.run_dir / "strategy.yaml").read_text("utf-8"))
    assert str(written["version"]) == "2.0"
    assert run.plan is not None
    with changed_directory(run.run_dir.parents[1]):
        again = plan_of(f"train --strategy-file {run.run_dir}/strategy.yaml --output elsewhere")
    same = ("adapter", "optimizer", "batch", "evaluation", "saving", "seed", "data_fingerprint")
    assert {n: getattr(again, n) for n in same} == {n: getattr(run.plan, n) for n in same}


@pytest.mark.seed(284)
def test_the_final_model_carries_a_card(run: Observed) -> None:
    card = (run.run_dir / "final_model" / "README.md").read_text("utf-8")
    summary = json.loads((run.run_dir / "summary.json").read_text("utf-8"))
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "peft"
    assert "# Custom Domain Training" in card
    best = f"| best | {summary['best_step']} | {summary['eval_loss']:.4f} |"
    assert best in card
    assert "| method | lora, r 8, alpha 16, " in card
    assert "| seed | 42 |" in card


@pytest.mark.seed(40, 292)
def test_one_seed_decides_split_order_and_weights(model_dir: Path, tmp_path: Path) -> None:
    """Two runs are equal to the last bit, and another seed changes each of the three."""
    prepare(tmp_path, "max_steps: 2")
    runs = {}
    for name, seed_flag in (("a", ()), ("b", ()), ("c", ("--set", "training_args.seed=43"))):
        seen = observe(TRAIN, "--base-model", str(model_dir), "--output", name, *seed_flag)
        held_out = inputs_of(
            TRAIN, "--base-model", str(model_dir), "--output", f"{name}-plan", *seed_flag
        ).data.eval
        assert held_out is not None
        weights = load_file(seen.run_dir / "final_model" / "adapter_model.safetensors")
        first = next(t for n, t in sorted(weights.items()) if "lora_A" in n).numpy().tobytes()
        runs[name] = (held_out.fingerprint, tuple(losses(seen.run_dir)), first)
    assert runs["a"] == runs["b"]
    assert all(one != other for one, other in zip(runs["a"], runs["c"], strict=True))


@pytest.mark.seed(292)
def test_the_seed_is_42_everywhere(model_dir: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl")
    plan = plan_of("train --dataset data.jsonl", "--base-model", str(model_dir))
    assert (plan.seed, plan.data.seed) == (42, 42)
    assert "Left out: 42." in " ".join(type_in("datasplit --help").out.split())
