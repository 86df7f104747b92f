"""The header of a GGUF file beside what the architecture needs: who made it from what, and its
tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamafarm.export.chat_template import embedded_template
from llamafarm.export.contents import Metadatum, Vocabulary

_QUANTIZATION_VERSION = 2
_LICENSE = re.compile(r"^license:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
_PARAMETERS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a file comes from. base_name: a Hub id, the packaged model's name, or empty; license:
    an SPDX-like identifier as model cards have it, or empty; fingerprint: of the base's weights.
    """

    name: str
    base_name: str
    license: str
    fingerprint: str
    num_parameters: int
    made_by: str


@dataclass(frozen=True, slots=True)
class Serving:
    """How training began and ended. add_bos: the engine puts the start token in front;
    end_token_id: what ends an answer; chat_template: as it was trained with, None without one.
    """

    add_bos: bool
    end_token_id: int | None
    chat_template: str | None


def general_metadata(origin: Origin, file_type: int) -> tuple[Metadatum, ...]:
    """`general.*`. file_type: GGUF's number of the type."""
    texts = {
        "general.type": "model",
        "general.name": origin.name,
        "general.size_label": size_label(origin.num_parameters),
        "general.license": origin.license,
        "general.quantized_by": origin.made_by,
        "llamafarm.base_sha256": origin.fingerprint,
    }
    return (
        *(Metadatum(key, text, "string") for key, text in texts.items() if text),
        *_base_metadata(origin.base_name),
        Metadatum("general.tags", ("llamafarm", "text-generation"), "string[]"),
        Metadatum("general.file_type", file_type, "uint32"),
        Metadatum("general.quantization_version", _QUANTIZATION_VERSION, "uint32"),
    )


def tokenizer_metadata(vocabulary: Vocabulary, serving: Serving) -> tuple[Metadatum, ...]:
    """`tokenizer.*`: the vocabulary, and the template in the form that every reader keeps."""
    arrays: list[Metadatum] = [
        Metadatum("tokenizer.ggml.tokens", vocabulary.tokens, "string[]"),
        Metadatum("tokenizer.ggml.token_type", vocabulary.token_types, "int32[]"),
    ]
    if vocabulary.scores:
        arrays.append(Metadatum("tokenizer.ggml.scores", vocabulary.scores, "float32[]"))
    if vocabulary.merges:
        arrays.append(Metadatum("tokenizer.ggml.merges", vocabulary.merges, "string[]"))
    return (
        Metadatum("tokenizer.ggml.model", vocabulary.model, "string"),
        Metadatum("tokenizer.ggml.pre", vocabulary.pre, "string"),
        *arrays,
        *_special_tokens(vocabulary, serving),
        *_template(serving),
    )


def size_label(num_parameters: int) -> str:
    """`135M`, `1.2B`: as llama.cpp labels sizes."""
    for unit, letter in _PARAMETERS:
        if num_parameters >= unit:
            number = num_parameters / unit
            return f"{number:.{0 if round(number) >= 10 else 1}f}{letter}"
    return str(num_parameters)


def license_of(base: Path) -> str:
    """What the model card of a base says; empty where there is no card, or none that says it."""
    try:
        card = (base / "README.md").read_text("utf-8", "replace")
    except OSError:
        return ""
    front = card.split("\n---", 1)[0] if card.startswith("---") else ""
    found = _LICENSE.search(front)
    return found[1] if found else ""


def _base_metadata(base_name: str) -> Iterator[Metadatum]:
    if not base_name:
        return
    organisation, slash, name = base_name.rpartition("/")
    yield Metadatum("general.base_model.count", 1, "uint32")
    yield Metadatum("general.base_model.0.name", name, "string")
    if slash and not base_name.startswith((".", "/", "~")):
        url = f"https://huggingface.co/{base_name}"
        yield Metadatum("general.base_model.0.organization", organisation, "string")
        yield Metadatum("general.base_model.0.repo_url", url, "string")


def _special_tokens(vocabulary: Vocabulary, serving: Serving) -> Iterator[Metadatum]:
    """llama.cpp ends generation at eos and at eot: the trained end is one of them."""
    end, eos = serving.end_token_id, vocabulary.eos_id
    ids = {
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": end if eos is None else eos,
        "eot_token_id": end if end != eos and eos is not None else None,
        "unknown_token_id": vocabulary.unk_id,
        "padding_token_id": vocabulary.pad_id,
    }
    for key, number in ids.items():
        if number is not None:
            yield Metadatum(f"tokenizer.ggml.{key}", number, "uint32")
    yield Metadatum("tokenizer.ggml.add_bos_token", serving.add_bos, "bool")
    yield Metadatum("tokenizer.ggml.add_eos_token", False, "bool")
    if vocabulary.add_space_prefix is not None:
        yield Metadatum("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix, "bool")


def _template(serving: Serving) -> Iterator[Metadatum]:
    if serving.chat_template:
        text = embedded_template(serving.chat_template)
        yield Metadatum("tokenizer.chat_template", text, "string")
