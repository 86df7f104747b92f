"""What planning needs to know about a model, without its weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """One linear weight of the language model. name: full module path; d_out, d_in as torch stores
    it.
    """

    name: str
    d_out: int
    d_in: int

    @property
    def suffix(self) -> str:
        """The last part of the name, e.g. `q_proj`: what LoRA's target_modules match."""
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True, slots=True)
class OtherModule:
    """A module with parameters of its own that is not among the linear layers. name: full path."""

    name: str
    num_parameters: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Read from config.json and the model built on the meta device. linear_layers leaves out the
    head.

    other_modules: embeddings, norms, head …: what PEFT's modules_to_save may name besides.
    """

    architecture: str
    model_type: str
    num_parameters: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tied_embeddings: bool
    linear_layers: tuple[LinearLayer, ...]
    other_modules: tuple[OtherModule, ...] = ()

    def adapted_layers(self, target_modules: tuple[str, ...]) -> tuple[LinearLayer, ...]:
        """The linear layers that these LoRA target modules match (by suffix or by dotted ending, as
        PEFT does).
        """
        return tuple(
            layer
            for layer in self.linear_layers
            if any(
                layer.name == target or layer.name.endswith("." + target)
                for target in target_modules
            )
        )
