"""Data: every format, the split, and where files are looked for."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from . import seed
from .typed import inputs_of, plan_of, refusal_of, type_in, write_rows

TRAIN = "train --dataset data.jsonl"
FROM_FILE = "train --strategy-file strategies.yaml"
_SIDES = ("train", "eval")
ROWS: Mapping[str, Mapping[str, object]] = {
    "alpaca": {"instruction": "Add.", "input": "1 and {n}", "output": "That is {n} and 1."},
    "qa": {"question": "What is {n}?", "answer": "It is {n}."},
    "prompt_completion": {"prompt": "Say {n}.", "completion": "{n}."},
    "text": {"text": "A text about {n}."},
    "messages": {
        "messages": [
            {"role": "user", "content": "What is {n}?"},
            {"role": "assistant", "content": "It is {n}."},
        ]
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "What is {n}?"},
            {"from": "gpt", "value": "It is {n}."},
        ]
    },
}


def numbered(row: Mapping[str, object], count: int = 20) -> list[dict[str, object]]:
    text = json.dumps(row)
    return [json.loads(text.replace("{n}", str(n))) for n in range(count)]


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        case ".json":
            path.write_text(json.dumps(rows), "utf-8")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)


@pytest.mark.seed(23)
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_the_format_of_rows_is_recognised_by_their_keys(
    suffix: str, kind: str, model_dir: Path, tmp_path: Path
) -> None:
    write(tmp_path / f"data{suffix}", numbered(ROWS[kind]))
    data = inputs_of(f"train --dataset data{suffix}", "--base-model", str(model_dir)).data
    assert data.report.data_format == kind
    assert (data.report.train.rows, data.eval is not None and len(data.eval)) == (18, 2)
    assert data.report.train.trained_tokens > 0


@pytest.mark.seed(23)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_hold_the_same_rows(suffix: str, model_dir: Path, tmp_path: Path) -> None:
    fingerprints = set()
    for name in ("data.jsonl", f"data{suffix}"):
        write(tmp_path / name, numbered(ROWS["qa"]))
        inputs = inputs_of(f"train --dataset {name}", "--base-model", str(model_dir))
        fingerprints.add(inputs.data.report.fingerprint)
    assert len(fingerprints) == 1


@pytest.mark.seed(23, 291)
def test_every_bad_row_is_named_with_its_line(model_dir: Path, tmp_path: Path) -> None:
    lines = write_rows(tmp_path / "data.jsonl", 8).read_text("utf-8").splitlines()
    lines[2], lines[5] = '{"question": "and?"}', '{"question": "broken'
    (tmp_path / "data.jsonl").write_text("\n".join(lines), "utf-8")
    text = refusal_of(TRAIN, "--base-model", str(model_dir))
    assert "data.jsonl:3" in text and "data.jsonl:6" in text
    kept = inputs_of(TRAIN, "--base-model", str(model_dir), "--skip-bad-rows").data.report
    assert (len(kept.dropped), kept.train.rows + (kept.eval.rows if kept.eval else 0)) == (2, 6)


@pytest.mark.seed(291)
def test_rows_longer_than_the_limit_are_counted_and_listed(model_dir: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl", 20)
    with (tmp_path / "data.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "And?", "answer": "long " * 40}) + "\n")
    more = ("--base-model", str(model_dir), "--set", "max_seq_length=128")
    report = inputs_of(TRAIN, *more).data.report
    assert [row.source.line for row in report.truncated] == [21]
    (text,) = [warning for warning in report.warnings if "longer than max_length=128" in warning]
    assert text.startswith("1 of 21 rows")


@pytest.mark.seed(24, 40, 96)
@pytest.mark.parametrize(("rows", "held_out"), [(2, 1), (10, 1), (25, 2), (115, 12), (339, 34)])
def test_ten_percent_are_held_out_exactly(
    rows: int, held_out: int, model_dir: Path, tmp_path: Path
) -> None:
    """round(rows x 0.1), at least one."""
    write_rows(tmp_path / "data.jsonl", rows)
    data = inputs_of(TRAIN, "--base-model", str(model_dir)).data
    assert data.eval is not None
    assert (len(data.train), len(data.eval)) == (rows - held_out, held_out)


@pytest.mark.seed(24, 40)
def test_train_holds_out_what_the_splitter_would(model_dir: Path, tmp_path: Path) -> None:
    lines = write_rows(tmp_path / "data.jsonl").read_text("utf-8").splitlines()
    assert type_in("datasplit data.jsonl --eval-percent 10").code == 0
    split_off = (tmp_path / "data_eval.jsonl").read_text("utf-8").splitlines()
    data = inputs_of(TRAIN, "--base-model", str(model_dir)).data
    assert data.eval is not None
    sources = [data.eval.source(i).line for i in range(len(data.eval))]
    assert [lines[(n or 0) - 1] for n in sources] == split_off


@pytest.mark.seed(24)
def test_equal_rows_stay_on_one_side(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "data.jsonl", 30).read_text("utf-8")
    (tmp_path / "data.jsonl").write_text(rows * 3, "utf-8")
    assert type_in("datasplit data.jsonl --eval-percent 20").code == 0
    sides = [(tmp_path / f"data_{s}.jsonl").read_text("utf-8").splitlines() for s in _SIDES]
    assert sum(map(len, sides)) == 90
    assert not set(sides[0]) & set(sides[1])


@pytest.mark.seed(173, 174, 175, 176)
@pytest.mark.parametrize("row", seed.table(seed.SPLIT_TABLE), ids=lambda row: row[0])
def test_every_share_of_the_table_can_be_asked_for(row: list[str], tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl", 200)
    percent = row[1].removesuffix("%")
    assert type_in(f"datasplit data.jsonl --eval-percent {percent}").code == 0
    assert len((tmp_path / "data_eval.jsonl").read_bytes().splitlines()) == 2 * int(percent)


@pytest.mark.seed(173, 174)
@pytest.mark.parametrize(("rows", "held_out"), [(12, 1), (49, 2), (50, 5), (60, 6)])
def test_auto_takes_five_percent_of_very_few_rows_and_ten_of_others(
    rows: int, held_out: int, tmp_path: Path
) -> None:
    write_rows(tmp_path / "data.jsonl", rows)
    done = type_in("datasplit data.jsonl --eval-percent auto")
    assert len((tmp_path / "data_eval.jsonl").read_bytes().splitlines()) == held_out
    assert f"notice: eval-percent auto: {5 if rows < 50 else 10} %" in done.err


@pytest.mark.seed(173, 174)
def test_few_evaluation_rows_are_called_noisy(model_dir: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl", 40)
    warnings = plan_of(TRAIN, "--base-model", str(model_dir)).warnings
    assert "only 4 evaluation rows: the eval loss is noisy" in " ".join(warnings)


@pytest.mark.seed(119)
def test_a_flag_wins_over_the_strategy_and_its_dataset_over_that_of_config(
    model_dir: Path, tmp_path: Path
) -> None:
    for name in ("flag", "beside", "inside"):
        write_rows(tmp_path / f"{name}.jsonl", 20)
    inside = seed.pasted("config:\n  dataset:\n    path: inside.jsonl\n")
    beside = "  dataset:\n    path: beside.jsonl\n"
    more = ("--base-model", str(model_dir))
    found = []
    for text, flag in ((inside, ()), (inside + beside, ()), (inside, ("--dataset", "flag.jsonl"))):
        (tmp_path / "strategies.yaml").write_text(text, "utf-8")
        found.append(plan_of(FROM_FILE, *more, *flag).data.train_location)
    assert found == [tmp_path / f"{name}.jsonl" for name in ("inside", "beside", "flag")]


@pytest.mark.seed(120, 121)
def test_files_of_a_strategy_lie_beside_it_then_in_the_working_directory(
    model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "strategies.yaml").write_text(seed.STRATEGIES, "utf-8")
    write_rows(tmp_path / "recipes" / "data_train.jsonl", 30)
    for name in ("data_train.jsonl", "data_eval.jsonl"):
        write_rows(tmp_path / name, 10)
    line = "train --strategy-file recipes/strategies.yaml"
    request = plan_of(line, "--base-model", str(model_dir)).data
    assert request.train_location == tmp_path / "recipes" / "data_train.jsonl"
    assert request.eval_location == tmp_path / "data_eval.jsonl"


@pytest.mark.seed(120, 121)
def test_a_train_file_alone_is_split(model_dir: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "data_train.jsonl", 40)
    alone = seed.STRATEGIES.replace("eval_file: data_eval.jsonl", "eval_split: 0.25")
    (tmp_path / "strategies.yaml").write_text(alone, "utf-8")
    data = inputs_of(FROM_FILE, "--base-model", str(model_dir)).data
    assert data.eval is not None
    assert (len(data.train), len(data.eval)) == (30, 10)
