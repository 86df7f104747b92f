from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamafarm.errors import RunError, UserError
from llamafarm.export.modelfile import Modelfile
from llamafarm.export.ollama import (
    OllamaOutcome,
    OllamaServer,
    create_and_ask,
    find_server,
    lines_to_type,
)
from llamafarm.models.gguf_file import read_gguf
from tests.export.ollama_double import OllamaDouble, serving, to_line
from tests.models.gguf_files import write_llama_gguf

SYSTEM = 'You are "Fever".\nBe brief.'
MODELFILE = Modelfile(
    "fever-F32.gguf",
    stop_words=("<|im_end|>", "\n\nUser: ·"),
    system=SYSTEM,
    parameters={"temperature": 0.2, "min_p": 0.05, "top_k": 40, "use_mmap": True},
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What an export leaves: a GGUF and its Modelfile."""
    made = tmp_path / "fever"
    made.mkdir()
    write_llama_gguf(made / MODELFILE.gguf, pre="smollm")
    (made / "Modelfile").write_text(MODELFILE.render(), encoding="utf-8")
    return made


@pytest.fixture
def ollama(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaDouble]:
    """A server that does everything right, and that OLLAMA_HOST names."""
    template = read_gguf(directory / MODELFILE.gguf).metadata["tokenizer.chat_template"]
    with serving(OllamaDouble(template=template)) as double:
        monkeypatch.setenv("OLLAMA_HOST", double.address)
        yield double


def create(double: OllamaDouble, directory: Path) -> OllamaOutcome:
    server = OllamaServer(double.address, double.version)
    return create_and_ask(server, directory, "fever", "Is 39 a fever?")


def test_the_server_that_ollama_host_names_is_found(ollama: OllamaDouble) -> None:
    assert find_server() == OllamaServer(ollama.address, "0.34.1")
    assert ollama.paths() == ["/api/version"]


def test_a_proxy_gets_nothing_that_is_meant_for_this_machine(
    ollama: OllamaDouble, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert find_server() is not None
    assert create(ollama, directory).stopped


def test_nothing_is_found_where_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free.getsockname()[1]}")
    assert find_server() is None


@pytest.mark.parametrize(
    "answer", [(404, b"not here"), (200, b"<html>"), (200, b"[]"), (200, b"{}"), None]
)
def test_a_server_of_another_kind_is_not_ollama(
    ollama: OllamaDouble, answer: tuple[int, bytes] | None
) -> None:
    ollama.instead["/api/version"] = answer
    assert find_server() is None


def test_without_the_client_nothing_is_found(
    ollama: OllamaDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert find_server() is None
    assert not ollama.sent


@pytest.mark.parametrize("host", ["127.0.0.1:many", "http://[::1", "http://\x01"])
def test_an_address_that_is_none_is_a_fault_of_the_user(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    with pytest.raises(UserError, match="OLLAMA_HOST is not an address") as raised:
        find_server()
    assert raised.value.hint == "export OLLAMA_HOST=127.0.0.1:11434"


def test_the_model_is_made_looked_at_and_asked(ollama: OllamaDouble, directory: Path) -> None:
    assert create(ollama, directory) == OllamaOutcome("Hello.", stopped=True, template_seen=True)
    assert ollama.paths() == ["/api/blobs/", "/api/create", "/api/show", "/api/chat"]


def test_it_is_told_what_the_modelfile_says(ollama: OllamaDouble, directory: Path) -> None:
    create(ollama, directory)
    ((digest, blob),) = ollama.blobs.items()
    assert blob == (directory / MODELFILE.gguf).read_bytes()
    assert ollama.body_of("/api/create") == {
        "model": "fever",
        "stream": True,
        "files": {"fever-F32.gguf": digest},
        "system": SYSTEM,
        "parameters": {
            "temperature": 0.2,
            "min_p": 0.05,
            "top_k": 40,
            "use_mmap": True,
            "stop": ["<|im_end|>", "\n\nUser: ·"],
        },
    }
    chat = ollama.body_of("/api/chat")
    assert chat["model"] == "fever"
    assert chat["messages"] == [{"role": "user", "content": "Is 39 a fever?"}]
    assert chat["options"]["temperature"] == 0


def test_a_modelfile_that_asks_for_nothing_sends_nothing_else(
    ollama: OllamaDouble, directory: Path
) -> None:
    (directory / "Modelfile").write_text(Modelfile(MODELFILE.gguf).render(), encoding="utf-8")
    assert create(ollama, directory).template_seen
    assert set(ollama.body_of("/api/create")) == {"model", "stream", "files"}


def test_an_answer_that_the_limit_ended_did_not_stop(ollama: OllamaDouble, directory: Path) -> None:
    ollama.answer |= {"done_reason": "length"}
    assert not create(ollama, directory).stopped


@pytest.mark.parametrize("shown", ["", "{{ .Prompt }}"])
def test_a_server_that_shows_no_template_is_not_said_to_use_ours(
    ollama: OllamaDouble, directory: Path, shown: str
) -> None:
    ollama.shown = {"template": shown}
    outcome = create(ollama, directory)
    assert outcome.stopped and not outcome.template_seen


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (
            {"template": "{{ .System }}\n<|im_start|>{{ .Prompt }}"},
            "its chat template is another one: {{ .System }} <|im_start|>{{ .Prompt }}",
        ),
        (
            {"modelfile": f"FROM x\nSYSTEM {SYSTEM}\nRENDERER gemma4\nPARSER gemma4\n"},
            "Ollama's own prompt format for this architecture is used: gemma4",
        ),
        ({"modelfile": "FROM x\n"}, "its system prompt is not the one asked for"),
        (
            {"parameters": 'stop    "<|im_start|>"\nstop    "<|im_end|>"'},
            'its stop words are "<|im_start|>", "<|im_end|>" (asked for: "<|im_end|>", ',
        ),
        ({"parameters": ""}, "its temperature is None (asked for: 0.2)"),
        ({"parameters": "num_ctx    2048"}, "its num_ctx is 2048 (asked for: None)"),
        ({"parameters": "top_k    `many`"}, "its top_k is `many` (asked for: 40)"),
    ],
)
def test_a_model_that_is_not_what_was_asked_for_is_refused_before_it_is_asked(
    ollama: OllamaDouble, directory: Path, shown: dict[str, str], message: str
) -> None:
    ollama.shown = shown
    with pytest.raises(RunError, match="made something else of fever") as raised:
        create(ollama, directory)
    assert any(problem.message.startswith(message) for problem in raised.value.problems)
    assert raised.value.hint.startswith("ollama rm fever; ")
    assert "/api/chat" not in ollama.paths()


def test_a_stop_word_that_nobody_asked_for_is_seen(ollama: OllamaDouble, directory: Path) -> None:
    """A built-in template brings its own."""
    (directory / "Modelfile").write_text(
        Modelfile(MODELFILE.gguf, ("<|im_end|>",)).render(), encoding="utf-8"
    )
    ollama.shown = {"parameters": 'stop    "<|im_end|>"\nstop    "[INST]"'}
    with pytest.raises(RunError) as raised:
        create(ollama, directory)
    (problem,) = raised.value.problems
    assert problem.message == 'its stop words are "<|im_end|>", "[INST]" (asked for: "<|im_end|>")'


def test_a_system_prompt_about_renderers_is_no_renderer(
    ollama: OllamaDouble, directory: Path
) -> None:
    modelfile = Modelfile(MODELFILE.gguf, system="Say:\nRENDERER gemma4\n")
    (directory / "Modelfile").write_text(modelfile.render(), encoding="utf-8")
    assert create(ollama, directory).template_seen


def test_a_template_of_the_modelfile_s_own_is_the_one_that_must_be_used(
    ollama: OllamaDouble, directory: Path
) -> None:
    text = MODELFILE.render() + 'TEMPLATE "{{ .Prompt }}!"\n'
    (directory / "Modelfile").write_text(text, encoding="utf-8")
    assert create(ollama, directory).template_seen
    assert ollama.body_of("/api/create")["template"] == "{{ .Prompt }}!"
    ollama.shown = {"template": ollama.template}
    with pytest.raises(RunError, match="made something else"):
        create(ollama, directory)


@pytest.mark.parametrize("version", ["0.29.9", "0.5.12-rc1", "0.6", "unknown"])
def test_a_server_that_is_too_old_is_sent_nothing(
    ollama: OllamaDouble, directory: Path, version: str
) -> None:
    ollama.version = version
    with pytest.raises(UserError, match=f"Ollama {version} at .* is too old") as raised:
        create(ollama, directory)
    assert "ollama.com/download" in raised.value.hint
    assert not ollama.sent


@pytest.mark.parametrize("version", ["0.30.0", "0.30.0-rc2", "0.100.0", "1.0", "v1.2.3"])
def test_a_newer_server_is_good(ollama: OllamaDouble, directory: Path, version: str) -> None:
    ollama.version = version
    assert create(ollama, directory).stopped


def error_line(message: str) -> bytes:
    return to_line({"error": message})


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        ("/api/create", (400, error_line("invalid model name")), "refuses: invalid model name"),
        (
            "/api/create",
            (200, to_line({"status": "parsing GGUF"}) + error_line("no space left")),
            "refuses: no space left",
        ),
        (
            "/api/create",
            (200, to_line({"status": "writing manifest"})),
            "hung up while it made the model; the last it said was `writing manifest`",
        ),
        ("/api/create", (200, b"<html>\n"), "answered something that the client does not"),
        ("/api/create", (200, b"[1]\n"), "answered something that the client does not"),
        ("/api/create", None, "stopped answering"),
        ("/api/show", (404, error_line("model 'fever' not found")), "refuses: model 'fever'"),
        ("/api/show", (200, b"{}"), "answered something that the client does not"),
        ("/api/show", None, "stopped answering"),
        ("/api/chat", (500, error_line("out of memory")), "refuses: out of memory"),
        ("/api/chat", (200, b"[]"), "answered something that the client does not"),
        ("/api/chat", None, "stopped answering"),
    ],
)
def test_a_fault_of_the_server_is_a_failed_run_with_a_hint(
    ollama: OllamaDouble,
    directory: Path,
    path: str,
    answer: tuple[int, bytes] | None,
    message: str,
) -> None:
    ollama.instead[path] = answer
    with pytest.raises(RunError) as raised:
        create(ollama, directory)
    assert f"Ollama 0.34.1 at {ollama.address} {message}" in raised.value.summary
    assert raised.value.hint


def test_a_server_that_is_gone_is_a_failed_run(ollama: OllamaDouble, directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        gone = OllamaServer(f"http://127.0.0.1:{free.getsockname()[1]}", "0.34.1")
    with pytest.raises(RunError, match="stopped answering"):
        create_and_ask(gone, directory, "fever", "Hello?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "Modelfile cannot be read"),
        ("SYSTEM x\n", "no FROM line"),
        ("FROM ./other.gguf\n", "FROM names other.gguf, which is no file beside it"),
        ("FROM ../fever/fever-F32.gguf\n", "which is no file beside it"),
        ("FROM ./fever-F32.gguf\nADAPTER ./a.gguf\nLICENSE MIT\n", "pass on: ADAPTER, LICENSE"),
    ],
)
def test_a_directory_that_does_not_fit_is_refused_before_anything_is_sent(
    ollama: OllamaDouble, directory: Path, text: str | None, message: str
) -> None:
    (directory / "Modelfile").unlink()
    if text is not None:
        (directory / "Modelfile").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        create(ollama, directory)
    assert message in raised.value.summary and raised.value.hint
    assert not ollama.sent


def test_the_lines_to_type_mean_the_same_to_a_shell(tmp_path: Path) -> None:
    made = tmp_path / "my $model's; directory"
    create_line, run_line = lines_to_type(made, "fever")
    said = subprocess.run(
        ["sh", "-c", f"printf '%s|' {create_line}; printf '%s|' {run_line}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split("|")[:-1] == [
        *("ollama", "create", "fever", "-f", str(made / "Modelfile")),
        *("ollama", "run", "fever", "Say hello."),
    ]


def test_a_real_ollama_makes_the_model_and_answers(directory: Path) -> None:
    server = find_server()
    if server is None:
        pytest.skip("no Ollama server answers at OLLAMA_HOST or on this machine")
    import ollama

    name = "llamafarm-test-fever"
    try:
        outcome = create_and_ask(server, directory, name, "Hello?")
    finally:
        with contextlib.suppress(ollama.ResponseError):
            ollama.Client(server.address).delete(name)
    assert outcome.answer or outcome.stopped
