"""The random Llamas are what their names say, and can be converted."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

from bench.deploy import models
from bench.deploy.memory import stored_bytes
from bench.deploy.models import LARGE, MIDDLE, Llama, random_adapter, shards_of
from bench.deploy.speed import WHAT, turned

from llamafarm.export.merge import MergedWeights
from llamafarm.export.weights import StoredWeights

TINY = Llama("tiny", 64, 96, 2, 4, 2)


def test_the_sizes_are_as_named() -> None:
    assert round(2e-9 * sum(map(prod, MIDDLE.shapes().values())), 1) == 0.7
    assert round(2e-9 * sum(map(prod, LARGE.shapes().values())), 1) == 1.5


def test_no_shard_is_larger_than_asked_and_none_is_empty() -> None:
    shards = list(shards_of(LARGE.shapes()))
    sizes = [2 * sum(map(prod, shard.values())) for shard in shards]
    assert len(shards) > 2
    assert min(sizes) > 0
    assert max(sizes) <= 500_000_000
    assert [name for shard in shards for name in shard] == list(LARGE.shapes())


def test_a_random_model_and_its_adapter_merge(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    (tmp_path / "tokenizer").symlink_to(smollm2_tokenizer_dir)
    adapter = random_adapter(tmp_path, TINY)
    base = adapter.parent / "base"
    config = json.loads((base / "config.json").read_text())
    weights = StoredWeights.of_model(base)
    merged = MergedWeights(weights, adapter, config)
    assert dict(merged.shapes) == TINY.shapes()
    name = "model.layers.1.mlp.down_proj.weight"
    assert (merged.read_rows(name, 0, 64) != weights.read_rows(name, 0, 64)).any()


def test_the_largest_tensor_is_found(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    (tmp_path / "tokenizer").symlink_to(smollm2_tokenizer_dir)
    base = random_adapter(tmp_path, TINY).parent / "base"
    whole, largest = stored_bytes(base)
    assert largest == 49152 * 64 * 2
    assert whole == 2 * sum(map(prod, TINY.shapes().values()))


def test_another_one_begins_every_round() -> None:
    assert [turned(WHAT, number)[0] for number in range(4)] == [*WHAT, WHAT[0]]
    assert sorted(turned(WHAT, 1)) == sorted(WHAT)


def test_a_model_that_is_there_is_not_made_again(
    tmp_path: Path, smollm2_tokenizer_dir: Path
) -> None:
    (tmp_path / "tokenizer").symlink_to(smollm2_tokenizer_dir)
    file = random_adapter(tmp_path, TINY) / models.RECORD_FILE
    before = file.stat().st_mtime_ns
    random_adapter(tmp_path, TINY)
    assert file.stat().st_mtime_ns == before
