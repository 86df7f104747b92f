"""A tokenizer directory as llama.cpp's vocabulary, proved with its engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from llamafarm.errors import ModelError
from llamafarm.export.vocabulary import (
    check_vocabulary_supported,
    needs_phi3_name,
    read_vocabulary,
)
from llamafarm.models.llama_cpp import LlamaCpp
from tests.export.tokenizers_for_tests import (
    GEMMA,
    HARD_TEXTS,
    LLAMA_2,
    SPECIAL_TEXTS,
    byte_fallback_tokenizer,
    byte_level_tokenizer,
    differing_texts,
    metaspace,
    random_texts,
    save_tokenizer,
    sentencepiece_tokenizer,
    training_lines,
    write_vocabulary_gguf,
)

TEXTS = (*HARD_TEXTS, *SPECIAL_TEXTS, *random_texts(600, seed=2))
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def gpt2_tokenizer() -> dict[str, Any]:
    return byte_level_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=False))


def with_added(whole: Mapping[str, Any], content: str, **flags: Any) -> dict[str, Any]:
    """With one more added token, behind all others."""
    number = 1 + max(
        [*whole["model"]["vocab"].values(), *(entry["id"] for entry in whole["added_tokens"])]
    )
    off = dict.fromkeys(("special", "normalized", "lstrip", "rstrip", "single_word"), False)
    entry = {**off, "id": number, "content": content, **flags}
    return {**whole, "added_tokens": [*whole["added_tokens"], entry]}


class TestSmolLM2:
    def test_every_text_becomes_the_same_tokens(
        self, smollm2_tokenizer_dir: Path, tmp_path: Path
    ) -> None:
        tokenizer = Tokenizer.from_file(str(smollm2_tokenizer_dir / "tokenizer.json"))
        texts = (*TEXTS, *random_texts(600, seed=3), *training_lines())
        covered = [text for text in texts if has_tokens_for(text, tokenizer)]

        assert len(covered) > len(texts) * 0.8
        assert differing_texts(copied(smollm2_tokenizer_dir, tmp_path), covered) == []

    def test_any_text_becomes_the_same_tokens(
        self, smollm2_tokenizer_dir: Path, tmp_path: Path
    ) -> None:
        vocabulary = read_vocabulary(smollm2_tokenizer_dir, 49152)
        file = write_vocabulary_gguf(tmp_path / "model.gguf", vocabulary)
        tokenizer = Tokenizer.from_file(str(smollm2_tokenizer_dir / "tokenizer.json"))

        @settings(
            max_examples=300,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.text())
        def same(text: str) -> None:
            assume(has_tokens_for(text, tokenizer))
            expected = tokenizer.encode(text, add_special_tokens=False).ids
            assert engine.tokenize(text, add_special=False) == tuple(expected)

        with LlamaCpp(file, context_tokens=128, threads=1) as engine:
            same()

    def test_the_file_says_what_the_files_of_the_tokenizer_say(
        self, smollm2_tokenizer_dir: Path
    ) -> None:
        vocabulary = read_vocabulary(smollm2_tokenizer_dir, 49152)

        assert (vocabulary.model, vocabulary.pre) == ("gpt2", "smollm")
        assert vocabulary.tokens[:3] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        assert vocabulary.token_types.count(CONTROL) == 17
        assert vocabulary.token_types.count(NORMAL) == 49152 - 17
        assert vocabulary.merges[0] == "Ġ t"
        assert len(vocabulary.merges) == 48900
        ids = (vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.pad_id)
        assert ids == (1, 2, 0, 2)
        assert vocabulary.scores == ()
        assert vocabulary.add_space_prefix is None

    def test_a_character_without_a_token_is_dropped_by_both_but_at_other_times(
        self, smollm2_tokenizer_dir: Path, tmp_path: Path
    ) -> None:
        """Its vocabulary lacks some bytes, mostly those of no character: `tokenizers` drops them
        before it merges what is on both sides, llama.cpp after.
        """
        directory = copied(smollm2_tokenizer_dir, tmp_path)

        assert differing_texts(directory, ["a\x16b", "_\x16%"]) == ["_\x16%"]


class TestByteFallback:
    def test_llama_2(self, tmp_path: Path) -> None:
        directory = save_tokenizer(tmp_path, byte_fallback_tokenizer(LLAMA_2))

        assert differing_texts(directory, TEXTS) == []

    def test_a_model_of_sentencepiece_itself(self, tmp_path: Path) -> None:
        """The model's own scores are not needed: those made of the merges order pieces alike."""
        whole, model = sentencepiece_tokenizer(tmp_path)
        directory = save_tokenizer(tmp_path, whole)
        texts = [text for text in TEXTS if not any(c in text for c in "\0▁<")]
        vocabulary = read_vocabulary(directory, model.get_piece_size())
        file = write_vocabulary_gguf(tmp_path / "model.gguf", vocabulary)

        assert differing_texts(directory, TEXTS) == []
        with LlamaCpp(file, context_tokens=128, threads=1) as engine:
            for text in texts:
                assert engine.tokenize(text, add_special=False) == tuple(model.encode(text))

    def test_gemma(self, tmp_path: Path) -> None:
        """Where a text holds `▁` itself, tokenizer.json cuts out runs of it without the spaces
        beside them, which llama.cpp takes for the same character.
        """
        directory = save_tokenizer(tmp_path, byte_fallback_tokenizer(GEMMA, runs=True))

        assert differing_texts(directory, [t for t in TEXTS if "▁" not in t]) == []
        assert differing_texts(directory, ["a▁▁b", "a ▁▁ b"]) == ["a ▁▁ b"]

    def test_no_space_in_front(self, tmp_path: Path) -> None:
        directory = save_tokenizer(tmp_path, byte_fallback_tokenizer(metaspace("never")))

        assert differing_texts(directory, TEXTS) == []

    def test_a_space_in_front_of_the_whole_text_only(self, tmp_path: Path) -> None:
        """Texts of a chat format start with a special token. One that does not gets its space from
        tokenizer.json alone: llama.cpp could only put one behind every special token too.
        """
        directory = save_tokenizer(tmp_path, byte_fallback_tokenizer(metaspace("first")))

        assert differing_texts(directory, ["<s>" + text for text in TEXTS]) == []
        assert differing_texts(directory, ["a", " a", "a<|im_end|>a"]) == ["a", "a<|im_end|>a"]

    def test_a_space_in_front_of_what_starts_with_none(self, tmp_path: Path) -> None:
        """llama.cpp puts its space also in front of a piece that starts with one."""
        directory = save_tokenizer(tmp_path, byte_fallback_tokenizer(metaspace("always")))
        without = [text for text in TEXTS if not starts_with_space(text)]

        assert len(without) > len(TEXTS) / 2
        assert differing_texts(directory, [*without, " a"]) == [" a"]

    def test_types_scores_and_roles(self, tmp_path: Path) -> None:
        whole = byte_fallback_tokenizer(GEMMA, runs=True)
        vocabulary = read_vocabulary(save_tokenizer(tmp_path, whole), 2000)
        kinds = dict(zip(vocabulary.tokens, vocabulary.token_types, strict=True))
        scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))

        assert (vocabulary.model, vocabulary.pre, vocabulary.merges) == ("llama", "default", ())
        assert (kinds["<unk>"], kinds["<s>"], kinds["<|im_end|>"]) == (UNKNOWN, CONTROL, CONTROL)
        assert (kinds["<0x0A>"], kinds["\n\n"], kinds["<b>"]) == (BYTE, USER_DEFINED, USER_DEFINED)
        assert (kinds["▁▁"], kinds["▁t"], kinds["[PAD1999]"]) == (NORMAL, NORMAL, UNUSED)
        assert scores["▁▁▁"] > scores["▁▁"] > scores["▁t"] > scores["e"] == min(scores.values())
        ids = (vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.pad_id)
        assert ids == (1, 2, 0, None)

    def test_added_tokens_that_are_looked_for_among_the_pieces_are_written_with_spaces(
        self, tmp_path: Path
    ) -> None:
        whole = with_added(byte_fallback_tokenizer(GEMMA), "a▁a", normalized=True)
        directory = save_tokenizer(tmp_path, whole)
        vocabulary = read_vocabulary(directory, len(whole["model"]["vocab"]) + 1)

        assert (vocabulary.tokens[-1], vocabulary.token_types[-1]) == ("a a", USER_DEFINED)
        assert differing_texts(directory, ["a a a a", "ba a"]) == []

    def test_merges_that_scores_cannot_express_are_refused(self, tmp_path: Path) -> None:
        whole = byte_fallback_tokenizer(LLAMA_2)
        merges = whole["model"]["merges"]
        incomplete = [merge for merge in merges if merge != ["▁th", "e"]]
        torn = [*incomplete, ["▁th", "e"]]
        assert len(torn) == len(merges)

        for changed, reason in (
            (incomplete, "some pairs that make up a token are not among the merges"),
            (torn, "the merges of one token are not next to each other"),
        ):
            broken = {**whole, "model": {**whole["model"], "merges": changed}}
            directory = save_tokenizer(tmp_path, broken)
            with pytest.raises(ModelError, match=reason):
                check_vocabulary_supported(directory)

    def test_a_missing_byte_is_refused(self, tmp_path: Path) -> None:
        whole = byte_fallback_tokenizer(LLAMA_2)
        del whole["model"]["vocab"]["<0xE2>"]

        with pytest.raises(ModelError, match="lacks 1 byte, the first is <0xE2>"):
            check_vocabulary_supported(save_tokenizer(tmp_path, whole))


