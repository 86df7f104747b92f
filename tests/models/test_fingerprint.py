from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from llamafarm.errors import ModelError
from llamafarm.models.fingerprint import file_sha256, weight_files, weights_fingerprint

pytestmark = pytest.mark.usefixtures("cache_dir")


def _shards(directory: Path) -> list[Path]:
    directory.mkdir()
    files = [directory / f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 10)
    weight_map = {"b": files[1].name, "a": files[0].name, "c": files[1].name}
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


def test_one_file_has_its_own_sha256_as_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert weights_fingerprint(weight_files(tmp_path)) == hashlib.sha256(b"weights").hexdigest()


def test_shards_have_the_fingerprint_of_their_sha256sum_lines(tmp_path: Path) -> None:
    files = _shards(tmp_path / "m")
    assert weight_files(tmp_path / "m") == tuple(files)
    lines = "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files)
    assert weights_fingerprint(tuple(files)) == hashlib.sha256(lines.encode()).hexdigest()


def test_the_place_of_a_model_does_not_change_its_fingerprint(tmp_path: Path) -> None:
    first, second = _shards(tmp_path / "a"), _shards(tmp_path / "b")
    assert weights_fingerprint(tuple(first)) == weights_fingerprint(tuple(reversed(second)))


def test_other_adapters_and_optimizer_files_are_no_weights(tmp_path: Path) -> None:
    for name in ("model.safetensors", "optimizer.safetensors", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    files = _shards(tmp_path / "m")
    files[1].unlink()
    with pytest.raises(ModelError, match="model-00002-of-00002"):
        weight_files(tmp_path / "m")


def test_a_broken_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": [')
    with pytest.raises(ModelError, match="is not a safetensors index"):
        weight_files(tmp_path)


def test_a_file_is_hashed_once_until_it_changes(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"one")
    first = file_sha256(file)
    real = hashlib.file_digest

    def no_hashing(*arguments: object) -> object:
        raise AssertionError("hashed again")

    monkeypatch.setattr(hashlib, "file_digest", no_hashing)
    assert file_sha256(file) == first
    monkeypatch.setattr(hashlib, "file_digest", real)
    file.write_bytes(b"two!")
    assert file_sha256(file) == hashlib.sha256(b"two!").hexdigest()


@pytest.mark.parametrize("damage", ["", "[]", '{"sha256": "0"}'])
def test_a_damaged_note_is_not_believed(tmp_path: Path, cache_dir: Path, damage: str) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"one")
    file_sha256(file)
    (note,) = (cache_dir / "fingerprints").iterdir()
    note.write_text(damage)
    assert file_sha256(file) == hashlib.sha256(b"one").hexdigest()


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LLAMAFARM_CACHE", str(tmp_path / "file"))
    (tmp_path / "f").write_bytes(b"one")
    assert file_sha256(tmp_path / "f") == hashlib.sha256(b"one").hexdigest()
