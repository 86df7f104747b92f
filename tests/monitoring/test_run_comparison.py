from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from llamafarm.data.report import SourceFile
from llamafarm.errors import StrategyError
from llamafarm.evaluation.row_losses import RowLosses
from llamafarm.monitoring.run_comparison import (
    NamedRun,
    RowsEvaluated,
    RunComparison,
    compare_runs,
    flat_strategy,
)
from llamafarm.monitoring.run_record import RunRecord

from .report.records import data_report, full_record
from .run_directories import STRATEGY

RECORD = replace(full_record(Path("first")), strategy_yaml=STRATEGY)
LOSSES = tuple(1.5 + 0.05 * i for i in range(12))


def rows(
    losses: tuple[float, ...] = LOSSES, *, tokens: int = 10, file: str = "eval.jsonl"
) -> RowsEvaluated:
    sources = tuple(f"{file}:{i + 1}" for i in range(len(losses)))
    return RowsEvaluated(sources, RowLosses(losses, (tokens,) * len(losses)))


def compared(
    other: RunRecord, ours: RowsEvaluated | None = None, theirs: RowsEvaluated | None = None
) -> RunComparison:
    return compare_runs([NamedRun("a", RECORD, theirs), NamedRun("b", other, ours)])


def why_not(ours: RowsEvaluated | None, theirs: RowsEvaluated | None, other: RunRecord) -> str:
    (row,) = compared(other, ours, theirs).row_by_row
    assert row.paired is None
    return row.why_not


def test_equal_runs_differ_in_nothing() -> None:
    found = compared(RECORD, rows(), rows())
    assert found.differences == ()
    assert found.warnings == ()
    assert found.row_by_row[0].paired is not None
    assert found.row_by_row[0].paired.verdict == "no difference"


def test_values_of_the_strategy_are_compared_by_their_path() -> None:
    text = STRATEGY.replace("0.0002", "2.0e-3").replace("[q_proj, v_proj]", "all-linear")
    text = text.replace("somewhere", "elsewhere").replace("Tiny assistant", "Another")
    text = text.replace("tiny:", "other:")
    found = compared(replace(RECORD, strategy_yaml=text)).differences
    assert [(d.group, d.name, d.values) for d in found] == [
        ("strategy", "method.target_modules", ('["q_proj", "v_proj"]', "all-linear")),
        ("strategy", "training_args.learning_rate", ("0.0002", "0.002")),
    ]


def test_equal_numbers_are_equal_however_they_are_written() -> None:
    text = STRATEGY.replace("0.0002", "2e-4")
    assert compared(replace(RECORD, strategy_yaml=text)).differences == ()


def test_a_strategy_in_a_container_of_strategies_has_the_same_paths() -> None:
    version, strategy = STRATEGY.split("\n", 1)
    inside = "".join(f"  {line}\n" for line in strategy.splitlines())
    assert flat_strategy(f"{version}\nstrategies:\n{inside}") == flat_strategy(STRATEGY)


def test_data_model_versions_and_machine_are_compared() -> None:
    assert RECORD.model is not None
    assert RECORD.hardware is not None
    data = data_report()
    more = SourceFile("more.jsonl", "ab" * 32, 50, "train", weight=2.0)
    cpu = replace(RECORD.hardware.cpu, usable_cores=4)
    other = replace(
        RECORD,
        data_fingerprint="1234" * 16,
        data=replace(data, files=(*data.files, more), train=replace(data.train, rows=196)),
        model=replace(RECORD.model, fingerprint="77" * 32),
        versions={**RECORD.versions, "peft": "0.21.2"},
        hardware=replace(RECORD.hardware, cpu=cpu),
    )
    found = {(d.group, d.name): d.values for d in compared(other).differences}
    assert found == {
        ("data", "tokens and masks"): ("sha256 304e304e304e", "sha256 123412341234"),
        ("data", "training rows"): ("96", "196"),
        ("data", "train file more.jsonl"): ("", "50 rows, weight 2, sha256 abababababab"),
        ("model", "base weights"): ("sha256 9e7a9e7a9e7a", "sha256 777777777777"),
        ("versions", "peft"): ("", "0.21.2"),
        ("machine", "cores"): ("2", "4"),
    }


def test_a_seed_that_only_the_record_knows_is_compared_once() -> None:
    assert compared(replace(RECORD, seed=7)).differences == ()
    without = STRATEGY.replace("          seed: 42\n", "")
    (found,) = compared(replace(RECORD, seed=7, strategy_yaml=without)).differences
    assert (found.name, found.values) == ("training_args.seed", ("42", "7"))


