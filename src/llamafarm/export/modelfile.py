"""The Modelfile: what `ollama create` is told of a GGUF file. Written here, and read back.

Reading follows Ollama's own parser (parser/parser.go), odd as it is: a quoted value ends at the
first end of a line where the closing quotes stand, nothing is escaped, and characters that Go does
not call printable are dropped. So every text is read back before it is written, and one that would
come out changed is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llamafarm.errors import Problem, StrategyError, UserError
from llamafarm.export.ollama_parameters import (
    GONE,
    ParameterValue,
    Setting,
    parameter_hint,
    read_setting,
)

# The first version that renders the template inside the GGUF, by llama.cpp's server.
REQUIRES = "0.30.0"
_INSTRUCTIONS = (
    "FROM",
    "LICENSE",
    "TEMPLATE",
    "SYSTEM",
    "ADAPTER",
    "DRAFT",
    "RENDERER",
    "PARSER",
    "PARAMETER",
    "MESSAGE",
    "REQUIRES",
)
_BLOCK = ('"""', '"')
_INLINE = ('"', '"""')
_WAYS_OUT = "leave it out of the text, or give the text to Ollama with each request"
_BETWEEN = re.compile(r"(?:[ \t\r\n]+|#[^\r\n]*)*")
_WORD = re.compile(r"([A-Za-z]+)[ \t]")
_KEY = re.compile(r"(\w*)[ \t]", re.ASCII)
_NEWLINE = re.compile(r"[\r\n]")


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What a Modelfile says. gguf: the file's name, beside the Modelfile (or whatever else FROM
    names, in one that was read). parameters: by Ollama's names, without `stop`. template: a prompt
    format of Ollama's (Go) in place of the one in the GGUF; empty where the GGUF's own is used, as
    in every Modelfile that llamafarm makes. others: what it says besides, as written instruction
    and value (`LICENSE`, `MESSAGE user`, …).
    """

    gguf: str
    stop_words: tuple[str, ...] = ()
    system: str = ""
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    template: str = ""
    requires: str = REQUIRES
    others: tuple[tuple[str, str], ...] = ()

    def render(self) -> str:
        """The text of the file. Raises UserError for a text that Ollama would read otherwise."""
        beside = "./" if self.gguf.endswith(".gguf") and "/" not in self.gguf else ""
        lines = [f"FROM {beside}{self.gguf}", "", *self._template_lines(), ""]
        lines += [f"PARAMETER stop {_quoted(word, 'the stop word')}" for word in self.stop_words]
        lines += [f"PARAMETER {name} {_written(value)}" for name, value in self.parameters.items()]
        if self.system:
            lines.append(f"SYSTEM {_quoted(self.system, 'the system prompt', _BLOCK)}")
        lines += [f"{name} {_quoted(value, name)}" for name, value in self.others]
        return "\n".join(lines).rstrip() + "\n"

    def _template_lines(self) -> list[str]:
        requires = [f"REQUIRES {self.requires}"] if self.requires else []
        if self.template:
            return [*requires, f"TEMPLATE {_quoted(self.template, 'TEMPLATE', _BLOCK)}"]
        return [
            "# No TEMPLATE: the GGUF holds the chat template that the model was trained with, and",
            f"# Ollama {REQUIRES} and later renders that one itself. A TEMPLATE would replace it.",
            *requires,
        ]


def new_modelfile(
    gguf: str,
    *,
    stop_words: Sequence[str],
    system: str = "",
    asked: Mapping[str, ParameterValue],
) -> Modelfile:
    """The Modelfile of a new export. asked: the strategy's `export.ollama_parameters`, the only
    parameters that are written beside the stop words; its `stop` adds to those.

    Raises StrategyError with every parameter that Ollama does not have, or not with such a value.
    """
    words = list(stop_words)
    parameters: dict[str, Setting] = {}
    problems = []
    for name, value in asked.items():
        if name == "stop":
            words += [str(word) for word in (value if isinstance(value, tuple) else (value,))]
            continue
        try:
            parameters[name] = read_setting(name, value)
        except ValueError as fault:
            path = f"export.ollama_parameters.{name}"
            problems.append(Problem(str(fault), path=path, hint=parameter_hint(name)))
    if problems:
        raise StrategyError("the Modelfile cannot be written", problems)
    return Modelfile(gguf, tuple(dict.fromkeys(words)), system, parameters)


def parse_modelfile(text: str) -> Modelfile:
    """What Ollama would read in it. Raises UserError with the line of the first fault."""
    found = {"FROM": "", "SYSTEM": "", "TEMPLATE": "", "REQUIRES": ""}
    words: list[str] = []
    parameters: dict[str, Setting] = {}
    others: list[tuple[str, str]] = []
    for line, name, key, value in _instructions(text):
        if name == "PARAMETER" and key == "stop":
            words.append(value)
        elif name == "PARAMETER" and key not in GONE:
            try:
                parameters[key] = read_setting(key, value)
            except ValueError as fault:
                raise _fault(line, f"PARAMETER {key}: {fault}", parameter_hint(key)) from fault
        elif name in found and not (name == "FROM" and found["FROM"]):
            found[name] = value
        else:
            others.append((f"{name} {key}".rstrip(), value))
    if not found["FROM"]:
        raise UserError("the Modelfile has no FROM line", hint="FROM ./NAME.gguf")
    return Modelfile(
        found["FROM"].removeprefix("./"),
        tuple(dict.fromkeys(words)),
        found["SYSTEM"],
        parameters,
        found["TEMPLATE"],
        found["REQUIRES"],
        tuple(others),
    )


def _instructions(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Line number, name in capitals, the parameter's name or the message's role, and the value."""
    text = "".join(filter(_survives, text))
    position = _after_match(_BETWEEN, text, 0)
    while position < len(text):
        line = len(re.findall(r"\r\n?|\n", text[:position])) + 1
        word = _WORD.match(text, position)
        name = word[1].upper() if word else ""
        if word is None or name not in _INSTRUCTIONS:
            found = re.split(r"\s", text[position:], maxsplit=1)[0]
            allowed = ", ".join(_INSTRUCTIONS)
            raise _fault(line, f"`{found}` is not an instruction", f"there are: {allowed}")
        start, key = word.end(), ""
        if name in ("PARAMETER", "MESSAGE"):
            named = _KEY.match(text, start)
            if named is None:
                raise _fault(line, f"{name} without a value", f"{name} NAME VALUE")
            start, key = named.end(), named[1]
        read = _value(text, start)
        if read is None:
            raise _fault(line, f"the quotes of {name} are not closed", "close them at a line's end")
        yield line, name, key, read[1]
        position = _after_match(_BETWEEN, text, read[0])


