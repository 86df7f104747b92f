"""`llamafarm convert`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamafarm.cli.options import Json, Source
from llamafarm.cli.output import result, result_json
from llamafarm.cli.usage import did_you_mean, problems_error
from llamafarm.errors import Problem
from llamafarm.monitoring.formats import format_bytes
from llamafarm.monitoring.work import WorkProgress

if TYPE_CHECKING:
    from llamafarm.deploy import Converted

EXAMPLE = """
llamafarm convert fine_tuned_models/demo3_quick ./my-model --format ollama
llamafarm convert fine_tuned_models/demo3_quick ./my-model-f16 --format gguf --quantization f16
"""
FORMATS = ("ollama", "gguf", "safetensors")


def command(
    source: Source,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET", help="The directory to make; whole or not at all.", show_default=False
        ),
    ],
    format_name: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="ollama, gguf or safetensors."),
    ],
    quantization: Annotated[
        str | None,
        typer.Option(
            "--quantization",
            metavar="TYPE",
            help="f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_1, q5_0, q4_k_m, q4_1 or q4_0. "
            "Left out: q8_0; a .gguf file keeps its own.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The model's name. Left out: TARGET's."),
    ] = None,
    system_prompt: Annotated[
        str | None,
        typer.Option(
            "--system-prompt",
            metavar="TEXT",
            help="SYSTEM of the Modelfile. Left out: the one trained with.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what convert made in TARGET before.")
    ] = False,
    no_verify: Annotated[
        bool,
        typer.Option("--no-verify", help="Leave out the certificate; nothing is then proved."),
    ] = False,
    json_output: Json = False,
) -> None:
    """Make a trained model ready for Ollama or llama.cpp, and prove it.

    The adapter is merged into its base. A GGUF file is then measured in llama.cpp against the
    trained model: rendered text, tokens, predictions, stopping, weights. A file that is not the
    trained model is refused with exit code 3, and nothing of it is kept.
    """
    from llamafarm import api

    if format_name not in FORMATS:
        message = f'expected one of {", ".join(FORMATS)} (got "{format_name}")'
        hint = did_you_mean(format_name.lower(), FORMATS)
        raise problems_error([Problem(message, where="--format", hint=hint)])
    request = api.ConvertRequest(
        source=source,
        target=target,
        format=format_name,  # type: ignore[arg-type]  # just checked
        quantization=quantization,
        name=name,
        system_prompt=system_prompt,
        overwrite=overwrite,
        verify=not no_verify,
    )
    with contextlib.closing(WorkProgress(sys.stderr)) as progress:
        done = api.convert(request, sinks=(progress,))
    if json_output:
        result_json(_to_json(done))
    else:
        result(render_converted(done))


def render_converted(done: Converted) -> str:
    """The certificate, where everything is, and what to type next."""
    from llamafarm.export.parity_report import render_certificate

    blocks = []
    if done.certificate is not None:
        blocks.append(render_certificate(done.certificate))
    blocks.append(f"{done.file}: {done.file_type}, {format_bytes(done.num_bytes)}")
    if done.certificate is None and done.format != "safetensors":
        blocks.append("not verified: that this file is the trained model was not measured")
    if done.ollama is not None:
        blocks.append(f"Ollama answers: {done.ollama.answer}")
    elif done.lines_to_type:
        lines = "\n".join(f"  {line}" for line in done.lines_to_type)
        blocks.append(f"no Ollama server answers here; where one does:\n{lines}")
    return "\n\n".join(blocks)


def _to_json(done: Converted) -> dict[str, Any]:
    certificate = done.certificate
    return {
        "target": str(done.target),
        "format": done.format,
        "file": str(done.file),
        "file_type": done.file_type,
        "bytes": done.num_bytes,
        "passed": None if certificate is None else certificate.passed,
        "certificate": certificate,
        "ollama": done.ollama,
        "lines_to_type": done.lines_to_type,
    }
