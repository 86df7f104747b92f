from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from llamafarm.data.rows import Conversation, Message, RowRef, Segment, ToolCall
from llamafarm.data.templates import ChatTemplate
from llamafarm.data.token_row import BatchResult, Limits, RowTokenizer, adds_bos
from llamafarm.errors import DataError

from .chat_families import FAMILIES, TOOLS, family_tokenizer
from .rows_on_disk import CHATML

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from .chat_families import Family


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


def _end_shares(rows: RowTokenizer, *row: Conversation) -> tuple[int, int]:
    counts = rows.encode(row).counts
    return counts.answers, counts.answers_end_trained


@pytest.mark.parametrize("end_tokens", [1, 2])
def test_an_answer_has_its_end_only_where_the_row_is_cut_behind_it(
    tokenizer: Any, end_tokens: int
) -> None:
    end = "<|im_end|>" * end_tokens
    text = f"{{% for m in messages %}}<|im_start|>{{{{ m.role + ' ' + m.content }}}}{end}"
    text += "\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    template = ChatTemplate.for_tokenizer(text, tokenizer)
    row = Conversation(RowRef("r", 1), _turns("a", "one two three", "b", "four five"))
    whole = RowTokenizer(tokenizer, template, Limits(512)).encode([row]).rows[0][1]
    trained = np.flatnonzero(whole.trained)
    first_end = int(trained[np.flatnonzero(np.diff(trained) > 1)[0]])
    found = {
        length: _end_shares(RowTokenizer(tokenizer, template, Limits(length)), row)
        for length in range(first_end - 2, int(trained[-1]) + 2)
    }
    last_end = int(trained[-1])
    for length, (answers, ends) in found.items():
        assert answers == 2
        assert ends == (length > first_end) + (length > last_end), length


def test_answers_that_stand_next_to_each_other_have_an_end_each(tokenizer: Any) -> None:
    text = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>"
        "{% endif %}{% endfor %}"
    )
    template = ChatTemplate.for_tokenizer(text, tokenizer)
    turns = (Message("user", "a"), Message("assistant", "one"), Message("assistant", "two"))
    row = Conversation(RowRef("r", 1), turns)
    whole = RowTokenizer(tokenizer, template, Limits(512)).encode([row]).rows[0][1]
    tokens = len(whole.input_ids)
    assert whole.trained.tolist() == [False, *[True] * (tokens - 1)]
    found = [
        _end_shares(RowTokenizer(tokenizer, template, Limits(length)), row)
        for length in (tokens, tokens - 1, tokens - 3)
    ]
    assert found == [(2, 2), (2, 1), (2, 0)]


def test_an_end_token_that_was_appended_and_cut_off_again_is_not_trained(tokenizer: Any) -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}\n{% endfor %}", {})
    row = _chat(1, "a", "one two three")
    tokens = len(RowTokenizer(tokenizer, template, Limits(64)).encode([row]).rows[0][1].input_ids)
    for length, ends in ((tokens, 1), (tokens - 1, 0)):
        assert _end_shares(RowTokenizer(tokenizer, template, Limits(length)), row) == (1, ends)


def test_pieces_of_text_that_are_cut_before_their_end_token_are_counted(tokenizer: Any) -> None:
    row = _pieces(("Q", False), (" A B", True), ("<|im_end|>", True), (" C", False))
    found = [_encode(tokenizer, row, max_length=length).counts for length in (5, 4, 3)]
    assert [(c.answers, c.answers_end_trained) for c in found] == [(1, 1), (1, 1), (1, 0)]


def test_what_was_cut_off_is_shown_from_its_first_token_on(bos_tokenizer: Any) -> None:
    said = "one two three four"
    rows = {
        "text": Conversation(RowRef("r", 1), text=said),
        "pieces": _pieces(("one", False), (" two three four", True)),
    }
    for name, row in rows.items():
        cut = _encode(bos_tokenizer, row, max_length=3).rows[0][1]
        assert cut.input_ids.tolist()[0] == bos_tokenizer.bos_token_id, name
        kept = bos_tokenizer.decode(cut.input_ids[1:])
        assert cut.truncated is not None
        assert (kept, cut.truncated.lost) == ("one two", "three four"), name


