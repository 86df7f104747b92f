"""Whether Ollama made of a Modelfile what it says: its answer to `show`, held against it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llamafarm.errors import Problem
from llamafarm.export.modelfile import Modelfile

if TYPE_CHECKING:
    import ollama

# What Ollama shows for a model that has no template of Ollama's own kind.
_NO_TEMPLATE = ("", "{{ .Prompt }}")
_RENDERER = re.compile(r"^RENDERER (\S+)$", re.MULTILINE)
_SHOWN = 80


def differences(
    shown: ollama.ShowResponse, modelfile: Modelfile, template: str
) -> tuple[Problem, ...]:
    """What the model is that the server holds, where it is not what was asked for.

    template: the chat template that it should use, the Modelfile's or else the GGUF's. A server
    that shows no template at all passes: which one it uses is not known then.
    """
    return (
        *_other_template(shown, modelfile, template),
        *_other_parameters(shown, modelfile),
        *_other_system(shown, modelfile),
    )


def _other_template(
    shown: ollama.ShowResponse, modelfile: Modelfile, template: str
) -> Iterator[Problem]:
    used = shown.template or ""
    if used != template and (modelfile.template or used not in _NO_TEMPLATE):
        yield Problem(f"its chat template is another one: {_short(used)}")
    # The renderer of an architecture goes before any template (gemma4, nemotron_h, …).
    renderer = _RENDERER.search((shown.modelfile or "").replace(modelfile.system, ""))
    if renderer is not None:
        yield Problem(
            f"Ollama's own prompt format for this architecture is used: {renderer[1]}",
            hint="Ollama has no switch for that; llama.cpp uses the template in the GGUF",
        )


def _other_parameters(shown: ollama.ShowResponse, modelfile: Modelfile) -> Iterator[Problem]:
    present = _parameters(shown.parameters or "")
    words = present.pop("stop", [])
    if set(words) != set(modelfile.stop_words):
        asked_words = _listing(modelfile.stop_words)
        yield Problem(f"its stop words are {_listing(words)} (asked for: {asked_words})")
    for name in dict.fromkeys((*modelfile.parameters, *present)):
        asked, found = modelfile.parameters.get(name), present.get(name, [None])[-1]
        if not _same(asked, found):
            yield Problem(f"its {name} is {found} (asked for: {asked})")


def _other_system(shown: ollama.ShowResponse, modelfile: Modelfile) -> Iterator[Problem]:
    if modelfile.system not in (shown.modelfile or ""):
        yield Problem("its system prompt is not the one asked for")


def _parameters(text: str) -> dict[str, list[Any]]:
    """Lines of name, spaces, and the value as Go writes it, which is JSON for what we ask for."""
    found: dict[str, list[Any]] = {}
    for line in filter(None, text.split("\n")):
        name, _, value = line.partition(" ")
        try:
            found.setdefault(name, []).append(json.loads(value))
        except ValueError:
            found.setdefault(name, []).append(value.strip())
    return found


def _same(asked: object, found: object) -> bool:
    """Ollama may keep a number in 32 bits."""
    if isinstance(asked, int | float) and isinstance(found, int | float):
        return math.isclose(asked, found, rel_tol=1e-6)
    return asked == found


def _listing(words: Sequence[object]) -> str:
    return ", ".join(json.dumps(word, ensure_ascii=False) for word in words) or "none"


def _short(text: str) -> str:
    line = " ".join(text.split()) or "none"
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
