"""The seed's commands, typed as they stand. A process of its own only where that is the point."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from llamafarm.cli import demo
from llamafarm.cli.main import run_function

from . import seed
from .observed import observe
from .typed import (
    ROOT,
    arguments,
    changed_directory,
    events_of,
    plan_of,
    refusal_of,
    run_in_shell,
    type_in,
    write_rows,
)

DEMO_RUN = Path("fine_tuned_models/medical_optimized")
MEDICAL = ROOT / "demos" / "datasets" / "medical"


@pytest.fixture(scope="module")
def checkout(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cli.py` and `demos/`, where a run may be left behind. The demo's strategy trains a small
    model for two steps there; every other line of it is the shipped one.
    """
    directory = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "cli.py", directory)
    (directory / "demos").mkdir()
    for name in ("demo3_training.py", "strategies.yaml"):
        shutil.copy(ROOT / "demos" / name, directory / "demos")
    file = directory / "demos" / "strategies.yaml"
    before, name, rest = file.read_text("utf-8").partition("\ndemo3_training_optimized:\n")
    rest = rest.replace("config:\n", f"config:\n        base_model: {model_dir}\n", 1)
    rest = rest.replace("training_args:\n", "training_args:\n          max_steps: 2\n", 1)
    file.write_text(before + name + rest, "utf-8")
    return directory


@pytest.mark.slow
@pytest.mark.seed(60, 61, 62, 63, 64)
def test_the_demo_train_line_runs_as_typed(checkout: Path) -> None:
    done = run_in_shell(seed.TRAIN_DEMO, cwd=checkout)
    assert done.returncode == 0, done.stderr
    run = checkout / DEMO_RUN
    assert done.stdout.splitlines()[-1] == str(run)
    record = json.loads((run / "run.json").read_text("utf-8"))
    assert (record["status"], record["strategy"]) == ("completed", "demo3_training_optimized")
    files = {Path(file["name"]).name: file["rows"] for file in record["data"]["files"]}
    assert files == {"medical_qa_train.jsonl": 305, "medical_qa_eval.jsonl": 34}
    adapter = json.loads((run / "final_model" / "adapter_config.json").read_text("utf-8"))
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (4, 8, 0.1)
    assert [e["step"] for e in events_of(run, "eval")] == [0, 2]


