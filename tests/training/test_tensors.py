"""State comes back exactly as it was, without pickle."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llamafarm.training.backends.pytorch.tensors import (
    decode,
    encode,
    join_optimizer_state,
    model_files,
    named_parameters_of,
    split_optimizer_state,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_json_values_come_back_the_same(value: Any) -> None:
    assert decode(json.loads(json.dumps(encode(value), allow_nan=False))) == value


def test_nan_comes_back_as_nan() -> None:
    assert math.isnan(decode(json.loads(json.dumps(encode(math.nan), allow_nan=False))))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        encode(object())


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    ],
)
def test_an_optimizer_goes_on_bitwise_from_its_saved_state(make: Any) -> None:
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            torch.manual_seed(seed)
            optimizer.zero_grad()
            model(torch.randn(3, 4)).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer = make(model.parameters())
    steps(model, optimizer, range(3))
    names = named_parameters_of(optimizer, model)
    tensors, saved = split_optimizer_state(optimizer, names)
    saved = json.loads(json.dumps(saved, allow_nan=False))

    other = nn.Linear(4, 4)
    other.load_state_dict(model.state_dict())
    resumed = make(other.parameters())
    join_optimizer_state(resumed, tensors, saved)
    steps(model, optimizer, range(3, 6))
    steps(other, resumed, range(3, 6))
    assert torch.equal(model.weight, other.weight)


def test_large_models_are_written_in_shards_with_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load

    from llamafarm.training.backends.pytorch import tensors

    monkeypatch.setattr(tensors, "MAX_SHARD_BYTES", 4000)
    state = {f"layer.{i}.weight": torch.full((500,), float(i)) for i in range(5)}
    files = dict(model_files(state, "model"))
    index = json.loads(files["model.safetensors.index.json"])
    assert set(index["weight_map"]) == set(state)
    assert len(files) == 4
    for name, file in index["weight_map"].items():
        assert torch.equal(load(files[file])[name], state[name])
