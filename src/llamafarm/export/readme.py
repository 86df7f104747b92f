"""README.md of an exported model: what it is, how to run it, what was checked and what was not."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

_ON_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ReadmeFacts:
    """What is known of an export. name: in Ollama; gguf: file name; file_type: llama.cpp's, e.g.
    Q8_0. licence: the base model's, as the Hub writes it (`apache-2.0`); empty where unknown.
    certificate: the parity certificate in one line; empty: none was made. ollama: what was seen in
    Ollama, in one line; empty: it was not run. modelfile: whether there is one; system: the system
    prompt in it.
    """

    name: str
    gguf: str
    file_type: str
    base_model: str
    licence: str = ""
    certificate: str = ""
    ollama: str = ""
    modelfile: bool = True
    system: str = ""


def readme(facts: ReadmeFacts) -> str:
    """The whole file: front matter of a Hugging Face model card, then the text."""
    parts = [
        _front_matter(facts),
        f"# {facts.name}",
        "A model fine-tuned with LlamaFarm: one GGUF file with its tokenizer and chat template.",
        _table(facts),
        *([_with_ollama(facts)] if facts.modelfile else []),
        _with_llama_cpp(facts),
        _checks(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: ReadmeFacts) -> str:
    lines = ["---"]
    # A path of this machine means nothing to the Hub, which makes a link of it.
    if _ON_THE_HUB.fullmatch(facts.base_model):
        lines.append(f"base_model: {json.dumps(facts.base_model)}")
    if facts.licence:
        lines.append(f"license: {json.dumps(facts.licence)}")
    lines += ["library_name: gguf", "pipeline_tag: text-generation"]
    return "\n".join([*lines, "tags:", "- gguf", "- llamafarm", "---"])


def _table(facts: ReadmeFacts) -> str:
    rows = [
        ("base model", f"`{facts.base_model}`" if facts.base_model else "not known"),
        ("licence of the base model", facts.licence or "not known: look at its page"),
        ("file", f"`{facts.gguf}`"),
        ("type", facts.file_type),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _with_ollama(facts: ReadmeFacts) -> str:
    name = shlex.quote(facts.name)
    return _section(
        "Run it in Ollama",
        "In this directory, with Ollama 0.30 or later:",
        _shell(f"ollama create {name} -f Modelfile", f'ollama run {name} "Say hello."'),
    )


def _with_llama_cpp(facts: ReadmeFacts) -> str:
    command = f"llama-cli -m {shlex.quote(facts.gguf)}"
    if not facts.system:
        return _section("Run it in llama.cpp", _shell(command))
    return _section(
        "Run it in llama.cpp",
        "llama.cpp does not read the Modelfile, so the system prompt is given here:",
        _shell(f"{command} -sys {shlex.quote(facts.system)}"),
    )


def _checks(facts: ReadmeFacts) -> str:
    done = [facts.certificate, facts.ollama]
    not_done = []
    if not facts.certificate:
        not_done.append("The file was not compared with the model that was trained.")
    if facts.modelfile and not facts.ollama:
        not_done.append("Ollama itself was not run: no server answered when this was made.")
    not_done.append("Whether its answers are true or safe.")
    parts = [_section("What was checked", _list(list(filter(None, done))))] if any(done) else []
    return "\n\n".join([*parts, _section("What was not checked", _list(not_done))])


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"## {title}", *parts])


def _shell(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
