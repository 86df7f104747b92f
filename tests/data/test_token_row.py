from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llamafarm.data.rows import Conversation, Message, RowRef
from llamafarm.data.templates import ChatTemplate
from llamafarm.data.token_row import BatchResult, Limits, RowTokenizer, adds_bos
from llamafarm.errors import DataError

from .rows_on_disk import CHATML

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def _chat(line: int, question: str, answer: str) -> Conversation:
    source = RowRef("r.jsonl", line)
    return Conversation(source, (Message("user", question), Message("assistant", answer)))


def _encode(tokenizer: Any, *rows: Conversation, **limits: int) -> BatchResult:
    template = ChatTemplate.for_tokenizer(CHATML, tokenizer)
    return RowTokenizer(tokenizer, template, Limits(**{"max_length": 512, **limits})).encode(rows)


@pytest.fixture(scope="module")
def tokenizer(smollm2_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return smollm2_tokenizer


@pytest.fixture(scope="module")
def bos_tokenizer(smollm2_tokenizer_dir: Any) -> PreTrainedTokenizerFast:
    """A tokenizer that begins plain texts with a start token, as Llama's does."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer.from_file(str(smollm2_tokenizer_dir / "tokenizer.json"))
    tokens.add_special_tokens(["<s>", "</s>"])
    start = ("<s>", tokens.token_to_id("<s>"))
    tokens.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[start])
    return PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>", eos_token="</s>")


def test_a_row_longer_than_max_length_is_cut_and_named(tokenizer: Any) -> None:
    long = _chat(3, "Count.", " ".join(str(n) for n in range(40)))
    whole = _encode(tokenizer, long).rows[0][1]
    cut = _encode(tokenizer, long, max_length=20).rows[0][1]
    assert cut.input_ids.tolist() == whole.input_ids[:20].tolist()
    assert cut.trained.tolist() == whole.trained[:20].tolist()
    assert cut.truncated is not None
    assert str(cut.truncated.source) == "r.jsonl:3"
    assert cut.truncated.tokens == len(whole.input_ids)
    assert cut.truncated.trained_tokens_cut == int(whole.trained[20:].sum())


def test_a_row_of_exactly_max_length_is_not_cut(tokenizer: Any) -> None:
    row = _chat(1, "Why?", "Because.")
    tokens = len(_encode(tokenizer, row).rows[0][1].input_ids)
    assert _encode(tokenizer, row, max_length=tokens).rows[0][1].truncated is None


def test_a_row_whose_answer_is_cut_off_whole_is_dropped_with_the_reason(tokenizer: Any) -> None:
    result = _encode(tokenizer, _chat(5, "word " * 40, "Yes."), max_length=16)
    assert not result.rows
    assert str(result.dropped[0].source) == "r.jsonl:5"
    assert "no answer among the first 16 of" in result.dropped[0].reason


def test_limits_on_prompt_and_answer_drop_rows_with_the_reason(tokenizer: Any) -> None:
    rows = [
        _chat(1, "Why?", "Because."),
        _chat(2, "word " * 50, "Yes."),
        _chat(3, "Why?", "so " * 50),
    ]
    result = _encode(tokenizer, *rows, max_input_length=30, max_output_length=30)
    assert [row.source.line for _, row in result.rows] == [1]
    reasons = {row.source.line: row.reason for row in result.dropped}
    assert "max_input_length is 30" in reasons[2]
    assert "max_output_length is 30" in reasons[3]


def test_a_plain_text_is_trained_whole_but_for_its_first_token(tokenizer: Any) -> None:
    row = _encode(tokenizer, Conversation(RowRef("r", 1), text="Once upon a time.")).rows[0][1]
    ids = row.input_ids.tolist()
    assert ids[-1] == tokenizer.eos_token_id
    assert ids[:-1] == tokenizer("Once upon a time.", add_special_tokens=False)["input_ids"]
    assert row.trained.tolist() == [False, *[True] * (len(ids) - 1)]
    assert (row.prompt, row.answer) == ("", "Once upon a time.")


def test_a_plain_text_gets_the_start_token_once(bos_tokenizer: Any) -> None:
    assert adds_bos(bos_tokenizer)
    start = bos_tokenizer.bos_token_id
    for text in ("Once upon a time.", "<s>Once upon a time.</s>"):
        row = _encode(bos_tokenizer, Conversation(RowRef("r", 1), text=text)).rows[0][1]
        assert row.input_ids.tolist().count(start) == 1
        assert row.input_ids.tolist().count(bos_tokenizer.eos_token_id) == 1
        assert row.input_ids[0] == start


def test_a_conversation_gets_only_the_start_token_that_its_template_writes(
    bos_tokenizer: Any,
) -> None:
    row = _encode(bos_tokenizer, _chat(1, "Why?", "Because.")).rows[0][1]
    assert bos_tokenizer.bos_token_id not in row.input_ids.tolist()


def test_samples_keep_the_last_question_and_answer(tokenizer: Any) -> None:
    turns = (
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
        Message("assistant", "d"),
    )
    row = _encode(tokenizer, Conversation(RowRef("r", 1), turns)).rows[0][1]
    assert (row.prompt, row.answer) == ("c", "d")


def test_rows_on_which_the_template_fails_are_named_and_the_others_go_on(tokenizer: Any) -> None:
    fails = "{% if m.content == 'no' %}{{ raise_exception('no!') }}{% endif %}"
    text = "{% for m in messages %}" + fails + "{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template = ChatTemplate.for_tokenizer(text, tokenizer)
    rows = RowTokenizer(tokenizer, template, Limits(64))
    result = rows.encode([_chat(1, "a", "b"), _chat(2, "a", "no"), _chat(3, "c", "d")])
    assert [(i, row.source.line) for i, row in result.rows] == [(0, 1), (2, 3)]
    assert result.bad[0].source.line == 2
    assert "no!" in result.bad[0].reason


def test_a_batch_gives_the_same_tokens_as_its_rows_one_by_one(tokenizer: Any) -> None:
    rows = [_chat(n, f"What is {n}?", "word " * n + ".") for n in range(1, 20)]
    together = _encode(tokenizer, *rows)
    for (_, row), alone in zip(together.rows, rows, strict=True):
        single = _encode(tokenizer, alone).rows[0][1]
        assert row.input_ids.tolist() == single.input_ids.tolist()
        assert row.trained.tolist() == single.trained.tolist()


def test_ids_are_int32_and_masks_bool(tokenizer: Any) -> None:
    row = _encode(tokenizer, _chat(1, "Why?", "Because.")).rows[0][1]
    assert (row.input_ids.dtype, row.trained.dtype) == (np.int32, np.bool_)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match="no fast version"):
        RowTokenizer(Slow(), ChatTemplate(CHATML, {}), Limits(64))


def test_without_any_end_token_the_row_is_counted(smollm2_tokenizer_dir: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_file=str(smollm2_tokenizer_dir / "tokenizer.json"))
    template = ChatTemplate("{% for m in messages %}{{ m.content }}\n{% endfor %}", {})
    result = RowTokenizer(bare, template, Limits(64)).encode([_chat(1, "Why?", "Because.")])
    assert result.counts.rows_without_end == 1
    assert result.counts.answers_end_trained == 0


def test_unknown_tokens_are_counted() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "</s>": 1, "one": 2, "two": 3}
    core = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    small = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", eos_token="</s>")
    row = Conversation(RowRef("r", 1), text="one three two four")
    counts = _encode(small, row).counts
    assert (counts.unknown_tokens, counts.tokens) == (2, 5)
