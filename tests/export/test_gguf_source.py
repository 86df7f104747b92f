"""GGUF files that become other GGUF files: nothing lost, and strange ones refused."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from llamafarm.errors import LlamafarmError, ModelError
from llamafarm.export.chat_template import embedded_template
from llamafarm.export.contents import Metadatum
from llamafarm.export.file_types import FILE_TYPES
from llamafarm.export.ggml_types import type_name_of
from llamafarm.export.gguf_source import GgufSource, open_gguf
from llamafarm.export.gguf_writer import write_gguf
from llamafarm.models.gguf_file import read_gguf
from llamafarm.models.llama_cpp import LlamaCpp
from llamafarm.recipes import recipe_of_gguf
from tests.export.exported import TOOLS
from tests.faults.test_hostile_gguf import ARRAY, STRING, UINT32, gguf_bytes, key, tensor, text
from tests.models.gguf_files import write_llama_gguf

MUTANTS = 400
ROWS = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model with float32 weights; do not change it."""
    path = tmp_path_factory.mktemp("llama") / "llama.gguf"
    write_llama_gguf(path, pre="smollm")
    return path


def copied(source: GgufSource, path: Path) -> Path:
    write_gguf(
        path,
        source.file.architecture,
        source.metadata("new"),
        source.tensors(),
        source.weights,
        threads=1,
    )
    return path


def with_keys(path: Path, keys: dict[str, tuple[Any, str]], *, alignment: int = 32) -> Path:
    """A file with these keys, and one tensor `t` of float32 rows."""
    writer = gguf.GGUFWriter(path, "llama")
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    for name, (value, kind) in keys.items():
        item = gguf.GGUFValueType[kind.removesuffix("[]").upper()]
        if kind.endswith("[]"):
            writer.add_key_value(name, value, gguf.GGUFValueType.ARRAY, sub_type=item)
        else:
            writer.add_key_value(name, value, item)
    writer.add_tensor("before", np.ones(3, np.float32))
    writer.add_tensor("t", ROWS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rows_of(path: Path, name: str = "t") -> Any:
    source = open_gguf(path, None)
    return source.weights.read_rows(name, 0, source.weights.shapes[name][0])


def test_a_copy_holds_every_key_and_tensor_of_the_old_file(llama: Path, tmp_path: Path) -> None:
    old, new = read_gguf(llama), read_gguf(copied(open_gguf(llama, None), tmp_path / "n.gguf"))
    template = old.metadata["tokenizer.chat_template"]
    changed = {"general.name": "new", "tokenizer.chat_template": embedded_template(template)}
    assert new.metadata == {**old.metadata, **changed}
    assert {key: new.types[key] for key in old.types} == dict(old.types)
    bytes_old, bytes_new = llama.read_bytes(), new.path.read_bytes()
    assert [t.name for t in new.tensors] == [t.name for t in old.tensors]
    for before, after in zip(old.tensors, new.tensors, strict=True):
        assert (before.shape, before.ggml_type) == (after.shape, after.ggml_type)
        expected = bytes_old[before.offset :][: before.num_bytes]
        assert bytes_new[after.offset :][: after.num_bytes] == expected


def test_the_engine_predicts_the_same_with_a_copy(llama: Path, tmp_path: Path) -> None:
    copy = copied(open_gguf(llama, None), tmp_path / "n.gguf")
    found = []
    for file in (llama, copy):
        with LlamaCpp(file, context_tokens=64, threads=1) as engine:
            ids = engine.tokenize("a cab")
            found.append((ids, engine.next_token(ids, likeliest=50)))
    assert found[0] == found[1]


def test_a_copy_of_a_copy_is_the_same_file(llama: Path, tmp_path: Path) -> None:
    once = copied(open_gguf(llama, None), tmp_path / "1.gguf")
    twice = copied(open_gguf(once, None), tmp_path / "2.gguf")
    assert once.read_bytes() == twice.read_bytes()


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_tensors_are_encoded_anew_where_a_type_is_asked_for(
    name: str, llama: Path, tmp_path: Path
) -> None:
    source = open_gguf(llama, FILE_TYPES[name])
    new = read_gguf(copied(source, tmp_path / "n.gguf"))
    assert source.type_name == name
    assert new.metadata["general.file_type"] == FILE_TYPES[name].number
    kinds = {t.name: type_name_of(t.ggml_type) for t in new.tensors}
    assert kinds["blk.0.attn_q.weight"] == name
    assert kinds["output_norm.weight"] == "F32"
    expected = rows_of(llama, "blk.0.attn_q.weight")
    found = rows_of(new.path, "blk.0.attn_q.weight")
    assert 0 < np.abs(found - expected).max() < 0.15 * np.abs(expected).max()


def test_tensors_that_have_the_type_already_are_copied(llama: Path, tmp_path: Path) -> None:
    once = copied(open_gguf(llama, FILE_TYPES["Q4_0"]), tmp_path / "1.gguf")
    source = open_gguf(once, FILE_TYPES["Q4_0"])
    assert all(tensor.copied for tensor in source.tensors())
    assert copied(source, tmp_path / "2.gguf").read_bytes() == once.read_bytes()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"general.file_type": (7, "uint32")}, "Q8_0"),
        ({"general.file_type": (15, "uint32")}, "Q4_K_M"),
        ({"general.file_type": (24, "uint32")}, "IQ1_S"),
        ({"general.file_type": (2**40, "uint64")}, "GGUF"),
        ({}, "GGUF"),
    ],
)
def test_a_copy_is_called_after_the_type_that_the_old_file_gives_itself(
    keys: dict[str, tuple[Any, str]], expected: str, tmp_path: Path
) -> None:
    source = open_gguf(with_keys(tmp_path / "x.gguf", keys), None)
    assert source.type_name == expected
    new = read_gguf(copied(source, tmp_path / "n.gguf"))
    assert new.metadata.get("general.file_type") == keys.get("general.file_type", (None,))[0]


