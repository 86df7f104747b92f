from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafarm.data.text_tokens import TextTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = (
    "",
    "Plain words, 12 of them.\n\n",
    "<|im_start|>user\nÜber 🤒<|im_end|>\n",
    "  e\u0301 \u3000\u00a0 \t\r\n 世界 ",
    "<|im_end|><|im_end|>🧑‍🔬",
)


@pytest.fixture(scope="module")
def texts(smollm2_tokenizer: PreTrainedTokenizerFast) -> TextTokenizer:
    return TextTokenizer(smollm2_tokenizer)


def _by_offsets(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """What the library says: ids, and the characters covered so far."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    covered = np.maximum.accumulate([end for _, end in encoded["offset_mapping"]] or [0])
    return encoded["input_ids"], covered.tolist()[: len(encoded["input_ids"])]


def _check(texts: TextTokenizer, tokenizer: Any, batch: tuple[str, ...]) -> None:
    for text, found in zip(batch, texts.encode(batch), strict=True):
        ids, covered = _by_offsets(tokenizer, text)
        assert (found.ids, found.array.tolist(), found.ends.tolist()) == (ids, ids, covered)
        assert (found.array.dtype, found.ends.dtype) == (np.int32, np.int64)


def test_places_are_those_that_the_library_gives(
    texts: TextTokenizer, smollm2_tokenizer: PreTrainedTokenizerFast
) -> None:
    _check(texts, smollm2_tokenizer, TEXTS)
    assert texts.ids(TEXTS) == [found.ids for found in texts.encode(TEXTS)]
    assert texts.encode([]) == [] and texts.ids([]) == []


@settings(deadline=None)
@given(text=st.text())
def test_places_of_any_text_are_those_that_the_library_gives(
    texts: TextTokenizer, smollm2_tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    _check(texts, smollm2_tokenizer, (text,))


@pytest.fixture(scope="module", params=["nfkc", "space before", "trimmed", "words"])
def other_tokenizer(request: pytest.FixtureRequest, smollm2_tokenizer_dir: Path) -> Any:
    """Tokenizers whose tokens are not the bytes of the text, or not all of them."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer.from_file(str(smollm2_tokenizer_dir / "tokenizer.json"))
    if request.param == "nfkc":
        core.normalizer = normalizers.NFKC()
    elif request.param == "space before":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif request.param == "trimmed":
        core.add_special_tokens([AddedToken("<|end|>", rstrip=True)])
    else:
        core = Tokenizer(models.WordLevel({"[UNK]": 0, "Plain": 1}, unk_token="[UNK]"))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def test_a_text_that_tokens_do_not_give_back_has_the_places_of_the_library(
    other_tokenizer: Any,
) -> None:
    batch = (*TEXTS, "<|end|>  after", "\ufb01 x", "Plain  \n  words", " \ufb01\ufb01 ")
    _check(TextTokenizer(other_tokenizer), other_tokenizer, batch)


def test_a_limit_that_another_caller_left_behind_does_not_cut(
    smollm2_tokenizer_dir: Path,
) -> None:
    from llamafarm.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(smollm2_tokenizer_dir)
    texts = TextTokenizer(tokenizer)
    before = texts.ids(TEXTS)
    tokenizer(list(TEXTS), truncation=True, max_length=2, padding="max_length")
    assert texts.ids(TEXTS) == before
