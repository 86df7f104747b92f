"""A plan written back as a strategy plans the same run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.data.request import HubDataset
from llamafarm.planning.plan import TrainingPlan
from llamafarm.planning.resolved_strategy import resolved_strategy
from llamafarm.strategy.dump import to_yaml
from llamafarm.strategy.loader import load_strategy
from llamafarm.strategy.model import (
    BaseModelSpec,
    DatasetSection,
    Method,
    Monitoring,
    Preprocessing,
    Quantization,
    Strategy,
)
from tests.hardware.recorded import A10, H200, LAPTOP, M2_16GB, RTX_4090, T4
from tests.planning.building import (
    HOME,
    LLAMA_1B,
    LLAMA_7B,
    SMOLLM2,
    hub_source,
    make_request,
    plan_for,
    with_args,
)
from tests.planning.golden_plans import SCENARIO_1, SCENARIO_2, SCENARIO_3


def again(strategy: Strategy, plan: TrainingPlan, tmp_path: Path) -> Strategy:
    """The resolved strategy, written to a file and read back."""
    file = tmp_path / "strategy.yaml"
    file.write_text(to_yaml(resolved_strategy(strategy, plan)), encoding="utf-8")
    return load_strategy(file, strategy.id, environ={})


def bare(plan: TrainingPlan) -> TrainingPlan:
    return replace(plan, decisions=())


CASES: dict[str, tuple[Strategy, Any, Any]] = {
    "nothing written": (Strategy(id="s"), LAPTOP, SMOLLM2),
    "scenario 1": (SCENARIO_1, LAPTOP, SMOLLM2),
    "scenario 2": (SCENARIO_2, H200, LLAMA_7B),
    "scenario 2 on a T4": (SCENARIO_2, T4, LLAMA_1B),
    "scenario 3": (SCENARIO_3, M2_16GB, SMOLLM2),
    "qlora": (Strategy(id="s", method=Method(type="qlora")), RTX_4090, LLAMA_7B),
    "8 bits": (
        Strategy(id="s", method=Method(quantization=Quantization(load_in_8bit=True))),
        A10,
        LLAMA_1B,
    ),
    "full": (Strategy(id="s", method=Method(type="full_finetune")), A10, LLAMA_1B),
    "no evaluation": (with_args(eval_strategy="no", save_steps=5), LAPTOP, SMOLLM2),
    "by epoch": (with_args(eval_strategy="epoch", save_strategy="epoch"), LAPTOP, SMOLLM2),
    "max steps": (with_args(max_steps=17, warmup_steps=0.2), LAPTOP, SMOLLM2),
    "no resume points": (with_args(save_strategy="no"), LAPTOP, SMOLLM2),
    "no checkpoints": (
        Strategy(id="s", monitoring=Monitoring(save_checkpoints=False)),
        LAPTOP,
        SMOLLM2,
    ),
    "copied recipe": (with_args(mixed_precision="bf16"), LAPTOP, SMOLLM2),
    "constant": (with_args(lr_scheduler_type="constant", optim="sgd"), LAPTOP, SMOLLM2),
    "delay": (with_args(eval_steps=5, eval_delay=20), LAPTOP, SMOLLM2),
    "metric": (with_args(metric_for_best_model="accuracy"), LAPTOP, SMOLLM2),
    "dora": (Strategy(id="s", method=Method(use_dora=True, use_rslora=True)), LAPTOP, SMOLLM2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_written_strategy_plans_the_same_run(name: str, tmp_path: Path) -> None:
    strategy, machine, shape = CASES[name]
    plan = plan_for(strategy, machine, shape)
    repeated = plan_for(again(strategy, plan, tmp_path), machine, shape)
    assert bare(replace(repeated, title=plan.title)) == bare(plan)


@pytest.mark.parametrize("name", CASES)
def test_the_written_strategy_adds_no_warning(name: str, tmp_path: Path) -> None:
    strategy, machine, shape = CASES[name]
    plan = plan_for(strategy, machine, shape)
    repeated = plan_for(again(strategy, plan, tmp_path), machine, shape)
    new = {d.reason for d in repeated.decisions if d.source == "warning"} - set(plan.warnings)
    assert [text for text in new if "no effect" in text or "wins over" in text] == []


def test_files_are_written_absolute(tmp_path: Path) -> None:
    strategy = Strategy(
        id="s",
        dataset=DatasetSection(path="data.jsonl"),
        data_preprocessing=Preprocessing(max_length=512),
    )
    plan = plan_for(strategy, request=make_request(max_length=512))
    found = again(strategy, plan, tmp_path)
    assert (found.dataset.path, found.dataset.train_file) == (None, str(HOME / "data.jsonl"))
    assert found.dataset.eval_split == 0.1
    assert found.training_args.max_seq_length == 512
    assert found.data_preprocessing.max_length is None
    assert found.training_args.output_dir == str(HOME / "fine_tuned_models" / "s")


def test_an_evaluation_file_takes_the_place_of_the_split(tmp_path: Path) -> None:
    request = make_request(eval_location=HOME / "eval.jsonl", eval_fraction=0.0)
    strategy = Strategy(id="s", dataset=DatasetSection(train_file="a", eval_file="eval.jsonl"))
    found = again(strategy, plan_for(strategy, request=request), tmp_path)
    assert found.dataset.eval_file == str(HOME / "eval.jsonl")
    assert found.dataset.eval_split is None


def test_a_hub_dataset_stays_one(tmp_path: Path) -> None:
    hub = HubDataset("ada/qa", None, "train")
    request = make_request(
        train_location=hub, eval_location=replace(hub, split="validation"), eval_fraction=0.0
    )
    dataset = DatasetSection(dataset_name="ada/qa", eval_split="validation")
    strategy = Strategy(id="s", dataset=dataset)
    found = again(strategy, plan_for(strategy, request=request), tmp_path)
    assert found.dataset.dataset_name == "ada/qa"
    assert found.dataset.eval_split == "validation"
    assert found.dataset.train_file is None


def test_the_model_is_named_so_that_it_is_found_again(tmp_path: Path) -> None:
    strategy = Strategy(id="s")
    assert again(strategy, plan_for(strategy), tmp_path).base_model.id == "smollm2-135m-instruct"
    local = Strategy(id="s", base_model=BaseModelSpec(id="models/mine"))
    source = replace(hub_source("models/mine"), kind="local", directory=HOME / "models" / "mine")
    found = again(local, plan_for(local, source=source), tmp_path)
    assert found.base_model.id == str(HOME / "models" / "mine")
