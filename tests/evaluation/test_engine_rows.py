"""Rows that the engine makes are, token by token, those that training made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llamafarm.data.prepare import prepare
from llamafarm.data.read_conversations import read_conversations
from llamafarm.data.report import DroppedRow
from llamafarm.data.rows import Conversation, Message, Role, RowRef
from llamafarm.errors import ModelError, RunError
from llamafarm.evaluation.engine_rows import EngineRow, EngineRowMaker, ScoredTokens
from llamafarm.models.gguf_file import GgufFile, read_gguf
from llamafarm.models.llama_cpp import LlamaCpp
from llamafarm.models.packaged import find_packaged_gguf
from tests.data.rows_on_disk import request_for, write_jsonl
from tests.models.gguf_files import write_llama_gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS: tuple[dict[str, Any], ...] = (
    {"question": "What is 12 345?", "answer": "It is  a number: 12 345.\n\n- yes"},
    {"question": "漢字 👍?", "answer": " naïve 👩🏽‍🚀 漢字 "},
    {"question": "Q", "answer": "A", "system": "Be brief."},
    {
        "messages": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": "Three?"},
            {"role": "assistant", "content": "Four. " * 30},
        ]
    },
    {
        "messages": [
            {"role": "user", "content": "Left open?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Really?"},
        ]
    },
    {"text": "Once upon a time there was no chat at all. 👍"},
)


@pytest.fixture(scope="module")
def gguf() -> GgufFile:
    file = find_packaged_gguf()
    assert file is not None
    return read_gguf(file)


@pytest.fixture(scope="module")
def engine(gguf: GgufFile) -> Iterator[LlamaCpp]:
    with LlamaCpp(gguf.path, context_tokens=512, threads=1) as engine:
        yield engine


def scored(row: EngineRow) -> list[tuple[tuple[int, ...], int]]:
    """Every scored token with all tokens before it."""
    return [
        (part.token_ids[:at], part.token_ids[at])
        for part in row.scored
        for at in range(part.start, len(part.token_ids))
    ]


def conversation(*turns: tuple[Role, str]) -> Conversation:
    return Conversation(RowRef("rows.jsonl", 7), tuple(Message(*turn) for turn in turns))


@pytest.mark.parametrize("max_length", [400, 60])
def test_the_same_tokens_are_scored_after_the_same_tokens(
    gguf: GgufFile,
    engine: LlamaCpp,
    smollm2_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    max_length: int,
) -> None:
    request = request_for(
        write_jsonl(tmp_path / "rows.jsonl", ROWS),
        eval_wanted=False,
        chat_template=smollm2_tokenizer.chat_template,
        max_length=max_length,
    )
    prepared = prepare(request, smollm2_tokenizer, cache_dir=tmp_path / "cache")
    maker = EngineRowMaker(engine, gguf, max_length)
    made = [maker.make(conversation) for conversation in read_conversations(request)]
    rows = [row for row in made if isinstance(row, EngineRow)]
    assert [row.source for row in rows] == [
        prepared.train.source(number) for number in range(len(prepared.train))
    ]
    for number, row in enumerate(rows):
        ids = tuple(prepared.train.input_ids(number).tolist())
        trained = prepared.train.trained(number).nonzero()[0].tolist()
        assert scored(row) == [(ids[:at], ids[at]) for at in trained]
        assert (row.prompt, row.reference) == (
            prepared.train.conversation_text(number) if row.prompt else ("", "")
        )
    # What a template writes after the end of an answer is in training's rows, and is not trained.
    lost = [row.truncated.trained_tokens_cut for row in rows if row.truncated]
    assert lost == [row.trained_tokens_cut for row in prepared.report.truncated]
    assert bool(lost) is (max_length == 60)


def test_an_answer_beyond_the_limit_is_not_measured(gguf: GgufFile, engine: LlamaCpp) -> None:
    row = EngineRowMaker(engine, gguf, 30).make(conversation(("user", "a"), ("assistant", "b")))
    assert row == DroppedRow(RowRef("rows.jsonl", 7), "no answer among the first 30 tokens")


def test_the_last_answer_is_asked_with_all_that_is_before_it(
    gguf: GgufFile, engine: LlamaCpp
) -> None:
    made = EngineRowMaker(engine, gguf, 400).make(
        conversation(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    )
    assert isinstance(made, EngineRow)
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    asked = engine.render([*before, {"role": "user", "content": "c"}])
    assert made.prompt_ids == engine.tokenize(asked)
    assert (made.prompt, made.reference) == ("c", "d")


def test_an_answer_that_the_template_does_not_end_gets_the_end_token(tmp_path: Path) -> None:
    write_llama_gguf(tmp_path / "bare.gguf", pre="smollm")
    file = read_gguf(tmp_path / "bare.gguf")
    with LlamaCpp(file.path, context_tokens=128, threads=1) as engine:
        maker = EngineRowMaker(engine, file, 128)
        turns = ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")
        made = maker.make(conversation(*turns))
        assert isinstance(made, EngineRow)
        first, last = made.scored
        assert engine.tokenize("ab") == first.token_ids
        assert (*engine.tokenize("abcd"), 2) == last.token_ids
        text = maker.make(Conversation(RowRef("rows.jsonl", 8), text="a b"))
        assert isinstance(text, EngineRow)
        assert text.scored == (ScoredTokens((*engine.tokenize("a b"), 2), 1),)
        assert (text.prompt_ids, text.prompt) == ((), "")


def test_a_conversation_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    write_llama_gguf(tmp_path / "m.gguf", pre="smollm")
    file = read_gguf(tmp_path / "m.gguf")
    template = file.metadata["tokenizer.chat_template"]
    refusing = "{{ raise_exception('too many') if messages[5] }}".ljust(len(template))
    file.path.write_bytes(file.path.read_bytes().replace(template.encode(), refusing.encode()))
    with LlamaCpp(file.path, context_tokens=128, threads=1) as engine:
        maker = EngineRowMaker(engine, file, 128)
        turns = [("user", "a"), ("assistant", "b")] * 3
        with pytest.raises(RunError, match=r"error: rows\.jsonl:7: llama\.cpp refuses") as fault:
            maker.make(conversation(*turns))
    assert "too many" in fault.value.summary


def test_a_file_without_kinds_of_tokens_is_refused(gguf: GgufFile, engine: LlamaCpp) -> None:
    metadata = {**gguf.metadata, "tokenizer.ggml.token_type": 3}
    with pytest.raises(ModelError, match="no vocabulary that goes with"):
        EngineRowMaker(engine, dataclasses.replace(gguf, metadata=metadata), 128)
