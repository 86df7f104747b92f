"""How a source becomes a GGUF file, and what it is then measured against: one recipe a way.

Like api.py it puts rooms together and decides nothing itself.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamafarm.certify import Reference, engine_reference, trained_reference
from llamafarm.errors import ModelError
from llamafarm.export.convert import (
    Work,
    plan_gguf,
    serving_of,
    write_gguf_file,
    write_safetensors,
)
from llamafarm.export.file_types import FileType
from llamafarm.export.gguf_source import GgufSource, open_gguf
from llamafarm.export.gguf_writer import file_nbytes, write_gguf
from llamafarm.export.llama_cpp_converter import convert as run_converter
from llamafarm.export.llama_cpp_converter import find_converter
from llamafarm.export.route import export_route
from llamafarm.export.safetensors_writer import model_nbytes
from llamafarm.export.source import ExportSource, open_model
from llamafarm.export.tolerances import Tolerance, tolerance_of
from llamafarm.models.gguf_file import GgufFile
from llamafarm.models.record import ModelRecord, read_model_record

# What llama.cpp's converter writes itself; other types are encoded from its float32.
_CONVERTER_TYPES = ("F32", "F16", "BF16", "Q8_0")


@dataclass(frozen=True, slots=True)
class Tools:
    """What the work is done with. threads: on the CPU; on_work, on_note: told what goes on."""

    threads: int
    on_work: Work
    on_note: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One GGUF file that can be written. nbytes: what the disk must have room for; system: the
    prompt that was trained with; record: what training left beside the model; write: makes the
    file; reference: what the file at a path is measured against.
    """

    file_type: str
    tolerance: Tolerance
    nbytes: int
    base_name: str
    licence: str
    system: str
    stop_words: tuple[str, ...]
    bos_text: str
    end_token_id: int | None
    record: ModelRecord
    write: Callable[[Path], None]
    reference: Callable[[Path], Reference]


def recipe_of_model(source: ExportSource, name: str, file_type: FileType, tools: Tools) -> Recipe:
    """Written here where the architecture is known, else by llama.cpp's converter.

    Raises ModelError for a model that neither writes, or whose tensors do not fit.
    """
    route = export_route(source.base)
    if route.kind == "none":
        raise ModelError(
            f"{source.requested} cannot become a GGUF file: {route.detail}", hint=route.hint
        )
    if route.kind == "llama.cpp":
        return _recipe_of_converter(source, name, file_type, tools)
    made_by = f"llamafarm {importlib.metadata.version('llamafarm')}"
    plan = plan_gguf(source, name, file_type, serving_of(source), made_by=made_by)
    ends = () if plan.end_text is None else (plan.end_text,)
    return Recipe(
        file_type=file_type.name,
        tolerance=tolerance_of(file_type.name),
        nbytes=plan.nbytes,
        base_name=source.base_name,
        licence=plan.origin.license,
        system=source.record.system_prompt or "",
        stop_words=(*ends, *source.record.stop_words),
        bos_text=plan.bos_text,
        end_token_id=plan.serving.end_token_id,
        record=source.record,
        write=lambda path: write_gguf_file(
            plan, path, threads=tools.threads, on_work=tools.on_work
        ),
        reference=lambda path: trained_reference(
            source, path, plan, on_work=tools.on_work, on_note=tools.on_note
        ),
    )


def recipe_of_gguf(path: Path, name: str, file_type: FileType | None, tools: Tools) -> Recipe:
    """A GGUF file with its tensors copied, or encoded as file_type. Raises ModelError for a damaged
    file.
    """
    source = open_gguf(path, file_type)
    record = read_model_record(path.parent)
    end = next(iter(end_ids(source.file)), None)
    ends = () if end is None else _token_text(source.file, end)
    return Recipe(
        file_type=source.type_name,
        # Nothing may change where every tensor is copied.
        tolerance=tolerance_of("F32" if file_type is None else file_type.name),
        nbytes=file_nbytes(source.tensors()),
        base_name=str(source.file.metadata.get("general.base_model.0.name", "")),
        licence=str(source.file.metadata.get("general.license", "")),
        system=record.system_prompt or "",
        stop_words=(*ends, *record.stop_words),
        bos_text="",
        end_token_id=end,
        record=record,
        write=lambda target: _write_from_gguf(source, name, target, tools),
        reference=lambda _: engine_reference(
            path, record.system_prompt, end, threads=tools.threads, on_work=tools.on_work
        ),
    )


def _recipe_of_converter(
    source: ExportSource, name: str, file_type: FileType, tools: Tools
) -> Recipe:
    from llamafarm.models.tokenizer import load_tokenizer

    converter = find_converter()
    if converter is None:
        raise AssertionError("the route goes through it")
    model = open_model(source)
    tokenizer = load_tokenizer(source.tokenizer)
    serving = serving_of(source)
    end = serving.end_token_id
    ends = () if end is None else (str(tokenizer.convert_ids_to_tokens(end)),)

    def write(target: Path) -> None:
        merged, first = target.parent / ".merged", target.parent / ".first.gguf"
        merged.mkdir()
        write_safetensors(source, model, merged, on_work=tools.on_work)
        tools.on_work("converting with llama.cpp's converter", 0, 0)
        kind = file_type.name if file_type.name in _CONVERTER_TYPES else "F32"
        run_converter(merged, first, kind, converter, lambda _: None, name=name)  # type: ignore[arg-type]  # one of them
        shutil.rmtree(merged)
        wanted = None if kind == file_type.name else file_type
        _write_from_gguf(open_gguf(first, wanted), name, target, tools)
        first.unlink()

    return Recipe(
        file_type=file_type.name,
        tolerance=tolerance_of(file_type.name),
        nbytes=3 * model_nbytes(model.weights),
        base_name=source.base_name,
        licence="",
        system=source.record.system_prompt or "",
        stop_words=(*ends, *source.record.stop_words),
        bos_text=tokenizer.bos_token or "",
        end_token_id=end,
        record=source.record,
        write=write,
        reference=lambda path: trained_reference(
            source, path, None, on_work=tools.on_work, on_note=tools.on_note
        ),
    )


def _write_from_gguf(source: GgufSource, name: str, target: Path, tools: Tools) -> None:
    tensors = source.tensors()
    total = sum(tensor.nbytes for tensor in tensors)
    write_gguf(
        target,
        source.file.architecture,
        source.metadata(name),
        tensors,
        source.weights,
        threads=tools.threads,
        on_bytes=lambda done: tools.on_work(f"writing {target.name}", min(done, total), total),
    )


def _token_text(file: GgufFile, token: int) -> tuple[str, ...]:
    """A token as the file's vocabulary has it; nothing where it is not in there."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not 0 <= token < len(tokens):
        return ()
    return (str(tokens[token]),)


def end_ids(file: GgufFile) -> tuple[int, ...]:
    """The tokens that end generation, as the file names them: end of turn, then end of text."""
    keys = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eos_token_id")
    found = (file.whole_number(key) for key in keys)
    return tuple(number for number in found if number is not None)