def _value(text: str, start: int) -> tuple[int, str] | None:
    """Where a value ends that starts here, and what it is; None when it does not end."""
    for newline in _NEWLINE.finditer(text, start):
        value = _unquoted(text[start : newline.start()].strip())
        if value is not None:
            return newline.end(), value
    value = _unquoted(text[start:].strip())
    return None if value is None else (len(text), value)


def _unquoted(text: str) -> str | None:
    """None when the quotes are open."""
    for mark in ('"""', '"'):
        if text.startswith(mark):
            closed = len(text) >= 2 * len(mark) and text.endswith(mark)
            return text[len(mark) : -len(mark)] if closed else None
    return text


def _quoted(text: str, what: str, marks: tuple[str, ...] = _INLINE) -> str:
    """In the first quotes in which Ollama reads the same text."""
    for mark in marks:
        written = f"{mark}{text}{mark}"
        read = "".join(filter(_survives, written)) + "\n"
        if text and _value(read, 0) == (len(read), text):
            return written
    raise UserError(f"{what} cannot stand in a Modelfile: {_why_not(text)}", hint=_WAYS_OUT)


def _why_not(text: str) -> str:
    if not text:
        return "it is empty"
    dropped = next((c for c in text if not _survives(c)), None)
    if dropped is None:
        return 'Ollama takes `"""` at the end of a line for the end of the text'
    name = unicodedata.name(dropped, "a control character").lower()
    return f"Ollama drops U+{ord(dropped):04X} ({name}) when it reads one"


def _survives(character: str) -> bool:
    """Whether Ollama keeps it: white space of a text file, and what Go calls printable."""
    return character in " \t\r\n" or unicodedata.category(character)[0] in "LMNPS"


def _written(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _after_match(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return match.end() if match else start


def _fault(line: int, message: str, hint: str) -> UserError:
    return UserError(f"Modelfile:{line}: {message}", hint=hint)
