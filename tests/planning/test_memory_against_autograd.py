"""The counted activations are those that autograd keeps for a real model of the Llama family."""

from __future__ import annotations

from typing import Any

import pytest

from llamafarm.data.report import LengthSummary
from llamafarm.planning.memory import memory_parts
from tests.planning.building import ALL_LINEAR, llama_shape
from tests.planning.test_memory import LORA, workload

TOKENS, HIDDEN, MLP, HEADS, KV_HEADS, VOCAB = 64, 96, 256, 6, 2, 128


def saved_bytes(layers: int, dropout: float | None) -> int:
    """Bytes of the tensors, parameters apart, that the forward pass keeps for the backward pass."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    model: Any = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=HIDDEN,
            intermediate_size=MLP,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            vocab_size=VOCAB,
            tie_word_embeddings=True,
        )
    )
    if dropout is not None:
        config = LoraConfig(r=4, target_modules=list(ALL_LINEAR), lora_dropout=dropout)
        model = get_peft_model(model, config)
    model.train()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(
            input_ids=torch.zeros((1, TOKENS), dtype=torch.long), use_cache=False, logits_to_keep=1
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dropout", [None, 0.0, 0.05], ids=["full", "lora", "lora with dropout"])
def test_activations_of_a_layer_are_what_autograd_saves(dropout: float | None) -> None:
    measured = saved_bytes(3, dropout) - saved_bytes(1, dropout)
    shape = llama_shape(HIDDEN, MLP, 2, HEADS, KV_HEADS, VOCAB, tied=True)
    row = LengthSummary(1, TOKENS, 1, TOKENS, TOKENS, TOKENS, TOKENS)
    adapter = (
        None
        if dropout is None
        else LORA.__class__(4, 8, dropout, "none", ALL_LINEAR, (), None, None, False, False)
    )
    work = workload(shape=shape, train=row, adapter=adapter)
    counted = dict(memory_parts(work))["activations"]
    assert counted == pytest.approx(measured, rel=0.03)
