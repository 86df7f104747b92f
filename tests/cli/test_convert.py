"""`llamafarm convert`: what is asked of the API, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from llamafarm import api
from llamafarm.deploy import Converted
from llamafarm.errors import GateRefused
from llamafarm.export.ollama import OllamaOutcome
from llamafarm.export.parity import Certificate, Layer, PredictionFigures
from llamafarm.export.tolerances import Tolerance
from llamafarm.monitoring.events import MessageEvent, Sink, WorkEvent

from .conftest import Done

Run = Callable[..., Done]
Fake = Callable[..., Mock]
GOLDEN = Path(__file__).parents[1] / "golden" / "cli"

CERTIFICATE = Certificate(
    file_type="Q8_0",
    layers=(
        Layer("rendered text", 24, 0),
        Layer("token ids", 24, 0),
        Layer("predictions", 256, 0),
        Layer("end of an answer", 4, 0),
        Layer("stop words", 1, 0),
        Layer("weights", 272, 0),
        Layer("Modelfile", 6, 0),
    ),
    figures=PredictionFigures(
        positions=256,
        mean_kl=0.00042,
        max_difference=0.31,
        decided=201,
        agreed=201,
        agreed_anywhere=253,
    ),
    tolerance=Tolerance(mean_kl=0.03, margin=3.0, differing_codes=0.01),
    prompts="evaluation rows of the run",
    rows=24,
)
FOR_OLLAMA = Converted(
    target=Path("fever"),
    format="ollama",
    file=Path("fever/fever-Q8_0.gguf"),
    file_type="Q8_0",
    num_bytes=144_811_552,
    certificate=CERTIFICATE,
    lines_to_type=("ollama create fever -f fever/Modelfile", 'ollama run fever "Say hello."'),
)
IN_OLLAMA = replace(FOR_OLLAMA, ollama=OllamaOutcome("Hello!\nHow are you?", True, True))
NOT_VERIFIED = replace(FOR_OLLAMA, format="gguf", certificate=None, lines_to_type=())
MERGED = Converted(
    target=Path("merged"),
    format="safetensors",
    file=Path("merged"),
    file_type="safetensors",
    num_bytes=269_060_552,
)


def request_of(llamafarm: Run, fake_api: Fake, *argv: str) -> api.ConvertRequest:
    fake = fake_api("convert", FOR_OLLAMA)
    done = llamafarm("convert", *argv)
    assert done.code == 0, done.err
    request = fake.call_args.args[0]
    assert isinstance(request, api.ConvertRequest)
    return request


def test_what_is_not_typed_is_not_said(llamafarm: Run, fake_api: Fake) -> None:
    request = request_of(llamafarm, fake_api, "run", "fever", "--format", "ollama")
    assert request == api.ConvertRequest(source="run", target=Path("fever"), format="ollama")


def test_everything_that_is_typed_is_passed_on(llamafarm: Run, fake_api: Fake) -> None:
    flags = ["--quantization", "q4_k_m", "--name", "me", "--system-prompt", "Be brief."]
    request = request_of(
        llamafarm,
        fake_api,
        "run",
        "fever",
        "--format",
        "gguf",
        *flags,
        "--overwrite",
        "--no-verify",
    )
    assert request == api.ConvertRequest(
        source="run",
        target=Path("fever"),
        format="gguf",
        quantization="q4_k_m",
        name="me",
        system_prompt="Be brief.",
        overwrite=True,
        verify=False,
    )


def test_an_empty_system_prompt_is_one_that_was_asked_for(llamafarm: Run, fake_api: Fake) -> None:
    argv = ("run", "fever", "--format", "ollama", "--system-prompt", "")
    assert request_of(llamafarm, fake_api, *argv).system_prompt == ""


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("olama", "did you mean `ollama`?"),
        ("GGUF", "did you mean `gguf`?"),
        ("safetensor", "did you mean `safetensors`?"),
    ],
)
def test_an_unknown_format_gets_the_nearest_name(
    llamafarm: Run, fake_api: Fake, typed: str, hint: str
) -> None:
    fake = fake_api("convert", FOR_OLLAMA)
    done = llamafarm("convert", "run", "fever", "--format", typed)
    assert done.code == 2
    assert f'--format  expected one of ollama, gguf, safetensors (got "{typed}")' in done.err
    assert f"hint: {hint}" in done.err
    fake.assert_not_called()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("run", "fever"), "missing option `--format`"),
        (("run", "--format", "gguf"), "missing argument `TARGET`"),
        (("--format", "gguf"), "missing argument `SOURCE`"),
        (("run", "fever", "--format", "gguf", "--quantisation", "f16"), "did you mean"),
        (("run", "fever", "more", "--format", "gguf"), "more"),
    ],
)
def test_a_line_that_is_not_complete_says_what_is_missing(
    llamafarm: Run, argv: Sequence[str], said: str
) -> None:
    done = llamafarm("convert", *argv)
    assert done.code == 2
    assert said in done.err
    assert "hint: " in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("name", "done"),
    [
        ("convert", FOR_OLLAMA),
        ("convert_in_ollama", IN_OLLAMA),
        ("convert_not_verified", NOT_VERIFIED),
        ("convert_safetensors", MERGED),
    ],
)
def test_the_result_looks_as_agreed(
    llamafarm: Run, fake_api: Fake, name: str, done: Converted
) -> None:
    fake_api("convert", done)
    expected = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    assert llamafarm("convert", "run", "fever", "--format", done.format) == Done(0, expected, "")


def test_the_result_for_a_program_is_one_object(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("convert", IN_OLLAMA)
    done = llamafarm("convert", "run", "fever", "--format", "ollama", "--json")
    value = json.loads(done.out)
    assert list(value) == [
        "target",
        "format",
        "file",
        "file_type",
        "bytes",
        "passed",
        "certificate",
        "ollama",
        "lines_to_type",
    ]
    assert (value["file"], value["bytes"]) == ("fever/fever-Q8_0.gguf", 144_811_552)
    assert value["passed"] is True
    assert value["certificate"]["figures"]["agreed_anywhere"] == 253
    assert value["ollama"]["answer"] == "Hello!\nHow are you?"


@pytest.mark.parametrize("made", [NOT_VERIFIED, MERGED])
def test_what_was_not_measured_did_not_pass(
    llamafarm: Run, fake_api: Fake, made: Converted
) -> None:
    fake_api("convert", made)
    value = json.loads(llamafarm("convert", "r", "t", "--format", made.format, "--json").out)
    assert value["passed"] is None
    assert value["certificate"] is None


def test_an_answer_of_ollama_cannot_steer_the_terminal(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("convert", replace(IN_OLLAMA, ollama=OllamaOutcome("\x1b[2Jgone", True, True)))
    assert "\\x1b[2Jgone" in llamafarm("convert", "run", "fever", "--format", "ollama").out


def test_a_refused_file_ends_with_the_exit_code_of_gates(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("convert", GateRefused("m.gguf is not the model that was trained", hint="report it"))
    done = llamafarm("convert", "run", "fever", "--format", "gguf")
    assert done == Done(3, "", "error: m.gguf is not the model that was trained\nhint: report it\n")


def test_what_goes_on_is_told_on_stderr(llamafarm: Run, fake_api: Fake) -> None:
    def convert(request: Any, sinks: Sequence[Sink] = ()) -> Converted:
        for sink in sinks:
            sink.handle(WorkEvent(what="writing", done=1, total=2))
            sink.handle(MessageEvent(level="notice", text="general questions are asked instead"))
        return MERGED

    fake_api("convert", convert)
    done = llamafarm("convert", "run", "merged", "--format", "safetensors")
    assert done.err == "notice: general questions are asked instead\n"
