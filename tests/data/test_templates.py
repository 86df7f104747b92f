from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest

from llamafarm.data.rows import Message
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.errors import DataError

from .chat_families import FAMILIES, MULTI, SINGLE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BY_NAME = {family.name: family for family in FAMILIES}
ECHO = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def _template(text: str, **special: str) -> ChatTemplate:
    return ChatTemplate(text, special)


def test_the_text_is_what_transformers_itself_renders(
    smollm2_tokenizer: PreTrainedTokenizerFast,
) -> None:
    ours = ChatTemplate.for_tokenizer(smollm2_tokenizer.chat_template, smollm2_tokenizer)
    chat = [{"role": m.role, "content": m.content} for m in MULTI]
    for turns, messages, prompt in ((chat, MULTI, False), (chat[:2], MULTI[:2], True)):
        theirs = smollm2_tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=prompt
        )
        assert ours.render(messages, add_generation_prompt=prompt) == theirs


def test_blocks_are_trimmed_and_loop_controls_known() -> None:
    text = (
        "{% for m in messages %}\n  {% if loop.index > 1 %}\n    {% break %}\n  {% endif %}\n"
        "{{ m.content }}\n{% endfor %}"
    )
    assert _template(text).render(SINGLE) == "What is a fever?\n"


def test_json_is_written_without_html_escapes() -> None:
    assert _template("{{ messages[0] | tojson }}").render((Message("user", "a < ä"),)) == (
        '{"role": "user", "content": "a < ä"}'
    )


def test_special_tokens_of_the_tokenizer_are_known() -> None:
    assert _template("{{ bos_token }}|{{ eos_token }}", bos_token="<s>", eos_token="</s>").render(
        SINGLE
    ) == ("<s>|</s>")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_missing_template_says_how_to_give_one(text: str) -> None:
    with pytest.raises(DataError) as caught:
        _template(text)
    assert "prompt_template.format" in caught.value.hint


def test_a_broken_template_is_refused_with_its_line() -> None:
    with pytest.raises(DataError) as caught:
        _template("line one\n{% for m in messages %}\n{{ m.content }")
    assert "chat_template:3" in caught.value.render()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ raise_exception('roles must take turns') }}", "roles must take turns"),
        ("{{ messages[0].content + 5 }}", "concatenate"),
        ("{{ messages[9].content.upper() }}", "has no element 9"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{{ 1 / 0 }}", "zero"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_an_error_with_its_words(
    text: str, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        _template(text).render(SINGLE)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_a_system_prompt_without_a_place_stands_before_the_first_question(name: str) -> None:
    template = _template(BY_NAME[name].template, bos_token="<s>", eos_token="</s>")
    assert not template.takes_system
    text = template.render(MULTI)
    assert "Be brief.\n\nIs 39 °C a fever?" in text
    assert text.count("Be brief.") == 1


def test_a_system_prompt_with_a_place_keeps_it() -> None:
    assert _template(ECHO).takes_system
    assert _template(ECHO).render(MULTI).startswith("system: Be brief.\nuser: Is 39")


def test_folding_keeps_instruction_and_input_in_step() -> None:
    text = (
        "{% for m in messages if m.role == 'user' %}{{ m.instruction }}|{{ m.input }}{% endfor %}"
    )
    messages = (Message("system", "S"), Message("user", "a\n\nb", instruction="a", input="b"))
    assert _template(text).render(messages) == "S\n\na|b"


def test_a_template_that_writes_the_date_can_be_told_one() -> None:
    text = "{{ strftime_now('%d %b %Y') }}"
    dated = ChatTemplate(text, {}, date=TRAINING_DATE)
    assert dated.writes_date
    assert dated.render(SINGLE) == "26 Jul 2024"
    today = f"{datetime.datetime.now():%Y}"
    assert today in _template(text).render(SINGLE)
    assert not _template(ECHO).writes_date