class TestRows:
    def test_rows_without_a_token_are_padded(self, tmp_path: Path) -> None:
        whole = gpt2_tokenizer()
        size = len(whole["model"]["vocab"])
        vocabulary = read_vocabulary(save_tokenizer(tmp_path, whole), size + 2)

        assert vocabulary.tokens[size:] == (f"[PAD{size}]", f"[PAD{size + 1}]")
        assert vocabulary.token_types[size - 1 :] == (NORMAL, UNUSED, UNUSED)

    def test_a_token_more_than_rows_is_refused(self, tmp_path: Path) -> None:
        whole = gpt2_tokenizer()
        size = len(whole["model"]["vocab"])

        with pytest.raises(ModelError, match="1 token more than the embedding"):
            read_vocabulary(save_tokenizer(tmp_path, whole), size - 1)

    def test_an_added_token_without_a_row_is_left_out(self, tmp_path: Path) -> None:
        """The text-only Gemma 3 models come with such a token for images."""
        whole = with_added(gpt2_tokenizer(), "<image>", special=True)
        size = len(whole["model"]["vocab"])
        directory = save_tokenizer(tmp_path, whole, {"pad_token": "<image>"})

        assert "<image>" not in read_vocabulary(directory, size).tokens
        assert read_vocabulary(directory, size).pad_id is None
        assert read_vocabulary(directory, size + 1).tokens[size] == "<image>"
        assert read_vocabulary(directory, size + 1).pad_id == size

    def test_two_tokens_of_one_text_are_refused(self, tmp_path: Path) -> None:
        whole = gpt2_tokenizer()
        size = len(whole["model"]["vocab"])
        padded = with_added(whole, f"[PAD{size + 1}]")

        with pytest.raises(ModelError, match="would have the same text"):
            read_vocabulary(save_tokenizer(tmp_path, padded), size + 2)


