"""The certificate, with the real engine on real files: faults are found, and none is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamafarm.export.gguf_source import open_gguf
from tests.export.architectures_for_tests import tiny_model
from tests.export.exported import Exported, adapter_on, exported, planted, with_start_token

pytestmark = pytest.mark.slow
ARCHITECTURES = ("LlamaForCausalLM", "Qwen3ForCausalLM", "Gemma2ForCausalLM", "Phi3ForCausalLM")
BLOCK = "blk.1.attn_{}.weight"


@pytest.fixture(scope="module")
def adapter(smollm2_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model whose conversations begin with a start token, as most have one."""
    directory = tmp_path_factory.mktemp("certificate")
    tokenizer = with_start_token(smollm2_tokenizer_dir, directory / "tokenizer")
    base = tiny_model("LlamaForCausalLM", directory / "base", tokenizer=tokenizer, head_dim=16)
    return adapter_on(base, directory / "adapter")


@pytest.fixture(scope="module", params=["F16", "Q8_0"])
def good(adapter: Path, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Exported:
    return exported(adapter, tmp_path_factory.mktemp("good"), request.param)


def failed_layers(certificate: Any) -> set[str]:
    return {layer.name for layer in certificate.layers if not layer.passed}


def layers_that_see(good: Exported) -> set[str]:
    """A fault of one matrix in a tiny random model: where the type itself blurs the predictions,
    only the weights show it.
    """
    return {"weights"} if good.recipe.file_type == "Q8_0" else {"predictions", "weights"}


def test_a_faithful_file_passes(good: Exported, tmp_path: Path) -> None:
    certificate = good.certificate(tmp_path / "copy")
    assert certificate.passed, certificate
    assert certificate.figures.positions >= 200
    assert certificate.figures.agreed == certificate.figures.decided


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file_type", ["F16", "Q8_0"])
def test_no_architecture_raises_a_false_alarm(
    architecture: str, file_type: str, smollm2_tokenizer_dir: Path, tmp_path: Path
) -> None:
    base = tiny_model(architecture, tmp_path / "base", tokenizer=smollm2_tokenizer_dir)
    made = exported(
        adapter_on(base, tmp_path / "adapter"), tmp_path / "m", file_type, remember=False
    )
    certificate = made.certificate(tmp_path / "copy")
    assert certificate.passed, certificate
    assert certificate.figures.positions >= 200


def template_of(good: Exported) -> str:
    return str(open_gguf(good.file, None).file.metadata["tokenizer.chat_template"])


def test_another_template_is_found(good: Exported, tmp_path: Path) -> None:
    other = template_of(good).replace("named SmolLM", "named Somebody")
    certificate = good.certificate(tmp_path / "x", keys={"tokenizer.chat_template": other})
    assert "rendered text" in failed_layers(certificate)
    text = next(layer for layer in certificate.layers if layer.name == "rendered text").finding
    assert "trained with 'molLM, trained by" in text
    assert "served with 'omebody, trained by" in text


def test_a_missing_start_token_is_found(good: Exported, tmp_path: Path) -> None:
    bare = template_of(good).replace("{{ bos_token }}", "")
    keys = {"tokenizer.chat_template": bare, "tokenizer.ggml.add_bos_token": False}
    certificate = good.certificate(tmp_path / "x", keys=keys)
    assert "token ids" in failed_layers(certificate)
    finding = next(layer for layer in certificate.layers if layer.name == "token ids").finding
    assert "token 0 is 0 in training and 1 when it is served" in finding


def test_a_doubled_start_token_is_found(good: Exported, tmp_path: Path) -> None:
    twice = template_of(good).replace("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}")
    certificate = good.certificate(tmp_path / "x", keys={"tokenizer.chat_template": twice})
    assert "token ids" in failed_layers(certificate)
    finding = next(layer for layer in certificate.layers if layer.name == "token ids").finding
    assert "token 1 is 1 in training and 0 when it is served" in finding


def test_an_adapter_that_was_not_merged_is_found(
    good: Exported, adapter: Path, tmp_path: Path
) -> None:
    weak = adapter_on(adapter.parent / "base", tmp_path / "weak", strength=0.0)
    base = exported(weak, tmp_path / "base", good.recipe.file_type, remember=False)
    names = [BLOCK.format(name) for name in ("q", "v", "output")]
    names += [name.replace("blk.1", "blk.0") for name in names]
    certificate = good.certificate(tmp_path / "x", others=dict.fromkeys(names, base.file))
    assert layers_that_see(good) <= failed_layers(certificate)


def test_a_wrong_rotation_of_heads_is_found(good: Exported, tmp_path: Path) -> None:
    def unrotated(rows: Any) -> Any:
        pairs = rows.reshape(4, 8, 2, rows.shape[1])
        return pairs.swapaxes(1, 2).reshape(rows.shape)

    certificate = good.certificate(tmp_path / "x", tensors={BLOCK.format("q"): unrotated})
    assert layers_that_see(good) <= failed_layers(certificate)


def test_a_transposed_weight_is_found(good: Exported, tmp_path: Path) -> None:
    name = BLOCK.format("output")
    certificate = good.certificate(tmp_path / "x", tensors={name: np.transpose})
    assert layers_that_see(good) <= failed_layers(certificate)


def test_a_wrong_end_token_is_found(good: Exported, tmp_path: Path) -> None:
    certificate = good.certificate(tmp_path / "x", keys={"tokenizer.ggml.eos_token_id": 17})
    assert "end of an answer" in failed_layers(certificate)


def test_a_wrong_stop_word_is_found(good: Exported, tmp_path: Path) -> None:
    certificate = good.certificate(
        tmp_path / "x", modelfile=lambda text: text.replace("<|im_end|>", "<|im_start|>")
    )
    assert failed_layers(certificate) == {"stop words"}


def test_a_stop_word_that_is_missing_is_found(good: Exported, tmp_path: Path) -> None:
    certificate = good.certificate(
        tmp_path / "x", modelfile=lambda text: text.replace('PARAMETER stop "<|im_end|>"', "")
    )
    assert failed_layers(certificate) == {"stop words"}


def test_a_template_in_the_modelfile_is_found(good: Exported, tmp_path: Path) -> None:
    certificate = good.certificate(
        tmp_path / "x", modelfile=lambda text: text + 'TEMPLATE """{{ .Prompt }}"""\n'
    )
    assert failed_layers(certificate) == {"Modelfile"}


def test_one_tensor_of_another_checkpoint_is_found(
    good: Exported, adapter: Path, tmp_path: Path
) -> None:
    """A difference far below what quantisation does to the predictions."""
    other = adapter_on(adapter.parent / "base", tmp_path / "other", strength=0.0995)
    file = exported(other, tmp_path / "file", good.recipe.file_type, remember=False).file
    certificate = good.certificate(tmp_path / "x", others={BLOCK.format("v"): file})
    assert failed_layers(certificate) == {"weights"}
    finding = next(layer for layer in certificate.layers if layer.name == "weights").finding
    assert BLOCK.format("v") in finding


def test_the_planting_itself_changes_nothing(good: Exported, tmp_path: Path) -> None:
    copy, given = (
        open_gguf(planted(good, tmp_path / "x") / good.file.name, None),
        open_gguf(good.file, None),
    )
    assert copy.file.metadata == given.file.metadata
    for name, shape in given.weights.shapes.items():
        stored = given.weights.read_encoded(name, 0, shape[0])
        np.testing.assert_array_equal(copy.weights.read_encoded(name, 0, shape[0]), stored)
