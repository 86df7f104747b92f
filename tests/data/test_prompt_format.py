from __future__ import annotations

import pytest

from llamafarm.data.prompt_format import (
    DEFAULT_PROMPT_FORMAT,
    chat_template_from_format,
    is_jinja,
)
from llamafarm.data.rows import Message
from llamafarm.data.templates import ChatTemplate
from llamafarm.errors import StrategyError

ASKED = Message("user", "Translate.\n\nKatze", instruction="Translate.", input="Katze")
PLAIN = Message("user", "Why?")
ANSWER = Message("assistant", "cat")


def _render(text: str, *messages: Message, write_bos: bool = False, prompt: bool = False) -> str:
    template = chat_template_from_format(text, write_bos=write_bos)
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    return ChatTemplate(template, tokens).render(messages, add_generation_prompt=prompt)


def test_fields_are_filled_and_the_end_token_follows_the_answer() -> None:
    assert _render(DEFAULT_PROMPT_FORMAT, ASKED, ANSWER) == (
        "### Instruction:\nTranslate.\n\n### Input:\nKatze\n\n### Response:\ncat</s>"
    )


def test_a_paragraph_about_the_input_is_left_out_without_one() -> None:
    assert _render(DEFAULT_PROMPT_FORMAT, PLAIN, ANSWER) == (
        "### Instruction:\nWhy?\n\n### Response:\ncat</s>"
    )


def test_the_prompt_is_how_the_finished_conversation_begins() -> None:
    turns = (PLAIN, ANSWER, ASKED, ANSWER)
    prompt = _render(DEFAULT_PROMPT_FORMAT, *turns[:3], prompt=True)
    assert prompt.endswith("### Response:\n")
    assert _render(DEFAULT_PROMPT_FORMAT, *turns) == prompt + "cat</s>"


def test_instruction_and_input_may_share_a_paragraph() -> None:
    text = "Q: {instruction} {input}\nA: {output}"
    assert _render(text, PLAIN, ANSWER) == "Q: Why? \nA: cat</s>"
    assert _render(text, ASKED, ANSWER) == "Q: Translate. Katze\nA: cat</s>"


def test_the_system_prompt_has_its_field_or_comes_first() -> None:
    system = Message("system", "Be kind.")
    assert _render("Q: {instruction}\nA:{output}", system, PLAIN, ANSWER, PLAIN, ANSWER) == (
        "Be kind.\n\nQ: Why?\nA:cat</s>\n\nQ: Why?\nA:cat</s>"
    )
    assert _render("[{system}]\n\nQ: {instruction}\nA:{output}", system, PLAIN, ANSWER) == (
        "[Be kind.]\n\nQ: Why?\nA:cat</s>"
    )
    assert (
        _render("[{system}]\n\nQ: {instruction}\nA:{output}", PLAIN, ANSWER) == "Q: Why?\nA:cat</s>"
    )


def test_the_start_token_is_written_when_asked_for() -> None:
    assert _render("Q: {instruction}\nA:{output}", PLAIN, ANSWER, write_bos=True) == (
        "<s>Q: Why?\nA:cat</s>"
    )


def test_text_after_the_answer_comes_before_the_end_token() -> None:
    text = "Q: {instruction}\nA:{output}\n[done]\n"
    assert _render(text, PLAIN, ANSWER) == "Q: Why?\nA:cat\n[done]</s>"


def test_any_character_stands_for_itself() -> None:
    text = "\"q\" 'q' \\ 🤒 ä {x} %} #}\n{instruction}\nA:{output}"
    written = text.replace("{instruction}", "Why?").replace("{output}", "cat</s>")
    assert _render(text, PLAIN, ANSWER) == written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Q: {question}", "{instruction} is missing"),
        ("Q: {question}", "{output} is missing"),
        ("{output} {instruction}", "after the other fields"),
        ("{instruction} {output} {output}", "must stand once"),
    ],
)
def test_a_format_that_cannot_be_a_conversation_is_refused(text: str, said: str) -> None:
    with pytest.raises(StrategyError) as caught:
        chat_template_from_format(text, write_bos=False)
    assert said in caught.value.render()
    assert "prompt_template.format" in caught.value.render()


def test_jinja_is_told_from_a_prompt_format() -> None:
    assert is_jinja("{% for m in messages %}") and is_jinja("{{ messages }}")
    assert not is_jinja(DEFAULT_PROMPT_FORMAT)
