from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamafarm.data.collections import Collection, expand
from llamafarm.errors import DataError

ROW = b'{"question": "Why?", "answer": "Because."}\n'


def _directory(path: Path, *names: str) -> Path:
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(ROW)
    return path


def _names(collection: Collection | None) -> tuple[list[str], str | None, str | None]:
    assert collection is not None
    return (
        [path.name for path in collection.train],
        collection.eval.name if collection.eval else None,
        collection.test.name if collection.test else None,
    )


@pytest.mark.parametrize(
    ("files", "train", "evaluation", "test"),
    [
        (["train.jsonl", "valid.jsonl", "test.jsonl"], "train.jsonl", "valid.jsonl", "test.jsonl"),
        (["train.jsonl.gz", "valid.csv.zst"], "train.jsonl.gz", "valid.csv.zst", None),
        (["train.json", "validation.json"], "train.json", "validation.json", None),
        (["training.csv", "val.csv"], "training.csv", "val.csv", None),
        (["Train.jsonl", "DEV.jsonl"], "Train.jsonl", "DEV.jsonl", None),
        (["qa_train.jsonl", "qa_eval.jsonl"], "qa_train.jsonl", "qa_eval.jsonl", None),
        (["my-qa-train.jsonl", "my-qa-test.jsonl"], "my-qa-train.jsonl", None, "my-qa-test.jsonl"),
        (
            ["medical.train.csv", "medical.valid.csv"],
            "medical.train.csv",
            "medical.valid.csv",
            None,
        ),
        (["train.jsonl", "README.md", "notes.txt"], "train.jsonl", None, None),
        (["anything.jsonl", "README.md"], "anything.jsonl", None, None),
        (["qa_train.jsonl"], "qa_train.jsonl", None, None),
        (["train-00000-of-00001.parquet"], "train-00000-of-00001.parquet", None, None),
        (["rows-00000-of-00001.parquet"], "rows-00000-of-00001.parquet", None, None),
        (["data/train.jsonl", "data/valid.jsonl"], "train.jsonl", "valid.jsonl", None),
        (["train.jsonl", ".train.jsonl.swp.jsonl"], "train.jsonl", None, None),
    ],
)
def test_files_are_told_apart_by_their_names(
    files: list[str], train: str, evaluation: str | None, test: str | None, tmp_path: Path
) -> None:
    assert _names(expand(_directory(tmp_path, *files))) == ([train], evaluation, test)


@pytest.mark.parametrize("mark", ["", "-0123abcdef"])
def test_all_shards_of_a_set_are_trained_on_in_their_order(mark: str, tmp_path: Path) -> None:
    shards = [f"train-{i:05}-of-00012{mark}.parquet" for i in range(12)]
    single = f"validation-00000-of-00001{mark}.parquet"
    found = expand(_directory(tmp_path, *reversed(shards), single))
    assert _names(found) == (shards, single, None)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    files = [f"train-{i:05}-of-00003.parquet" for i in (0, 2)]
    with pytest.raises(DataError, match=r"2 of the 3 shards of train; .* missing is number 1"):
        expand(_directory(tmp_path, *files))


def test_one_shard_of_many_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of the 3 shards"):
        expand(_directory(tmp_path, "train-00002-of-00003.parquet"))


@pytest.mark.parametrize(
    "files",
    [
        ["a.jsonl", "b.jsonl"],
        ["train.jsonl", "qa_train.jsonl"],
        ["train.jsonl", "train.csv"],
        ["train.jsonl", "train.jsonl.gz"],
        ["train.jsonl", "valid.jsonl", "dev.jsonl"],
        ["valid.jsonl", "qa_test.jsonl"],
        ["data.jsonl", "valid.jsonl"],
        ["rows.jsonl", "test.jsonl", "valid.jsonl"],
        ["qa.jsonl", "qa_test.jsonl"],
        ["train-00000-of-00002.parquet", "train-00001-of-00002.jsonl"],
        ["train-00000-of-00002.parquet", "train-00000-of-00003.parquet"],
        ["train-00005-of-00002.parquet", "train-00001-of-00002.parquet"],
    ],
)
def test_names_that_do_not_tell_are_refused_with_those_that_do(
    files: list[str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="which is which is not clear") as caught:
        expand(_directory(tmp_path, *files))
    # Of several sets for one side only these are named.
    assert all(name in caught.value.summary for name in files[-2:])
    assert "train.jsonl, valid.jsonl and test.jsonl" in caught.value.hint


@pytest.mark.parametrize(
    "files", [["test.jsonl"], ["valid.jsonl"], ["qa_eval.jsonl"], ["valid.jsonl", "test.jsonl"]]
)
def test_files_named_for_another_side_are_not_trained_on(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        expand(_directory(tmp_path, *files))
    assert f"has no file to train on: it holds {', '.join(files)}" in caught.value.summary
    assert caught.value.hint == f"to train on it, name the file: {tmp_path / files[0]}"


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    found = expand(_directory(tmp_path, "train.jsonl", "old.jsonl", "qa_eval.jsonl"))
    assert _names(found) == (["train.jsonl"], None, None)
    assert found is not None
    assert "not read: old.jsonl, qa_eval.jsonl" in found.notices[0]


def test_a_long_list_of_files_is_cut_and_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="and 30 more"):
        expand(_directory(tmp_path, *(f"part{i:02}.jsonl" for i in range(40))))


def test_several_files_to_evaluate_are_refused(tmp_path: Path) -> None:
    shards = [f"test-{i:05}-of-00002.parquet" for i in range(2)]
    with pytest.raises(DataError, match="2 files for one side"):
        expand(_directory(tmp_path, "train.jsonl", *shards))


def test_a_directory_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without data files"):
        expand(_directory(tmp_path, "README.md"))


def test_arrow_files_are_refused_with_the_line_that_makes_parquet_of_them(tmp_path: Path) -> None:
    _directory(tmp_path, "data-00000-of-00001.arrow")
    (tmp_path / "dataset_info.json").write_text('{"citation": "", "features": {}, "splits": {}}')
    with pytest.raises(DataError) as caught:
        expand(tmp_path)
    assert "to_parquet" in caught.value.hint


def test_a_pipe_in_a_directory_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.jsonl")
    assert _names(expand(tmp_path)) == (["train.jsonl"], None, None)


def test_an_ordinary_file_is_no_collection(tmp_path: Path) -> None:
    _directory(tmp_path, "train.jsonl", "rows.json", "a#b.jsonl", "strategies.yaml")
    for name in ("train.jsonl", "rows.json", "a#b.jsonl", "missing.jsonl"):
        assert expand(tmp_path / name) is None


def test_a_name_is_refused_where_there_is_nothing_to_choose_from(tmp_path: Path) -> None:
    _directory(tmp_path, "train.jsonl")
    for path in (tmp_path, tmp_path / "train.jsonl"):
        with pytest.raises(DataError, match="no datasets to choose `qa` from"):
            expand(path, name="qa")
