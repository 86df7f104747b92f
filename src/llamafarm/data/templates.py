"""Conversations as the text that a model was, or will be, trained on: its chat template, in a
sandbox.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import Any

from llamafarm.data.rows import Message, ToolCall
from llamafarm.data.template_messages import SPELLINGS, CallSpelling, template_messages
from llamafarm.errors import DataError, Problem

# Templates that write today's date (Llama 3.1 and later) would give other tokens every day. Their
# own fallback, where the date function is missing, is this day.
TRAINING_DATE = datetime.datetime(2024, 7, 26)
_OTHER_TEMPLATE = "compare it with the chat_template.jinja of the model's instruct version"
_PROBE_SYSTEM = "Zq7 probe system"
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "zq7_tool",
        "description": "Zq7 probe",
        "parameters": {
            "type": "object",
            "properties": {"zq7_key": {"type": "string", "description": "Zq7 probe"}},
            "required": ["zq7_key"],
        },
    },
}
_PROBE_ASKED = Message("user", "u")
_PROBE_CALL = Message("assistant", "", tool_calls=(ToolCall("zq7_tool", {"zq7_key": "zq7_said"}),))
_PROBE_CALLS = Message(
    "assistant",
    "",
    tool_calls=(*_PROBE_CALL.tool_calls, ToolCall("zq7_tool", {"zq7_key": "zq7_more"})),
)
_PROBE_SPOKEN_CALL = replace(_PROBE_CALL, content="zq7_words")
_PROBE_ANSWERS = (Message("tool", "zq7_found"), Message("assistant", "a"))


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
        self._variables: dict[str, Any] = {**self._compiled.globals, **special_tokens}
        if date is not None:
            self._variables["strftime_now"] = date.strftime
        self._variables["documents"] = None

    @classmethod
    def for_tokenizer(
        cls, text: str, tokenizer: Any, *, date: datetime.datetime | None = None
    ) -> ChatTemplate:
        """With the special tokens of a Hugging Face tokenizer."""
        tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        return cls(text, tokens, date=date)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of a conversation; with add_generation_prompt ready for the assistant's next
        turn.

        Where the template has no place for a system prompt, it stands before the first user turn.
        Raises DataError with the template's own message, or where it has no place for tools.
        """
        spelling = self._checked_spelling(messages, tools)
        try:
            return self._render(self.turns(messages), add_generation_prompt, tools, spelling)
        except _limit_fault() as fault:
            raise _without_end(fault) from fault
        except _render_faults() as fault:
            raise DataError(
                f"the chat template fails: {fault}",
                hint="check the order of the turns: system, then user and assistant in turn",
            ) from fault

    def renderer(
        self, tools: Sequence[Mapping[str, object]] = ()
    ) -> Callable[[Sequence[Message], bool], str]:
        """render() for conversations with these tools, as `mask.answer_spans` wants it."""
        return lambda messages, prompt: self.render(
            messages, tools=tools, add_generation_prompt=prompt
        )

    def turns(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages as the template takes them: a system prompt that it has no place for stands
        before the first question.
        """
        return messages if self.takes_system else _fold_system(messages)

    def _checked_spelling(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]]
    ) -> CallSpelling:
        """How calls are to be written. Raises DataError for what the template would leave out."""
        if tools and not self.writes_tools:
            raise _no_place("the descriptions of tools")
        has_calls = answers_call = False
        said = (i for i in reversed(range(len(messages))) if _only_speaks(messages[i]))
        last_said = next(said, -1)
        for i, message in enumerate(messages):
            if message.tool_calls:
                has_calls = answers_call = True
                self._check_calls(message, answered=i < last_said)
            elif message.role != "tool":
                answers_call = False
            elif not answers_call and not self.writes_tool_answers:
                raise _no_place("the answers of tools")
        return (has_calls and self.call_spelling) or SPELLINGS[0]

    def _check_calls(self, message: Message, *, answered: bool) -> None:
        """answered: whether the assistant says something after these calls."""
        if self.call_spelling is None:
            raise _no_place("tool calls")
        if len(message.tool_calls) > 1 and not self.writes_several_calls:
            hint = "give each call a turn of its own, with the tool's answer behind it"
            raise _no_place("several tool calls in one turn", hint)
        if not message.content.strip():
            return
        if not (self.writes_words_of_earlier_calls if answered else self.writes_words_of_calls):
            hint = "leave the words out of the turn that calls"
            raise _no_place("words beside a tool call", hint)

    def _render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, object]] = (),
        spelling: CallSpelling = SPELLINGS[0],
    ) -> str:
        variables = {
            **self._variables,
            "messages": template_messages(messages, spelling),
            "tools": list(tools) or None,
            "add_generation_prompt": add_generation_prompt,
        }
        # What Template.render does, without copying the variables twice: every row comes here.
        template = self._compiled
        environment = template.environment
        context = environment.context_class(environment, variables, template.name, template.blocks)
        text: str = context.text(template.root_render_func(context))
        return text

    def _probe(
        self,
        *messages: Message,
        tools: Sequence[Mapping[str, object]] = (),
        spelling: CallSpelling = SPELLINGS[0],
    ) -> str:
        """What the template writes; nothing where it refuses. Raises DataError where it would not
        end: every probe would take as long.
        """
        try:
            return self._render(messages, False, tools, spelling)
        except _limit_fault() as fault:
            raise _without_end(fault) from fault
        except _render_faults():
            return ""

    @cached_property
    def takes_system(self) -> bool:
        """Whether a system message shows in the text; some templates refuse one, some drop it."""
        system, answer = Message("system", _PROBE_SYSTEM), Message("assistant", "a")
        return _PROBE_SYSTEM in self._probe(system, _PROBE_ASKED, answer)

    @cached_property
    def writes_tools(self) -> bool:
        """Whether descriptions of tools show in the text."""
        text = self._probe(_PROBE_ASKED, Message("assistant", "a"), tools=[_PROBE_TOOL])
        return "zq7_tool" in text and "zq7_key" in text

    @cached_property
    def writes_tool_answers(self) -> bool:
        """Whether a tool's turn shows in the text where no turn that calls stands before it."""
        text = self._probe(_PROBE_ASKED, Message("assistant", "a"), *_PROBE_ANSWERS)
        return "zq7_found" in text

    @cached_property
    def call_spelling(self) -> CallSpelling | None:
        """The spelling in which tool calls and their answers show in the text; None: in none."""
        return next((spelling for spelling in SPELLINGS if self._writes_calls(spelling)), None)

    def _writes_calls(self, spelling: CallSpelling) -> bool:
        text = self._probe(_PROBE_ASKED, _PROBE_CALL, *_PROBE_ANSWERS, spelling=spelling)
        written = all(part in text for part in ("zq7_tool", "zq7_key", "zq7_said", "zq7_found"))
        return written and "None" not in text

    @cached_property
    def writes_several_calls(self) -> bool:
        """Whether all calls of a turn show in the text, with their answers."""
        answers = (_PROBE_ANSWERS[0], Message("tool", "zq7_late"), _PROBE_ANSWERS[1])
        text = self._probe_calls(_PROBE_CALLS, *answers)
        return all(part in text for part in ("zq7_said", "zq7_more", "zq7_found", "zq7_late"))

    @cached_property
    def writes_words_of_calls(self) -> bool:
        """Whether words beside a call show in the text where the call is the last that is said."""
        return "zq7_words" in self._probe_calls(_PROBE_SPOKEN_CALL)

    @cached_property
    def writes_words_of_earlier_calls(self) -> bool:
        """Whether they show where the assistant answers later on: some templates take them for
        reasoning, which they leave out then.
        """
        return "zq7_words" in self._probe_calls(_PROBE_SPOKEN_CALL, *_PROBE_ANSWERS)

    def _probe_calls(self, *messages: Message) -> str:
        spelling = self.call_spelling or SPELLINGS[0]
        return self._probe(_PROBE_ASKED, *messages, spelling=spelling)

    @property
    def writes_date(self) -> bool:
        """Whether the text depends on the day it is made."""
        return "strftime_now" in self.text

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the template's text."""
        return sha256(self.text.encode("utf-8")).hexdigest()


def _compile(text: str) -> Any:
    """Compile with transformers' own environment (sandboxed, immutable), in bounds: training then
    renders as serving does.
    """
    import jinja2
    from transformers.utils.chat_template_utils import _compile_jinja_template

    from llamafarm.data.template_sandbox import MAX_TEMPLATE_CHARACTERS, BoundedEnvironment

    if len(text) > MAX_TEMPLATE_CHARACTERS:
        raise DataError(
            f"the chat template has {len(text):,} characters, more than "
            f"{MAX_TEMPLATE_CHARACTERS:,}",
            hint=_OTHER_TEMPLATE,
        )
    try:
        return BoundedEnvironment(_compile_jinja_template("").environment).from_string(text)
    except jinja2.TemplateSyntaxError as fault:
        raise DataError(
            "the chat template is not valid Jinja",
            [Problem(str(fault.message), where=f"chat_template:{fault.lineno}")],
            hint=_OTHER_TEMPLATE,
        ) from fault
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as fault:
        # What jinja2 and Python's compiler say of nesting and numbers that are too large for them.
        raise DataError(
            f"the chat template cannot be compiled: {fault or type(fault).__name__}",
            hint=_OTHER_TEMPLATE,
        ) from fault


def _limit_fault() -> type[Exception]:
    from llamafarm.data.template_sandbox import TemplateLimitError

    return TemplateLimitError


def _without_end(fault: Exception) -> DataError:
    return DataError(f"the chat template goes beyond its bounds: {fault}", hint=_OTHER_TEMPLATE)


def _render_faults() -> tuple[type[Exception], ...]:
    """Jinja's own errors, and others: templates run expressions on their arguments."""
    import jinja2

    return (
        jinja2.TemplateError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    )


def _only_speaks(turn: Message) -> bool:
    return turn.role == "assistant" and not turn.tool_calls


def _no_place(what: str, otherwise: str = "") -> DataError:
    """otherwise: how the row can be changed instead."""
    hint = "train a model whose template writes them, or give one in prompt_template.format"
    return DataError(
        f"the model's chat template has no place for {what}",
        hint=f"{otherwise}; or {hint}" if otherwise else hint,
    )


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
