from __future__ import annotations

from typing import TYPE_CHECKING

from llamafarm.data.preview import preview
from llamafarm.data.tokenized import ListRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def test_trained_runs_stand_between_marks(smollm2_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = smollm2_tokenizer("one two three four")["input_ids"]
    rows = ListRows([(ids, [False, True, True, False])])
    assert preview(rows, 0, smollm2_tokenizer) == "one⟦ two three⟧ four"
    assert preview(rows, 0, smollm2_tokenizer, marks=("<", ">")) == "one< two three> four"
