"""Golden masks: ids and trained tokens of three conversations in every family of templates.

To write them again after a change that is meant: LLAMAFARM_WRITE_GOLDENS=1; read the difference.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llamafarm.data.mask import AnswerSpan, answer_mask, answer_spans
from llamafarm.data.rows import Message
from llamafarm.data.templates import ChatTemplate

from .chat_families import (
    CONVERSATIONS,
    FAMILIES,
    MULTI,
    SINGLE,
    THINKING,
    Family,
    encode,
    family_tokenizer,
    rows_of,
    trained_texts,
)
from .marked import marked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GOLDENS = Path(__file__).parents[1] / "golden" / "masks"
BY_NAME = {family.name: family for family in FAMILIES}


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def tokenizer(family: Family, smollm2_tokenizer_dir: Path) -> PreTrainedTokenizerFast:
    return family_tokenizer(family, smollm2_tokenizer_dir)


def test_masks_are_as_recorded(family: Family, tokenizer: PreTrainedTokenizerFast) -> None:
    found = {}
    for name, messages in CONVERSATIONS.items():
        rows = rows_of(encode(family.template, tokenizer, messages))
        found[name] = {
            "preview": marked(rows, tokenizer),
            "input_ids": " ".join(map(str, rows.input_ids(0).tolist())),
            "trained": "".join("01"[int(on)] for on in rows.trained(0)),
        }
    path = GOLDENS / f"{family.name}.json"
    if os.environ.get("LLAMAFARM_WRITE_GOLDENS"):
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    assert found == json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("messages", [SINGLE, MULTI], ids=["single", "multi"])
@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in ("bare", "qwen3")])
def test_what_is_trained_is_each_answer_with_its_end_of_turn(
    name: str, messages: Sequence[Message], smollm2_tokenizer_dir: Path
) -> None:
    family, tokenizer = _family(name, smollm2_tokenizer_dir)
    rows = rows_of(encode(family.template, tokenizer, messages))
    answers = [m.content + family.end for m in messages if m.role == "assistant"]
    trained = [
        text.replace(" " + family.end, family.end) for text in trained_texts(rows, tokenizer)
    ]
    assert [text.lstrip(" ") for text in trained] == answers


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_the_tokens_are_those_of_the_text_and_begin_with_one_start_token_at_most(
    family: Family, tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]
) -> None:
    rows = rows_of(encode(family.template, tokenizer, messages))
    ids = rows.input_ids(0).tolist()
    text = ChatTemplate.for_tokenizer(family.template, tokenizer).render(messages)
    appended = [tokenizer.eos_token_id] if family.name == "bare" else []
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"] + appended
    assert ids[:2] != [tokenizer.bos_token_id] * 2
    assert not rows.trained(0)[0]


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_the_last_answer_always_ends_with_a_trained_end_token(
    family: Family, tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]
) -> None:
    rows = rows_of(encode(family.template, tokenizer, messages))
    last = int(rows.input_ids(0)[np.flatnonzero(rows.trained(0))[-1]])
    assert tokenizer.decode([last]) == family.end


def test_prompts_that_become_other_tokens_when_asked_are_counted(
    family: Family, tokenizer: PreTrainedTokenizerFast
) -> None:
    result = encode(family.template, tokenizer, SINGLE)
    rows = rows_of(result)
    template = ChatTemplate.for_tokenizer(family.template, tokenizer)
    prompt = template.render(SINGLE[:1], add_generation_prompt=True)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    first = int(np.flatnonzero(rows.trained(0))[0])
    same = rows.input_ids(0)[:first].tolist() == prompt_ids
    # This vocabulary joins two newlines at the end of a text, and the prompt of Llama 3 ends so.
    assert same == (family.name not in ("llama3", "deepseek_r1"))
    assert result.counts.answers_other_prompt == (family.name == "llama3")


def _family(name: str, tokenizer_dir: Path) -> tuple[Family, Any]:
    return BY_NAME[name], family_tokenizer(BY_NAME[name], tokenizer_dir)


def test_reasoning_that_the_template_removes_is_not_trained_and_is_counted(
    smollm2_tokenizer_dir: Path,
) -> None:
    family, tokenizer = _family("qwen3", smollm2_tokenizer_dir)
    result = encode(family.template, tokenizer, THINKING)
    assert trained_texts(rows_of(result), tokenizer) == [
        "Four.<|im_end|>",
        "<think>\nYes.\n</think>\n\nQuite sure.<|im_end|>",
    ]
    assert (result.counts.answers, result.counts.answers_inexact) == (2, 1)
    assert result.counts.answers_end_trained == 2


def test_a_prompt_that_finished_turns_lack_falls_back_to_what_both_begin_with(
    smollm2_tokenizer_dir: Path,
) -> None:
    family, tokenizer = _family("deepseek_r1", smollm2_tokenizer_dir)
    result = encode(family.template, tokenizer, THINKING)
    assert trained_texts(rows_of(result), tokenizer) == ["Four.<|end|>", "Quite sure.<|end|>"]
    assert result.counts.answers_inexact == 2


def test_an_answer_that_begins_like_the_dropped_prompt_is_trained_whole(
    smollm2_tokenizer_dir: Path,
) -> None:
    family, tokenizer = _family("deepseek_r1", smollm2_tokenizer_dir)
    messages = (Message("user", "Tag?"), Message("assistant", "<thinker> it is"))
    rows = rows_of(encode(family.template, tokenizer, messages))
    assert trained_texts(rows, tokenizer) == ["<thinker> it is<|end|>"]


def test_a_template_without_end_tokens_gets_one_after_the_last_answer(
    smollm2_tokenizer_dir: Path,
) -> None:
    family, tokenizer = _family("bare", smollm2_tokenizer_dir)
    result = encode(family.template, tokenizer, MULTI)
    trained = trained_texts(rows_of(result), tokenizer)
    assert trained == [" Yes: 39 °C is one 🤒.\n", " No.\n\nThat is normal.\n</s>"]
    counts = result.counts
    assert (counts.rows_end_appended, counts.answers_end_trained, counts.answers) == (1, 1, 2)


def test_the_newline_after_the_end_of_turn_is_not_trained(smollm2_tokenizer_dir: Path) -> None:
    family, tokenizer = _family("chatml", smollm2_tokenizer_dir)
    rows = rows_of(encode(family.template, tokenizer, SINGLE))
    assert tokenizer.decode(rows.input_ids(0)[-1:].tolist()) == "\n"
    assert not rows.trained(0)[-1]


def test_control_tokens_inside_an_answer_do_not_end_it_early(smollm2_tokenizer_dir: Path) -> None:
    family, tokenizer = _family("chatml", smollm2_tokenizer_dir)
    messages = (Message("user", "Which?"), Message("assistant", "It is <|im_end|> you see."))
    result = encode(family.template, tokenizer, messages)
    assert trained_texts(rows_of(result), tokenizer) == ["It is <|im_end|> you see.<|im_end|>"]
    assert result.counts.rows_with_control_tokens == 1


def test_every_answer_is_found_even_when_all_say_the_same() -> None:
    def render(messages: Sequence[Message], prompt: bool) -> str:
        text = "".join(f"{m.role}={m.content};" for m in messages)
        return text + ("assistant=" if prompt else "")

    turns = [Message("user", "a"), Message("assistant", "a")] * 3
    text, spans = answer_spans(render, turns)
    assert [text[s.start : s.end] for s in spans] == ["a;"] * 3
    assert all(span.exact for span in spans)


def test_a_question_is_never_trained_when_the_system_prompt_moves_to_the_last_one() -> None:
    def render(messages: Sequence[Message], prompt: bool) -> str:
        asked = [i for i, m in enumerate(messages) if m.role == "user"]
        parts = []
        for i, m in enumerate(messages):
            if m.role == "user":
                parts.append(f"[Q]{'SYSTEM ' if i == asked[-1] else ''}{m.content}[/Q]")
            elif m.role == "assistant":
                parts.append(f" {m.content}</s>")
        return "".join(parts)

    text, spans = answer_spans(render, MULTI)
    assert text.startswith("[Q]Is 39")
    assert [text[s.start : s.end] for s in spans] == [
        "Yes: 39 °C is one 🤒.</s>",
        " No.\n\nThat is normal.</s>",
    ]
    assert [span.exact for span in spans] == [False, True]


def test_a_row_of_which_nothing_is_to_be_learnt_is_dropped_with_the_reason(
    smollm2_tokenizer_dir: Path,
) -> None:
    family, tokenizer = _family("chatml", smollm2_tokenizer_dir)
    messages = [replace(message, trained=False) for message in MULTI]
    result = encode(family.template, tokenizer, messages)
    assert not result.rows
    assert [row.reason for row in result.dropped] == ["no token to train on"]


def _only_the_last_answer_is_kept(messages: Sequence[Message], prompt: bool) -> str:
    parts = []
    for i, m in enumerate(messages):
        said = m.content if m.role == "user" or i == len(messages) - 1 else ""
        parts.append(f"{m.role}={said};")
    return "".join(parts) + ("assistant=" if prompt else "")


def test_nothing_is_trained_of_an_answer_that_the_template_leaves_out() -> None:
    text, spans = answer_spans(_only_the_last_answer_is_kept, MULTI[1:])
    assert text.startswith("user=Is 39 °C a fever?;assistant=;user=And")
    assert [text[s.start : s.end].rstrip(";") for s in spans] == ["", "No.\n\nThat is normal."]
    assert [span.exact for span in spans] == [False, True]


@pytest.mark.parametrize("answer", ["\u2460x\u2461", "\u2462x\u2463"])
def test_an_answer_may_say_what_is_written_in_its_place_to_find_it(answer: str) -> None:
    def render(messages: Sequence[Message], prompt: bool) -> str:
        text = "".join(f"{m.role}={m.content};" for m in messages)
        return text + ("assistant=" if prompt else "<end>")

    messages = (*MULTI[1:2], Message("assistant", answer), *MULTI[3:])
    text, spans = answer_spans(render, messages)
    assert text[spans[0].start : spans[0].end] == f"{answer};"


# name: (ends of the tokens, the answer's characters, what is trained)
ENDS_CASES = {
    "tokens that fit": ([2, 4, 6], (2, 6), [0, 1, 1]),
    "a token that begins in the prompt": ([1, 4, 6], (2, 6), [0, 1, 1]),
    "one token for the whole answer": ([2, 6], (2, 6), [0, 1]),
    "a token that goes on after the answer": ([2, 4, 8], (2, 6), [0, 1, 0]),
    "a token without width before the answer": ([2, 2, 6], (2, 6), [0, 0, 1]),
    "a token without width in the answer": ([2, 3, 3, 6], (2, 6), [0, 1, 1, 1]),
    "one character of three tokens": ([2, 3, 3, 3], (2, 3), [0, 1, 1, 1]),
    "nothing": ([2], (2, 2), [0]),
    "the first token of all": ([2, 4], (0, 4), [0, 1]),
}


@pytest.mark.parametrize("name", ENDS_CASES)
def test_characters_become_tokens(name: str) -> None:
    ends, (start, end), trained = ENDS_CASES[name]
    span = AnswerSpan(start, end, exact=True)
    mask = answer_mask(np.array(ends), lambda token: False, [span], "x" * 9)
    assert mask.trained.astype(int).tolist() == trained
    assert mask.ends == ()
