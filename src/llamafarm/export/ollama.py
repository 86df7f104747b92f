"""Ollama on this machine, where it runs: the model is created in it, looked at, and asked once.

Everything goes through the official client (an optional part) to a server that runs already; where
there is none, nothing here starts one, and the user gets the two lines to type.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamafarm.errors import RunError, UserError
from llamafarm.export.modelfile import REQUIRES, Modelfile, parse_modelfile
from llamafarm.export.ollama_shown import differences
from llamafarm.models.gguf_file import read_gguf

if TYPE_CHECKING:
    import ollama

_FIND_SECONDS = 2.0
_ANSWER_SECONDS = 600.0
_LONGEST_ANSWER = 256
_OF_THIS_MACHINE = ("localhost", "127.0.0.1", "0.0.0.0", "[::1]")  # noqa: S104  # not listened on


@dataclass(frozen=True, slots=True)
class OllamaServer:
    """A server that answers. address: with scheme and port; version: as it says."""

    address: str
    version: str

    def __str__(self) -> str:
        return f"Ollama {self.version} at {self.address}"


@dataclass(frozen=True, slots=True)
class OllamaOutcome:
    """What the created model answered. stopped: it ended the answer itself, not the length limit.
    template_seen: the server shows the GGUF's own chat template as the one it uses; older servers
    show none, and then only no other one was seen.
    """

    answer: str
    stopped: bool
    template_seen: bool


def find_server() -> OllamaServer | None:
    """The server that OLLAMA_HOST names, or else the one of this machine; None when nothing answers
    there, or when the client is not installed. Raises UserError when OLLAMA_HOST is no address.
    """
    if importlib.util.find_spec("ollama") is None:
        return None
    import httpx

    try:
        with _client(None, _FIND_SECONDS) as client:
            # The client has no call for the version.
            http = client._client
            answer = http.get("/api/version").raise_for_status().json()
            return OllamaServer(str(http.base_url).rstrip("/"), str(answer["version"]))
    except httpx.HTTPError:
        return None
    except httpx.InvalidURL as fault:
        raise _bad_address(fault) from fault
    except (ValueError, KeyError, TypeError):
        return None  # something else listens there


def create_and_ask(server: OllamaServer, directory: Path, name: str, prompt: str) -> OllamaOutcome:
    """Create the model that `directory` holds (Modelfile and GGUF) under a name, and ask it once.

    A model of that name is replaced, as `ollama create` does. Raises UserError when the server is
    too old or the directory does not fit, RunError when the server refuses, stops, or made
    something else of the model than the Modelfile says.
    """
    _check_version(server)
    modelfile = _read_modelfile(directory)
    file = directory / modelfile.gguf
    template = modelfile.template or read_gguf(file).metadata.get("tokenizer.chat_template", "")
    with _client(server.address, _ANSWER_SECONDS) as client:
        with _faults_of(server):
            _create(server, client, name, file, modelfile)
            shown = client.show(name)
        problems = differences(shown, modelfile, template)
        if problems:
            raise RunError(
                f"{server} made something else of {name} than the Modelfile says",
                problems,
                hint=f"ollama rm {name}; the GGUF itself is sound: llama-cli -m {file}",
            )
        with _faults_of(server):
            return _ask(client, name, prompt, template_seen=shown.template == template)


def lines_to_type(directory: Path, name: str) -> tuple[str, str]:
    """What makes the model in Ollama, and what asks it, for a shell in the working directory."""
    named, modelfile = shlex.quote(name), shlex.quote(str(directory / "Modelfile"))
    return f"ollama create {named} -f {modelfile}", f'ollama run {named} "Say hello."'


def _client(address: str | None, seconds: float) -> ollama.Client:
    """A proxy of the environment must not get what is meant for this machine."""
    import httpx
    import ollama

    direct = {f"all://{host}": None for host in _OF_THIS_MACHINE}
    timeout = httpx.Timeout(seconds, connect=_FIND_SECONDS)
    try:
        return ollama.Client(host=address, timeout=timeout, mounts=direct)
    except (ValueError, httpx.InvalidURL) as fault:
        raise _bad_address(fault) from fault


def _bad_address(fault: Exception) -> UserError:
    return UserError(
        f"OLLAMA_HOST is not an address ({fault})", hint="export OLLAMA_HOST=127.0.0.1:11434"
    )


def _check_version(server: OllamaServer) -> None:
    if _numbers(server.version) < _numbers(REQUIRES):
        raise UserError(
            f"{server} is too old: from {REQUIRES} on Ollama uses the chat template in the GGUF, "
            "before that a guess of its own",
            hint="install the newest Ollama from https://ollama.com/download, or run the GGUF with "
            "llama.cpp",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """`0.30.1-rc2` as (0, 30, 1)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.split("-")[0])[:3])


def _read_modelfile(directory: Path) -> Modelfile:
    try:
        modelfile = parse_modelfile((directory / "Modelfile").read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        raise UserError(
            f"{directory / 'Modelfile'} cannot be read ({fault})",
            hint="llamafarm convert SOURCE TARGET --format ollama writes one",
        ) from fault
    if not (directory / modelfile.gguf).is_file() or "/" in modelfile.gguf:
        raise UserError(
            f"the Modelfile's FROM names {modelfile.gguf}, which is no file beside it",
            hint=f"FROM ./NAME.gguf, in {directory}",
        )
    if modelfile.others:
        listed = ", ".join(name for name, _ in modelfile.others)
        raise UserError(
            f"the Modelfile holds what llamafarm does not pass on: {listed}",
            hint=lines_to_type(directory, "NAME")[0],
        )
    return modelfile


@contextlib.contextmanager
def _faults_of(server: OllamaServer) -> Iterator[None]:
    """What the client raises, as errors of ours."""
    import httpx
    import ollama

    log = "its log says more: `journalctl -u ollama`, or the terminal of `ollama serve`"
    try:
        yield
    except ollama.ResponseError as fault:
        raise RunError(f"{server} refuses: {fault.error}", hint=log) from fault
    except (httpx.HTTPError, OSError) as fault:
        what = str(fault) or type(fault).__name__
        raise RunError(f"{server} stopped answering ({what})", hint=log) from fault
    except (ValueError, TypeError, AttributeError) as fault:
        # The client does not check the shape of what it gets.
        raise RunError(
            f"{server} answered something that the client does not understand ({fault})",
            hint="pip install --upgrade ollama",
        ) from fault


def _create(
    server: OllamaServer, client: ollama.Client, name: str, file: Path, modelfile: Modelfile
) -> None:
    digest = client.create_blob(file)
    parameters: dict[str, Any] = dict(modelfile.parameters)
    if modelfile.stop_words:
        parameters["stop"] = list(modelfile.stop_words)
    status = ""
    for progress in client.create(
        name,
        files={file.name: digest},
        template=modelfile.template or None,
        system=modelfile.system or None,
        parameters=parameters or None,
        stream=True,
    ):
        status = progress.status or status
    if status != "success":
        raise RunError(
            f"{server} hung up while it made the model; the last it said was `{status}`",
            hint=f"ollama create {name} -f {file.with_name('Modelfile')}",
        )


def _ask(client: ollama.Client, name: str, prompt: str, *, template_seen: bool) -> OllamaOutcome:
    answer = client.chat(
        name,
        messages=[{"role": "user", "content": prompt}],
        options={"temperature": 0, "num_predict": _LONGEST_ANSWER},
    )
    return OllamaOutcome(answer.message.content or "", answer.done_reason == "stop", template_seen)
