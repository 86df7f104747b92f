"""An adapter put into its base, tensor by tensor in float32, some rows at a time.

LoRA (arXiv 2106.09685): W + s B A, with s = alpha / r, or alpha / sqrt(r) for rsLoRA
(arXiv 2312.03732). DoRA (arXiv 2402.09353): m (W + s B A) / ||W + s B A||, the norm over each row.
Every row of the result needs one row of W and of B only, so memory does not grow with the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llamafarm.errors import ModelError, Problem, count_of
from llamafarm.export.contents import Floats
from llamafarm.export.weights import StoredWeights, WeightSource
from llamafarm.models.config import read_json
from llamafarm.models.directory import ADAPTER_CONFIG

ADAPTER_WEIGHTS = "adapter_model.safetensors"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_PREFIX = "base_model.model."
_A, _B, _B_BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias"
_EMBEDDING_A, _EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"
_MAGNITUDE = "lora_magnitude_vector"
_PARTS = (_A, _B, _B_BIAS, _EMBEDDING_A, _EMBEDDING_B, _MAGNITUDE)
# OpenBLAS, numpy's own, starts threads for more than 2**18 multiplications.
_TILE_ROWS, _TILE_PRODUCTS = 32, 1 << 18
# Settings of PEFT that make more of an adapter than a matrix to add.
_UNMERGEABLE = ("alora_invocation_tokens", "layer_replication", "target_parameters", "use_qalora")


@dataclass(frozen=True, slots=True)
class _Change:
    """What an adapter does to one tensor: names of the adapter's own tensors, empty where absent.

    replaced_by: the whole tensor; a, b, magnitude: see the module; bias: added to a bias.
    """

    replaced_by: str = ""
    a: str = ""
    b: str = ""
    magnitude: str = ""
    bias: str = ""
    scale: float = 1.0
    embedding: bool = False


class MergedWeights:
    """The weights of base and adapter together: a WeightSource.

    untied: the head has become another matrix than the embedding, which it was in the base.
    """

    def __init__(self, base: WeightSource, directory: Path, base_config: Mapping[str, Any]) -> None:
        """Raises ModelError that names every tensor which does not fit, or what cannot be merged.

        base_config: the base's config.json.
        """
        self._base = base
        self._names = {language_model_name(name): name for name in base.shapes}
        settings = read_json(directory / ADAPTER_CONFIG)
        _check_settings(directory, settings)
        self._adapter = StoredWeights.of_files([_weights_file(directory)])
        self._transposed = bool(settings.get("fan_in_fan_out"))
        self._changes = _changes(self._adapter, settings)
        self._tied = HEAD not in self._names or bool(base_config.get("tie_word_embeddings"))
        self.untied = self._tied and _unties(self._changes, settings)
        if self._tied and not self.untied:
            self._changes.pop(HEAD, None)
        self._shapes = self._merged_shapes(directory)
        self._dtypes = {name: base.dtypes[self._base_name(name)] for name in self._shapes}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return self._shapes

    @property
    def dtypes(self) -> Mapping[str, str]:
        """Stored type of the base's tensors: what a merged model is stored as too."""
        return self._dtypes

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        """Merged rows, not rounded."""
        change = self._changes.get(language_model_name(name))
        if change is None:
            return self._base.read_rows(self._base_name(name), start, stop)
        if change.replaced_by:
            rows = self._adapter.read_rows(change.replaced_by, start, stop)
        else:
            rows = self._base.read_rows(self._base_name(name), start, stop)
        if change.a:
            rows = rows + self._delta(change, start, stop)
        if change.magnitude:
            norms = np.linalg.norm(rows, axis=1)
            rows = rows * (self._adapter.read_rows(change.magnitude, start, stop) / norms)[:, None]
        if change.bias:
            rows = rows + change.scale * self._adapter.read_rows(change.bias, start, stop)
        return rows.astype(np.float32, copy=False)

    def _delta(self, change: _Change, start: int, stop: int) -> Floats:
        """Rows of s B A; of its transpose for an embedding, and where fan_in_fan_out is set."""
        if change.embedding or self._transposed:
            a, b = self._all(change.a), self._all(change.b)
            return _scaled_product(a[:, start:stop].T, b.T, change.scale)
        rows = self._adapter.read_rows(change.b, start, stop)
        return _scaled_product(rows, self._all(change.a), change.scale)

    def _all(self, name: str) -> Floats:
        return self._adapter.read_rows(name, 0, self._adapter.shapes[name][0])

    def _base_name(self, name: str) -> str:
        canonical = language_model_name(name)
        if canonical == HEAD and self._tied:
            canonical = EMBEDDING
        return self._names.get(canonical, name)

    def _merged_shapes(self, directory: Path) -> dict[str, tuple[int, ...]]:
        shapes = dict(self._base.shapes)
        if self._tied and not self.untied:
            shapes.pop(self._names.get(HEAD, HEAD), None)
        elif self.untied:
            shapes[self._names.get(HEAD, HEAD)] = self._base.shapes[self._names[EMBEDDING]]
        problems: list[Problem] = []
        for target, change in self._changes.items():
            name = self._names.get(target, target)
            if name not in shapes:
                problems.append(Problem("the base has no such tensor", path=target))
                continue
            if change.replaced_by:
                shapes[name] = self._replaced(change, shapes[name], target, problems)
            if change.a or change.bias:
                problems += self._misfits(change, shapes[name], target)
        if problems:
            count = count_of(len(problems), "tensor")
            raise ModelError(
                f"the adapter in {directory} does not fit its base: {count} differ",
                problems,
                hint="take the base that the adapter was trained on",
            )
        return shapes

    def _replaced(
        self, change: _Change, shape: tuple[int, ...], target: str, problems: list[Problem]
    ) -> tuple[int, ...]:
        """Only a vocabulary may have grown: the first dimension of embedding and head."""
        new = self._adapter.shapes[change.replaced_by]
        grown = target in (HEAD, EMBEDDING) and new[1:] == shape[1:]
        if new != shape and not grown:
            problems.append(Problem(f"{_of(new)} in the adapter, {_of(shape)} in it", path=target))
        return new

    def _misfits(self, change: _Change, shape: tuple[int, ...], target: str) -> list[Problem]:
        shapes = self._adapter.shapes
        if change.bias:
            found = shapes[change.bias]
        elif change.embedding or self._transposed:
            found = (shapes[change.a][1], shapes[change.b][0])
        else:
            found = (shapes[change.b][0], shapes[change.a][1])
        text = f"{_of(found)} in the adapter, {_of(shape)} in the base"
        return [] if found == shape else [Problem(text, path=target)]