def test_numbers_are_told_with_their_change_against_the_first() -> None:
    summary = replace(RECORD.summary, eval_loss=1.655, perplexity=math.inf, best_step=None)
    measures = {m.name: m for m in compared(replace(RECORD, summary=summary)).measures}
    loss = measures["eval loss"]
    assert loss.texts == ("1.839", "1.655")
    assert loss.changes == (None, pytest.approx(-10.0, abs=0.01))
    assert measures["perplexity"].values == (pytest.approx(6.29, abs=0.01), None)
    assert measures["best step"].texts == ("8", "")
    assert measures["gap"].changes == (None, None)


def test_what_no_run_measured_is_no_measure() -> None:
    empty = replace(
        RECORD.summary, eval_loss=None, base_eval_loss=None, perplexity=None, peak_memory_bytes=0
    )
    record = replace(RECORD, summary=empty)
    found = compare_runs([NamedRun("a", record), NamedRun("b", record)])
    names = {measure.name for measure in found.measures}
    assert not names & {"eval loss", "base eval loss", "perplexity", "gap", "peak memory"}
    assert "steps" in names


def test_a_change_beyond_the_noise_and_one_inside_of_it_are_called_that() -> None:
    better = rows(tuple(loss - 0.1 - 0.001 * (i % 3) for i, loss in enumerate(LOSSES)))
    (row,) = compared(RECORD, better, rows()).row_by_row
    assert row.paired is not None
    assert row.paired.verdict == "better"
    assert row.paired.change == pytest.approx(-0.101, abs=1e-6)
    assert row.standard_error == pytest.approx(0.00025, abs=5e-5)
    noise = rows(tuple(loss + (0.2 if i % 2 else -0.2) for i, loss in enumerate(LOSSES)))
    (row,) = compared(RECORD, noise, rows()).row_by_row
    assert row.paired is not None
    assert row.paired.verdict == "no difference"


def test_runs_without_the_same_rows_are_not_compared_and_it_says_why() -> None:
    assert why_not(None, rows(), RECORD) == "b: the losses of its rows are not there"
    assert why_not(rows(), None, RECORD) == "a: the losses of its rows are not there"
    assert why_not(rows(LOSSES[:4]), rows(), RECORD) == (
        "they were evaluated on other rows: 4 and 12, 4 of them the same"
    )
    assert "the same rows are other tokens" in why_not(rows(tokens=9), rows(), RECORD)
    assert why_not(rows((math.nan, *LOSSES[1:])), rows(), RECORD) == (
        "a loss is not a finite number"
    )
    assert why_not(rows(()), rows(()), RECORD) == "no row was evaluated"


def test_a_file_that_changed_under_its_name_is_not_the_same_rows() -> None:
    data = data_report()
    files = (SourceFile("eval.jsonl", "00" * 32, 12, "eval"),)
    first = replace(RECORD, data=replace(data, files=files, fingerprint="a"))
    changed = (replace(files[0], sha256="11" * 32),)
    other = replace(RECORD, data=replace(data, files=changed, fingerprint="b"))

    def found(record: RunRecord) -> str:
        runs = [NamedRun("a", first, rows()), NamedRun("b", record, rows())]
        return compare_runs(runs).row_by_row[0].why_not

    assert found(other) == "eval.jsonl changed between the two runs"
    # More training rows change the fingerprint, and no evaluation row.
    assert found(replace(first, data=replace(data, files=files, fingerprint="c"))) == ""


def test_what_is_not_known_is_a_warning() -> None:
    other = replace(
        RECORD, status="interrupted", strategy_yaml="a: [", unread=("summary.json: lost",)
    )
    third = replace(RECORD, strategy_yaml="")
    runs = [NamedRun("a", RECORD), NamedRun("b", other), NamedRun("c", third)]
    assert compare_runs(runs).warnings == (
        "b is interrupted, at step 12",
        "b: strategy.yaml cannot be read as YAML",
        "b: summary.json: lost",
        "c has no strategy.yaml: what differed in it is not known",
    )


def test_a_bomb_of_aliases_is_no_strategy() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(StrategyError):
        flat_strategy("\n".join(lines))


def test_one_run_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_runs([NamedRun("a", RECORD)])


def test_metrics_of_answers_are_measures_too() -> None:
    first, second = (
        replace(RECORD, summary=replace(RECORD.summary, metrics=metrics))
        for metrics in ({"rouge_l": 0.25}, {"rouge_l": 0.5, "mine.polite": 0.1})
    )
    runs = [NamedRun("a", first), NamedRun("b", second)]
    found = {measure.name: measure for measure in compare_runs(runs).measures}
    assert found["rouge_l"].values == (0.25, 0.5)
    assert found["rouge_l"].changes == (None, pytest.approx(100))
    assert found["mine.polite"].texts == ("", "0.1000")
