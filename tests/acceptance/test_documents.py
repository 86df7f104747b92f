"""The files that the seed names are there, under those names."""

from __future__ import annotations

import ast
import importlib

import pytest

from .typed import ROOT


@pytest.mark.seed(4, 5, 6, 7, 297, 298, 299, 301, 302, 303, 304)
@pytest.mark.parametrize(
    "name",
    [
        "docs/PYTORCH_TRAINING_GUIDE.md",
        "docs/STRATEGY_EXAMPLES.md",
        "docs/CLI.md",
        "demos/README.md",
        "demos/demo3_training.py",
        "demos/create_data_split.py",
        "demos/strategies.yaml",
    ],
)
def test_the_documents_and_scripts_have_the_names_of_the_seed(name: str) -> None:
    assert (ROOT / name).stat().st_size > 0


@pytest.mark.seed(6, 60, 104, 301)
@pytest.mark.parametrize(
    "name", ["cli.py", "prepare_data.py", "demos/demo3_training.py", "demos/create_data_split.py"]
)
def test_scripts_are_shims_without_logic_of_their_own(name: str) -> None:
    module = ast.parse((ROOT / name).read_text("utf-8"))
    allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.If)
    assert all(isinstance(statement, allowed) for statement in module.body)
    assert not [n for n in ast.walk(module) if isinstance(n, ast.FunctionDef | ast.ClassDef)]


@pytest.mark.seed(12)
@pytest.mark.parametrize(
    "layer",
    [
        "cli",
        "strategy",
        "data",
        "planning",
        "training.backends.pytorch",
        "evaluation",
        "monitoring",
    ],
)
def test_each_layer_of_the_drawing_is_a_package(layer: str) -> None:
    assert hasattr(importlib.import_module(f"llamafarm.{layer}"), "__path__")


@pytest.mark.seed(306)
def test_the_links_of_the_seed_are_kept() -> None:
    text = (ROOT / "docs" / "PYTORCH_TRAINING_GUIDE.md").read_text("utf-8")
    for link in (
        "https://huggingface.co/docs/transformers/training",
        "https://arxiv.org/abs/2106.09685",
        "https://pytorch.org/tutorials/recipes/recipes/tuning_guide.html",
    ):
        assert f"]({link})" in text