@pytest.mark.seed(60, 63, 64)
def test_the_same_words_go_to_the_console_command(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    module, _, function = scripts["llamafarm"].partition(":")
    assert f"from {module} import {function}\n" in (ROOT / "cli.py").read_text("utf-8")
    monkeypatch.chdir(checkout)
    plan = plan_of(seed.TRAIN_DEMO, "--output", "elsewhere")
    assert plan.data.train_location == MEDICAL / "medical_qa_train.jsonl"
    assert plan.data.eval_location == MEDICAL / "medical_qa_eval.jsonl"


@pytest.mark.seed(61, 62, 127)
def test_the_shipped_demo_strategy_resolves_unchanged(packaged_model_dir: Path) -> None:
    file = str(ROOT / "demos" / "strategies.yaml")
    name = "demo3_training_optimized"
    done = type_in(f"setup {file} --strategy {name} --verify-only --json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    found = {d["field"]: d["value"] for d in report["decisions"] if d["source"] == "strategy"}
    args = {
        "output_dir": "./fine_tuned_models/medical_optimized",
        "num_train_epochs": "2",
        "per_device_train_batch_size": "1",
        "gradient_accumulation_steps": "4",
        "learning_rate": "5e-05",
        "warmup_steps": "10",
        "weight_decay": "0.01",
        "logging_steps": "5",
        "eval_strategy": "steps",
        "eval_steps": "50",
        "save_strategy": "steps",
        "save_steps": "50",
        "save_total_limit": "2",
        "load_best_model_at_end": "true",
        "metric_for_best_model": "eval_loss",
        "greater_is_better": "false",
    }
    assert {n: found[n] for n in args} == args
    method = {"r": "4", "alpha": "8", "dropout": "0.1"}
    assert {n: found[f"method.{n}"] for n in method} == method
    assert found["method.target_modules"] == "q_proj, k_proj, v_proj, o_proj"
    assert report["data"]["train"]["rows"] + report["data"]["eval"]["rows"] == 339


@pytest.mark.slow
@pytest.mark.seed(57)
def test_the_demo_runs_to_its_end_without_asking(checkout: Path, model_dir: Path) -> None:
    more = ("--base-model", str(model_dir), "--set", "max_steps=2")
    done = run_in_shell(seed.DEMO, *more, cwd=checkout, DEMO_MODE="automated")
    assert done.returncode == 0, done.stderr
    headings = re.findall(r"^\[(\d)/4\] ", done.stderr, re.MULTILINE)
    assert headings == ["1", "2", "3", "4"]
    assert "FutureWarning" not in done.stderr
    assert "Failed to load" not in done.stderr
    assert done.stdout.count("Why do doctors ask me to finish a course of antibiotics?") == 2
    assert (checkout / "fine_tuned_models/demo3_quick/final_model/adapter_config.json").is_file()


@pytest.mark.seed(57)
def test_a_demo_that_fails_does_not_end_with_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEMO_MODE", "automated")
    monkeypatch.setattr(sys, "argv", [*arguments(seed.DEMO)[1:], "--base-model", "./nowhere"])
    assert run_function(demo.command, "demo3_training.py", demo.EXAMPLE) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.seed(70, 71, 74, 75, 77, 78, 79, 81, 82, 83, 88)
def test_my_strategy_trains_with_its_line(model_dir: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "cli.py", tmp_path)
    (tmp_path / "my_strategy.yaml").write_text(seed.MY_STRATEGY, "utf-8")
    write_rows(tmp_path / "data.jsonl")
    more = ("--dataset", "data.jsonl", "--base-model", str(model_dir), "--set", "max_steps=2")
    done = run_in_shell(seed.TRAIN_MY_STRATEGY, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "fine_tuned_models" / "my_training"
    adapter = json.loads((run / "final_model" / "adapter_config.json").read_text("utf-8"))
    assert (adapter["peft_type"], adapter["r"], adapter["lora_alpha"]) == ("LORA", 8, 16)
    assert "# Custom Domain Training" in (run / "final_model" / "README.md").read_text("utf-8")
    assert json.loads((run / "summary.json").read_text("utf-8"))["steps"] == 2


@pytest.mark.seed(70, 71, 77, 78, 79, 81, 82, 83, 88)
def test_my_strategy_resolves_as_it_stands(packaged_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "my_strategy.yaml").write_text(seed.MY_STRATEGY, "utf-8")
    write_rows(tmp_path / "data.jsonl")
    plan = plan_of(seed.TRAIN_MY_STRATEGY, "--dataset", "data.jsonl")
    assert (plan.strategy_id, plan.title) == ("my_training", "Custom Domain Training")
    assert plan.model.source.name == "smollm2-135m-instruct"
    assert plan.output_dir == tmp_path / "fine_tuned_models" / "my_training"
    assert plan.adapter is not None
    assert (plan.adapter.r, plan.adapter.alpha) == (8, 16)
    assert plan.adapter.target_modules == (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    assert plan.batch.num_epochs == 3
    assert plan.evaluation.every.steps == 100


@pytest.mark.seed(70, 88, 113)
def test_a_strategy_without_data_says_how_to_give_them(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "my_strategy.yaml").write_text(seed.MY_STRATEGY, "utf-8")
    text = refusal_of(seed.TRAIN_MY_STRATEGY, "--base-model", str(model_dir))
    assert "nothing says what to train on" in text
    assert "hint: give --dataset FILE, or write `dataset.path`" in text


@pytest.mark.slow
@pytest.mark.seed(94, 96, 107)
def test_the_splitting_line_makes_the_two_files(tmp_path: Path) -> None:
    (tmp_path / "demos").mkdir()
    shutil.copy(ROOT / "demos" / "create_data_split.py", tmp_path / "demos")
    data = write_rows(tmp_path / "data.jsonl", 115)
    data.write_bytes(data.read_bytes().removesuffix(b"\n"))
    done = run_in_shell(seed.SPLIT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    train, held_out = (tmp_path / f"data_{side}.jsonl" for side in ("train", "eval"))
    lines = [file.read_text("utf-8").splitlines() for file in (train, held_out)]
    assert [len(side) for side in lines] == [103, 12]
    assert sorted(lines[0] + lines[1]) == sorted(data.read_text("utf-8").splitlines())


@pytest.fixture
def my_strategy(tmp_path: Path) -> Path:
    """Step 2 of the workflow, after step 1."""
    write_rows(tmp_path / "data.jsonl")
    assert type_in("datasplit data.jsonl").code == 0
    (tmp_path / "strategies.yaml").write_text(seed.STRATEGIES, "utf-8")
    return tmp_path


@pytest.mark.seed(113, 119, 120, 121, 127)
def test_the_setup_line_says_that_all_is_well_and_writes_nothing(
    my_strategy: Path, packaged_model_dir: Path
) -> None:
    before = sorted(my_strategy.rglob("*"))
    done = type_in(seed.SETUP)
    assert done.code == 0, done.err
    assert "training    54 rows" in done.out
    assert "evaluation  6 rows" in done.out
    for line in ("memory", "disk", "time"):
        assert re.search(rf"^  {line} ", done.out, re.MULTILINE), line
    ready = done.out.splitlines()[-1]
    assert ready == "ready: " + seed.TRAIN.replace("uv run python cli.py", "llamafarm")
    assert sorted(my_strategy.rglob("*")) == before


@pytest.mark.seed(127)
def test_the_setup_line_names_every_problem(my_strategy: Path, packaged_model_dir: Path) -> None:
    broken = seed.STRATEGIES.replace("data_train", "data_trian").replace("data_eval", "data_evil")
    broken = broken.replace("# Your configuration", "hardware: {device: cuda:7}")
    (my_strategy / "strategies.yaml").write_text(broken, "utf-8")
    text = refusal_of(seed.SETUP)
    assert "strategies.yaml has 3 problems" in text
    assert "strategies.yaml:9" in text and "did you mean data_train.jsonl" in text
    assert "strategies.yaml:10" in text and "did you mean data_eval.jsonl" in text
    assert "expected one of" in text and "(got cuda:7)" in text


@pytest.mark.seed(127)
def test_the_setup_line_names_every_wrong_key_with_its_line(my_strategy: Path) -> None:
    broken = seed.STRATEGIES.replace("# Your configuration", "{methd: {r: 8}, base_modle: x}")
    (my_strategy / "strategies.yaml").write_text(broken, "utf-8")
    text = refusal_of(seed.SETUP)
    assert "strategies.yaml has 2 problems" in text
    assert "hint: did you mean `method`?" in text
    assert "hint: did you mean `base_model`?" in text


@pytest.mark.seed(113, 119, 120, 121, 130)
def test_the_train_line_needs_nothing_else(my_strategy: Path, model_dir: Path) -> None:
    """Verbatim up to the length of the run and the size of the model."""
    more = ("--base-model", str(model_dir), "--set", "max_steps=2")
    seen = observe(seed.TRAIN, *more)
    assert seen.plan is not None
    assert seen.plan.data.train_location == my_strategy / "data_train.jsonl"
    assert seen.plan.data.eval_location == my_strategy / "data_eval.jsonl"
    assert (seen.run_dir / "final_model" / "adapter_model.safetensors").is_file()


@pytest.mark.seed(63, 301)
def test_the_demo_files_are_what_the_splitter_makes_of_the_data(tmp_path: Path) -> None:
    with changed_directory(ROOT / "demos"):
        line = "datasplit datasets/medical/medical_qa.jsonl --eval-percent 10"
        done = type_in(line, "--output-dir", str(tmp_path))
    assert done.code == 0, done.err
    for side in ("train", "eval"):
        name = f"medical_qa_{side}.jsonl"
        assert (tmp_path / name).read_bytes() == (MEDICAL / name).read_bytes(), (
            f"{name} is not what the splitter makes: split medical_qa.jsonl again"
        )
