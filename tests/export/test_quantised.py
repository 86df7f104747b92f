"""A QLoRA run's deployment is the model on the quantised base, in every part that reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llamafarm.export.quantised import QuantisedBase
from llamafarm.export.source import find_source, open_model
from llamafarm.export.weights import StoredWeights
from llamafarm.models.load import load_finished_model
from tests.export.architectures_for_tests import tiny_model
from tests.export.exported import adapter_on, exported

pytest.importorskip("bitsandbytes", reason="the optional part llamafarm[qlora] is not installed")
NF4 = {"bits": 4, "quant_type": "nf4", "double_quant": True, "compute_dtype": "float32"}


@pytest.fixture(scope="module")
def qlora(smollm2_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose record says that its base was held in four bits."""
    directory = tmp_path_factory.mktemp("qlora")
    base = tiny_model("LlamaForCausalLM", directory / "base", tokenizer=smollm2_tokenizer_dir)
    adapter = adapter_on(base, directory / "adapter")
    record = {
        "base_dtype": "float32",
        "base_quantization": NF4,
        "add_bos": False,
        "end_token_id": 2,
    }
    (adapter / "llamafarm.json").write_text(json.dumps(record))
    return adapter


def test_merged_weights_equal_the_merge_of_the_loaded_model(qlora: Path) -> None:
    model, _ = load_finished_model(qlora)
    expected = model.merge_and_unload().state_dict()
    merged = open_model(find_source(str(qlora), working_directory=qlora)).weights
    for name, shape in merged.shapes.items():
        ours = merged.read_rows(name, 0, shape[0])
        np.testing.assert_allclose(ours, expected[name].numpy(), rtol=1e-5, atol=1e-6)


def test_rows_in_parts_are_the_rows_at_once_and_the_embedding_is_left_alone(qlora: Path) -> None:
    stored = StoredWeights.of_model(qlora.parent / "base")
    base = QuantisedBase(stored, NF4, "float32")
    name = "model.layers.0.mlp.down_proj.weight"
    parts = [base.read_rows(name, start, start + 16) for start in range(0, 64, 16)]
    np.testing.assert_array_equal(np.concatenate(parts), base.read_rows(name, 0, 64))
    assert not np.array_equal(base.read_rows(name, 0, 64), stored.read_rows(name, 0, 64))
    embedding = "model.embed_tokens.weight"
    rows = base.read_rows(embedding, 0, 8)
    np.testing.assert_array_equal(rows, stored.read_rows(embedding, 0, 8))


@pytest.mark.slow
def test_the_certificate_passes_on_the_quantised_base(qlora: Path, tmp_path: Path) -> None:
    made = exported(qlora, tmp_path / "m", "F16", remember=False)
    assert made.certificate(tmp_path / "copy").passed
