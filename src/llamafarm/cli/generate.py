"""`llamafarm generate`."""

from __future__ import annotations

from typing import Annotated

import typer

from llamafarm.cli.options import (
    Json,
    Source,
    non_negative_number,
    positive_whole_number,
    read_flag,
)
from llamafarm.cli.output import result_json, stream_result

EXAMPLE = """
llamafarm generate fine_tuned_models/demo3_quick "What is a normal resting heart rate?"
"""


def command(
    source: Source,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="What to ask.", show_default=False)
    ],
    max_new_tokens: Annotated[
        str,
        typer.Option("--max-new-tokens", metavar="N", help="Longest answer. Left out: 256."),
    ] = "256",
    temperature: Annotated[
        str,
        typer.Option(
            "--temperature",
            metavar="T",
            help="0: always the likeliest word; higher: more varied. Left out: 0.",
        ),
    ] = "0",
    json_output: Json = False,
) -> None:
    """Ask a trained model one thing, through the chat template it was trained with."""
    from llamafarm import api

    answer = api.generate(
        source,
        prompt,
        max_new_tokens=read_flag("--max-new-tokens", max_new_tokens, positive_whole_number),
        temperature=read_flag("--temperature", temperature, non_negative_number),
        on_text=None if json_output else stream_result,
    )
    if json_output:
        result_json({"source": source, "prompt": prompt, "text": answer})
    else:
        stream_result("\n")
