"""Names of what is exported.

A model's name names its file as well, so it is one part of what Ollama calls a name: letters,
digits, `-`, `_` and `.`, at most 80 of them. A namespace or a tag (`me/NAME:v2`) is given to the
finished model: `ollama cp NAME me/NAME:v2`.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

from llamafarm.errors import OutputError

_LONGEST = 80
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.))*")
_NAMELESS = "model"
_SHOWN = 60


def model_name(target: Path, given: str | None) -> str:
    """The name asked for, or else that of the target directory made into one.

    Raises OutputError when the name asked for is not one.
    """
    if given is None:
        # `.` and `..` have no last part of their own.
        return _made_into_name(Path(os.path.abspath(target)).name)  # noqa: PTH100
    fault = _fault(given)
    if fault:
        raise OutputError(
            f"{_shown(given)} cannot be the name of a model: {fault}", hint=_hint(given)
        )
    return given


def gguf_file_name(name: str, file_type: str) -> str:
    """`my-model-Q8_0.gguf`, as llama.cpp's own files are called."""
    return f"{name}-{file_type.upper()}.gguf"


def _made_into_name(text: str) -> str:
    """The nearest name: accents go, runs of what is not allowed become one `-`."""
    if not _fault(text):
        return text
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    joined = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)
    single = re.sub(r"\.{2,}", ".", joined).strip("-_.")
    return single[:_LONGEST].rstrip("-_.") or _NAMELESS


def _fault(name: str) -> str:
    """What is wrong with it, in words; empty when it is a name."""
    if not name:
        return "it is empty"
    if len(name) > _LONGEST:
        return f"it has {len(name):,} characters; {_LONGEST} are allowed"
    if _NAME.fullmatch(name):
        return ""
    if ".." in name:
        return "it holds `..`"
    strange = re.findall(r"[^A-Za-z0-9._-]", name)
    if strange:
        listed = " ".join(_shown(character) for character in dict.fromkeys(strange))
        return f"it holds {listed}; letters, digits, `-`, `_` and `.` are allowed"
    return f"it starts with `{name[0]}`; the first character is a letter or a digit"


def _hint(name: str) -> str:
    near = _made_into_name(name)
    if "/" in name or ":" in name:
        near = _made_into_name(re.split(r":(?!.*/)", name)[0].rsplit("/", 1)[-1])
        return (
            f"--name {near}; a namespace or a tag is given afterwards, to the finished model: "
            "`ollama cp`"
        )
    return f"--name {near}"


def _shown(text: str) -> str:
    """In quotes, cut, and with control characters written out."""
    return json.dumps(text if len(text) <= _SHOWN else text[:_SHOWN] + "…", ensure_ascii=False)
