"""Indexes, configs and directories that name no data: refused by name, each fault at once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llamafarm.cli.main import main
from llamafarm.data.collections import Collection, expand
from llamafarm.data.prepare import conversations_of
from llamafarm.errors import DataError, LlamafarmError
from tests.data.rows_on_disk import request_for

from .malformed.collections import BOM_INDEX, CASES, CONFIG, GOOD, INDEX, ROWS, CollectionCase
from .malformed.mutate import mutated

BY_NAME = {case.name: case for case in CASES}
MUTANTS = 300
TYPED = "datasets:\n  - path: a.jsonl\n    type: context_qa\n    ds_type: json\nval_set_size: 0.2\n"
ENTRY = (
    b'{"qa": {"file_name": "a.jsonl", "formatting": "alpaca", "columns": {"prompt": "question"}}}'
)


def _read_all(path: Path, choose: str | None = None) -> Collection:
    """What a path stands for, with every row of its files read, as training does."""
    found = expand(path, name=choose) or Collection((path,))
    for file in found.train:
        request = request_for(
            file,
            data_format=found.data_format,
            columns=found.columns,
            roles=found.roles,
            eval_wanted=False,
        )
        conversations_of(request, "train", most=0)
    return found


def test_every_case_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(CASES)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_what_names_no_data_is_refused_by_name(name: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    with pytest.raises(DataError) as caught:
        _read_all(case.make(tmp_path), case.choose)
    text = caught.value.render()
    assert [words for words in case.refused if words not in text] == []
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (INDEX, BOM_INDEX),
        (INDEX, b'{"qa": {"file_name": "a.jsonl", "columns": null, "tags": null}}\r\n'),
        (CONFIG, b"\xef\xbb\xbf" + GOOD.replace("alpaca", "context_qa").encode()),
        (CONFIG, GOOD.replace("alpaca", "context_qa").replace("\n", "\r\n").encode()),
    ],
)
def test_marks_and_line_ends_of_other_systems_are_read(
    file: str, content: bytes, tmp_path: Path
) -> None:
    case = CollectionCase("", content, (), file)
    found = expand(case.make(tmp_path))
    assert found is not None
    assert found.train == (tmp_path / "a.jsonl",)


@pytest.mark.parametrize(
    "name",
    [
        "index: cut off",
        "index: four faults",
        "index: a file that is not there",
        "config: a tab in the indentation",
        "config: three faults",
        "config: a tag",
        "directory: a shard missing",
        "directory: a pipe for training",
    ],
)
def test_inspect_refuses_a_collection_without_a_traceback(
    name: str,
    tmp_path: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LLAMAFARM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLAMAFARM_STATE", str(tmp_path / "state"))
    path = BY_NAME[name].make(tmp_path)
    code = main(["inspect", str(path), "--base-model", str(tiny_model_dir)])
    captured = capfd.readouterr()
    assert code == 2, captured.err
    assert captured.err.startswith("error: ") or "\nerror: " in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(("file", "content"), [(INDEX, ENTRY), (CONFIG, TYPED.encode())])
def test_a_changed_byte_is_refused_or_read_and_nothing_else(
    file: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    path = tmp_path / file
    chance = random.Random(4)
    refused = 0
    for _ in range(MUTANTS):
        path.write_bytes(mutated(content, chance))
        try:
            found = expand(path)
        except LlamafarmError as refusal:
            assert refusal.exit_code == 2
            assert file in refusal.render()
            refused += 1
        else:
            assert found is None or set(found.train) == {tmp_path / "a.jsonl"}
    assert 0.3 * MUTANTS < refused < MUTANTS