class TestAddedTokens:
    def test_special_ones_are_control_tokens_and_others_are_user_defined(
        self, tmp_path: Path
    ) -> None:
        whole = with_added(with_added(gpt2_tokenizer(), "<tool>"), "<|end|>", special=True)
        directory = save_tokenizer(tmp_path, whole)
        vocabulary = read_vocabulary(directory, len(whole["model"]["vocab"]) + 2)

        assert vocabulary.tokens[-2:] == ("<tool>", "<|end|>")
        assert vocabulary.token_types[-2:] == (USER_DEFINED, CONTROL)
        assert differing_texts(directory, ["a<tool>b<|end|>\n", "<tool><tool"]) == []

    def test_flags_of_the_configuration_count_for_the_same_token_only(self, tmp_path: Path) -> None:
        whole = with_added(with_added(gpt2_tokenizer(), "<tool>"), "<other>")
        number = len(whole["model"]["vocab"])
        special = {"special": True}
        decoder = {
            str(number): {"content": "<tool>", **special},
            str(number + 1): {"content": "<unlike>", **special},
        }
        directory = save_tokenizer(tmp_path, whole, {"added_tokens_decoder": decoder})

        assert read_vocabulary(directory, number + 2).token_types[-2:] == (CONTROL, USER_DEFINED)

    def test_one_that_is_found_only_between_words_is_refused(self, tmp_path: Path) -> None:
        whole = with_added(gpt2_tokenizer(), "tool", single_word=True)

        with pytest.raises(ModelError, match="single_word"):
            check_vocabulary_supported(save_tokenizer(tmp_path, whole))

    def test_one_that_is_found_only_behind_a_space_is_refused(self, tmp_path: Path) -> None:
        """A normalizer that puts `▁` in front of a text puts it in front of such a token too."""
        whole = with_added(byte_fallback_tokenizer(LLAMA_2), "<tool>", normalized=True)

        with pytest.raises(ModelError, match="only behind a space"):
            check_vocabulary_supported(save_tokenizer(tmp_path, whole))

    def test_white_space_behind_special_tokens_is_stripped_under_the_name_of_phi_3(
        self, tmp_path: Path
    ) -> None:
        whole = byte_fallback_tokenizer(LLAMA_2)
        whole = with_added(whole, "<|endoftext|>", special=True)
        for entry in whole["added_tokens"]:
            entry["rstrip"] = entry["content"] not in ("<unk>", "<s>", "<|endoftext|>")
        directory = save_tokenizer(tmp_path, whole)
        texts = ["<|im_start|>\nHello<|im_end|>\n\n a", "<s> a<|endoftext|>\nb</s> c"]

        assert needs_phi3_name(directory)
        assert differing_texts(directory, texts, name="my-phi-3-mini") == []
        assert differing_texts(directory, texts, name="my-model") == texts

    def test_other_tokenizers_need_no_such_name(
        self, smollm2_tokenizer_dir: Path, tmp_path: Path
    ) -> None:
        whole = with_added(byte_fallback_tokenizer(LLAMA_2), "<|endoftext|>", special=True)

        assert not needs_phi3_name(save_tokenizer(tmp_path, whole))
        assert not needs_phi3_name(smollm2_tokenizer_dir)


