"""A .gguf file in the engine, against its dequantised weights in transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamafarm.data.prepare import prepare
from llamafarm.errors import DataError, ModelError
from llamafarm.evaluation.gguf import find_gguf, measure_gguf, open_gguf
from llamafarm.evaluation.loss import evaluate_loss
from llamafarm.evaluation.loss_result import LossResult
from llamafarm.evaluation.report import Measured
from llamafarm.evaluation.request import EvaluationTask
from llamafarm.models.gguf_file import GgufFile
from llamafarm.models.load import load_finished_model
from llamafarm.models.packaged import find_packaged_gguf
from llamafarm.models.record import ModelRecord
from tests.data.rows_on_disk import qa, write_jsonl
from tests.models.gguf_files import write_gguf, write_llama_gguf

DEMO_ROWS = Path(__file__).parents[2] / "demos/datasets/medical/medical_qa_eval.jsonl"
ROWS = 2
# llama.cpp multiplies with 8-bit activations, and keeps keys and values in 16 bits.
LOSS_TOLERANCE = 0.02
ROW_TOLERANCE = 0.05


@pytest.fixture
def tiny(tmp_path: Path) -> GgufFile:
    """A context of 128 tokens, and a template that writes nothing but the contents."""
    write_llama_gguf(tmp_path / "tiny.gguf", pre="smollm")
    return open_gguf(tmp_path / "tiny.gguf")


def measure(gguf: GgufFile, task: EvaluationTask, at_most: int | None = None) -> Measured:
    return measure_gguf(gguf, task, threads=1, at_most=at_most, on_rows=lambda *_: None)


@pytest.fixture(scope="module")
def both(
    packaged_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Measured, LossResult]]:
    """The packaged Q4_1 file in the engine, and its dequantised weights in transformers."""
    folder = tmp_path_factory.mktemp("rows")
    lines = DEMO_ROWS.read_text("utf-8").splitlines(keepends=True)[:ROWS]
    (folder / "rows.jsonl").write_text("".join(lines), "utf-8")
    task = EvaluationTask(folder / "rows.jsonl", generated_rows=1, max_new_tokens=12)
    file = find_packaged_gguf()
    assert file is not None
    model, tokenizer = load_finished_model(packaged_model_dir)
    request = task.rows(tokenizer.chat_template, ModelRecord(), None, None)
    rows = prepare(request, tokenizer, cache_dir=folder / "cache").train
    losses = evaluate_loss(model, rows, batch_size=1, packed=False, device="cpu")
    yield measure(open_gguf(file), task), losses


def test_the_engine_finds_the_losses_of_transformers(
    both: tuple[Measured, LossResult],
) -> None:
    engine, expected = both
    assert engine.trained_tokens == expected.trained_tokens
    assert engine.scores.loss == pytest.approx(expected.loss, abs=LOSS_TOLERANCE)
    assert engine.by_row.losses == pytest.approx(expected.by_row.losses, abs=ROW_TOLERANCE)
    assert engine.scores.accuracy == pytest.approx(expected.accuracy, abs=0.03)
    assert engine.scores.perplexity == pytest.approx(math.exp(engine.scores.loss))


def test_the_first_rows_are_answered_and_scored(both: tuple[Measured, LossResult]) -> None:
    scores = both[0].scores
    (sample,) = scores.samples
    row = json.loads(DEMO_ROWS.read_text("utf-8").splitlines()[0])
    assert (sample.prompt, sample.reference) == (row["question"], row["answer"])
    assert 0 < len(sample.answer.split()) <= 12
    assert (scores.generated_rows, scores.rouge_l) == (1, sample.rouge_l)
    assert sample.source in both[0].sources


def test_progress_counts_measured_rows_then_answered_ones(tmp_path: Path, tiny: GgufFile) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [qa(0), {"text": "a b"}, qa(1)])
    seen: list[tuple[int, int]] = []
    task = EvaluationTask(rows, generated_rows=5, max_new_tokens=4)
    measure_gguf(tiny, task, threads=1, on_rows=lambda *numbers: seen.append(numbers))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_rows_longer_than_the_context_are_cut_and_named(tmp_path: Path, tiny: GgufFile) -> None:
    long_answer = {"question": "a", "answer": "b" * 300}
    long_question = {"question": "a" * 300, "answer": "b"}
    rows = write_jsonl(tmp_path / "r.jsonl", [qa(0), long_answer, long_question])
    found = measure(tiny, EvaluationTask(rows, generated_rows=5, max_new_tokens=4))
    assert found.max_length == 128
    assert [place.rsplit(":")[-1] for place in found.sources] == ["1", "2"]
    cut, left_out = found.warnings
    assert "1 of 2 rows are longer than max_length=128" in cut
    assert "r.jsonl:3 (no answer among the first 128 tokens)" in left_out


def test_no_row_is_longer_than_those_of_the_model_it_is_compared_with(
    tmp_path: Path, tiny: GgufFile
) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [{"question": "a", "answer": "b" * 100}])
    found = measure(tiny, EvaluationTask(rows, generated_rows=0), at_most=20)
    assert (found.max_length, found.trained_tokens) == (20, 19)


def test_the_record_beside_the_file_gives_system_prompt_and_limit(
    tmp_path: Path, tiny: GgufFile
) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [{"question": "a", "answer": "b" * 100}])
    task = EvaluationTask(rows, generated_rows=0)
    alone = measure(tiny, task)
    record = ModelRecord(system_prompt="c" * 9, max_length=60)
    (tmp_path / "llamafarm.json").write_bytes(record.to_bytes())
    beside = measure(tiny, task)
    assert (alone.max_length, alone.trained_tokens) == (128, 101)
    assert (beside.max_length, beside.trained_tokens) == (60, 50)


def test_where_no_row_is_left_the_first_are_named(tmp_path: Path, tiny: GgufFile) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [{"question": "a" * 200, "answer": "b"}])
    with pytest.raises(DataError, match="no row is left to evaluate on: all 1 ") as fault:
        measure(tiny, EvaluationTask(rows, generated_rows=0))
    assert fault.value.problems[0].where.endswith("r.jsonl:1")
    assert fault.value.hint == "shorten the rows"


def test_where_all_rows_have_tools_the_hint_names_another_way(
    tmp_path: Path, tiny: GgufFile
) -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    rows = write_jsonl(tmp_path / "r.jsonl", [{"messages": turns, "tools": [{"name": "weather"}]}])
    with pytest.raises(DataError) as fault:
        measure(tiny, EvaluationTask(rows, generated_rows=0))
    assert "rows with tools are not asked of the engine" in fault.value.problems[0].message
    assert "directory of the model" in fault.value.hint


def test_a_file_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {})
    with pytest.raises(ModelError, match="has no chat template"):
        open_gguf(tmp_path / "m.gguf")


def test_a_file_with_an_absurd_context_is_refused(tiny: GgufFile) -> None:
    content = tiny.path.read_bytes()
    name = b"llama.context_length"
    at = content.index(name) + len(name) + 4
    tiny.path.write_bytes(content[:at] + b"\1\0\0\0" + content[at + 4 :])
    with pytest.raises(ModelError, match="its context ends at 1 token"):
        open_gguf(tiny.path)


def test_a_source_is_a_gguf_file_when_there_is_one(tmp_path: Path, tiny: GgufFile) -> None:
    assert find_gguf(str(tiny.path)) == tiny.path
    assert find_gguf(str(tmp_path / "absent.gguf")) is None
    assert find_gguf(str(tmp_path)) is None
    assert find_gguf("smollm2-135m-instruct") is None