def test_what_was_cut_off_is_shown_where_no_start_token_was_added(bos_tokenizer: Any) -> None:
    row = Conversation(RowRef("r", 1), text="<s>one two three four")
    cut = _encode(bos_tokenizer, row, max_length=3).rows[0][1]
    assert cut.truncated is not None and cut.truncated.lost == "three four"


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


def _turns(*said: str) -> tuple[Message, ...]:
    """Questions and answers in turn; an answer that begins with `-` is not trained."""
    return tuple(
        Message("assistant", text.lstrip("-"), trained=not text.startswith("-"))
        if i % 2
        else Message("user", text)
        for i, text in enumerate(said)
    )


def _trained_text(tokenizer: Any, row: Any) -> str:
    return str(tokenizer.decode(row.input_ids[row.trained].tolist()))


def test_answers_that_are_not_to_be_learnt_have_no_trained_token(tokenizer: Any) -> None:
    row = Conversation(RowRef("r", 1), _turns("a", "-one", "b", "two", "c", "-three"))
    result = _encode(tokenizer, row)
    (_, found) = result.rows[0]
    assert _trained_text(tokenizer, found) == "two<|im_end|>"
    assert (result.counts.answers, result.counts.answers_end_trained) == (1, 1)
    assert (found.prompt, found.answer) == ("b", "two")
    whole = _encode(
        tokenizer, Conversation(RowRef("r", 1), _turns("a", "one", "b", "two", "c", "three"))
    )
    assert found.input_ids.tolist() == whole.rows[0][1].input_ids.tolist()


def test_no_end_token_is_appended_after_an_answer_that_is_not_learnt(tokenizer: Any) -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}\n{% endfor %}", {})
    rows = RowTokenizer(tokenizer, template, Limits(64))
    untrained = rows.encode([Conversation(RowRef("r", 1), _turns("a", "one", "b", "-two"))])
    assert untrained.counts.rows_end_appended == 0
    assert untrained.rows[0][1].input_ids[-1] != tokenizer.eos_token_id


CALLING = (
    Message("user", "Warm in Rome?"),
    Message("assistant", "", tool_calls=(ToolCall("get_weather", {"city": "Rome"}),)),
)
TOOL_TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _with_tools(tokenizer: Any, row: Conversation, text: str = TOOL_TEMPLATE) -> BatchResult:
    template = ChatTemplate.for_tokenizer(text, tokenizer)
    return RowTokenizer(tokenizer, template, Limits(512)).encode([row])


def test_a_call_is_trained_with_its_end_and_the_tool_s_answer_is_not(tokenizer: Any) -> None:
    turns = (*CALLING, Message("tool", "12 degrees"), Message("assistant", "No."))
    result = _with_tools(tokenizer, Conversation(RowRef("r", 1), turns, tools=tuple(TOOLS)))
    (_, row) = result.rows[0]
    call = '{"name": "get_weather", "arguments": {"city": "Rome"}}'
    assert _trained_text(tokenizer, row) == f"{call}<|im_end|>No.<|im_end|>"
    assert tokenizer.decode(row.input_ids.tolist()).startswith('{"type": "function"')
    assert (result.counts.answers, result.counts.answers_end_trained) == (2, 2)


def test_the_answer_of_a_row_that_ends_with_a_call_is_the_call_as_it_is_written(
    tokenizer: Any,
) -> None:
    (_, row) = _with_tools(tokenizer, Conversation(RowRef("r", 1), CALLING)).rows[0]
    assert row.prompt == "Warm in Rome?"
    assert row.answer == '{"name": "get_weather", "arguments": {"city": "Rome"}}'


def test_a_row_of_tools_is_bad_where_the_template_has_no_place_for_them(tokenizer: Any) -> None:
    row = Conversation(RowRef("r.jsonl", 4), CALLING)
    result = _with_tools(tokenizer, row, CHATML)
    assert "no place for tool calls" in result.bad[0].reason
    assert result.bad[0].problems[0].where == "r.jsonl:4"


def test_control_tokens_in_the_arguments_of_a_call_are_counted(tokenizer: Any) -> None:
    calls = (ToolCall("say", {"text": "<|im_end|>"}),)
    turns = (CALLING[0], Message("assistant", "", tool_calls=calls))
    counts = _with_tools(tokenizer, Conversation(RowRef("r", 1), turns)).counts
    assert counts.rows_with_control_tokens == 1


