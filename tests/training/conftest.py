"""A smaller model than the shared one: the loop's tests train dozens of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .runs import write_tiny_model


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with 512 tokens and a word-level tokenizer. Shared: do not write into it."""
    return write_tiny_model(tmp_path_factory.mktemp("micro-model"))
