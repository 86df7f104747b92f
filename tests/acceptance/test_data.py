"""Data: every format, the split, and where files are looked for."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from . import seed
from .typed import inputs_of, plan_of, refusal_of, type_in, write_rows

TRAIN = "train --dataset data.jsonl"
LLAMA_FACTORY_COLUMNS = {"prompt": "question", "response": "answer"}
AXOLOTL = """\
base_model: some/model
datasets:
  - path: mlx/train.jsonl
    type: alpaca_chat.load_qa
test_datasets:
  - path: mlx/valid.jsonl
    type: alpaca_chat.load_qa
"""
MIXTURE = """\
config:
  dataset:
    mix: {a.jsonl: 3, b.jsonl: 0.5}
"""
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
    "preference": {"prompt": "Say {n}.", "chosen": "{n}.", "rejected": "No."},
    "reflection": {
        "instruction": "Say {n}.",
        "output": "No.",
        "reflection": "It was {n}.",
        "corrected": "{n}.",
    },
    "multiple_choice": {"question": "Which is {n}?", "choices": ["{n}", "x"], "solution": "{n}"},
    "context_qa": {"article": "All of {n}.", "question": "Of {n}?", "answer": "All."},
    "summary": {"article": "All about {n}.", "summary": "On {n}."},
    "input_output": {
        "segments": [{"label": False, "text": "Q {n}? A:"}, {"label": True, "text": " {n}."}]
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
        case ".gz" | ".zst":
            text = "".join(json.dumps(row) + "\n" for row in rows)
            kind = {".gz": "gzip", ".zst": "zstd"}[path.suffix]
            with pa.CompressedOutputStream(str(path), kind) as stream:
                stream.write(text.encode())
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
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl.gz", ".jsonl.zst"])
def test_tables_and_compressed_files_hold_the_same_rows(
    suffix: str, model_dir: Path, tmp_path: Path
) -> None:
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


@pytest.mark.seed(23)
def test_datasets_of_other_tools_are_read_as_they_are(model_dir: Path, tmp_path: Path) -> None:
    """mlx-lm's directory, LLaMA-Factory's index, axolotl's config: the same rows as by flags."""
    for name in ("mlx", "lf"):
        (tmp_path / name).mkdir()
    write_rows(tmp_path / "mlx" / "train.jsonl", 20)
    write_rows(tmp_path / "mlx" / "valid.jsonl", 5, 20)
    index = {"sums": {"file_name": "../mlx/train.jsonl", "columns": LLAMA_FACTORY_COLUMNS}}
    (tmp_path / "lf" / "dataset_info.json").write_text(json.dumps(index), "utf-8")
    (tmp_path / "axolotl.yml").write_text(AXOLOTL, "utf-8")
    more = ("--base-model", str(model_dir))
    two = "train --train-dataset mlx/train.jsonl --eval-dataset mlx/valid.jsonl"
    by_flags = inputs_of(two, *more).data.report
    for path in ("mlx", "axolotl.yml"):
        assert inputs_of(f"train --dataset {path}", *more).data.report.fingerprint == (
            by_flags.fingerprint
        )
    of_index = inputs_of("train --dataset lf/dataset_info.json#sums", *more).data.report
    alone = inputs_of("train --dataset mlx/train.jsonl", *more).data.report
    assert of_index.fingerprint == alone.fingerprint


@pytest.mark.seed(36)
def test_files_of_a_mixture_count_as_often_as_their_weights_say(
    model_dir: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "a.jsonl", 20)
    write_rows(tmp_path / "b.jsonl", 20, 20)
    (tmp_path / "strategies.yaml").write_text(seed.pasted(MIXTURE), "utf-8")
    data = inputs_of(FROM_FILE, "--base-model", str(model_dir)).data
    assert data.eval is not None
    held_out = [data.eval.source(i).file for i in range(len(data.eval))]
    trained = Counter(data.train.source(i).file for i in range(len(data.train)))
    left = {name: 20 - held_out.count(f"{name}.jsonl") for name in "ab"}
    assert len(held_out) == 4
    assert trained == {"a.jsonl": 3 * left["a"], "b.jsonl": round(left["b"] / 2)}


@pytest.mark.seed(36)
def test_a_strategy_says_which_turns_are_trained(model_dir: Path, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "What is {n}?"},
        {"role": "assistant", "content": "It is {n}."},
        {"role": "user", "content": "And again?"},
        {"role": "assistant", "content": "Still {n}."},
    ]
    silent = [{**turns[1], "weight": 0} if turn is turns[1] else turn for turn in turns]
    tokens = []
    for row, masked in ((turns, False), (turns, True), (silent, False)):
        write(tmp_path / "data.jsonl", numbered({"messages": row}))
        more = ("--set", f"dataset.mask_history={str(masked).lower()}")
        report = inputs_of(TRAIN, "--base-model", str(model_dir), *more).data.report
        tokens.append((report.train.total_tokens, report.train.trained_tokens))
    assert tokens[0][0] == tokens[1][0] == tokens[2][0]
    assert tokens[0][1] > tokens[1][1] == tokens[2][1]


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


