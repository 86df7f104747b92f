"""Which tensors and keys of a GGUF file a Hugging Face model of each architecture becomes.

Each architecture is a table of tensors and a few functions, in a module of its own; this one puts a
file's contents together from them. Facts: llama.cpp, conversion/ and src/models/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llamafarm.errors import ModelError, Problem, count_of
from llamafarm.export.architectures.config import Config
from llamafarm.export.architectures.design import Architecture, Design, Weight
from llamafarm.export.architectures.gemma import GEMMA2, GEMMA3, GEMMA3_WITH_VISION
from llamafarm.export.architectures.llama import LLAMA, MISTRAL
from llamafarm.export.architectures.phi import PHI3
from llamafarm.export.architectures.qwen import QWEN2, QWEN3
from llamafarm.export.architectures.rope import rope_metadata, rope_tensors
from llamafarm.export.contents import Metadatum, TensorPlan

_ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": MISTRAL,
    "Qwen2ForCausalLM": QWEN2,
    "Qwen3ForCausalLM": QWEN3,
    "Gemma2ForCausalLM": GEMMA2,
    "Gemma3ForCausalLM": GEMMA3,
    "Gemma3ForConditionalGeneration": GEMMA3_WITH_VISION,
    "Phi3ForCausalLM": PHI3,
}
_EMBEDDING = "model.embed_tokens.weight"
_LAST_NORM = "model.norm.weight"
_HEAD = "lm_head.weight"
# A table of frequencies that old transformers versions saved; it follows from the configuration.
_COMPUTED = ".rotary_emb.inv_freq"


@dataclass(frozen=True, slots=True)
class ModelContents:
    """What a model brings into a GGUF file. architecture: llama.cpp's name of it; metadata: its own
    keys only, nothing of `general.` or `tokenizer.`.
    """

    architecture: str
    metadata: tuple[Metadatum, ...]
    tensors: tuple[TensorPlan, ...]


def supported_architectures() -> tuple[str, ...]:
    """Classes of transformers, as config.json names them."""
    return tuple(_ARCHITECTURES)


def is_supported(config: Mapping[str, Any]) -> bool:
    """Whether the architecture is known here; its options may still be out of reach."""
    return _class_name(config) in _ARCHITECTURES


def model_contents(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> ModelContents:
    """The contents of the GGUF file of a model.

    config: its config.json; shapes: of all its tensors, by name. Raises ModelError with everything
    that keeps the model from becoming a GGUF file.
    """
    name = _class_name(config)
    architecture = _ARCHITECTURES.get(name)
    if architecture is None:
        raise _unsupported(name)
    language = Config(_language_values(config), architecture.defaults)
    design = architecture.design(language)
    sources = _language_tensors(architecture, shapes, tied=language.flag("tie_word_embeddings"))
    rows = shapes[sources[_EMBEDDING]][0] if _EMBEDDING in sources else 0
    weights = tuple(_weights(design, rows, tied=language.flag("tie_word_embeddings")))
    problems = [*design.problems, *_tensor_problems(weights, sources, shapes)]
    if problems:
        raise ModelError(
            f"this {name} model cannot become a GGUF file: {count_of(len(problems), 'problem')}",
            problems,
            hint="llama.cpp would refuse the file, or answer differently from the trained model",
        )
    return ModelContents(
        architecture=design.name,
        metadata=tuple(_metadata(design, language, rows)),
        tensors=(*_tensor_plans(design, weights, sources), *rope_tensors(design.rope)),
    )


def _class_name(config: Mapping[str, Any]) -> str:
    names = config.get("architectures") or [""]
    return next((name for name in names if name in _ARCHITECTURES), str(names[0]))


def _unsupported(name: str) -> ModelError:
    return ModelError(
        f"llamafarm makes no GGUF file of {name or 'a model whose config.json names no class'}",
        hint=f"it does of {', '.join(supported_architectures())}",
    )


def _language_values(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json; of a model that also sees, the part for its language model."""
    inner = config.get("text_config")
    if inner is None:
        return config
    outer = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
    return {**inner, **outer}


def _language_tensors(
    architecture: Architecture, shapes: Mapping[str, tuple[int, ...]], *, tied: bool
) -> dict[str, str]:
    """Names of the language model's tensors in the model, by what a plain language model calls
    them.
    """
    names = {}
    for source in shapes:
        if source.startswith(architecture.left_out) or source.endswith(_COMPUTED):
            continue
        name = source
        for spelled, plain in architecture.prefixes:
            if source.startswith(spelled):
                name = plain + source.removeprefix(spelled)
                break
        names[name] = source
    if tied:
        names.pop(_HEAD, None)
    return names


def _weights(design: Design, rows: int, *, tied: bool) -> Iterator[Weight]:
    """Every tensor that the model must have, under its full name. rows: of the embedding."""
    hidden = design.dimensions.hidden
    yield Weight(_EMBEDDING, (rows, hidden))
    for number in range(design.dimensions.layers):
        for weight in design.block:
            yield replace(weight, name=f"model.layers.{number}.{weight.name}")
    yield Weight(_LAST_NORM, (hidden,), design.norm_transform)
    if not tied:
        yield Weight(_HEAD, (rows, hidden))


def _tensor_problems(
    weights: tuple[Weight, ...],
    sources: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[Problem]:
    expected = {weight.name: weight.shape for weight in weights}
    for name, shape in expected.items():
        if name not in sources:
            yield Problem("is missing", path=name)
        elif shapes[sources[name]] != shape:
            found = _times(shapes[sources[name]])
            yield Problem(f"has shape {found}; config.json makes it {_times(shape)}", path=name)
    for name, source in sources.items():
        if name not in expected:
            yield Problem("has no place in a GGUF file of this architecture", path=source)


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)


def _metadata(design: Design, config: Config, rows: int) -> Iterator[Metadatum]:
    from gguf.constants import Keys

    sizes = design.dimensions
    numbers = {
        Keys.LLM.VOCAB_SIZE: rows,
        Keys.LLM.CONTEXT_LENGTH: design.context_length,
        Keys.LLM.EMBEDDING_LENGTH: sizes.hidden,
        Keys.LLM.BLOCK_COUNT: sizes.layers,
        Keys.LLM.FEED_FORWARD_LENGTH: sizes.feed_forward,
        Keys.Attention.HEAD_COUNT: sizes.heads,
        Keys.Attention.HEAD_COUNT_KV: sizes.kv_heads,
        Keys.Attention.KEY_LENGTH: sizes.head_dim,
        Keys.Attention.VALUE_LENGTH: sizes.head_dim,
    }
    epsilon = config.number("rms_norm_eps")
    data = (
        *(Metadatum(key, number, "uint32") for key, number in numbers.items()),
        Metadatum(Keys.Attention.LAYERNORM_RMS_EPS, epsilon, "float32"),
        *rope_metadata(design.rope),
        *design.metadata,
    )
    for datum in data:
        yield replace(datum, key=datum.key.format(arch=design.name))


def _tensor_plans(
    design: Design, weights: tuple[Weight, ...], sources: Mapping[str, str]
) -> Iterator[TensorPlan]:
    import gguf

    kind = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == design.name)
    names = gguf.get_tensor_name_map(kind, design.dimensions.layers)
    for weight in weights:
        name = names.get_name(weight.name, try_suffixes=(".weight", ".bias"))
        yield TensorPlan(
            name=name,
            shape=weight.shape,
            source=sources[weight.name],
            transform=weight.transform,
            rows_together=weight.rows_together,
        )