def _scaled_product(left: Floats, right: Floats, scale: float) -> Floats:
    """scale (left right), in tiles: each stays in the core's cache, and is too small for BLAS to
    start threads of its own, which would stand in the way of the writer's.
    """
    out = np.empty((len(left), right.shape[1]), np.float32)
    columns = max(1, _TILE_PRODUCTS // (_TILE_ROWS * len(right)))
    for row in range(0, out.shape[0], _TILE_ROWS):
        for column in range(0, out.shape[1], columns):
            tile = out[row : row + _TILE_ROWS, column : column + columns]
            np.matmul(left[row : row + _TILE_ROWS], right[:, column : column + columns], out=tile)
            tile *= np.float32(scale)
    return out


def _unties(changes: Mapping[str, _Change], settings: Mapping[str, Any]) -> bool:
    """Whether a head that was the embedding is another matrix in the trained model.

    PEFT trains a copy of what modules_to_save names, and adds LoRA to one of the two only; an
    embedding that is merely saved with the adapter (new tokens) is still both.
    """
    if settings.get("ensure_weight_tying"):
        return False
    copied = {f"{name}.weight" for name in settings.get("modules_to_save") or ()}
    return any(
        name in changes and (changes[name].a or name.removeprefix("model.") in copied)
        for name in (HEAD, EMBEDDING)
    )


def language_model_name(name: str) -> str:
    """A tensor's name as the language model alone has it: vision-language checkpoints put it under
    `language_model`, before or behind `model`.
    """
    for prefix in ("model.language_model.", "language_model.model."):
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name.removeprefix("language_model.")


def _weights_file(directory: Path) -> Path:
    file = directory / ADAPTER_WEIGHTS
    if not file.is_file():
        raise ModelError(
            f"{directory} has no {ADAPTER_WEIGHTS}",
            hint="adapters are read from safetensors only; save this one again with a current PEFT",
        )
    return file


def _check_settings(directory: Path, settings: Mapping[str, Any]) -> None:
    kind = str(settings.get("peft_type", "")).upper()
    if kind != "LORA":
        raise ModelError(
            f"{directory} holds a {kind or 'nameless'} adapter, which cannot be merged",
            hint="LoRA, rsLoRA and DoRA adapters are merged",
        )
    found = [name for name in _UNMERGEABLE if settings.get(name)]
    if found:
        raise ModelError(
            f"{directory} uses {' and '.join(found)}, which no merged weights can express",
            hint="train an adapter without it to deploy it",
        )


def _changes(adapter: StoredWeights, settings: Mapping[str, Any]) -> dict[str, _Change]:
    """By the name of the base's tensor, as language_model_name gives it."""
    parts: dict[str, dict[str, str]] = {}
    changes: dict[str, _Change] = {}
    for name in adapter.shapes:
        target = name.removeprefix(_PREFIX)
        part = next((p for p in _PARTS if target.endswith("." + p)), None)
        if part is not None:
            parts.setdefault(target.removesuffix("." + part), {})[part] = name
        else:
            whole = language_model_name(target.replace(".base_layer.", "."))
            changes[whole] = _Change(replaced_by=name)
    for module, found in parts.items():
        changes |= _module_changes(module, found, adapter, settings, changes)
    return changes


def _module_changes(
    module: str,
    found: Mapping[str, str],
    adapter: StoredWeights,
    settings: Mapping[str, Any],
    replaced: Mapping[str, _Change],
) -> dict[str, _Change]:
    target = language_model_name(module)
    embedding = _EMBEDDING_A in found
    a, b = (
        found.get(_EMBEDDING_A if embedding else _A),
        found.get(_EMBEDDING_B if embedding else _B),
    )
    whole_norm = embedding or bool(settings.get("fan_in_fan_out"))
    if a is None or b is None or (whole_norm and _MAGNITUDE in found):
        raise ModelError(
            f"the adapter's {', '.join(found)} of {module} cannot be merged",
            hint="lora_A with lora_B is merged, and for linear layers lora_magnitude_vector",
        )
    scale = _scale(module, adapter.shapes[a][0], settings)
    weight = f"{target}.weight"
    replaced_by = replaced[weight].replaced_by if weight in replaced else ""
    changes = {weight: _Change(replaced_by, a, b, found.get(_MAGNITUDE, ""), "", scale, embedding)}
    if _B_BIAS in found:
        bias = f"{target}.bias"
        replaced_by = replaced[bias].replaced_by if bias in replaced else ""
        changes[bias] = _Change(replaced_by, bias=found[_B_BIAS], scale=scale)
    return changes


def _scale(module: str, rank: int, settings: Mapping[str, Any]) -> float:
    """alpha / r, or alpha / sqrt(r); single layers may have an alpha of their own."""
    patterns = settings.get("alpha_pattern") or {}
    own = (value for pattern, value in patterns.items() if _matches(pattern, module))
    alpha = float(next(own, settings.get("lora_alpha", rank)))
    return alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank


def _matches(pattern: str, module: str) -> bool:
    """As PEFT reads its patterns: a regular expression for the end of a module's name."""
    try:
        return re.match(rf"(.*\.)?({pattern})$", module) is not None
    except re.error as fault:
        raise ModelError(f"alpha_pattern {pattern} is no regular expression ({fault})") from fault


def _of(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
