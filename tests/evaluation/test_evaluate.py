"""One table for base, adapter and exports: the same rows, whatever runs the model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import DataError, ModelError, UserError
from llamafarm.evaluation.evaluate import evaluate_source
from llamafarm.evaluation.metrics import AnswerMetric
from llamafarm.evaluation.report import EvaluationReport
from llamafarm.evaluation.request import EvaluationTask, find_dataset
from llamafarm.models.load import find_model_directory, load_finished_model
from llamafarm.models.packaged import find_packaged_gguf
from llamafarm.models.record import ModelRecord
from tests.data.rows_on_disk import qa, write_jsonl
from tests.export.exported import adapter_on, exported
from tests.models.gguf_files import write_llama_gguf

pytestmark = pytest.mark.usefixtures("cache_dir")


@pytest.fixture(scope="module")
def adapter(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained adapter: random numbers, on the tiny base, of a run with a limit of 120 tokens."""
    directory = tmp_path_factory.mktemp("tuned") / "adapter"
    adapter_on(tiny_model_dir, directory, strength=0.3)
    (directory / "llamafarm.json").write_bytes(ModelRecord(max_length=120).to_bytes())
    return directory


@pytest.fixture(scope="module")
def export(adapter: Path) -> Path:
    return exported(adapter, adapter.parent / "made", "F32", remember=False).file


def evaluate(
    source: str | Path,
    rows: Path,
    others: Sequence[str | Path] = (),
    *,
    compare_base: bool = False,
    answered: int = 0,
    metrics: Sequence[AnswerMetric] = (),
    seen: list[tuple[int, int]] | None = None,
) -> EvaluationReport:
    def load(name: str) -> tuple[Any, Any]:
        return load_finished_model(find_model_directory(name))

    progress = [] if seen is None else seen
    return evaluate_source(
        str(source),
        EvaluationTask(rows, answered, max_new_tokens=8),
        others=[str(other) for other in others],
        compare_base=compare_base,
        metrics=metrics,
        load=load,
        threads=1,
        on_rows=lambda *numbers: progress.append(numbers),
    )


def test_base_adapter_and_export_stand_in_one_report(
    adapter: Path, export: Path, tmp_path: Path
) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", map(qa, range(3)))
    seen: list[tuple[int, int]] = []
    found = evaluate(adapter, rows, [export], compare_base=True, answered=2, seen=seen)
    assert found.base is not None
    assert found.paired is not None
    (other,) = found.compared
    # The file's numbers are the adapter's own, in float32: the engine rounds a little elsewhere.
    assert other.scores.loss == pytest.approx(found.tuned.loss, abs=2e-3)
    assert abs(found.base.loss - found.tuned.loss) > 0.01
    assert (other.rows, other.trained_tokens) == (found.rows, found.trained_tokens)
    assert [sample.source for sample in other.scores.samples] == [
        sample.source for sample in found.tuned.samples
    ]
    assert found.paired.better + found.paired.worse + found.paired.same == 3
    assert other.paired.better + other.paired.worse + other.paired.same == 3
    assert (found.name, other.name, other.source) == ("tuned", "m-F32", str(export))
    assert found.warnings == ()
    assert seen[-1] == (15, 15)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_gguf_file_alone_is_measured_under_its_name(export: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [qa(0)])
    found = evaluate(export, rows)
    assert (found.name, found.rows, found.base, found.compared) == ("m-F32", 1, None, ())


def test_all_models_are_measured_on_rows_of_the_first_ones_length(
    adapter: Path, export: Path, tmp_path: Path
) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [{"question": "a", "answer": "b " * 200}])
    found = evaluate(adapter, rows, [export])
    (other,) = found.compared
    assert other.trained_tokens == found.trained_tokens < 120
    own, others = found.warnings
    assert "longer than max_length=120" in own
    assert others.startswith("m-F32: 1 of 1 row")