@pytest.mark.seed(24, 36)
def test_every_key_of_the_split_is_obeyed_by_both_commands(model_dir: Path, tmp_path: Path) -> None:
    rows = numbered({**ROWS["qa"], "source": "s{n}"}, 30)
    write(tmp_path / "data.jsonl", [{**row, "source": f"s{i % 10}"} for i, row in enumerate(rows)])
    lines = (tmp_path / "data.jsonl").read_text("utf-8").splitlines()
    line = "datasplit data.jsonl --eval-rows 6 --group-by source --seed 7"
    assert type_in(line).code == 0
    settings = ("eval_rows=6", "group_by=source", "seed=7")
    more = [word for setting in settings for word in ("--set", f"dataset.{setting}")]
    data = inputs_of(TRAIN, "--base-model", str(model_dir), *more).data
    assert data.eval is not None
    held_out = [lines[(data.eval.source(i).line or 0) - 1] for i in range(len(data.eval))]
    assert held_out == (tmp_path / "data_eval.jsonl").read_text("utf-8").splitlines()
    assert len(held_out) == 6
    trained = (tmp_path / "data_train.jsonl").read_text("utf-8").splitlines()
    sources = [{json.loads(row)["source"] for row in side} for side in (held_out, trained)]
    assert not sources[0] & sources[1]


@pytest.mark.seed(24)
def test_rows_that_come_later_move_no_old_one_of_a_stable_split(tmp_path: Path) -> None:
    held_out = []
    for count in (80, 100):
        write_rows(tmp_path / "data.jsonl", count)
        assert type_in("datasplit data.jsonl --stable --eval-percent 20").code == 0
        held_out.append(set((tmp_path / "data_eval.jsonl").read_text("utf-8").splitlines()))
    old = set(write_rows(tmp_path / "data.jsonl", 80).read_text("utf-8").splitlines())
    assert held_out[0] == held_out[1] & old
    assert held_out[1] > held_out[0]


@pytest.mark.seed(283)
def test_a_third_file_is_kept_for_the_measurement_after_training(tmp_path: Path) -> None:
    lines = write_rows(tmp_path / "data.jsonl", 50).read_text("utf-8").splitlines()
    assert type_in("datasplit data.jsonl --eval-percent 10 --test-percent 20").code == 0
    sides = [
        (tmp_path / f"data_{side}.jsonl").read_text("utf-8").splitlines()
        for side in (*_SIDES, "test")
    ]
    assert [len(side) for side in sides] == [35, 5, 10]
    assert sorted(line for side in sides for line in side) == sorted(lines)


@pytest.mark.seed(24)
def test_rows_that_say_nearly_the_same_stay_on_one_side(tmp_path: Path) -> None:
    said = "What does the house number {n} in the long street of the old town look like"
    rows = [
        {"question": f"{said.replace('{n}', str(n))}{end}", "answer": f"It is house {n}, in red."}
        for n in range(20)
        for end in ("?", ", please?", " today?")
    ]
    write(tmp_path / "data.jsonl", rows)
    assert type_in("datasplit data.jsonl --eval-percent 20").code == 0
    sides = [(tmp_path / f"data_{s}.jsonl").read_text("utf-8").splitlines() for s in _SIDES]
    answers = [{json.loads(row)["answer"] for row in side} for side in sides]
    assert [len(side) for side in sides] == [48, 12]
    assert not answers[0] & answers[1]


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


@pytest.mark.seed(175, 176)
@pytest.mark.parametrize(("name", "percent"), [("robust", 15), ("research", 20), ("15%", 15)])
def test_a_share_has_the_name_of_its_use(
    name: str, percent: int, model_dir: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path / "data.jsonl", 100)
    assert type_in(f"datasplit data.jsonl --eval-percent {name}").code == 0
    assert len((tmp_path / "data_eval.jsonl").read_bytes().splitlines()) == percent
    data = inputs_of(TRAIN, "--base-model", str(model_dir), "--eval-percent", name).data
    assert data.eval is not None and len(data.eval) == percent


@pytest.mark.seed(173, 174)
@pytest.mark.parametrize(("rows", "held_out"), [(49, 2), (50, 5)])
def test_train_takes_auto_too(rows: int, held_out: int, model_dir: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "data.jsonl", rows)
    data = inputs_of(TRAIN, "--base-model", str(model_dir), "--eval-percent", "auto").data
    assert data.eval is not None and len(data.eval) == held_out


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
    write_rows(tmp_path / "data_train.jsonl", 10)
    write_rows(tmp_path / "data_eval.jsonl", 10, 30)
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
