"""llama.cpp's name of a split, found by the structure of tokenizer.json, proved with its engine."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, normalizers, pre_tokenizers

from llamafarm.errors import ModelError
from llamafarm.export.pre_tokenizers import prepends_space, recognise
from tests.export.tokenizers_for_tests import (
    GEMMA,
    HARD_TEXTS,
    LLAMA_2,
    SPECIAL_TEXTS,
    byte_level_tokenizer,
    differing_texts,
    metaspace,
    random_texts,
    save_tokenizer,
)

# As the tokenizer.json files of the models have them.
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# DeepSeek's files hold the line ends themselves, not their escapes.
DEEPSEEK_3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
NFC_TEXTS = tuple(
    unicodedata.normalize("NFC", text)
    for text in (*HARD_TEXTS, *SPECIAL_TEXTS, *random_texts(400, seed=1))
)


def split(pattern: str, behaviour: str = "isolated", *, invert: bool = False) -> Any:
    return pre_tokenizers.Split(Regex(pattern), behavior=behaviour, invert=invert)


def byte_level(*, words: bool = False) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)


def digits() -> Any:
    return pre_tokenizers.Digits(individual_digits=True)


def nothing_merged(*steps: Any, normalizer: Any = None, **settings: bool) -> dict[str, Any]:
    """The structure alone, with a vocabulary that no merge leads to."""
    whole = byte_level_tokenizer(*steps, normalizer=normalizer)
    return whole | {"model": {"vocab": {"ab": 0}, "merges": [], **settings}, "added_tokens": []}


BYTES_OF_DEEPSEEK_CODER = (
    split("[\r\n]"),
    split(r"\s?\p{L}+"),
    split(r"\s?\p{P}+"),
    split("[一-龥ࠀ-一가-퟿]+"),
    digits(),
    byte_level(),
)
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "gpt-2": {"steps": [byte_level(words=True)]},
    "olmo": {"steps": [byte_level(words=True)], "normalizer": normalizers.NFC()},
    "smollm": {"steps": [digits(), byte_level(words=True)]},
    "command-r": {"steps": [digits(), byte_level(words=True)], "normalizer": normalizers.NFC()},
    "llama-bpe": {"steps": [split(CL100K), byte_level()], "ignore_merges": True},
    "dbrx": {"steps": [split(CL100K), byte_level()]},
    "qwen2": {"steps": [split(QWEN2), byte_level()], "normalizer": normalizers.NFC()},
    "qwen35": {"steps": [split(QWEN35), byte_level()], "normalizer": normalizers.NFC()},
    "deepseek-coder": {"steps": BYTES_OF_DEEPSEEK_CODER},
    "deepseek-v3": {
        "steps": [
            split(r"\p{N}{1,3}"),
            split("[一-龥぀-ゟ゠-ヿ]+"),
            split(DEEPSEEK_3),
            byte_level(),
        ]
    },
}
CAPITALS = {
    "gpt-4o": {"steps": [split(O200K), byte_level()]},
    "tekken": {"steps": [split(TEKKEN), byte_level()], "ignore_merges": True},
}


def saved(directory: Path, steps: Any, **settings: Any) -> Path:
    return save_tokenizer(directory, byte_level_tokenizer(*steps, **settings))


@pytest.mark.parametrize("name", FAMILIES)
def test_llama_cpp_splits_every_text_as_the_structure_does(name: str, tmp_path: Path) -> None:
    whole = byte_level_tokenizer(*FAMILIES[name]["steps"], **_settings(FAMILIES[name]))

    assert recognise(whole) == name
    assert differing_texts(save_tokenizer(tmp_path, whole), NFC_TEXTS) == []


@pytest.mark.parametrize("name", CAPITALS)
def test_splits_before_capitals_are_the_same_but_for_marks_and_foreign_capitals(
    name: str, tmp_path: Path
) -> None:
    """llama.cpp knows no classes for capitals and none for marks in these two: it takes every
    letter that is not a to z or A to Z for either case, and ends a word at a mark.
    """
    whole = byte_level_tokenizer(*CAPITALS[name]["steps"], **_settings(CAPITALS[name]))
    plain = [text for text in NFC_TEXTS if not any(map(_is_mark_or_foreign_case, text))]

    assert recognise(whole) == name
    assert len(plain) > len(NFC_TEXTS) / 4
    differing = differing_texts(save_tokenizer(tmp_path, whole), [*plain, "हिन्दी में"])
    assert differing == ["हिन्दी में"]


def test_a_split_that_keeps_only_its_matches_is_the_same_where_it_leaves_no_gap() -> None:
    kept = split(CL100K, "removed", invert=True)

    assert recognise(nothing_merged(kept, byte_level())) == "dbrx"


def test_a_split_that_removes_text_is_not_known() -> None:
    with pytest.raises(ModelError, match=r"not known to llama\.cpp"):
        recognise(nothing_merged(split(CL100K, "removed"), byte_level()))


def test_a_single_step_needs_no_sequence() -> None:
    whole = nothing_merged(byte_level(words=True))

    assert recognise(whole | {"pre_tokenizer": whole["pre_tokenizer"]["pretokenizers"][0]}) == (
        "gpt-2"
    )


def test_an_unknown_split_is_shown_with_its_regexes() -> None:
    with pytest.raises(ModelError) as fault:
        recognise(nothing_merged(split(r"\p{L}{1,7}"), digits(), byte_level()))

    text = fault.value.render()
    assert "the way this tokenizer splits text is not known to llama.cpp" in text
    assert r"Split at \p{L}{1,7}" in text
    assert "Digits, each alone" in text
    assert "llama-bpe" in fault.value.hint


@pytest.mark.parametrize(
    "normalizer", [normalizers.Lowercase(), normalizers.NFKC(), normalizers.NFC()]
)
def test_a_normalizer_that_the_split_is_not_known_with_is_refused(normalizer: Any) -> None:
    with pytest.raises(ModelError, match=type(normalizer).__name__):
        recognise(nothing_merged(split(CL100K), byte_level(), normalizer=normalizer))


def test_a_space_in_front_of_bytes_is_refused() -> None:
    with pytest.raises(ModelError, match="add_prefix_space: True"):
        recognise(nothing_merged(pre_tokenizers.ByteLevel(add_prefix_space=True)))


def test_text_that_is_not_in_nfc_becomes_other_tokens_in_llama_cpp(tmp_path: Path) -> None:
    """llama.cpp normalises nothing, and no GGUF key can ask it to."""
    directory = saved(tmp_path, **FAMILIES["qwen2"])
    composed, decomposed = "caf\u00e9", "cafe\u0301"

    assert differing_texts(directory, [composed, decomposed]) == [decomposed]


@pytest.mark.parametrize(("ignore_merges", "name"), [(True, "llama-bpe"), (False, "dbrx")])
def test_a_word_without_merges_is_taken_whole_where_tokenizer_json_says_so(
    ignore_merges: bool, name: str, tmp_path: Path
) -> None:
    whole = byte_level_tokenizer(split(CL100K), byte_level(), ignore_merges=ignore_merges)
    vocabulary = whole["model"]["vocab"]
    vocabulary["Ġzebrafish"] = len(vocabulary)

    assert recognise(whole) == name
    assert differing_texts(save_tokenizer(tmp_path, whole), ["a zebrafish", "zebrafishes"]) == []


def test_whether_words_are_taken_whole_matters_only_where_merges_do_not_lead_to_them() -> None:
    whole = byte_level_tokenizer(split(TEKKEN), byte_level(), ignore_merges=False)

    assert recognise(whole) == "tekken"
    whole["model"]["vocab"]["Ġzebrafish"] = 9999
    with pytest.raises(ModelError, match="does not take them whole"):
        recognise(whole)


@pytest.mark.parametrize(
    ("structure", "prepends"),
    [
        (LLAMA_2, True),
        (GEMMA, False),
        (metaspace("always"), True),
        (metaspace("first"), False),
        (metaspace("never"), False),
    ],
)
def test_the_space_in_front_is_read_from_the_structure(
    structure: Mapping[str, Any], prepends: bool
) -> None:
    assert prepends_space(structure) is prepends


@pytest.mark.parametrize(
    "structure",
    [
        {"normalizer": None, "pre_tokenizer": None},
        {"normalizer": {"type": "Prepend", "prepend": "▁"}, "pre_tokenizer": None},
        {**LLAMA_2, "pre_tokenizer": metaspace("always")["pre_tokenizer"]},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}},
        {"pre_tokenizer": {**metaspace("never")["pre_tokenizer"], "replacement": "_"}},
        {"normalizer": {"type": "Precompiled"}, "pre_tokenizer": None},
    ],
)
def test_other_ways_with_spaces_are_refused(structure: Mapping[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"treats spaces in a way that llama\.cpp does not know"):
        prepends_space(structure)


def test_a_step_without_a_type_is_a_broken_file() -> None:
    with pytest.raises(ModelError, match="a step without a type"):
        recognise({"pre_tokenizer": {"pattern": "x"}, "model": {}})


def _settings(family: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in family.items() if key != "steps"}


def _is_mark_or_foreign_case(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith("M") or (category in ("Lu", "Ll", "Lt") and ord(character) > 127)