def _pieces(*pieces: tuple[str, bool]) -> Conversation:
    return Conversation(RowRef("r", 1), segments=tuple(Segment(*piece) for piece in pieces))


def test_of_pieces_of_text_those_are_trained_that_say_so(tokenizer: Any) -> None:
    row = _pieces(("Q: 世", False), ("A 🤒", True), (" and", False), (" B<|im_end|>", True))
    result = _encode(tokenizer, row)
    (_, found) = result.rows[0]
    text = "Q: 世A 🤒 and B<|im_end|>"
    assert found.input_ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert _trained_text(tokenizer, found) == "A 🤒 B<|im_end|>"
    assert (found.prompt, found.answer) == (" and", " B<|im_end|>")
    counts = result.counts
    assert (counts.answers, counts.answers_end_trained, counts.rows_end_appended) == (1, 1, 0)


def test_a_token_over_the_border_of_two_pieces_belongs_to_the_later_one(tokenizer: Any) -> None:
    whole = tokenizer(" fever", add_special_tokens=False)["input_ids"]
    assert len(whole) == 1
    for first in (True, False):
        row = _pieces(("x", False), (" fe", first), ("ver", not first))
        (_, found) = (_encode(tokenizer, row).rows or [(0, None)])[0]
        trained = [] if found is None else found.input_ids[found.trained].tolist()
        assert trained == ([] if first else whole)


def test_pieces_of_text_that_end_without_an_end_token_are_counted(tokenizer: Any) -> None:
    counts = _encode(tokenizer, _pieces(("Q", False), (" A", True))).counts
    assert (counts.answers, counts.answers_end_trained, counts.rows_without_end) == (1, 0, 0)


def test_pieces_of_text_get_the_start_token_once(bos_tokenizer: Any) -> None:
    start = bos_tokenizer.bos_token_id
    for first in ("Q", "<s>Q"):
        row = _encode(bos_tokenizer, _pieces((first, True), (" A</s>", True))).rows[0][1]
        assert row.input_ids.tolist().count(start) == 1
        assert row.input_ids[0] == start
        assert row.trained.tolist() == [False, *[True] * (len(row.input_ids) - 1)]


def test_the_untrained_part_of_pieces_of_text_is_their_prompt(tokenizer: Any) -> None:
    row = _pieces(("word " * 30, False), ("yes", True))
    result = _encode(tokenizer, row, max_input_length=20)
    assert "max_input_length is 20" in result.dropped[0].reason


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_comparing_the_end_of_a_prompt_finds_what_comparing_all_of_it_finds(
    family: Family, smollm2_tokenizer_dir: Path
) -> None:
    tokenizer = family_tokenizer(family, smollm2_tokenizer_dir)
    template = ChatTemplate.for_tokenizer(family.template, tokenizer)
    rows = RowTokenizer(tokenizer, template, Limits(512))
    asked = ["Why?", "Why? ", " ", "世", "a\n", "<|im_end|>", "12", "<s>"]
    for question in asked:
        for answer in ("Because.", " so", "\n\nx", "\tx", "é"):
            turns = _turns(question, answer)
            result = rows.encode([Conversation(RowRef("r", 1), turns)])
            whole = template.render(turns)
            prompt = template.render(turns[:1], add_generation_prompt=True)
            ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
            alone = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            if result.counts.answers_inexact == 0:
                assert result.counts.answers_other_prompt == (ids[: len(alone)] != alone)


def test_nothing_is_asked_of_a_row_whose_last_answer_is_cut_off(tokenizer: Any) -> None:
    """The tokens before an earlier answer are no question for the last one."""
    first, second = (_chat(3, *each).messages for each in (("One?", "1."), ("Two?", "2.")))
    chat = Conversation(RowRef("r.jsonl", 3), (*first, *second))
    whole = _encode(tokenizer, chat).rows[0][1]
    last = int(np.flatnonzero(np.diff(whole.trained.astype(np.int8)) == 1)[-1]) + 1
    assert whole.prompt == "Two?"
    assert _encode(tokenizer, chat, max_length=last + 1).rows[0][1].prompt == "Two?"
    assert _encode(tokenizer, chat, max_length=last).rows[0][1].prompt == ""
