"""Conversations as the text that a model was, or will be, trained on: its chat template, in a
sandbox.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import Any

from llamafarm.data.rows import Message
from llamafarm.errors import DataError, Problem

# Templates that write today's date (Llama 3.1 and later) would give other tokens every day. Their
# own fallback, where the date function is missing, is this day.
TRAINING_DATE = datetime.datetime(2024, 7, 26)
_PROBE_SYSTEM = "Zq7 probe system"
# What templates raise besides Jinja's own errors: they run expressions on their arguments.
_RENDER_FAULTS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class ChatTemplate:
    """One chat template with a tokenizer's special tokens.

    date: what a template that asks for the date is told; None: today.
    """

    def __init__(
        self,
        text: str,
        special_tokens: dict[str, str],
        *,
        date: datetime.datetime | None = None,
    ) -> None:
        if not text.strip():
            raise DataError(
                "the model has no chat template",
                hint=(
                    "give it one in prompt_template.format, e.g. "
                    r'"### Question:\n{instruction}\n\n### Answer:\n{output}"'
                ),
            )
        self.text = text
        self._compiled = _compile(text)
        self._variables: dict[str, Any] = dict(special_tokens)
        if date is not None:
            self._variables["strftime_now"] = date.strftime

    @classmethod
    def for_tokenizer(
        cls, text: str, tokenizer: Any, *, date: datetime.datetime | None = None
    ) -> ChatTemplate:
        """With the special tokens of a Hugging Face tokenizer."""
        tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        return cls(text, tokens, date=date)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation; with add_generation_prompt ready for the assistant's next
        turn.

        Where the template has no place for a system prompt, it stands before the first user turn.
        Raises DataError with the template's own message.
        """
        import jinja2

        try:
            return self._render(self.turns(messages), add_generation_prompt)
        except (jinja2.TemplateError, *_RENDER_FAULTS) as fault:
            raise DataError(
                f"the chat template fails: {fault}",
                hint="check the order of the turns: system, then user and assistant in turn",
            ) from fault

    def turns(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages as the template takes them: a system prompt that it has no place for stands
        before the first question.
        """
        return messages if self.takes_system else _fold_system(messages)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        rendered: str = self._compiled.render(
            messages=[_plain(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._variables,
        )
        return rendered

    @cached_property
    def takes_system(self) -> bool:
        """Whether a system message shows in the text; some templates refuse one, some drop it."""
        import jinja2

        probe = (Message("system", _PROBE_SYSTEM), Message("user", "u"), Message("assistant", "a"))
        try:
            return _PROBE_SYSTEM in self._render(probe, False)
        except (jinja2.TemplateError, *_RENDER_FAULTS):
            return False

    @property
    def writes_date(self) -> bool:
        """Whether the text depends on the day it is made."""
        return "strftime_now" in self.text

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the template's text."""
        return sha256(self.text.encode("utf-8")).hexdigest()


def _compile(text: str) -> Any:
    """Compile with transformers' own environment (sandboxed, immutable): training then renders as
    serving does.
    """
    import jinja2
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        return _compile_jinja_template(text)
    except jinja2.TemplateSyntaxError as fault:
        raise DataError(
            "the chat template is not valid Jinja",
            [Problem(str(fault.message), where=f"chat_template:{fault.lineno}")],
            hint="compare it with the chat_template.jinja of the model's instruct version",
        ) from fault


def _plain(message: Message) -> dict[str, str]:
    apart = {"instruction": message.instruction, "input": message.input}
    fields = {name: text for name, text in apart.items() if text}
    return {"role": str(message.role), "content": message.content, **fields}


def _fold_system(messages: Sequence[Message]) -> Sequence[Message]:
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    turns = [message for message in messages if message.role != "system"]
    first = next((i for i, message in enumerate(turns) if message.role == "user"), None)
    if not system or first is None:
        return turns
    asked = turns[first]
    text = f"{system}\n\n{asked.content}"
    instruction = asked.instruction and f"{system}\n\n{asked.instruction}"
    turns[first] = replace(asked, content=text, instruction=instruction)
    return turns
