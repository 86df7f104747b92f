"""Which metrics `evaluate` measures besides its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.errors import UserError
from llamafarm.evaluation.metrics_of_run import find_metrics

STRATEGY = """\
tiny:
  components: {fine_tuner: {type: pytorch, config: {method: {r: 4}}}}
  dataset: {path: data.jsonl}
  metrics: [rouge_l, accuracy, MODULE.words]
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose strategy names a function, and the module beside it."""
    name = f"mine_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("def words(answers, references):\n    return 1.0\n")
    (tmp_path / "strategy.yaml").write_text(STRATEGY.replace("MODULE", name))
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "final_model").mkdir()
    return tmp_path


@pytest.mark.parametrize("part", [".", "final_model"])
def test_those_of_the_run_are_measured_where_they_are_allowed(run: Path, part: str) -> None:
    found, left_out = find_metrics(str(run / part), (), allow_custom=True)
    assert ([metric.name for metric in found], left_out) == ([f"mine_{run.name}.words"], ())


def test_those_that_nobody_allowed_are_left_out_and_named(run: Path) -> None:
    found, (text,) = find_metrics(str(run), ("rouge_l",), allow_custom=False)
    assert found == ()
    assert text == (
        f"left out, as code of your own: mine_{run.name}.words; --allow-custom-metrics measures it"
    )


def test_what_is_asked_for_and_cannot_be_had_is_an_error(run: Path) -> None:
    with pytest.raises(UserError, match="2 metrics cannot be measured") as fault:
        find_metrics(str(run), ("rogue_l", "my.own"), allow_custom=False)
    unknown, forbidden = fault.value.problems
    assert (unknown.where, forbidden.where) == ("--metric", "--metric")
    assert "did you mean `rouge_l`?" in unknown.hint
    assert "--allow-custom-metrics" in forbidden.hint


def test_a_model_that_is_no_run_has_none(tmp_path: Path) -> None:
    assert find_metrics(str(tmp_path), (), allow_custom=True) == ((), ())
    assert find_metrics("not/there", (), allow_custom=True) == ((), ())


def test_less_is_better_where_the_strategy_of_the_run_says_so(run: Path) -> None:
    name = f"mine_{run.name}.words"
    (metric,), _ = find_metrics(str(run), (), allow_custom=True)
    assert metric.greater_is_better is None
    told = f"training_args: {{metric_for_best_model: {name}, greater_is_better: false}}"
    text = STRATEGY.replace("MODULE.words", name).replace("method:", f"{told}, method:")
    (run / "strategy.yaml").write_text(text)
    (metric,), _ = find_metrics(str(run), (), allow_custom=True)
    assert (metric.name, metric.greater_is_better) == (name, False)
