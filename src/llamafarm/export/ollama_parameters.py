"""The parameters of a Modelfile: which there are, and of which kind (Ollama's api/types.go)."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping

ParameterValue = float | int | str | bool | tuple[str, ...]
Setting = int | float | bool

_KINDS: Mapping[str, type[Setting]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repeat_penalty": float,
    "repeat_last_n": int,
    "presence_penalty": float,
    "frequency_penalty": float,
    "num_predict": int,
    "num_ctx": int,
    "num_keep": int,
    "seed": int,
    "num_batch": int,
    "num_gpu": int,
    "num_thread": int,
    "main_gpu": int,
    "use_mmap": bool,
    "draft_num_predict": int,
}
# Ollama passes over these with a warning.
GONE = frozenset(
    {
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
    }
)
_NAMES_ELSEWHERE = {
    "max_tokens": "num_predict",
    "max_new_tokens": "num_predict",
    "max_length": "num_predict",
    "repetition_penalty": "repeat_penalty",
    "context_length": "num_ctx",
    "stop_sequences": "stop",
}
_TRUTHS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
_KIND_WORDS = {int: "a whole number", float: "a number", bool: "true or false"}


def read_setting(name: str, value: ParameterValue) -> Setting:
    """The value in the kind that Ollama wants; a text is read as in a Modelfile.

    Raises ValueError with what is wrong: no such parameter, or not such a value.
    """
    kind = _KINDS.get(name)
    if kind is None:
        gone = name in GONE or name == "typical_p"
        raise ValueError(f"Ollama {'no longer has' if gone else 'does not have'} this parameter")
    setting = _number(value) if kind is not bool else _truth(value)
    if setting is None or (kind is int and not isinstance(setting, int)):
        raise ValueError(f"it is {_KIND_WORDS[kind]} (got {value!r})")
    return kind(setting)


def parameter_hint(name: str) -> str:
    """What to write instead of a parameter that there is not, or with which kind of value."""
    if name in _KINDS:
        return f"{name}: {_KIND_WORDS[_KINDS[name]]}"
    known = (*_KINDS, "stop")
    near = [_NAMES_ELSEWHERE[name]] if name in _NAMES_ELSEWHERE else []
    near = near or difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(known)}"


def _truth(value: ParameterValue) -> bool | None:
    return value if isinstance(value, bool) else _TRUTHS.get(str(value).lower())


def _number(value: ParameterValue) -> float | int | None:
    """None when it is not a finite number."""
    if isinstance(value, bool | tuple):
        return None
    if isinstance(value, str):
        if re.fullmatch(r"[-+]?\d+", value, re.ASCII):
            return int(value)
        try:
            value = float(value)
        except ValueError:
            return None
    return value if math.isfinite(value) else None
