"""From a trained model to a directory that is deployed: plan, write, prove, then let it appear.

Everything that can be known before a byte is written is found out first: whether base and adapter
fit, whether the architecture can be written, whether there is room. What is written appears under
its name only when the certificate has passed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from llamafarm.export.architectures import ModelContents, model_contents
from llamafarm.export.contents import Vocabulary
from llamafarm.export.file_types import FileType, tensor_type
from llamafarm.export.gguf_metadata import (
    Origin,
    Serving,
    general_metadata,
    license_of,
    tokenizer_metadata,
)
from llamafarm.export.gguf_writer import TypedTensor, file_nbytes, write_gguf
from llamafarm.export.safetensors_writer import model_nbytes, write_weights
from llamafarm.export.source import ExportSource, MergedModel, open_model
from llamafarm.export.vocabulary import needs_phi3_name, read_vocabulary
from llamafarm.files import to_json_bytes, write_bytes
from llamafarm.models.packaged import PACKAGED_MODEL_HUB_ID, PACKAGED_MODEL_NAME

Work = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

_PHI3 = re.compile("phi-?3", re.IGNORECASE)
# Beside the weights of a merged model, where the tokenizer has them.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


@dataclass(frozen=True, slots=True)
class GgufPlan:
    """A GGUF file that can be written: every tensor has its type and its source."""

    contents: ModelContents
    tensors: tuple[TypedTensor, ...]
    vocabulary: Vocabulary
    serving: Serving
    origin: Origin
    file_type: FileType
    model: MergedModel

    @property
    def nbytes(self) -> int:
        """Size of the file, about."""
        return file_nbytes(self.tensors)

    @property
    def bos_text(self) -> str:
        """The start token as text; empty where there is none."""
        bos = self.vocabulary.bos_id
        return "" if bos is None else self.vocabulary.tokens[bos]

    @property
    def end_text(self) -> str | None:
        """The token that is trained to end an answer, as text."""
        end = self.serving.end_token_id
        return None if end is None else self.vocabulary.tokens[end]


def serving_of(source: ExportSource) -> Serving:
    """As the run recorded it; for models of other tools, found out from tokenizer and template."""
    record, template = source.record, source.chat_template
    if record.add_bos is not None:
        return Serving(record.add_bos, record.end_token_id, template)
    from llamafarm.data.serving import serving_facts
    from llamafarm.models.tokenizer import load_tokenizer

    facts = serving_facts(load_tokenizer(source.tokenizer), template)
    return Serving(facts.add_bos, facts.end_token_id, template)


def plan_gguf(
    source: ExportSource, name: str, file_type: FileType, serving: Serving, *, made_by: str
) -> GgufPlan:
    """Everything but the bytes. Raises ModelError with all that keeps it from being written.

    name: of the model; serving: how its conversations begin and end; made_by: program and version.
    """
    model = open_model(source)
    contents = model_contents(model.config, model.weights.shapes)
    rows = next(t.shape[0] for t in contents.tensors if t.name == "token_embd.weight")
    vocabulary = read_vocabulary(source.tokenizer, rows)
    tied = all(tensor.name != "output.weight" for tensor in contents.tensors)
    num_layers = _num_layers(contents)
    typed = tuple(
        TypedTensor(
            plan, tensor_type(file_type, plan.name, plan.shape, num_layers=num_layers, tied=tied)
        )
        for plan in contents.tensors
    )
    origin = Origin(
        name=_general_name(name, phi3=needs_phi3_name(source.tokenizer)),
        base_name=_public_name(source),
        license=_license(source),
        fingerprint=source.record.base_fingerprint or "",
        num_parameters=sum(prod(tensor.plan.shape) for tensor in typed),
        made_by=made_by,
    )
    return GgufPlan(contents, typed, vocabulary, serving, origin, file_type, model)


def write_gguf_file(plan: GgufPlan, path: Path, *, threads: int, on_work: Work) -> None:
    """Write the file that was planned."""
    total = sum(tensor.nbytes for tensor in plan.tensors)
    label = f"writing {path.name}"
    metadata = (
        *general_metadata(plan.origin, plan.file_type.number),
        *plan.contents.metadata,
        *tokenizer_metadata(plan.vocabulary, plan.serving),
    )
    write_gguf(
        path,
        plan.contents.architecture,
        metadata,
        plan.tensors,
        plan.model.weights,
        threads=threads,
        on_bytes=lambda done: on_work(label, min(done, total), total),
    )


def write_safetensors(
    source: ExportSource, model: MergedModel, directory: Path, *, on_work: Work
) -> None:
    """The merged Hugging Face directory: weights, configuration, tokenizer, template."""
    total = model_nbytes(model.weights)
    write_weights(
        directory,
        model.weights,
        on_bytes=lambda done: on_work("writing model.safetensors", done, total),
    )
    write_bytes(directory / "config.json", to_json_bytes(model.config))
    for name in _TOKENIZER_FILES:
        found = next(
            (d / name for d in (source.tokenizer, source.base) if (d / name).is_file()), None
        )
        if found is not None:
            write_bytes(directory / name, found.read_bytes())


def _num_layers(contents: ModelContents) -> int:
    key = f"{contents.architecture}.block_count"
    return next(int(d.value) for d in contents.metadata if d.key == key)  # type: ignore[arg-type]  # a uint32


def _general_name(name: str, *, phi3: bool) -> str:
    """llama.cpp strips white space behind Phi-3's special tokens where the name holds `phi3` or
    `phi-3`, and only there.
    """
    if phi3:
        return name if _PHI3.search(name) else f"{name} (phi3)"
    return _PHI3.sub("phi_3", name)


def _public_name(source: ExportSource) -> str:
    """A path of this machine is of no use to anybody else."""
    name = source.base_name
    return "" if name.startswith((".", "/", "~")) or name.endswith(".gguf") else name


def _license(source: ExportSource) -> str:
    if source.base_name in (PACKAGED_MODEL_NAME, PACKAGED_MODEL_HUB_ID):
        return "apache-2.0"
    return license_of(source.base)
