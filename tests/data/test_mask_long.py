"""Long conversations: answers that are looked for, not rendered one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data import mask
from llamafarm.data.mask import AnswerSpan, answer_spans
from llamafarm.data.rows import Message, ToolCall
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate

from .chat_families import FAMILIES, REAL_FAMILIES, Family, RealFamily

ALL = (*FAMILIES, *REAL_FAMILIES)
QUOTES = ("<|im_start|>assistant\na<|im_end|>\n", "[/INST] a</s>", "### Response:\na")
SAID = st.sampled_from(
    ("a", "b", " a ", "a\n\nb", "user", "🤒 é", "<think>\nc\n</think>\n\na", *QUOTES)
)
SYSTEM = Message("system", "Be brief.")


def _template(family: Family | RealFamily) -> ChatTemplate:
    tokens = {"bos_token": family.tokens.bos, "eos_token": family.tokens.eos}
    return ChatTemplate(family.template, tokens, date=TRAINING_DATE)


def _each_rendered(
    render: mask.Render, messages: Sequence[Message]
) -> tuple[str, tuple[AnswerSpan, ...]]:
    text = render(messages, False)
    learnt = [i for i, m in enumerate(messages) if m.role == "assistant" and m.trained]
    return text, tuple(mask._answer_span(render, messages, i, text) for i in learnt)


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
@settings(deadline=None, max_examples=6)
@given(
    said=st.lists(st.tuples(SAID, SAID, st.booleans()), min_size=10, max_size=16),
    system=st.booleans(),
)
def test_answers_stand_where_rendering_each_prompt_finds_them(
    family: Family | RealFamily, said: list[tuple[str, str, bool]], system: bool
) -> None:
    turns = [SYSTEM] if system else []
    for question, answer, trained in said:
        turns += [Message("user", question), Message("assistant", answer, trained=trained)]
    render = _template(family).renderer()
    assert answer_spans(render, turns) == _each_rendered(render, turns)


def test_white_space_at_the_end_of_a_late_answer_is_not_taken_for_what_follows_it() -> None:
    render = _template(next(family for family in FAMILIES if family.name == "bare")).renderer()
    said = [*(["a"] * 9), "a line\n", "a"]
    turns = [turn for text in said for turn in (Message("user", "a"), Message("assistant", text))]
    assert answer_spans(render, turns) == _each_rendered(render, turns)


def _counted(turns: Sequence[Message]) -> tuple[tuple[AnswerSpan, ...], int]:
    """Spans of a plain template, and how many turns were rendered for them."""
    rendered = 0

    def render(messages: Sequence[Message], prompt: bool) -> str:
        nonlocal rendered
        rendered += len(messages)
        text = "".join(f"<|{m.role}|>{m.content}{m.tool_calls or ''}<|end|>" for m in messages)
        return text + ("<|assistant|>" if prompt else "")

    return answer_spans(render, turns)[1], rendered


def _long(answers: int) -> list[Message]:
    pairs = [
        (Message("user", f"{n}?"), Message("assistant", f"It is {n}.")) for n in range(answers)
    ]
    return [turn for pair in pairs for turn in pair]


def test_twice_as_many_turns_take_twice_as_much_rendering() -> None:
    spans, once = _counted(_long(200))
    _, twice = _counted(_long(400))
    assert len(spans) == 200
    assert all(span.exact for span in spans)
    assert twice < 2.1 * once


def test_a_call_in_a_long_conversation_is_rendered() -> None:
    calls = (ToolCall("clock", {}),)
    turns = [*_long(12), Message("user", "?"), Message("assistant", "", tool_calls=calls)]
    turns += [Message("tool", "It is 3."), Message("assistant", "It is 3."), *_long(2)]
    spans, _ = _counted(turns)
    text = "".join(f"<|{m.role}|>{m.content}{m.tool_calls or ''}<|end|>" for m in turns)
    answers = [m for m in turns if m.role == "assistant"]
    assert [text[s.start : s.end] for s in spans] == [
        f"{m.content}{m.tool_calls or ''}<|end|>" for m in answers
    ]