def test_columns_that_cannot_be_compared_number_by_number_are_named(
    adapter: Path, tmp_path: Path
) -> None:
    write_llama_gguf(tmp_path / "bytes.gguf", pre="smollm")
    rows = write_jsonl(tmp_path / "r.jsonl", [{"question": "a", "answer": "hello"}])
    found = evaluate(adapter, rows, [tmp_path / "bytes.gguf"])
    (warning,) = found.warnings
    assert warning.startswith("bytes reads the answers as 6 tokens, tuned as ")
    rows = write_jsonl(
        tmp_path / "r.jsonl", [qa(0), {"question": "long" * 30, "answer": "hello there"}]
    )
    found = evaluate(adapter, rows, [tmp_path / "bytes.gguf"])
    assert "bytes and tuned have 1 measured rows in common, of 1 and 2" in found.warnings
    assert found.compared[0].paired.better + found.compared[0].paired.worse == 1


def test_files_of_one_name_keep_their_directories(export: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [qa(0)])
    twin = Path(shutil.copy(export, tmp_path))
    found = evaluate(export, rows, [twin])
    assert [found.name, found.compared[0].name] == ["m-F32", str(twin)]


def test_what_is_wrong_with_a_later_model_is_said_before_the_first_is_measured(
    adapter: Path, tmp_path: Path
) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [qa(0)])
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    seen: list[tuple[int, int]] = []
    for other in (tmp_path / "broken.gguf", tmp_path / "absent.gguf", tmp_path):
        with pytest.raises(ModelError, match=other.name):
            evaluate(adapter, rows, [other], seen=seen)
    assert seen == []


def test_the_base_of_a_gguf_file_is_to_be_asked_of_its_run(tmp_path: Path) -> None:
    file = find_packaged_gguf()
    assert file is not None
    with pytest.raises(ModelError, match="the base it was trained from is not in it") as fault:
        evaluate(file, tmp_path / "r.jsonl", compare_base=True)
    assert f"--compare-base --compare {file}" in fault.value.hint


def test_a_dataset_that_is_not_there_is_named_with_what_is_like_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "questions.jsonl", [qa(0)])
    with pytest.raises(DataError, match="does not exist") as fault:
        find_dataset(Path("question.jsonl"), tmp_path, None)
    assert "questions.jsonl" in fault.value.hint


def test_less_of_a_metric_is_better_where_that_is_known(adapter: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", map(qa, range(8)))
    calls = iter((0.0, 1.0))  # of the adapter, then of its base

    def slips(answers: Sequence[str], references: Sequence[str]) -> list[float]:
        return [next(calls)] * len(answers)

    metric = AnswerMetric("slips", slips, greater_is_better=False)
    found = evaluate(adapter, rows, compare_base=True, answered=8, metrics=[metric])
    assert found.paired is not None
    change = next(each.paired for each in found.paired.scores if each.score == "slips")
    assert (change.change, change.better, change.verdict) == (-1.0, 8, "better")


def test_what_keeps_a_metric_of_the_base_from_being_had_is_told(
    adapter: Path, tmp_path: Path
) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", map(qa, range(2)))
    calls = iter((1.0,))
    metric = AnswerMetric("once", lambda answers, references: next(calls))
    found = evaluate(adapter, rows, compare_base=True, answered=1, metrics=[metric])
    assert found.warnings == ("base: once failed: StopIteration: ",)


def test_a_model_that_is_named_twice_is_refused_before_anything_is_measured(
    adapter: Path, export: Path, tmp_path: Path
) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [qa(0)])
    seen: list[tuple[int, int]] = []
    with pytest.raises(UserError, match="is named twice"):
        evaluate(adapter, rows, [export, export], seen=seen)
    assert seen == []


def test_a_model_that_is_called_like_a_column_has_a_column_of_its_own(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [qa(0)])
    shutil.copytree(adapter, tmp_path / "tuned")
    monkeypatch.chdir(tmp_path)
    found = evaluate(adapter, rows, ["tuned"])
    assert (found.name, found.compared[0].name) == ("tuned", str(tmp_path / "tuned"))
