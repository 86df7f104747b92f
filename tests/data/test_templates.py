from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llamafarm.data.prompt_format import DEFAULT_PROMPT_FORMAT, chat_template_from_format
from llamafarm.data.rows import Message, ToolCall
from llamafarm.data.template_messages import CallSpelling
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.errors import DataError

from .chat_families import (
    FAMILIES,
    MULTI,
    REAL_FAMILIES,
    SINGLE,
    TOOLS,
    RealFamily,
    family_tokenizer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BY_NAME = {family.name: family for family in FAMILIES}
CALL = ToolCall("get_weather", {"city": "Rome"}, "c1")
TURNS = (
    Message("user", "Warm in Rome?"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", "12", name="get_weather"),
    Message("assistant", "No."),
)
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


@pytest.mark.parametrize("family", [f for f in REAL_FAMILIES if f.calls], ids=lambda f: f.name)
def test_tools_and_calls_are_written_as_transformers_itself_writes_them(
    family: RealFamily, smollm2_tokenizer_dir: Path
) -> None:
    tokenizer = family_tokenizer(family, smollm2_tokenizer_dir)
    template = ChatTemplate.for_tokenizer(family.template, tokenizer)
    spelling = template.call_spelling
    assert spelling is not None and not spelling.flat and not spelling.text_arguments
    function = {"name": CALL.name, "arguments": dict(CALL.arguments)}
    calling = {
        "role": "assistant",
        "content": "" if spelling.blank_content else None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
    found = {"role": "tool", "content": "12", "name": "get_weather", "tool_call_id": "c1"}
    chat = [
        {"role": "user", "content": "Warm in Rome?"},
        calling,
        found,
        {"role": "assistant", "content": "No."},
    ]
    for turns, prompt in ((4, False), (3, True), (2, False), (1, True)):
        theirs = tokenizer.apply_chat_template(
            chat[:turns],
            tools=list(TOOLS),
            chat_template=family.template,
            tokenize=False,
            add_generation_prompt=prompt,
        )
        ours = template.render(TURNS[:turns], tools=TOOLS, add_generation_prompt=prompt)
        assert ours == theirs


CALLS = "{% for c in m.tool_calls %}[CALL]{% endfor %}"


@pytest.mark.parametrize(
    ("written", "spelling"),
    [
        ("{{ c.function.name }}{{ c.function.arguments | tojson }}", CallSpelling()),
        ("{{ c.function.name + c.function.arguments }}", CallSpelling(text_arguments=True)),
        ("{{ c.name }}{{ c.arguments | tojson }}", CallSpelling(flat=True)),
        (
            "{{ c.function | tojson if c.id | default('') | length == 9 else 1 / 0 }}",
            CallSpelling(short_ids=True),
        ),
        ("{{ m.content | trim }}{{ c.function | tojson }}", CallSpelling(blank_content=True)),
    ],
)
def test_the_spelling_that_a_template_needs_is_found(written: str, spelling: CallSpelling) -> None:
    said = "{% if m.tool_calls %}" + CALLS + "{% else %}{{ m.content }}{% endif %}"
    text = "{% for m in messages %}" + said.replace("[CALL]", written) + "\n{% endfor %}"
    template = _template(text)
    assert template.call_spelling == spelling
    rendered = template.render(TURNS)
    assert "get_weather" in rendered and "Rome" in rendered and "None" not in rendered


@pytest.mark.parametrize(
    ("messages", "tools", "said"),
    [
        (TURNS, (), "tool calls"),
        (SINGLE, TOOLS, "the descriptions of tools"),
        ((TURNS[0], *TURNS[2:]), (), "the answers of tools"),
    ],
)
def test_a_template_without_a_place_for_tools_says_so(
    messages: Sequence[Message], tools: Sequence[Mapping[str, object]], said: str
) -> None:
    text = chat_template_from_format(DEFAULT_PROMPT_FORMAT, write_bos=False)
    template = ChatTemplate(text, {"eos_token": "</s>"})
    with pytest.raises(DataError) as caught:
        template.render(messages, tools=tools)
    assert f"the model's chat template has no place for {said}" in caught.value.render()
    assert "prompt_template.format" in caught.value.hint


TWO_CALLS = (
    TURNS[0],
    Message("assistant", "", tool_calls=(CALL, CALL)),
    Message("tool", "12"),
    Message("tool", "13"),
)
SPOKEN = (TURNS[0], Message("assistant", "Let me look.", tool_calls=(CALL,)))


@pytest.mark.parametrize(
    ("written", "messages", "said", "hint"),
    [
        ("m.tool_calls[0]", TWO_CALLS, "several tool calls in one turn", "a turn of its own"),
        ("m.tool_calls", SPOKEN, "words beside a tool call", "leave the words out"),
    ],
)
def test_what_a_template_leaves_out_beside_a_call_is_refused(
    written: str, messages: Sequence[Message], said: str, hint: str
) -> None:
    text = (
        "{% for m in messages %}{% if m.tool_calls %}{{ "
        + written
        + " | tojson }}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    )
    assert "Rome" in _template(text).render(TURNS)
    with pytest.raises(DataError) as caught:
        _template(text).render(messages)
    assert f"the model's chat template has no place for {said}" in caught.value.render()
    assert hint in caught.value.hint


def test_blank_words_beside_a_call_are_none() -> None:
    text = "{% for m in messages if m.tool_calls %}{{ m.tool_calls | tojson }}{% endfor %}"
    text += "{% for m in messages if m.role == 'tool' %}{{ m.content }}{% endfor %}"
    blank = Message("assistant", " \n", tool_calls=(CALL,))
    assert "Rome" in _template(text).render((TURNS[0], blank))


def test_the_turns_behind_each_call_are_not_looked_at_again() -> None:
    reads = 0

    class Counted(Message):
        def __getattribute__(self, name: str) -> object:
            nonlocal reads
            reads += name == "role"
            return super().__getattribute__(name)

    def reads_of(calls: int) -> int:
        nonlocal reads
        called = (Counted("assistant", "Let me look.", tool_calls=(CALL,)), Counted("tool", "12"))
        messages = (TURNS[0], *called * calls, Counted("user", "Well?"))
        reads = 0
        _template("{{ messages | tojson }}").render(messages)
        return reads

    assert reads_of(80) <= 5 * reads_of(20)


def test_an_answer_that_stands_apart_from_its_call_has_to_show_as_well() -> None:
    text = (
        "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls | tojson }}"
        "{{ messages[loop.index].content if not loop.last }}{% elif m.role != 'tool' %}"
        "{{ m.content }}{% endif %}\n{% endfor %}"
    )
    assert "12" in _template(text).render(TURNS)
    apart = (*TURNS[:2], Message("user", "Well?"), *TURNS[2:])
    with pytest.raises(DataError, match="no place for the answers of tools"):
        _template(text).render(apart)


def test_a_template_that_writes_what_tools_say_takes_them_without_calls() -> None:
    assert _template(ECHO).render((TURNS[0], *TURNS[2:])) == (
        "user: Warm in Rome?\ntool: 12\nassistant: No.\n"
    )
    assert _template(ECHO).call_spelling is None


def test_rendering_leaves_nothing_behind_for_the_next_row() -> None:
    text = "{% set seen = seen | default(0) + 1 %}{{ seen }}{{ tools }}"
    template = _template(text)
    assert [template.render(SINGLE) for _ in range(2)] == ["1None", "1None"]
