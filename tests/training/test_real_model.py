"""The same equalities on the packaged SmolLM2-135M-Instruct, with a real model's rounding."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llamafarm.data.tokenized import ListRows, PreparedData

from .runs import Trained, stock_loss, tiny_data, tiny_plan, train_plan

pytestmark = pytest.mark.slow
STEPS = 3


def few_rows() -> PreparedData:
    """16 rows to train and 4 to evaluate on."""
    data = tiny_data()
    eval_rows = [(data.eval.input_ids(i).tolist(), data.eval.trained(i).tolist()) for i in range(4)]
    return PreparedData(data.train, ListRows(eval_rows), data.report)


def adapter_of(run: Trained) -> dict[str, torch.Tensor]:
    return load_file(
        run.directory.checkpoints / f"checkpoint-{STEPS}" / "adapter_model.safetensors"
    )


@pytest.fixture(scope="module")
def runs(packaged_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Trained]:
    """Three steps of 8 conversations, as 2 x 4 and as 4 x 2."""
    finished = {}
    for micro in (2, 4):
        plan = tiny_plan(
            packaged_model_dir,
            tmp_path_factory.mktemp("real") / "run",
            adapter={"dropout": 0.0},
            optimizer={"learning_rate": 1e-3},
            batch={
                "micro_batch_size": micro,
                "accumulation_steps": 8 // micro,
                "total_steps": STEPS,
            },
        )
        finished[micro] = train_plan(plan, data=few_rows())
    return finished


def test_accumulation_changes_the_adapters_by_rounding_only(runs: dict[int, Trained]) -> None:
    first, second = adapter_of(runs[2]), adapter_of(runs[4])
    difference = sum(float((first[n] - second[n]).double().square().sum()) for n in first)
    size = sum(float(first[n].double().square().sum()) for n in first)
    assert math.sqrt(difference / size) < 1e-3
    assert runs[2].losses == pytest.approx(runs[4].losses, abs=1e-4)
    assert runs[2].eval_losses[0] == pytest.approx(runs[4].eval_losses[0], abs=1e-5)


def test_stock_peft_reproduces_the_eval_loss(
    runs: dict[int, Trained], packaged_model_dir: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(packaged_model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, runs[4].directory.final_model)
    expected = runs[4].outcome.state.best_eval_loss
    assert stock_loss(model, few_rows().eval) == pytest.approx(expected, abs=1e-5)