class TestFiles:
    def test_both_forms_of_merges_are_read(self, tmp_path: Path) -> None:
        whole = gpt2_tokenizer()
        lists = whole["model"]["merges"]
        strings = {**whole["model"], "merges": [" ".join(merge) for merge in lists]}
        size = len(whole["model"]["vocab"])
        first = read_vocabulary(save_tokenizer(tmp_path / "a", whole), size)
        second = read_vocabulary(save_tokenizer(tmp_path / "b", {**whole, "model": strings}), size)

        assert isinstance(lists[0], list)
        assert first == second
        assert first.merges[0] == " ".join(lists[0])

    def test_a_space_within_a_piece_is_written_as_gpt_2_writes_it(self, tmp_path: Path) -> None:
        whole = gpt2_tokenizer()
        whole["model"]["merges"].append(["a ", "b"])
        directory = save_tokenizer(tmp_path, whole)

        assert read_vocabulary(directory, 5000).merges[-1] == "aĠ b"

    def test_roles_come_from_the_tokenizer_or_else_from_the_model(self, tmp_path: Path) -> None:
        roles = {"bos_token": {"content": "<s>"}, "pad_token": "<nowhere>", "unk_token": None}
        directory = save_tokenizer(tmp_path, gpt2_tokenizer(), roles)
        model = {"bos_token_id": 3, "text_config": {"pad_token_id": 2}, "unk_token_id": 99999}
        (directory / "config.json").write_text(json.dumps(model))
        (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
        vocabulary = read_vocabulary(directory, 5000)

        ids = (vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.pad_id)
        assert ids == (0, 1, None, 2)

    @pytest.mark.parametrize("kind", ["Unigram", "WordPiece", "WordLevel"])
    def test_other_kinds_are_refused_with_what_is_supported(
        self, kind: str, tmp_path: Path
    ) -> None:
        directory = save_tokenizer(tmp_path, {"model": {"type": kind, "vocab": {}}})

        with pytest.raises(ModelError, match=f"is a {kind} tokenizer") as fault:
            check_vocabulary_supported(directory)
        assert "byte-level BPE" in fault.value.hint
        assert "BPE with byte fallback" in fault.value.hint

    def test_bpe_without_bytes_is_refused(self, tmp_path: Path) -> None:
        whole = byte_fallback_tokenizer(LLAMA_2)
        whole["model"]["byte_fallback"] = False

        with pytest.raises(ModelError, match="knows no bytes"):
            check_vocabulary_supported(save_tokenizer(tmp_path, whole))

    def test_settings_that_llama_cpp_does_not_know_are_refused(self, tmp_path: Path) -> None:
        whole = gpt2_tokenizer()
        whole["model"]["end_of_word_suffix"] = "</w>"

        with pytest.raises(ModelError, match="end_of_word_suffix"):
            check_vocabulary_supported(save_tokenizer(tmp_path, whole))

    def test_a_directory_without_tokenizer_json_says_how_to_make_one(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.model").touch()

        with pytest.raises(ModelError, match=r"has no tokenizer\.json") as fault:
            check_vocabulary_supported(tmp_path)
        assert "save_pretrained" in fault.value.hint

    @pytest.mark.parametrize(
        "whole",
        [
            {},
            {"model": None},
            {"model": {"type": "BPE", "vocab": {"a": 0}}},
            {"model": {"type": "BPE", "vocab": ["a"], "merges": []}},
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b c"]}},
            {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": [{"id": 1}]},
        ],
    )
    def test_a_broken_tokenizer_json_is_named(
        self, whole: Mapping[str, Any], tmp_path: Path
    ) -> None:
        with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer's file"):
            check_vocabulary_supported(save_tokenizer(tmp_path, whole))


def copied(source: Path, target: Path) -> Path:
    """The files of a tokenizer, where a GGUF file may be written beside them."""
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def has_tokens_for(text: str, tokenizer: Tokenizer) -> bool:
    """Whether a byte-level vocabulary has a token for each byte of the text."""
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    stand_ins = {c for part, _ in bytes_only.pre_tokenize_str(text) for c in part}
    return all(tokenizer.token_to_id(stand_in) is not None for stand_in in stand_ins)


def starts_with_space(text: str) -> bool:
    """Whether the text, or what follows a special token in it, starts with a space or `▁`."""
    for special in ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"):
        text = text.replace(special, "\0\0")
    return any(part.startswith((" ", "▁")) for part in text.split("\0\0"))
