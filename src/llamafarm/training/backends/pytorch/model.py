"""The model as it is trained: base weights, adapters or full, packed attention where the
architecture allows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llamafarm.errors import RunError
from llamafarm.models.load import load_base_model
from llamafarm.models.packed import use_packed_attention
from llamafarm.models.packing_probe import Packability, probe_packing
from llamafarm.planning.plan import AdapterPlan, TrainingPlan
from llamafarm.training.static_files import static_files


@dataclass(frozen=True)
class TrainableModel:
    """model: what the loop calls; static_files: what a checkpoint holds besides weights and state,
    by name.
    """

    model: nn.Module
    packability: Packability
    static_files: Mapping[str, bytes]
    is_adapter: bool

    @property
    def stem(self) -> str:
        """File stem of the weights, as PEFT or transformers calls it."""
        return "adapter_model" if self.is_adapter else "model"

    @property
    def has_dropout(self) -> bool:
        """Whether a forward pass in training draws random numbers."""
        layers = any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.model.modules())
        # Some architectures call the function with a number of their configuration.
        config = getattr(self._base, "config", None)
        settings = {} if config is None else config.get_text_config().to_dict()
        rates = (value for name, value in settings.items() if "drop" in name)
        return layers or any(isinstance(rate, float) and rate > 0 for rate in rates)

    def recompute_activations(self) -> bool:
        """Switch gradient checkpointing on; whether this architecture can."""
        if not getattr(self._base, "supports_gradient_checkpointing", False):
            return False
        _enable_checkpointing(self._base)
        return True

    @property
    def _base(self) -> Any:
        model: Any = self.model
        return model.get_base_model() if self.is_adapter else model

    def weights(self) -> dict[str, Tensor]:
        """What is saved: PEFT's adapter state, or the model's with tied weights once."""
        if self.is_adapter:
            from peft import get_peft_model_state_dict

            return dict(get_peft_model_state_dict(self.model, save_embedding_layers=False))
        tied = set(getattr(self.model, "all_tied_weights_keys", None) or ())
        return {name: t for name, t in self.model.state_dict().items() if name not in tied}

    def load_weights(self, directory: Path) -> None:
        """Put saved weights back. Raises RunError when a tensor is missing or of another shape."""
        from safetensors.torch import load_file

        state: dict[str, Tensor] = {}
        for file in sorted(directory.glob(f"{self.stem}*.safetensors")):
            state |= load_file(file)
        expected = self.weights()
        wrong = [n for n, t in expected.items() if n not in state or state[n].shape != t.shape]
        if wrong or len(state) != len(expected):
            examples = ", ".join(wrong[:3])
            raise RunError(
                f"the weights in {directory} do not fit this model: {len(wrong)} of "
                f"{len(expected)} tensors are missing or of another shape (e.g. {examples})"
            )
        if self.is_adapter:
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(self.model, state)
        else:
            self.model.load_state_dict(state, strict=False)


def build_model(plan: TrainingPlan, tokenizer: Any) -> TrainableModel:
    """Load the base, attach what is trained, choose how rows are laid out. Draws the adapters from
    torch's seed.
    """
    base = load_base_model(
        plan.model.source,
        dtype=plan.model.dtype,
        device=plan.device.device,
        quantization=plan.quantization,
    )
    base.config.use_cache = False
    packability = probe_packing(base.config)
    if packability.packed:
        use_packed_attention(base)
    if plan.quantization is not None:
        from peft import prepare_model_for_kbit_training

        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    model = base if plan.adapter is None else _with_adapter(base, plan, plan.adapter)
    if plan.adapter is None:
        model.requires_grad_(True)
    if plan.gradient_checkpointing:
        _enable_checkpointing(base)
    return TrainableModel(
        model,
        packability,
        static_files(plan, tokenizer, lambda directory: _save_config(base, model, directory)),
        plan.adapter is not None,
    )


def _enable_checkpointing(base: Any) -> None:
    """Under the name of the installed transformers (`activation_…` since 5.2x)."""
    enable = getattr(base, "activation_checkpointing_enable", None)
    (enable or base.gradient_checkpointing_enable)({"use_reentrant": False})


def _with_adapter(base: nn.Module, plan: TrainingPlan, adapter: AdapterPlan) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        bias=adapter.bias,
        target_modules=_target_names(base, plan, adapter),
        modules_to_save=list(adapter.modules_to_save) or None,
        layers_to_transform=list(adapter.layers_to_transform)
        if adapter.layers_to_transform
        else None,
        layers_pattern=adapter.layers_pattern,
        use_rslora=adapter.use_rslora,
        use_dora=adapter.use_dora,
    )
    model: nn.Module = get_peft_model(base, config)
    config.base_model_name_or_path = plan.model.source.name
    return model


def _target_names(base: nn.Module, plan: TrainingPlan, adapter: AdapterPlan) -> list[str]:
    """The short names, unless they would also match something outside the language model (a vision
    tower).
    """
    allowed = {layer.name for layer in plan.model.shape.adapted_layers(adapter.target_modules)}
    endings = tuple("." + target for target in adapter.target_modules)
    matched = {name for name, _ in base.named_modules() if name.endswith(endings)}
    return list(adapter.target_modules) if matched <= allowed else sorted(allowed)


def _save_config(base: Any, model: Any, directory: Path) -> None:
    """As their own libraries write them."""
    if getattr(model, "peft_config", None):
        model.peft_config["default"].save_pretrained(directory)
    else:
        _without_private_keys(base.config).save_pretrained(directory)
    if getattr(base, "generation_config", None) is not None:
        base.generation_config.save_pretrained(directory)


def _without_private_keys(config: Any) -> Any:
    clean = type(config).from_dict(config.to_dict())
    clean.use_cache = True
    return clean


class EmbeddingNoise:
    """NEFTune (arXiv 2310.05914): uniform noise of size alpha / sqrt(L d) on the embeddings while
    training.

    L is the length of the conversation that a token belongs to, d the embedding width.
    """

    def __init__(self, model: Any, alpha: float) -> None:
        self._alpha = alpha
        self._lengths: Tensor | None = None
        model.get_input_embeddings().register_forward_hook(self._add)

    def set_lengths(self, lengths: Tensor) -> None:
        """lengths: [T], for the row that is about to run."""
        self._lengths = lengths

    def _add(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not module.training or self._lengths is None:
            return output
        size = self._alpha / torch.sqrt(self._lengths.to(output.device) * output.shape[-1])
        return output + torch.empty_like(output).uniform_(-1, 1) * size[None, :, None].to(
            output.dtype
        )