def test_values_of_every_kind_are_kept(tmp_path: Path) -> None:
    keys: dict[str, tuple[Any, str]] = {
        "x.flag": (True, "bool"),
        "x.flags": ([True, False], "bool[]"),
        "x.small": ([1, 255], "uint8[]"),
        "x.negative": (-7, "int16"),
        "x.large": (2**63, "uint64"),
        "x.exact": (0.1, "float64"),
        "x.texts": (["a", "", "Ġ漢"], "string[]"),
        "tokenizer.chat_template": (["a", "b"], "string[]"),
    }
    source = open_gguf(with_keys(tmp_path / "x.gguf", keys), None)
    new = read_gguf(copied(source, tmp_path / "n.gguf"))
    for name, (value, kind) in keys.items():
        assert (new.metadata[name], new.types[name]) == (value, kind)


@pytest.mark.parametrize("alignment", [64, 1024])
def test_a_file_with_another_alignment_is_copied_whole(alignment: int, tmp_path: Path) -> None:
    source = open_gguf(with_keys(tmp_path / "x.gguf", {}, alignment=alignment), None)
    new = copied(source, tmp_path / "n.gguf")
    assert np.array_equal(rows_of(new), ROWS)
    reader = gguf.GGUFReader(new)
    assert np.array_equal(reader.tensors[1].data, ROWS)


