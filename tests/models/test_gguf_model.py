from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from llamafarm.errors import ModelError, OutputError
from llamafarm.models.directory import check_model_directory
from llamafarm.models.gguf_file import read_gguf
from llamafarm.models.gguf_model import gguf_model_directory
from llamafarm.models.smollm2 import hugging_face_name, unpermute
from llamafarm.models.tokenizer import load_tokenizer
from tests.models.gguf_files import write_gguf, write_llama_gguf

pytestmark = pytest.mark.usefixtures("cache_dir")


@pytest.fixture
def llama_gguf(tmp_path: Path) -> Path:
    write_llama_gguf(tmp_path / "llama.gguf", pre="smollm")
    return tmp_path / "llama.gguf"


def test_a_gguf_file_becomes_a_whole_model_in_the_cache(llama_gguf: Path, cache_dir: Path) -> None:
    directory = gguf_model_directory(llama_gguf)
    assert directory.is_relative_to(cache_dir)
    check_model_directory(directory)
    assert load_tokenizer(directory).chat_template.startswith("{% for m in messages")
    modes = {file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert modes == {directory.stat().st_mode & 0o666}


def test_its_weights_are_those_of_the_file(llama_gguf: Path) -> None:
    saved = load_file(gguf_model_directory(llama_gguf) / "model.safetensors")
    gguf = read_gguf(llama_gguf)
    assert len(saved) == len(gguf.tensors)
    heads = {"attn_q": 4, "attn_k": 2}
    for tensor in gguf.tensors:
        expected = np.empty(tensor.shape, np.float32)
        gguf.dequantize_into(tensor, expected)
        kind = tensor.name.split(".")[-2]
        expected = unpermute(expected, heads[kind]) if kind in heads else expected
        np.testing.assert_array_equal(saved[hugging_face_name(tensor.name)], expected)


def test_it_is_converted_once_even_under_another_name(llama_gguf: Path, tmp_path: Path) -> None:
    first = gguf_model_directory(llama_gguf)
    changed = (first / "model.safetensors").stat().st_mtime_ns
    assert gguf_model_directory(llama_gguf) == first
    renamed = llama_gguf.rename(llama_gguf.with_name("renamed.gguf"))
    assert gguf_model_directory(renamed) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == changed


def test_a_changed_file_under_the_same_name_is_converted_again(llama_gguf: Path) -> None:
    first = gguf_model_directory(llama_gguf)
    write_llama_gguf(llama_gguf, pre="gpt-2")
    assert gguf_model_directory(llama_gguf) != first


@pytest.mark.parametrize(
    ("pre", "tokens"), [("smollm", ["a", "ĠĠ", "5"]), ("gpt-2", ["a", "Ġ", "Ġ", "5"])]
)
def test_digits_are_split_off_where_the_file_says_so(
    tmp_path: Path, pre: str, tokens: list[str]
) -> None:
    """GPT-2's words leave one of the two spaces to the digit; smollm keeps the spaces together."""
    write_llama_gguf(tmp_path / "m.gguf", pre=pre)
    tokenizer = load_tokenizer(gguf_model_directory(tmp_path / "m.gguf"))
    assert tokenizer.tokenize("a  5") == tokens


def test_a_missing_weight_is_an_error_not_a_random_number(tmp_path: Path) -> None:
    write_llama_gguf(tmp_path / "m.gguf", pre="smollm", leave_out="blk.1.ffn_up")
    with pytest.raises(ModelError, match="1 weight missing"):
        gguf_model_directory(tmp_path / "m.gguf")


def test_an_architecture_that_cannot_be_read_is_named(tmp_path: Path, cache_dir: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {"x.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ModelError, match="llama architecture") as fault:
        gguf_model_directory(tmp_path / "m.gguf")
    assert "safetensors" in fault.value.hint
    assert not list((cache_dir / "models").glob("*/*-v*"))


def test_too_little_room_is_said_before_anything_is_read(
    llama_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(llama_gguf.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(OutputError, match="GiB are free") as fault:
        gguf_model_directory(llama_gguf)
    assert "LLAMAFARM_CACHE" in fault.value.hint


def test_a_part_of_a_split_model_says_how_to_join_it(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "m-00001-of-00003.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("x", np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="split into 3 files") as fault:
        gguf_model_directory(tmp_path / "m-00001-of-00003.gguf")
    assert "llama-gguf-split --merge" in fault.value.hint
