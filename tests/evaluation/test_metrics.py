"""Metrics by name, and functions of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from llamafarm.evaluation.metrics import (
    ANSWER_METRICS,
    AnswerMetric,
    MetricError,
    find_metric,
    measure,
)

OWN = """\
def length_ratio(answers, references):
    return [len(a) / len(r) for a, r in zip(answers, references)]

def fails(answers, references):
    raise KeyError("no such word")

number = 7
"""


@pytest.fixture
def own_module(tmp_path: Path) -> Path:
    """A module that no other test imports, in a directory where Python does not look."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN)
    return tmp_path / f"{name}.py"


def find(name: str, module: Path, *, allow: bool = True) -> AnswerMetric:
    return find_metric(f"{module.stem}.{name}", allow_custom=allow, beside=[module.parent])


@pytest.mark.parametrize("name", ["exact_match", "token_f1", "rouge_l"])
def test_a_registered_metric_scores_every_row(name: str) -> None:
    found = measure(ANSWER_METRICS[name], ["a cat sat", "dog"], ["The cat sat.", "bird"])
    assert len(found.by_row) == 2
    assert found.value == pytest.approx(sum(found.by_row) / 2)
    assert found.by_row[0] > found.by_row[1] or name == "exact_match"
    assert ANSWER_METRICS[name].greater_is_better


def test_a_function_of_ones_own_is_imported_from_beside_the_strategy(own_module: Path) -> None:
    before = list(sys.path)
    found = measure(find("length_ratio", own_module), ["ab", "abcd"], ["abcd", "ab"])
    assert (found.value, found.by_row) == (1.25, (0.5, 2.0))
    assert sys.path == before


def test_code_of_ones_own_is_not_even_imported_without_the_flag(own_module: Path) -> None:
    with pytest.raises(MetricError, match="code of your own") as fault:
        find("length_ratio", own_module, allow=False)
    assert "--allow-custom-metrics" in fault.value.hint
    assert own_module.stem not in sys.modules


@pytest.mark.parametrize(
    ("name", "text"),
    [("missing", "cannot be imported: AttributeError"), ("number", "is no function")],
)
def test_what_cannot_be_called_is_said_before_it_is_needed(
    own_module: Path, name: str, text: str
) -> None:
    with pytest.raises(MetricError, match=text):
        find(name, own_module)


def test_a_module_that_is_not_there_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="ModuleNotFoundError") as fault:
        find_metric("nowhere_at_all.f", allow_custom=True, beside=[tmp_path])
    assert "beside the strategy file" in fault.value.hint


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(MetricError, match=r"unknown metric \(got rouge\)") as fault:
        find_metric("rouge", allow_custom=True)
    assert fault.value.hint.startswith("did you mean `rouge_l`? there are: loss, perplexity")


def test_one_number_for_all_rows_is_a_metric_too() -> None:
    found = measure(AnswerMetric("m", lambda a, r: len(a)), ["x", "y"], ["x", "y"])
    assert (found.value, found.by_row) == (2.0, ())


def too_few(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    return [1.0]


def not_a_number(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    return [float("nan")] * len(answers)


def text(answers: Sequence[str], references: Sequence[str]) -> str:
    return "good"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (too_few, "gave 1 values for 2 answers"),
        (not_a_number, "not a finite number"),
        (text, "failed: ValueError"),
        (lambda a, r: None, "failed: TypeError"),
    ],
)
def test_what_is_no_metric_says_why(function: object, said: str) -> None:
    with pytest.raises(MetricError, match=said):
        measure(AnswerMetric("m", function), ["x", "y"], ["x", "y"])  # type: ignore[arg-type]


def test_a_function_that_raises_is_named_with_its_error(own_module: Path) -> None:
    with pytest.raises(MetricError, match=r"fails failed: KeyError: 'no such word'"):
        measure(find("fails", own_module), ["x"], ["x"])


@pytest.mark.parametrize("number", [np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_a_number_of_numpy_or_torch_is_one_number(number: object) -> None:
    found = measure(AnswerMetric("m", lambda a, r: number), ["x", "y"], ["x", "y"])
    assert (found.value, found.by_row) == (0.5, ())
