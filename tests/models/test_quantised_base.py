"""The base of a QLoRA run as plain numbers: what bitsandbytes computes with, to the last digits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from llamafarm.models.load import load_weights
from llamafarm.models.quantised_base import dequantised, requantise_linear_layers
from llamafarm.planning.plan import QuantizationPlan
from tests.export.architectures_for_tests import tiny_model

pytest.importorskip("bitsandbytes", reason="the optional part llamafarm[qlora] is not installed")
PLANS = {
    "nf4 double": QuantizationPlan(4, "nf4", double_quant=True, compute_dtype="float32"),
    "nf4": QuantizationPlan(4, "nf4", double_quant=False, compute_dtype="float32"),
    "fp4": QuantizationPlan(4, "fp4", double_quant=True, compute_dtype="float32"),
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("LlamaForCausalLM", tmp_path_factory.mktemp("base"), vocabulary=256)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(3, 40)[None]).logits
    return found


@pytest.mark.parametrize("kind", PLANS)
def test_the_plain_numbers_predict_what_the_quantised_base_predicts(
    kind: str, model_dir: Path
) -> None:
    plan = PLANS[kind]
    quantised = logits(load_weights(model_dir, "float32", "cpu", plan))
    plain = load_weights(model_dir, "float32", "cpu")
    stored = logits(plain)
    requantise_linear_layers(plain, asdict(plan), "float32")
    torch.testing.assert_close(logits(plain), quantised, rtol=1e-4, atol=1e-4)
    assert (stored - quantised).abs().max() > 0.1, "the quantised base is another one"


def test_eight_bits_round_each_row_to_its_own_scale() -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 64)
    values = dequantised(weight, {"bits": 8}, "float32")
    steps = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((values - weight).abs() <= 0.51 * steps + 1e-3).all()
    assert not torch.equal(values, weight)
