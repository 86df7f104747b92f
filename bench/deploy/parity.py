"""How far a file of every type is from the trained model, by the certificate's own comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.deploy.models import tiny_adapter, trained_adapter
from bench.deploy.results import ParityRow
from bench.environment import ROOT
from llamafarm.certify import trained_rows
from llamafarm.export.contents import Floats
from llamafarm.export.convert import plan_gguf, serving_of, write_gguf_file
from llamafarm.export.file_types import FILE_TYPES, FileType
from llamafarm.export.parity import Compared, compared_positions, prediction_figures
from llamafarm.export.reference import ReferenceRow, trained_weights
from llamafarm.export.source import ExportSource, find_source
from llamafarm.export.tolerances import TOLERANCES, Tolerance
from llamafarm.export.weight_check import differing_shares
from llamafarm.models.llama_cpp import LlamaCpp

# The language model of Gemma3ForConditionalGeneration is Gemma3ForCausalLM's.
ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Phi3ForCausalLM",
)
# K types are blocks of 256 values; narrower rows fall back to other types.
_WIDE = {"hidden_size": 256, "intermediate_size": 512}
_WIDE_TYPES = ("F16", "Q8_0", "Q4_K_M", "Q5_K_M", "Q6_K")
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model in transformers, asked once. weights: by PEFT's own merge."""

    name: str
    source: ExportSource
    rows: Sequence[ReferenceRow]
    weights: dict[str, Floats]


def measure_parity(directory: Path, on_row: Callable[[ParityRow], None]) -> list[ParityRow]:
    """Every file type on the packaged model with an adapter trained for it, and on tiny random
    models of every architecture; some types on somewhat wider ones too.
    """
    rows = []
    for name, source, file_types in _models(directory):
        trained = _trained(name, source)
        for file_type in file_types:
            rows.append(parity_row(trained, FILE_TYPES[file_type], directory))
            on_row(rows[-1])
    return rows


def _models(directory: Path) -> Iterator[tuple[str, Path, Sequence[str]]]:
    every = tuple(FILE_TYPES)
    yield "SmolLM2-135M", trained_adapter(directory), every
    for architecture in ARCHITECTURES:
        yield f"{architecture}, tiny", tiny_adapter(directory, architecture, "tiny"), every
    for architecture in ARCHITECTURES:
        made = tiny_adapter(directory, architecture, "wide", **_WIDE)
        yield f"{architecture}, wide", made, _WIDE_TYPES


def parity_row(trained: Trained, file_type: FileType, directory: Path) -> ParityRow:
    """Write one file, and measure it."""
    source = trained.source
    plan = plan_gguf(source, "m", file_type, serving_of(source), made_by="llamafarm")
    file = directory / "measured.gguf"
    file.unlink(missing_ok=True)
    write_gguf_file(plan, file, threads=_THREADS, on_work=lambda *_: None)
    shares = dict(differing_shares(file, plan.tensors, trained.weights))
    longest = max(len(row.prompt_ids) + len(row.answer_ids) for row in trained.rows)
    with LlamaCpp(file, context_tokens=longest + 8, threads=_THREADS, exact=True) as engine:
        compared = list(compared_positions(trained.rows, engine))
    file.unlink()
    tolerance = TOLERANCES.get(file_type.name, Tolerance(math.inf, math.inf, 1.0))
    worst_share = max(math.inf if share is None else share for share in shares.values())
    return row_of(trained.name, file_type.name, compared, worst_share, tolerance)


def row_of(
    model: str,
    file_type: str,
    compared: Sequence[Compared],
    differing_codes: float,
    tolerance: Tolerance,
) -> ParityRow:
    """The figures of one file. differing_codes: of its worst tensor."""
    figures = prediction_figures(compared, tolerance)
    return ParityRow(
        model=model,
        file_type=file_type,
        positions=figures.positions,
        mean_kl=figures.mean_kl,
        max_difference=figures.max_difference,
        agreed=figures.agreed_anywhere,
        tolerated_margin=tolerance.margin,
        decided=figures.decided,
        agreed_decided=figures.agreed,
        widest_disagreement=max((c.margin for c in compared if not c.agrees), default=0.0),
        differing_codes=differing_codes,
    )


def _trained(name: str, directory: Path) -> Trained:
    from llamafarm.models.load import load_finished_model

    source = find_source(str(directory), working_directory=ROOT)
    model, tokenizer = load_finished_model(source.directory)
    rows, _ = trained_rows(
        source, model, tokenizer, on_work=lambda *_: None, on_note=lambda _: None
    )
    return Trained(name, source, rows, dict(trained_weights(model)))
