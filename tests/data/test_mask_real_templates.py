"""Masks in the chat templates that models really ship, recorded, and compared with the
{% generation %} marks of those that have a copy with them.

The templates are read from the wheel of TRL and none of their text is kept here, so the records
hold fingerprints of the tokens and leave long prompts out. To write them again after a change that
is meant: LLAMAFARM_WRITE_GOLDENS=1; read the difference.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from llamafarm.data.rows import Message, ToolCall
from llamafarm.data.template_messages import SPELLINGS, template_messages
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.data.tokenized import ListRows

from .chat_families import (
    REAL_CONVERSATIONS,
    REAL_FAMILIES,
    RealFamily,
    conversations_of,
    encode,
    family_tokenizer,
    rows_of,
    tools_of,
    trained_runs,
    trained_texts,
)
from .marked import marked

GOLDENS = Path(__file__).parents[1] / "golden" / "masks" / "trl"
BY_NAME = {family.name: family for family in REAL_FAMILIES}
MARKED = [family.name for family in REAL_FAMILIES if family.marks is not None]
# The bytes of one character are several tokens; an answer may be a question, or nearly nothing.
# Templates that leave out words beside a call, and all calls of a turn but one.
LOSE_WORDS = ("llama3_1", "llama3_2", "gptoss", "muse_glimmer")
WRITE_ONE_CALL = ("llama3_1", "llama3_2", "gptoss")
ODD_ANSWERS = ("🤒", "e\u0301", "What is a fever?", "a", "user", "\u2460x\u2461", "{{ x }}")
REASONING = ("Two and two.", "Yes.")
Conversation = tuple[RealFamily, Any, Sequence[Message]]


def _cases(names: Sequence[str]) -> list[Any]:
    return [
        pytest.param(name, conversation, id=f"{name}-{conversation}")
        for name in names
        for conversation in conversations_of(BY_NAME[name])
    ]


every_conversation = pytest.mark.parametrize(("name", "conversation"), _cases(list(BY_NAME)))
every_marked_conversation = pytest.mark.parametrize(("name", "conversation"), _cases(MARKED))


def _case(name: str, conversation: str, tokenizer_dir: Path) -> Conversation:
    family = BY_NAME[name]
    return family, family_tokenizer(family, tokenizer_dir), REAL_CONVERSATIONS[conversation]


def _generation_rows(family: RealFamily, tokenizer: Any, messages: Sequence[Message]) -> ListRows:
    """What transformers trains of a conversation by the marks in the template."""
    text = family.marked_template
    template = ChatTemplate.for_tokenizer(text, tokenizer)
    encoded = tokenizer.apply_chat_template(
        template_messages(template.turns(messages), template.call_spelling or SPELLINGS[0]),
        tools=list(tools_of(messages)) or None,
        chat_template=text,
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    return ListRows([(encoded["input_ids"], [bool(on) for on in encoded["assistant_masks"]])])


def _rows(template: str, tokenizer: Any, messages: Sequence[Message]) -> ListRows:
    return rows_of(encode(template, tokenizer, messages, tools=tools_of(messages)))


def _ids(rows: ListRows) -> list[int]:
    return rows.input_ids(0).tolist()


def _record(rows: ListRows, tokenizer: Any) -> dict[str, Any]:
    tokens = tokenizer.convert_ids_to_tokens(_ids(rows))
    return {
        "preview": re.sub("[^⟦⟧]+(?=⟦|$)", _shortened, marked(rows, tokenizer)),
        "tokens": len(tokens),
        "fingerprint": sha256("\n".join(tokens).encode()).hexdigest()[:16],
        "trained": " ".join(f"{start}:{stop}" for start, stop in trained_runs(rows)),
    }


def _shortened(prompt: re.Match[str]) -> str:
    """A prompt without its long beginning: that is not ours to keep."""
    return prompt[0] if len(prompt[0]) <= 160 else f"…{prompt[0][-120:]}"


@pytest.mark.parametrize("name", BY_NAME)
def test_masks_of_real_templates_are_as_recorded(name: str, smollm2_tokenizer_dir: Path) -> None:
    family = BY_NAME[name]
    tokenizer = family_tokenizer(family, smollm2_tokenizer_dir)
    found: dict[str, Any] = {"template": sha256(family.template.encode()).hexdigest()[:16]}
    for conversation, messages in conversations_of(family).items():
        found[conversation] = _record(_rows(family.template, tokenizer, messages), tokenizer)
    path = GOLDENS / f"{name}.json"
    if os.environ.get("LLAMAFARM_WRITE_GOLDENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    recorded = json.loads(path.read_text("utf-8"))
    assert found["template"] == recorded["template"], "the installed TRL has another template"
    assert found == recorded


@every_conversation
def test_each_answer_is_trained_to_its_end_of_turn(
    name: str, conversation: str, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, conversation, smollm2_tokenizer_dir)
    rows = _rows(family.template, tokenizer, messages)
    said = [m.content.split("</think>")[-1].lstrip("\n") for m in messages if _answers(m)]
    trained = trained_texts(rows, tokenizer)
    assert len(trained) == len(said)
    for text, answer, end in zip(trained, said, family.ends(messages), strict=True):
        assert text.endswith(answer + end)
        assert not any(m.content in text for m in messages if not _answers(m))


@pytest.mark.parametrize("name", [f.name for f in REAL_FAMILIES if f.calls])
def test_calls_are_trained_and_what_tools_answer_is_not(
    name: str, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, "call", smollm2_tokenizer_dir)
    call, answer = trained_texts(_rows(family.template, tokenizer, messages), tokenizer)
    assert "get_weather" in call and "Rome" in call
    assert "get_weather" not in answer and "degrees" not in call + answer


@pytest.mark.parametrize(
    "name", [f.name for f in REAL_FAMILIES if f.calls and f.name not in LOSE_WORDS]
)
def test_words_beside_a_call_do_not_let_later_turns_into_the_mask(
    name: str, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, "call", smollm2_tokenizer_dir)
    spoken = replace(messages[1], content="Let me look.")
    thanks = (Message("user", "Thank you."), Message("assistant", "Welcome."))
    turns = (messages[0], spoken, *messages[2:], *thanks)
    alone, _ = trained_texts(_rows(family.template, tokenizer, messages), tokenizer)
    call, *answers = trained_texts(_rows(family.template, tokenizer, turns), tokenizer)
    assert call.count("get_weather") == alone.count("get_weather")
    assert [answer.count("get_weather") for answer in answers] == [0, 0]
    assert not any(said in text for text in (call, *answers) for said in ("degrees", "Thank"))


@pytest.mark.parametrize("name", [f.name for f in REAL_FAMILIES if f.calls])
@pytest.mark.parametrize("answered", [True, False])
def test_words_beside_a_call_are_written_or_the_row_is_refused(
    name: str, answered: bool, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, "call", smollm2_tokenizer_dir)
    spoken = (messages[0], replace(messages[1], content="Let me look."), *messages[2:])
    turns = spoken if answered else spoken[:2]
    result = encode(family.template, tokenizer, turns, tools=tools_of(turns))
    # It takes them for reasoning, which it leaves out once there is an answer.
    if name in LOSE_WORDS and (answered or name != "gptoss"):
        assert "no place for words beside a tool call" in result.bad[0].reason
    else:
        assert "Let me look." in tokenizer.decode(_ids(rows_of(result)))


@pytest.mark.parametrize("name", [f.name for f in REAL_FAMILIES if f.calls])
def test_all_calls_of_a_turn_are_written_or_the_row_is_refused(
    name: str, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, "call", smollm2_tokenizer_dir)
    both = (*messages[1].tool_calls, ToolCall("get_weather", {"city": "Oslo"}))
    calling = replace(messages[1], tool_calls=both)
    turns = (messages[0], calling, messages[2], replace(messages[2], content="cold"), messages[3])
    result = encode(family.template, tokenizer, turns, tools=tools_of(turns))
    if name in WRITE_ONE_CALL:
        assert "no place for several tool calls in one turn" in result.bad[0].reason
    else:
        call, _ = trained_texts(rows_of(result), tokenizer)
        assert "Rome" in call and "Oslo" in call
        assert "cold" in tokenizer.decode(_ids(rows_of(result)))


@pytest.mark.parametrize("name", BY_NAME)
def test_a_turn_that_is_not_to_be_learnt_has_no_mask(
    name: str, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, "multi", smollm2_tokenizer_dir)
    whole = _rows(family.template, tokenizer, messages)
    left_out = [replace(m, trained=m.content != messages[2].content) for m in messages]
    rows = _rows(family.template, tokenizer, left_out)
    assert _ids(rows) == _ids(whole)
    assert trained_runs(rows) == trained_runs(whole)[1:]


def _answers(message: Message) -> bool:
    return message.role == "assistant"


@pytest.mark.parametrize("name", BY_NAME)
def test_answers_are_trained_whole_whatever_characters_they_hold(
    name: str, smollm2_tokenizer_dir: Path
) -> None:
    family = BY_NAME[name]
    tokenizer = family_tokenizer(family, smollm2_tokenizer_dir)
    for answer in ODD_ANSWERS:
        turns = (Message("user", "What is a fever?"), Message("assistant", answer))
        twice = (*turns, *turns)
        trained = trained_texts(_rows(family.template, tokenizer, twice), tokenizer)
        assert len(trained) == 2
        for text, end in zip(trained, family.ends(twice), strict=True):
            assert text.endswith(answer + end)
            assert text.count("What is a fever?") == answer.count("What is a fever?")


@every_conversation
def test_the_last_answer_follows_the_tokens_that_ask_for_it_or_is_counted(
    name: str, conversation: str, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, conversation, smollm2_tokenizer_dir)
    result = encode(family.template, tokenizer, messages, tools=tools_of(messages))
    rows = rows_of(result)
    template = ChatTemplate.for_tokenizer(family.template, tokenizer, date=TRAINING_DATE)
    prompt = template.render(messages[:-1], tools=tools_of(messages), add_generation_prompt=True)
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    before = _ids(rows)[: trained_runs(rows)[-1][0]]
    counted = result.counts.answers_other_prompt + result.counts.answers_inexact
    assert before == asked or counted > 0


@every_marked_conversation
def test_generation_marks_hold_the_same_answers_but_for_what_is_stated(
    name: str, conversation: str, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, conversation, smollm2_tokenizer_dir)
    ours = _rows(family.marked_template, tokenizer, messages)
    theirs = _generation_rows(family, tokenizer, messages)
    assert family.marks is not None
    assert _ids(ours) == _ids(theirs)
    trained, marked = trained_runs(ours), trained_runs(theirs)
    around = [
        (tokenizer.decode(_ids(ours)[a:start]), tokenizer.decode(_ids(ours)[stop:b]))
        for (start, stop), (a, b) in zip(trained, marked, strict=True)
    ]
    assert all(
        a <= start and stop <= b for (start, stop), (a, b) in zip(trained, marked, strict=True)
    )
    assert around == family.marks.around(conversation, len(trained))


@every_marked_conversation
def test_the_copy_with_marks_gives_the_same_tokens_and_mask_but_where_it_is_stated(
    name: str, conversation: str, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, conversation, smollm2_tokenizer_dir)
    plain = _rows(family.template, tokenizer, messages)
    marked = _rows(family.marked_template, tokenizer, messages)
    assert family.marks is not None
    assert (_ids(plain) == _ids(marked)) == (conversation not in family.marks.rewritten)
    if _ids(plain) == _ids(marked):
        assert plain.trained(0).tolist() == marked.trained(0).tolist()


@pytest.mark.parametrize("name", [f.name for f in REAL_FAMILIES if f.thinking])
def test_reasoning_is_trained_where_the_template_writes_it_and_counted_where_it_does_not(
    name: str, smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer, messages = _case(name, "thinking", smollm2_tokenizer_dir)
    result = encode(family.template, tokenizer, messages, tools=tools_of(messages))
    rows = rows_of(result)
    text = tokenizer.decode(_ids(rows))
    trained = trained_texts(rows, tokenizer)
    written = [thought in text for thought in REASONING]
    assert [
        thought in answer for thought, answer in zip(REASONING, trained, strict=True)
    ] == written
    assert result.counts.answers_inexact >= written.count(False)


def test_the_end_of_turn_token_that_glm_lacks_takes_the_place_of_the_next_turn_s_start(
    smollm2_tokenizer_dir: Path,
) -> None:
    family, tokenizer, messages = _case("glm4moe", "single", smollm2_tokenizer_dir)
    plain = _ids(_rows(family.template, tokenizer, messages))
    marked = _ids(_rows(family.marked_template, tokenizer, messages))
    assert plain[:-1] == marked[:-1]
    assert tokenizer.decode([plain[-1]]) == "<|endoftext|>"
    assert tokenizer.decode([marked[-1]]) == "<|user|>"
