"""Trained models that are exported, and files with one fault planted in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llamafarm.certify import Reference
from llamafarm.deploy import certify_stage
from llamafarm.export.contents import Floats, TensorPlan
from llamafarm.export.file_types import FILE_TYPES
from llamafarm.export.gguf_source import open_gguf
from llamafarm.export.gguf_writer import TypedTensor, write_gguf
from llamafarm.export.modelfile import Modelfile, new_modelfile
from llamafarm.export.parity import Certificate
from llamafarm.export.source import find_source
from llamafarm.recipes import Recipe, Tools, recipe_of_model

TOOLS = Tools(2, lambda *_: None, lambda _: None)
TARGETS = ("q_proj", "v_proj", "o_proj", "qkv_proj")


@dataclass(frozen=True)
class Exported:
    """A trained adapter and its GGUF file. reference: made once, for every fault that is planted
    in the file later.
    """

    adapter: Path
    file: Path
    recipe: Recipe
    modelfile: Modelfile

    def certificate(self, directory: Path, **changed: Any) -> Certificate:
        """Of a file with the given tensors and keys changed; see `planted`."""
        stage = planted(self, directory, **changed)
        return certify_stage(stage, stage / self.file.name, self.recipe, self.modelfile, TOOLS)


def adapter_on(base: Path, directory: Path, *, seed: int = 1, strength: float = 0.1) -> Path:
    """A LoRA adapter with random numbers of some size, beside the tokenizer it was trained with."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    targets = [name for name in TARGETS if name in names]
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets)
    adapted = get_peft_model(model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * strength)
    adapted.save_pretrained(directory)
    file = directory / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"base_model_name_or_path": str(base)}))
    for path in base.iterdir():
        if path.name.startswith(("tokenizer", "chat_template")):
            shutil.copy(path, directory)
    return directory


def exported(adapter: Path, directory: Path, file_type: str, *, remember: bool = True) -> Exported:
    """Converted, with the trained model's half of the certificate computed once."""
    source = find_source(str(adapter), working_directory=directory)
    recipe = recipe_of_model(source, "m", FILE_TYPES[file_type], TOOLS)
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"m-{file_type}.gguf"
    recipe.write(file)
    modelfile = new_modelfile(file.name, stop_words=recipe.stop_words, system="", asked={})
    (directory / "Modelfile").write_text(modelfile.render())
    if remember:
        recipe = replace(recipe, reference=_once(recipe.reference, file))
    return Exported(adapter, file, recipe, modelfile)


def _once(reference: Callable[[Path], Reference], file: Path) -> Callable[[Path], Reference]:
    """The rows are the same for every file; the weights have to be compared with each."""
    rows = reference(file)

    def with_weights(path: Path) -> Reference:
        return rows if path == file else replace(rows, weights=reference(path).weights)

    return with_weights


def planted(
    good: Exported,
    directory: Path,
    *,
    keys: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Callable[[Floats], Floats]] | None = None,
    others: Mapping[str, Path] | None = None,
    modelfile: Callable[[str], str] | None = None,
) -> Path:
    """A copy of the directory with one fault. keys: values of the header; tensors: what is done to
    a tensor; others: the GGUF file that a tensor is taken from.
    """
    directory.mkdir(parents=True)
    text = (good.file.parent / "Modelfile").read_text()
    (directory / "Modelfile").write_text(modelfile(text) if modelfile else text)
    source = open_gguf(good.file, None)
    metadata = [
        replace(datum, value=(keys or {}).get(datum.key, datum.value))
        for datum in source.metadata("m")
    ]
    typed = [_typed(tensor, source.weights, tensors or {}) for tensor in source.tensors()]
    weights = _Mixed(
        source.weights, {n: open_gguf(f, None).weights for n, f in (others or {}).items()}
    )
    write_gguf(
        directory / good.file.name,
        source.file.architecture,
        metadata,
        typed,
        weights,
        threads=1,
    )
    return directory


def _typed(
    tensor: TypedTensor, weights: Any, changes: Mapping[str, Callable[[Floats], Floats]]
) -> TypedTensor:
    name = tensor.plan.name
    if name not in changes:
        return tensor
    rows = weights.read_rows(name, 0, tensor.plan.shape[0])
    values = np.ascontiguousarray(changes[name](rows), dtype=np.float32)
    return TypedTensor(TensorPlan(name, tensor.plan.shape, values=values), tensor.type_name)


class _Mixed:
    """Tensors of one file, but for some that come from others."""

    def __init__(self, most: Any, others: Mapping[str, Any]) -> None:
        self._most = most
        self._others = others

    @property
    def shapes(self) -> Any:
        return self._most.shapes

    @property
    def dtypes(self) -> Any:
        return self._most.dtypes

    def read_rows(self, name: str, start: int, stop: int) -> Any:
        return self._others.get(name, self._most).read_rows(name, start, stop)

    def read_encoded(self, name: str, start: int, stop: int) -> Any:
        return self._others.get(name, self._most).read_encoded(name, start, stop)


def with_start_token(tokenizer: Path, directory: Path) -> Path:
    """SmolLM2's tokenizer made to put `<|endoftext|>` in front, as Llama's does with its own, and a
    template that writes it.
    """
    shutil.copytree(tokenizer, directory)
    file = directory / "tokenizer.json"
    backend = json.loads(file.read_text("utf-8"))
    name = "<|endoftext|>"
    start = {"SpecialToken": {"id": name, "type_id": 0}}
    backend["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {name: {"id": name, "ids": [0], "tokens": [name]}},
    }
    file.write_text(json.dumps(backend), "utf-8")
    config = directory / "tokenizer_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"bos_token": name}))
    template = directory / "chat_template.jinja"
    template.write_text("{{ bos_token }}" + template.read_text("utf-8"), "utf-8")
    return directory
