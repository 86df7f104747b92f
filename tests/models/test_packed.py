"""A packed row computes what each conversation would compute alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llamafarm.data.tokenized import ListRows
from llamafarm.models.packed import (
    label_logits,
    pack,
    packed_attention,
    shared_prefix_length,
    token_losses,
    use_packed_attention,
)
from llamafarm.models.packing_probe import probe_packing

PREFIX = 5


def rows(count: int = 4, *, prefix: int = PREFIX, seed: int = 0) -> ListRows:
    random = np.random.default_rng(seed)
    start = random.integers(5, 60, prefix).tolist()
    made = []
    for _ in range(count):
        ids = start + random.integers(5, 60, int(random.integers(4, 20))).tolist()
        made.append((ids, [t > prefix + 1 for t in range(len(ids))]))
    return ListRows(made)


def tiny(kind: str, **changes: Any) -> Any:
    import transformers

    common = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
    }
    config = getattr(transformers, kind)(**(common | changes))
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


MODELS = [
    ("LlamaConfig", {}),
    ("LlamaConfig", {"tie_word_embeddings": True}),
    ("MistralConfig", {"sliding_window": 4}),
    ("Qwen2Config", {}),
    ("Qwen3Config", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    ("Gemma2Config", {"sliding_window": 4, "query_pre_attn_scalar": 8}),
    ("Gemma3TextConfig", {"sliding_window": 4, "query_pre_attn_scalar": 8}),
    ("Phi3Config", {}),
    ("GraniteConfig", {"logits_scaling": 2.0}),
]


@pytest.mark.parametrize(("kind", "changes"), MODELS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("share_prefix", [False, True], ids=["plain", "shared start"])
def test_packed_losses_and_gradients_equal_unpacked_ones(
    kind: str, changes: dict[str, Any], share_prefix: bool
) -> None:
    data = rows()
    model = tiny(kind, **changes)
    alone = [pack(data, [i]) for i in range(len(data))]
    expected = torch.cat(
        [token_losses(label_logits(model, row, packed=False), row.labels) for row in alone]
    )
    expected.sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    use_packed_attention(model)
    row = pack(data, range(len(data)), share_prefix=share_prefix)
    assert row.prefix_length == (PREFIX if share_prefix else 0)
    losses = token_losses(label_logits(model, row, packed=True), row.labels)
    losses.sum().backward()
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=2e-5, rtol=1e-4)


def test_what_a_neighbour_says_changes_nothing() -> None:
    model = tiny("LlamaConfig")
    use_packed_attention(model)
    first, other = rows(seed=1), rows(seed=2, prefix=PREFIX)
    row = (first.input_ids(0).tolist(), first.trained(0).tolist())
    mixed = ListRows(
        [row, *((other.input_ids(i).tolist(), other.trained(i).tolist()) for i in range(3))]
    )
    count = int(first.trained(0).sum())
    together = label_logits(model, pack(mixed, range(4)), packed=True)[:count]
    alone = label_logits(model, pack(first, [0]), packed=True)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_masked_tokens_get_no_gradient() -> None:
    model = tiny("LlamaConfig", tie_word_embeddings=False)
    data = rows()
    use_packed_attention(model)
    row = pack(data, range(len(data)))
    token_losses(label_logits(model, row, packed=True), row.labels).sum().backward()
    last = ListRows([([*data.input_ids(0).tolist(), 63], [*data.trained(0).tolist(), False])])
    # A token after the last trained one is neither input to a scored prediction nor a label.
    model.zero_grad()
    tail = pack(last, [0])
    token_losses(label_logits(model, tail, packed=True), tail.labels).sum().backward()
    assert tail.num_labels == int(data.trained(0).sum())
    assert model.model.embed_tokens.weight.grad[63].abs().max() == 0
    assert model.model.embed_tokens.weight.grad[data.input_ids(0)[0]].abs().max() > 0


def test_the_head_is_computed_only_where_there_is_a_label() -> None:
    model = tiny("LlamaConfig")
    use_packed_attention(model)
    row = pack(rows(), range(4))
    logits = label_logits(model, row, packed=True)
    assert logits.shape == (row.num_labels, 64)
    assert row.num_labels == sum(row.label_counts) < row.input_ids.shape[1]


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=2, max_size=4),
    st.data(),
)
def test_the_shared_start_is_the_longest_that_leaves_every_label_in_its_document(
    ids: list[list[int]], data: Any
) -> None:
    first = [data.draw(st.integers(1, len(row))) for row in ids]
    length = shared_prefix_length([np.array(row) for row in ids], first)
    assert all(row[:length] == ids[0][:length] for row in ids)
    assert all(
        length <= max(f - 1, 0) and length < len(row) for f, row in zip(first, ids, strict=True)
    )
    longer = length + 1
    could_be_longer = all(row[:longer] == ids[0][:longer] and len(row) > longer for row in ids)
    assert not (could_be_longer and all(longer <= f - 1 for f in first))


def test_every_token_of_a_conversation_is_counted_although_the_start_is_computed_once() -> None:
    data = rows()
    row = pack(data, range(4))
    assert row.num_tokens == int(data.lengths().sum())
    assert row.input_ids.shape[1] == row.num_tokens - 3 * PREFIX


@pytest.mark.parametrize("argument", ["s_aux", "position_bias"])
def test_what_the_attention_cannot_obey_is_an_error(argument: str) -> None:
    states = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match=argument):
        packed_attention(
            torch.nn.Identity(), states, states, states, None, **{argument: torch.zeros(1)}
        )


@pytest.mark.parametrize(("kind", "changes"), MODELS, ids=lambda value: str(value)[:40])
def test_the_probe_finds_these_architectures_packable(kind: str, changes: dict[str, Any]) -> None:
    answer = probe_packing(tiny(kind, **changes).config)
    assert answer.packed, answer.reason


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("BloomConfig", {"hidden_size": 64, "n_head": 4}),
        ("FalconConfig", {"hidden_size": 64, "num_attention_heads": 4}),
        ("GptOssConfig", {"num_hidden_layers": 2, "hidden_size": 64, "head_dim": 16}),
        (
            "Lfm2Config",
            {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
        ),
    ],
)
def test_the_probe_refuses_architectures_that_packing_would_change(
    kind: str, changes: dict[str, Any]
) -> None:
    import transformers

    answer = probe_packing(getattr(transformers, kind)(**changes))
    assert not answer.packed
    assert answer.reason


def test_the_probe_leaves_the_random_state_and_the_config_alone() -> None:
    config = tiny("LlamaConfig").config
    before, state = config.to_dict(), torch.random.get_rng_state()
    probe_packing(config)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert config.to_dict() == before


def test_dynamic_rope_is_not_packed() -> None:
    config = tiny("LlamaConfig").config
    config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert not probe_packing(config).packed
