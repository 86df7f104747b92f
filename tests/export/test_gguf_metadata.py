"""The header beside the architecture's own keys: origin, tokenizer, how a conversation ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.export.chat_template import embedded_template
from llamafarm.export.contents import Vocabulary
from llamafarm.export.gguf_metadata import (
    Origin,
    Serving,
    general_metadata,
    license_of,
    size_label,
    tokenizer_metadata,
)

ORIGIN = Origin(
    name="fever",
    base_name="HuggingFaceTB/SmolLM2-135M-Instruct",
    license="apache-2.0",
    fingerprint="abc123",
    num_parameters=134_515_008,
    made_by="llamafarm 1.0",
)
VOCABULARY = Vocabulary(
    "gpt2",
    "smollm",
    ("<unk>", "<s>", "</s>", "a"),
    (2, 3, 3, 1),
    merges=("a b",),
    bos_id=1,
    eos_id=2,
    unk_id=0,
    pad_id=2,
)
SERVING = Serving(add_bos=False, end_token_id=2, chat_template="{{ messages }}")


def general(origin: Origin = ORIGIN, file_type: int = 7) -> dict[str, Any]:
    return {datum.key: datum.value for datum in general_metadata(origin, file_type)}


def tokenizer(vocabulary: Vocabulary = VOCABULARY, serving: Serving = SERVING) -> dict[str, Any]:
    return {
        datum.key.removeprefix("tokenizer.ggml."): datum.value
        for datum in tokenizer_metadata(vocabulary, serving)
    }


def test_the_header_says_who_made_it_from_what() -> None:
    assert general() == {
        "general.type": "model",
        "general.name": "fever",
        "general.size_label": "135M",
        "general.license": "apache-2.0",
        "general.quantized_by": "llamafarm 1.0",
        "llamafarm.base_sha256": "abc123",
        "general.base_model.count": 1,
        "general.base_model.0.name": "SmolLM2-135M-Instruct",
        "general.base_model.0.organization": "HuggingFaceTB",
        "general.base_model.0.repo_url": (
            "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct"
        ),
        "general.tags": ("llamafarm", "text-generation"),
        "general.file_type": 7,
        "general.quantization_version": 2,
    }


def test_what_is_not_known_is_not_said() -> None:
    found = general(replace(ORIGIN, base_name="", license="", fingerprint=""))
    assert not {key for key in found if "base" in key or "license" in key}


@pytest.mark.parametrize("name", ["./base", "/models/base", "~/base"])
def test_a_path_of_this_machine_becomes_no_address(name: str) -> None:
    found = general(replace(ORIGIN, base_name=name))
    assert "general.base_model.0.repo_url" not in found
    assert found["general.base_model.0.name"] == "base"


@pytest.mark.parametrize(
    ("number", "label"),
    [
        (134_515_008, "135M"),
        (1_235_814_400, "1.2B"),
        (7_241_732_096, "7.2B"),
        (9_960_000_000, "10B"),
        (70_553_706_496, "71B"),
        (1_030_000_000_000, "1.0T"),
        (9_400, "9.4K"),
    ],
)
def test_sizes_are_labelled_as_llama_cpp_labels_them(number: int, label: str) -> None:
    from gguf.utility import model_weight_count_rounded_notation

    assert size_label(number) == label == model_weight_count_rounded_notation(number)


def test_a_model_of_a_few_numbers_has_a_size_too() -> None:
    assert size_label(12) == "12"


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\ntags: []\n---\n# M", "apache-2.0"),
        ('---\nlanguage: en\nlicense: "llama3.2"\n---\n', "llama3.2"),
        ("---\nlicense: mit # see LICENSE\n---\n", "mit"),
        ("# M\n\nlicense: mit\n", ""),
        ("---\ntags: []\n---\nlicense: mit\n", ""),
        ("", ""),
    ],
)
def test_the_licence_is_what_the_model_card_says_in_front(
    card: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text(card)
    assert license_of(tmp_path) == expected


def test_a_base_without_a_model_card_has_no_licence_that_is_known(tmp_path: Path) -> None:
    assert license_of(tmp_path) == ""


def test_the_vocabulary_stands_in_the_header() -> None:
    found = tokenizer()
    assert found["tokens"] == VOCABULARY.tokens
    assert found["token_type"] == (2, 3, 3, 1)
    assert found["merges"] == ("a b",)
    assert (found["model"], found["pre"]) == ("gpt2", "smollm")
    assert "scores" not in found
    assert "add_space_prefix" not in found


def test_a_vocabulary_with_scores_has_them_and_no_merges() -> None:
    scored = replace(VOCABULARY, model="llama", scores=(0.0, 0.0, 0.0, -1.0), merges=())
    found = tokenizer(replace(scored, add_space_prefix=False))
    assert found["scores"] == (0.0, 0.0, 0.0, -1.0)
    assert "merges" not in found
    assert found["add_space_prefix"] is False


@pytest.mark.parametrize("add_bos", [True, False])
def test_the_start_token_is_added_exactly_where_training_had_it(add_bos: bool) -> None:
    found = tokenizer(serving=replace(SERVING, add_bos=add_bos))
    assert found["add_bos_token"] is add_bos
    assert found["add_eos_token"] is False
    assert found["bos_token_id"] == 1


@pytest.mark.parametrize(
    ("eos", "end", "expected"),
    [
        (2, 2, {"eos_token_id": 2}),
        (2, 3, {"eos_token_id": 2, "eot_token_id": 3}),
        (None, 3, {"eos_token_id": 3}),
        (2, None, {"eos_token_id": 2}),
        (None, None, {}),
    ],
)
def test_the_token_that_training_ended_answers_with_ends_them(
    eos: int | None, end: int | None, expected: dict[str, int]
) -> None:
    found = tokenizer(replace(VOCABULARY, eos_id=eos), replace(SERVING, end_token_id=end))
    assert {key: found[key] for key in ("eos_token_id", "eot_token_id") if key in found} == expected


def test_the_template_is_the_one_of_training_as_every_reader_keeps_it() -> None:
    assert tokenizer()["tokenizer.chat_template"] == embedded_template("{{ messages }}")
    assert "tokenizer.chat_template" not in tokenizer(serving=replace(SERVING, chat_template=None))