def test_a_line_of_blocks_is_copied_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("line", gguf.quants.quantize(ROWS[0], kind), raw_dtype=kind)
    writer.add_tensor("t", ROWS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    new = copied(open_gguf(path, None), tmp_path / "n.gguf")
    assert np.array_equal(rows_of(new), ROWS)
    assert np.array_equal(rows_of(new, "line"), rows_of(path, "line"))
    assert np.abs(rows_of(new, "line") - ROWS[0]).max() < 0.02


def test_a_part_of_a_split_model_says_how_to_join_the_parts(tmp_path: Path) -> None:
    path = with_keys(tmp_path / "x.gguf", {"split.count": (3, "uint16")})
    with pytest.raises(ModelError) as caught:
        open_gguf(path, None)
    assert "one part of a model" in caught.value.summary
    assert "llama-gguf-split --merge" in caught.value.hint


def test_a_file_that_was_a_single_part_is_taken_and_forgets_it(tmp_path: Path) -> None:
    path = with_keys(tmp_path / "x.gguf", {"split.count": (1, "uint16"), "split.no": (0, "uint16")})
    assert not [d.key for d in open_gguf(path, None).metadata("n") if d.key.startswith("split")]


def test_a_format_that_cannot_be_decoded_is_copied_but_not_encoded_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("t", np.ones((2, 32), np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_gguf(copied(open_gguf(path, None), tmp_path / "n.gguf")).tensors
    with pytest.raises(ModelError, match="t is stored as I32, which cannot be decoded") as caught:
        copied(open_gguf(path, FILE_TYPES["F16"]), tmp_path / "m.gguf")
    assert "leave out --quantization" in caught.value.hint


NO_ROWS = gguf_bytes(
    [key("general.architecture", STRING, text("llama"))], [tensor("x", dimensions=())]
)
NO_ARCHITECTURE = gguf_bytes([], [tensor("x")])
# An array of one array of one uint32.
NESTED = gguf_bytes(
    [
        key("general.architecture", STRING, text("llama")),
        key("deep", ARRAY, struct.pack("<IQIQI", ARRAY, 1, UINT32, 1, 5)),
    ]
)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (NO_ROWS, "'x' has no rows"),
        (NESTED, "'deep' is an array of arrays"),
        (NO_ARCHITECTURE, "it names no architecture"),
    ],
)
def test_what_no_engine_serves_is_refused(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(
        ModelError, match=re.escape(f"{path} is not a model that can be served")
    ) as caught:
        open_gguf(path, None)
    assert what in caught.value.summary


def test_a_mutant_of_a_file_is_copied_or_refused_and_never_a_defect(
    llama: Path, tmp_path: Path
) -> None:
    whole = llama.read_bytes()
    header = min(tensor.offset for tensor in read_gguf(llama).tensors)
    chosen = random.Random(7)
    outcomes = {"copied": 0, "refused": 0}
    for number in range(MUTANTS):
        data = bytearray(whole)
        for _ in range(chosen.choice((1, 1, 2, 8))):
            data[chosen.randrange(24, header)] = chosen.choice((0, 1, 5, 8, 9, 63, 255))
        path, target = tmp_path / "mutant.gguf", tmp_path / f"{number}.gguf"
        path.write_bytes(data)
        try:
            recipe_of_gguf(path, "m", FILE_TYPES[chosen.choice(("F16", "Q8_0"))], TOOLS).write(
                target
            )
        except LlamafarmError:
            outcomes["refused"] += 1
        else:
            outcomes["copied"] += 1
        target.unlink(missing_ok=True)
    assert min(outcomes.values()) > MUTANTS // 20, outcomes


def test_the_end_token_of_a_file_becomes_its_stop_word(llama: Path) -> None:
    recipe = recipe_of_gguf(llama, "m", None, TOOLS)
    assert recipe.stop_words == ("<|im_end|>",)
    assert recipe.end_token_id == 2
    assert recipe.file_type == "GGUF"


@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_end_token_that_the_vocabulary_does_not_have_is_no_stop_word(
    token: int, tmp_path: Path
) -> None:
    keys = {
        "tokenizer.ggml.tokens": (["a", "b"], "string[]"),
        "tokenizer.ggml.eos_token_id": (token, "int32"),
    }
    path = with_keys(tmp_path / "x.gguf", keys)
    assert recipe_of_gguf(path, "m", None, TOOLS).stop_words == ()


def test_what_a_file_s_directory_remembers_of_its_training_is_kept(
    llama: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.gguf").write_bytes(llama.read_bytes())
    (tmp_path / "llamafarm.json").write_text('{"system_prompt": "Be brief.", "stop_words": ["X"]}')
    recipe = recipe_of_gguf(tmp_path / "m.gguf", "m", None, TOOLS)
    assert recipe.system == "Be brief."
    assert recipe.stop_words == ("<|im_end|>", "X")
    assert recipe.record.system_prompt == "Be brief."


def test_a_name_is_the_first_key(llama: Path) -> None:
    assert open_gguf(llama, None).metadata("n")[0] == Metadatum("general.name", "n", "string")
