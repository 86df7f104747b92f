from __future__ import annotations

from typing import TYPE_CHECKING

from llamafarm.data.preview import MarkedRow, MarkedText, marked_rows
from llamafarm.data.tokenized import ListRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def test_a_row_is_text_by_runs_of_trained_and_other_tokens(
    smollm2_tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = smollm2_tokenizer("one two three four<|im_end|>")["input_ids"]
    rows = ListRows([(ids, [False, True, True, False, True])])
    pieces = (
        MarkedText("one", False),
        MarkedText(" two three", True),
        MarkedText(" four", False),
        MarkedText("<|im_end|>", True),
    )
    assert marked_rows(rows, smollm2_tokenizer, most=1) == (
        MarkedRow(rows.source(0), tokens=5, trained_tokens=3, pieces=pieces),
    )


def test_no_more_rows_are_marked_than_asked_for_or_there(
    smollm2_tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = smollm2_tokenizer("one two three")["input_ids"]
    rows = ListRows([(ids[:count], [True] * count) for count in (1, 2, 3)])
    for most, tokens in ((0, []), (2, [1, 2]), (9, [1, 2, 3])):
        assert [row.tokens for row in marked_rows(rows, smollm2_tokenizer, most=most)] == tokens
