"""The weights in a file against the trained ones, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamafarm.errors import ModelError
from llamafarm.export import weights as weights_module
from llamafarm.export.contents import Floats, TensorPlan
from llamafarm.export.gguf_writer import TypedTensor, write_gguf
from llamafarm.export.parity import Layer
from llamafarm.export.weight_check import compare_weights, differing_shares
from tests.export.test_gguf_writer import Weights

ALLOWED = 0.01
RANDOM = np.random.default_rng(0)
TRAINED: Mapping[str, Floats] = {
    "model.embed_tokens.weight": RANDOM.normal(size=(50, 64)).astype(np.float32),
    "model.layers.0.q.weight": RANDOM.normal(size=(64, 64)).astype(np.float32),
    "model.norm.weight": RANDOM.normal(size=64).astype(np.float32),
}
ROPE = np.linspace(1, 2, 32, dtype=np.float32)


def swapped(rows: Floats) -> Floats:
    """A rotation of heads of two rows."""
    return rows.reshape(-1, 2, 64)[:, ::-1].reshape(rows.shape)


def plans(kind: str = "F16") -> tuple[TypedTensor, ...]:
    q = TensorPlan(
        "blk.0.attn_q.weight",
        (64, 64),
        source="model.layers.0.q.weight",
        transform=swapped,
        rows_together=2,
    )
    return (
        TypedTensor(TensorPlan("token_embd.weight", (48, 64), "model.embed_tokens.weight"), kind),
        TypedTensor(q, kind),
        TypedTensor(TensorPlan("output_norm.weight", (64,), "model.norm.weight"), "F32"),
        TypedTensor(TensorPlan("rope_freqs.weight", (32,), values=ROPE), "F32"),
    )


def file_of(
    path: Path, tensors: Sequence[TypedTensor], weights: Mapping[str, Floats] = TRAINED
) -> Path:
    write_gguf(path, "llama", [], tensors, Weights(weights), threads=1)
    return path


def compared(path: Path, tensors: Sequence[TypedTensor], trained: Any = TRAINED) -> Layer:
    return compare_weights(path, tensors, trained, differing_codes=ALLOWED)


def changed(name: str, change: Callable[[Floats], Floats]) -> dict[str, Floats]:
    return {**TRAINED, name: change(TRAINED[name].copy())}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_a_file_of_the_trained_weights_passes(kind: str, tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.gguf", plans(kind))
    assert compared(path, plans(kind)) == Layer("weights", 4, 0)
    shares = dict(differing_shares(path, plans(kind), TRAINED))
    assert shares == dict.fromkeys([plan.plan.name for plan in plans()], 0.0)


def test_weights_are_compared_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path / "m.gguf", plans("Q8_0"))
    monkeypatch.setattr(weights_module, "_VALUES_AT_ONCE", 64 * 3)
    assert compared(path, plans("Q8_0")).passed
    last_row = changed("model.embed_tokens.weight", lambda w: np.where(w == w[47], 0.5, w))
    assert not compared(path, plans("Q8_0"), last_row).passed


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_other_weights_fail_with_the_tensor_s_name_and_share(kind: str, tmp_path: Path) -> None:
    other = changed("model.layers.0.q.weight", lambda w: w * 1.01)
    layer = compared(file_of(tmp_path / "m.gguf", plans(kind), other), plans(kind))
    assert (layer.checked, layer.failed) == (4, 1)
    assert layer.finding.startswith("blk.0.attn_q.weight: ")
    assert layer.finding.endswith("% of its bytes are other weights'")


def test_rows_that_were_not_rotated_fail(tmp_path: Path) -> None:
    unrotated = changed("model.layers.0.q.weight", swapped)
    assert not compared(file_of(tmp_path / "m.gguf", plans(), unrotated), plans()).passed


@pytest.mark.parametrize(("codes", "passes"), [(30, True), (60, False)])
def test_a_few_codes_that_fall_to_the_other_side_are_no_fault(
    codes: int, passes: bool, tmp_path: Path
) -> None:
    """64 x 64 values in Q8_0 are 4,352 bytes, of which 43 may differ."""

    def nudge(weights: Floats) -> Floats:
        flat = weights.reshape(-1)
        # Beside the largest of each block, which makes its scale.
        places = np.abs(flat.reshape(-1, 32)).argmin(axis=1) + np.arange(0, flat.size, 32)
        flat[places[:codes]] += 0.05
        return weights

    other = changed("model.layers.0.q.weight", nudge)
    path = file_of(tmp_path / "m.gguf", plans("Q8_0"), other)
    assert compared(path, plans("Q8_0")).passed is passes


def test_a_tensor_that_is_missing_fails(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.gguf", plans()[:2])
    layer = compared(path, plans())
    assert layer.failed == 2
    assert layer.finding == "output_norm.weight: is missing, or of another shape or type"


def test_a_tensor_of_another_shape_fails(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.gguf", plans())
    larger = TensorPlan("token_embd.weight", (50, 64), "model.embed_tokens.weight")
    layer = compared(path, (TypedTensor(larger, "F16"), *plans()[1:]))
    assert layer.finding == "token_embd.weight: is missing, or of another shape or type"


def test_fewer_rows_than_the_file_has_fail(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.gguf", plans())
    fewer = changed("model.embed_tokens.weight", lambda w: w[:40])
    assert compared(path, plans(), fewer).finding.startswith("token_embd.weight: is missing")


def test_a_tensor_of_another_type_fails(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.gguf", plans("F16")[:1])
    layer = compared(path, plans("F32")[:1])
    assert layer.finding == "token_embd.weight: is missing, or of another shape or type"


def test_a_tensor_that_nobody_trained_fails(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.gguf", plans())
    layer = compared(path, plans()[1:])
    assert (layer.checked, layer.failed) == (3, 1)
    assert layer.finding == "token_embd.weight: stands in the file only"


def test_weights_that_the_trained_model_does_not_have_fail(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.gguf", plans())
    trained = {name: w for name, w in TRAINED.items() if name != "model.norm.weight"}
    assert compared(path, plans(), trained).finding.startswith("output_norm.weight: is missing")


def test_a_value_that_was_computed_is_checked_too(tmp_path: Path) -> None:
    path = file_of(tmp_path / "m.gguf", plans())
    other = TypedTensor(TensorPlan("rope_freqs.weight", (32,), values=ROPE + 1), "F32")
    assert compared(path, (*plans()[:3], other)).finding.startswith("rope_freqs.weight: ")


def test_names_of_a_vision_language_checkpoint_are_those_of_its_language_model(
    tmp_path: Path,
) -> None:
    path = file_of(tmp_path / "m.gguf", plans())
    trained = {name.replace("model.", "model.language_model.", 1): w for name, w in TRAINED.items()}
    assert compared(path, plans(), trained).passed


def test_a_head_that_is_the_embedding_is_compared_with_it(tmp_path: Path) -> None:
    head = TypedTensor(TensorPlan("output.weight", (50, 64), "lm_head.weight"), "F16")
    embedding = TRAINED["model.embed_tokens.weight"]
    path = file_of(tmp_path / "m.gguf", (head,), {"lm_head.weight": embedding})
    assert compared(path, (head,)).passed
    assert not compared(path, (head,), {**TRAINED, "lm_head.weight": -embedding}).passed


def test_every_tensor_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    path = file_of(tmp_path / "m.gguf", plans())
    compare_weights(path, plans(), TRAINED, differing_codes=ALLOWED, on_tensor=told.append)
    assert told == [1, 2, 3, 4]


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        compared(tmp_path / "m.gguf", plans())
