"""What a strategy file may say, in the forms that the seed uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from llamafarm.strategy.loader import load_strategy

from . import seed
from .observed import observe
from .typed import inputs_of, plan_of, refusal_of, type_in, write_rows

TRAIN = "train --strategy-file strategies.yaml"
DATA = ("--dataset", "data.jsonl")


@pytest.fixture(autouse=True)
def data_file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "data.jsonl")


def write(directory: Path, text: str, name: str = "strategies.yaml") -> None:
    (directory / name).write_text(text, "utf-8")


def with_value(line: str) -> str:
    """my_strategy.yaml with one more line in training_args."""
    return f"{seed.MY_STRATEGY}          {line}\n"


@pytest.mark.seed(32)
def test_a_flag_only_overrides_and_the_rest_comes_from_the_file(
    model_dir: Path, tmp_path: Path
) -> None:
    write(tmp_path, seed.MY_STRATEGY)
    more = ("--base-model", str(model_dir), "--learning-rate", "1e-3", "--set", "method.r=16")
    plan = plan_of(TRAIN, *DATA, *more)
    assert plan.adapter is not None
    assert (plan.adapter.r, plan.adapter.alpha, plan.optimizer.learning_rate) == (16, 16, 1e-3)
    assert plan.batch.num_epochs == 3
    sources = {d.field: d.source for d in plan.decisions if d.source not in ("warning", "notice")}
    assert sources["learning_rate"] == "flag"
    assert sources["num_train_epochs"] == "strategy"


@pytest.mark.seed(33, 62)
def test_strategies_are_found_in_any_file_and_in_the_default_order(
    model_dir: Path, tmp_path: Path
) -> None:
    named = {"else/where.yaml": "4", "strategies.yaml": "8", "demos/strategies.yaml": "16"}
    for name, rank in named.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, seed.MY_STRATEGY.replace("r: 8", f"r: {rank}"), name)
    line = f"train --strategy my_training --dataset data.jsonl --base-model {model_dir}"
    ranks = []
    for more in (("--strategy-file", "else/where.yaml"), (), ()):
        plan = plan_of(line, *more)
        assert plan.adapter is not None
        ranks.append(plan.adapter.r)
        if not more:
            (tmp_path / "strategies.yaml").unlink(missing_ok=True)
    assert ranks == [4, 8, 16]


@pytest.mark.seed(33, 35)
def test_a_strategy_can_extend_another(model_dir: Path, tmp_path: Path) -> None:
    second = seed.pasted("config:\n  method:\n    r: 32\n", "wider") + "  extends: my_training\n"
    write(tmp_path, seed.MY_STRATEGY + second)
    plan = plan_of("train --strategy wider", *DATA, "--base-model", str(model_dir))
    assert plan.adapter is not None
    assert (plan.adapter.r, plan.adapter.alpha, plan.batch.num_epochs) == (32, 16, 3)


@pytest.mark.seed(35)
def test_the_blocks_beside_components_are_honoured(model_dir: Path, tmp_path: Path) -> None:
    beside = "  dataset:\n    path: data.jsonl\n" + seed.pasted(seed.TRACKING).split("\n", 4)[4]
    write(tmp_path, seed.MY_STRATEGY + beside)
    plan = plan_of(TRAIN, "--base-model", str(model_dir))
    assert plan.data.train_location == tmp_path / "data.jsonl"
    assert plan.logging.report_to == ("tensorboard",)


@pytest.mark.seed(36)
def test_template_seed_and_split_come_from_the_file(model_dir: Path, tmp_path: Path) -> None:
    beside = (
        "  prompt_template: {system: Answer kindly.}\n"
        "  dataset: {path: data.jsonl, eval_split: 0.2}\n"
    )
    write(tmp_path, with_value("seed: 7") + beside)
    inputs = inputs_of(TRAIN, "--base-model", str(model_dir))
    assert inputs.plan.data.system_prompt == "Answer kindly."
    assert inputs.plan.seed == inputs.plan.data.seed == 7
    assert inputs.data.eval is not None
    assert len(inputs.data.eval) == 12
    text = inputs.tokenizer.decode(inputs.data.train.input_ids(0))
    assert text.startswith("<|im_start|>system\nAnswer kindly.<|im_end|>\n<|im_start|>user\n")


@pytest.mark.seed(70)
@pytest.mark.parametrize("form", ["top", "mapping", "list"])
def test_the_three_containers_are_the_same_thing(form: str, tmp_path: Path) -> None:
    strategy = yaml.safe_load(seed.MY_STRATEGY)["my_training"]
    content: object = {"my_training": strategy}
    if form == "mapping":
        content = {"strategies": content}
    elif form == "list":
        content = {"strategies": [{**strategy, "name": "my_training"}]}
    write(tmp_path, json.dumps(content))
    loaded = load_strategy(tmp_path / "strategies.yaml", "my_training", environ={})
    write(tmp_path, seed.MY_STRATEGY)
    plain = load_strategy(tmp_path / "strategies.yaml", "my_training", environ={})
    leave_out = {"origins", "title"}
    assert loaded.model_dump(exclude=leave_out) == plain.model_dump(exclude=leave_out)


@pytest.mark.seed(71)
def test_the_key_is_the_id_and_the_name_is_a_title(tmp_path: Path) -> None:
    write(tmp_path, seed.MY_STRATEGY)
    done = type_in("list-strategies --json --strategy-file strategies.yaml")
    (entry,) = json.loads(done.out)["strategies"]
    assert (entry["id"], entry["title"]) == ("my_training", "Custom Domain Training")


@pytest.mark.seed(12, 74, 75)
def test_an_unknown_fine_tuner_is_refused_with_the_choices(tmp_path: Path) -> None:
    write(tmp_path, seed.MY_STRATEGY.replace("type: pytorch", "type: tensorflow"))
    text = refusal_of(TRAIN, *DATA)
    assert "pytorch, llamafactory" in text and 'got "tensorflow"' in text
    assert "strategies.yaml:6" in text


@pytest.mark.seed(77)
@pytest.mark.parametrize(
    ("text", "method", "bits"),
    [
        ("type: lora", "lora", None),
        ("type: qlora", "lora", 4),
        ("type: full", None, None),
        ("type: full_finetune", None, None),
    ],
)
def test_each_method_is_planned(
    text: str, method: str | None, bits: int | None, model_dir: Path, tmp_path: Path
) -> None:
    write(tmp_path, seed.pasted(f"config:\n  method: {{{text}}}\n"))
    plan = plan_of(TRAIN, *DATA, "--base-model", str(model_dir))
    assert (plan.adapter is not None) == (method == "lora")
    assert (plan.quantization.bits if plan.quantization else None) == bits
    if method is None:
        assert plan.num_trainable_parameters == plan.model.shape.num_parameters


@pytest.mark.seed(78)
@pytest.mark.parametrize("value", ["0", "-4", "8.5", '"eight"'])
def test_a_rank_is_a_whole_number_of_at_least_1(value: str, tmp_path: Path) -> None:
    write(tmp_path, seed.MY_STRATEGY.replace("r: 8", f"r: {value}"))
    text = refusal_of(TRAIN, *DATA)
    assert "strategies.yaml:10" in text and ".method.r" in text


@pytest.mark.seed(79)
@pytest.mark.parametrize("name", ["alpha", "lora_alpha"])
def test_alpha_has_two_names(name: str, model_dir: Path, tmp_path: Path) -> None:
    write(tmp_path, seed.MY_STRATEGY.replace("alpha: 16", f"{name}: 24"))
    plan = plan_of(TRAIN, *DATA, "--base-model", str(model_dir))
    assert plan.adapter is not None and plan.adapter.alpha == 24


@pytest.mark.seed(81)
def test_part_of_an_epoch_is_part_of_its_steps(model_dir: Path, tmp_path: Path) -> None:
    write(tmp_path, seed.MY_STRATEGY.replace("num_train_epochs: 3", "num_train_epochs: 1.5"))
    batch = plan_of(TRAIN, *DATA, "--base-model", str(model_dir)).batch
    assert (batch.steps_per_epoch, batch.total_steps, batch.num_epochs) == (7, 11, 1.5)


@pytest.mark.seed(81)
@pytest.mark.parametrize("value", ["0", "-1", "5-10", "three"])
def test_epochs_are_a_number_above_0(value: str, tmp_path: Path) -> None:
    write(tmp_path, seed.MY_STRATEGY.replace("num_train_epochs: 3", f"num_train_epochs: {value}"))
    text = refusal_of(TRAIN, *DATA)
    assert "strategies.yaml:13" in text and "num_train_epochs" in text


@pytest.mark.seed(82, 39)
@pytest.mark.parametrize(
    ("text", "every"),
    [
        ('eval_strategy: "steps"', 3),
        ("eval_strategy: epoch", 7),
        ('eval_strategy: "no"', None),
        ("eval_strategy: no", None),
        ("eval_strategy: false", None),
        ("evaluation_strategy: epoch", 7),
    ],
)
def test_eval_strategy_in_all_its_spellings(
    text: str, every: int | None, model_dir: Path, tmp_path: Path
) -> None:
    lines = seed.MY_STRATEGY.replace('eval_strategy: "steps"', text)
    write(tmp_path, lines.replace("          eval_steps: 100\n", ""))
    evaluation = plan_of(TRAIN, *DATA, "--base-model", str(model_dir)).evaluation
    assert (evaluation.every.steps if evaluation.enabled else None) == every


@pytest.mark.seed(83)
def test_eval_steps_beyond_the_run_stay_and_the_last_step_is_evaluated(
    model_dir: Path, tmp_path: Path
) -> None:
    write(tmp_path, seed.MY_STRATEGY)
    more = ("--base-model", str(model_dir), "--set", "max_steps=2")
    plan = plan_of(TRAIN, *DATA, *more)
    assert plan.evaluation.every.steps == 100
    text = "eval_steps=100 exceeds the 2 steps of this run: only the base model and the last step"
    assert any(warning.startswith(text) for warning in plan.warnings)
    assert plan.saving.every.steps == 100


@pytest.mark.seed(113)
@pytest.mark.parametrize("config", ["# Your configuration", "null", "{}"])
def test_an_empty_configuration_is_all_defaults(
    config: str, model_dir: Path, tmp_path: Path
) -> None:
    text = seed.STRATEGIES.replace("config:\n        # Your configuration", f"config: {config}")
    for first, side in ((0, "train"), (20, "eval")):
        write_rows(tmp_path / f"data_{side}.jsonl", 20, first)
    write(tmp_path, text)
    plan = plan_of(TRAIN, "--base-model", str(model_dir))
    assert plan.output_dir == tmp_path / "fine_tuned_models" / "my_strategy"
    written = {d.field for d in plan.decisions if d.source == "strategy"}
    assert written == {"dataset.train_file", "dataset.eval_file"}


@pytest.mark.seed(255, 257)
def test_the_multi_gpu_lines_train_on_one_device(model_dir: Path, tmp_path: Path) -> None:
    write(tmp_path, seed.pasted(seed.MULTI_GPU))
    seen = observe(TRAIN, *DATA, "--base-model", str(model_dir), "--set", "max_steps=3")
    (text,) = [line for line in seen.done.err.splitlines() if "fp16_backend" in line]
    assert text.startswith("notice: ")
    assert "ddp_find_unused_parameters" not in seen.done.err
    assert seen.plan is not None and seen.plan.batch.num_workers == 4


@pytest.mark.seed(256)
def test_workers_prepare_the_batches(model_dir: Path, tmp_path: Path) -> None:
    write(tmp_path, seed.pasted(seed.MULTI_GPU))
    seen = observe(TRAIN, *DATA, "--base-model", str(model_dir), "--set", "max_steps=3")
    assert seen.batch_threads
    assert all(name.startswith("batches") for name in seen.batch_threads)


@pytest.mark.seed(255)
def test_a_switch_for_several_devices_is_not_silent(model_dir: Path, tmp_path: Path) -> None:
    write(tmp_path, seed.pasted(seed.MULTI_GPU.replace("parameters: false", "parameters: true")))
    plan = plan_of(TRAIN, *DATA, "--base-model", str(model_dir))
    assert any("ddp_find_unused_parameters" in warning for warning in plan.warnings)


@pytest.mark.seed(263, 264, 265)
def test_the_custom_metrics_lines_choose_the_smallest_eval_loss(
    model_dir: Path, tmp_path: Path
) -> None:
    write(tmp_path, seed.pasted(seed.CUSTOM_METRICS))
    chosen = plan_of(TRAIN, *DATA, "--base-model", str(model_dir)).evaluation
    assert (chosen.metric, chosen.greater_is_better, chosen.load_best) == ("eval_loss", False, True)


@pytest.mark.seed(263, 264)
@pytest.mark.parametrize(
    ("name", "metric", "greater"),
    [
        ("loss", "eval_loss", False),
        ("eval_loss", "eval_loss", False),
        ("perplexity", "perplexity", False),
        ("accuracy", "accuracy", True),
    ],
)
def test_which_way_a_metric_improves_follows_from_the_metric(
    name: str, metric: str, greater: bool, model_dir: Path, tmp_path: Path
) -> None:
    text = seed.CUSTOM_METRICS.replace("  greater_is_better: false\n", "")
    write(tmp_path, seed.pasted(text.replace('"eval_loss"', name)))
    chosen = plan_of(TRAIN, *DATA, "--base-model", str(model_dir)).evaluation
    assert (chosen.metric, chosen.greater_is_better) == (metric, greater)


@pytest.mark.seed(263)
def test_an_unknown_metric_is_refused_before_training(model_dir: Path, tmp_path: Path) -> None:
    write(tmp_path, seed.pasted(seed.CUSTOM_METRICS.replace("eval_loss", "eval_los")))
    text = refusal_of(TRAIN, *DATA, "--base-model", str(model_dir))
    assert "did you mean `eval_loss`?" in text


@pytest.mark.seed(264)
def test_greater_is_better_against_the_metric_is_obeyed_with_a_warning(
    model_dir: Path, tmp_path: Path
) -> None:
    write(tmp_path, seed.pasted(seed.CUSTOM_METRICS.replace("better: false", "better: true")))
    plan = plan_of(TRAIN, *DATA, "--base-model", str(model_dir))
    assert plan.evaluation.greater_is_better
    assert any("keeps the worst step" in warning for warning in plan.warnings)


@pytest.mark.seed(314)
@pytest.mark.parametrize("version", ['"2.0"', "2.0", "2.0.0"])
def test_version_2_is_accepted(version: str, tmp_path: Path) -> None:
    write(tmp_path, f"version: {version}\n{seed.MY_STRATEGY}")
    done = type_in("info my_training --strategy-file strategies.yaml")
    assert (done.code, done.err) == (0, "")
