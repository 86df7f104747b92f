"""Indexes of datasets, configs and directories that name no data, or name it wrongly."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .case import jsonl, row

ROWS = jsonl(row(1), row(2))
INDEX = "dataset_info.json"
CONFIG = "config.yml"


@dataclass(frozen=True, slots=True)
class CollectionCase:
    """What stands for several files, and how it is refused: each of these words is said.

    content: its bytes, or what makes it at a path; file: its name; choose: which entry of it. Two
    files of good rows, a.jsonl and b.jsonl, lie beside it.
    """

    name: str
    content: bytes | Callable[[Path], object]
    refused: tuple[str, ...]
    file: str
    choose: str | None = None

    def make(self, directory: Path) -> Path:
        """Write it and the files beside it into a directory."""
        for name in ("a.jsonl", "b.jsonl"):
            (directory / name).write_bytes(ROWS)
        path = directory / self.file
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)
        return path


def _index(
    name: str, content: bytes | str, *said: str, choose: str | None = None
) -> CollectionCase:
    data = content.encode() if isinstance(content, str) else content
    return CollectionCase(f"index: {name}", data, said, INDEX, choose)


def _entry(name: str, entry: Any, *said: str) -> CollectionCase:
    """An index with this one entry."""
    return _index(name, json.dumps({"qa": entry}), *said)


def _of_file(name: str, keys: Mapping[str, Any], *said: str) -> CollectionCase:
    """An entry that names a file, with these keys as well."""
    return _entry(name, {"file_name": "a.jsonl", **keys}, *said)


TWO_ENTRIES = json.dumps({name: {"file_name": "a.jsonl"} for name in "xy"})

INDEXES = (
    _index("nothing", b"", "is not a JSON file"),
    _index("blank", b" \n", "is not a JSON file"),
    _index("cut off", '{"qa": {"file_name": "a.jsonl"', "is not a JSON file", INDEX),
    _index("no JSON", "qa: a.jsonl", "is not a JSON file"),
    _index("a trailing comma", '{"qa": {"file_name": "a.jsonl"},}', "is not a JSON file"),
    _index("UTF-16", json.dumps({"qa": {}}).encode("utf-16"), "is not a JSON file", "utf-8"),
    _index("Latin-1", '{"qä": {}}'.encode("latin-1"), "is not a JSON file"),
    _index("NUL", b"\0" * 100, "is not a JSON file"),
    _index("10,000 deep", b'{"a":' * 10_000, "is not a JSON file"),
    _index("a list", '[{"file_name": "a.jsonl"}]', "holds no datasets"),
    _index("a text", '"a.jsonl"', "holds no datasets"),
    _index("null", "null", "holds no datasets"),
    _index("no entries", "{}", "has 0 datasets: none"),
    _index("an entry twice", '{"qa": {"file_name": "a.jsonl"}, "qa": {"file_name": "b.jsonl"}}',
           '"qa" stands twice'),
    _index("a key twice", '{"qa": {"file_name": "a.jsonl", "file_name": "b.jsonl"}}',
           '"file_name" stands twice'),
    _index("17 MB", b'{"qa": "' + b"x" * 2**24 + b'"}', "larger than 16 MiB"),
    _index("two entries and no choice", TWO_ENTRIES,
           "has 2 datasets: x, y", "#x"),
    _index("an entry that is not there", json.dumps({"medical": {"file_name": "a.jsonl"}}),
           "has no dataset `medcal`", "#medical?", choose="medcal"),
    _index("a choice of nothing", json.dumps({"qa": {"file_name": "a.jsonl"}}), "has no dataset ``",
           choose=""),
    CollectionCase("index: a pipe", os.mkfifo, ("a pipe",), INDEX),
    CollectionCase("index: a loop", lambda p: p.symlink_to(p), ("cannot be read",), INDEX),
)  # fmt: skip

ENTRIES = (
    _entry("an entry that is null", None, "expected an object with file_name"),
    _entry("an entry that is a text", "a.jsonl", "expected an object with file_name"),
    _entry("an entry that is a list", ["a.jsonl"], "expected an object with file_name"),
    _entry("an empty entry", {}, "qa.file_name", "is missing"),
    _entry("a file name that is a number", {"file_name": 5}, "qa.file_name", "expected a text"),
    _entry("a file name that is a list", {"file_name": ["a.jsonl"]}, "qa.file_name"),
    _entry("a file name that is empty", {"file_name": ""}, "qa.file_name", "expected a text"),
    _entry("a file name with NUL", {"file_name": "a\0b.jsonl"}, "qa.file_name"),
    _entry("a file that is not there", {"file_name": "c.jsonl"}, "c.jsonl does not exist"),
    _entry("a file name of 5,000 letters", {"file_name": "x" * 5000}, "cannot be read"),
    _entry("a path into nowhere", {"file_name": "../nowhere/x.jsonl"}, "does not exist"),
    _entry("a directory without data", {"file_name": "none"}, "none"),
    _entry("a dataset of the Hub", {"hf_hub_url": "owner/name"}, "dataset.dataset_name"),
    _entry("a dataset of another hub", {"ms_hub_url": "owner/name"}, "qa.ms_hub_url"),
    _entry("a script", {"script_url": "load.py"}, "qa.script_url"),
    _of_file("an unknown key", {"colums": {}}, "qa.colums", "unknown key", "did you mean"),
    _of_file("an unknown formatting", {"formatting": "alpacca"}, "did you mean `alpaca`?"),
    _of_file("a formatting that is a number", {"formatting": 1}, "qa.formatting"),
    _of_file("columns that are a list", {"columns": ["q"]}, "qa.columns", "expected a mapping"),
    _of_file("columns that are a text", {"columns": "q"}, "qa.columns", "expected a mapping"),
    _of_file("a column that is a number", {"columns": {"prompt": 1}}, "qa.columns.prompt"),
    _of_file("a column that nobody has", {"columns": {"promt": "q"}}, "qa.columns.promt",
             "did you mean `prompt`?"),
    _of_file("turns in an alpaca file", {"columns": {"messages": "m"}}, "qa.columns.messages",
             "has no effect with formatting alpaca"),
    _of_file("tags in an alpaca file", {"tags": {"role_tag": "r"}}, "qa.tags", "sharegpt"),
    _of_file("tags that are a list", {"formatting": "sharegpt", "tags": ["r"]}, "qa.tags"),
    _of_file("a tag that nobody has", {"formatting": "sharegpt", "tags": {"rol_tag": "r"}},
             "qa.tags.rol_tag"),
    _of_file("chosen without ranking", {"columns": {"chosen": "c"}}, "write `ranking: true`"),
    _of_file("ranking that is a text", {"ranking": "yes"}, "qa.ranking", "expected true or false"),
    _of_file("pictures", {"columns": {"images": "i"}}, "qa.columns.images"),
    _of_file("another split", {"split": "test"}, "qa.split", "a file has no split `test`"),
    _of_file("a folder", {"folder": "x"}, "qa.folder"),
    _of_file("four faults", {"formatting": 5, "columns": 6, "split": "x", "y": 7}, "4 problems"),
)  # fmt: skip


def _config(name: str, text: str | bytes, *said: str) -> CollectionCase:
    data = text.encode() if isinstance(text, str) else text
    return CollectionCase(f"config: {name}", data, said, CONFIG)


GOOD = "datasets:\n  - path: a.jsonl\n    type: alpaca\n"


def _dataset(name: str, lines: str, *said: str) -> CollectionCase:
    """A config with one dataset of these lines."""
    body = "".join(f"    {line}\n" for line in lines.split("\n")).replace("    ", "  - ", 1)
    return _config(name, "datasets:\n" + body, *said)


CONFIGS = (
    _config("UTF-16", GOOD.encode("utf-16"), f"{CONFIG}:1", "not UTF-8"),
    _config("Latin-1", GOOD.encode() + b"# \xe4\n", f"{CONFIG}:4", "byte 0xe4"),
    _config("NUL", GOOD.encode() + b"x: \0\n", f"{CONFIG}:4", "control character"),
    _config("a tab in the indentation", "datasets:\n\t- path: a.jsonl\n", f"{CONFIG}:2", "a tab"),
    _config("a list that is not closed", "datasets: [{path: a.jsonl\n", f"{CONFIG}:", "not closed"),
    _config("a quote that is not closed", 'datasets:\n  - path: "a.jsonl\n', "not closed"),
    _config("a tag", "datasets:\n  - path: !!python/object/apply:os.system [ls]\n", f"{CONFIG}:2",
            "is not accepted"),
    _config("two documents", GOOD + "---\n" + GOOD, f"{CONFIG}:4", "a second document"),
    _config("an anchor that holds itself", "datasets: &a\n  - path: *a\n", "inside its own anchor"),
    _config("an alias of nothing", "datasets:\n  - path: *a\n", f"{CONFIG}:2", "no anchor &a"),
    _config("aliases upon aliases", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi",
        strict=True)) + GOOD, "with aliases expanded"),
    _config("100 levels", "x: " + "[" * 100 + "]" * 100 + "\n" + GOOD, f"{CONFIG}:1", "32 levels"),
    _config("2 MB", "# " + "x" * 2_000_000 + "\n" + GOOD, "larger than 1,000,000 bytes"),
    _config("datasets twice", GOOD + GOOD, f"{CONFIG}:4", "datasets", "stands twice"),
    _config("an entry that is a text", GOOD + "  - b.jsonl\n", f"{CONFIG}:4", "datasets[1]"),
    _config("an entry that is null", GOOD + "  -\n", "datasets[1]", "expected a mapping"),
    _config("an entry that is a list", GOOD + "  - [b.jsonl]\n", "datasets[1]"),
    _config("test_datasets that is a text", GOOD + "test_datasets: b.jsonl\n", "test_datasets",
            "expected a list of datasets"),
    _config("a val_set_size of words", GOOD + "val_set_size: some\n", f"{CONFIG}:4",
            "expected a fraction"),
    _config("a val_set_size below 0", GOOD + "val_set_size: -0.1\n", "expected a fraction"),
    _config("a val_set_size of NaN", GOOD + "val_set_size: .nan\n", "val_set_size"),
    _config("two shapes",
            GOOD + "  - path: b.jsonl\n    type: sharegpt\n    field_messages: turns\n",
            f"{CONFIG}:5", "datasets[1].type"),
    _dataset("a path that is a number", "path: 5\ntype: alpaca", "datasets[0].path"),
    _dataset("a path that is a list", "path: [a.jsonl]\ntype: alpaca", "datasets[0].path"),
    _dataset("a file that is not there", "path: c.jsonl\ntype: alpaca", f"{CONFIG}:2",
             "there is no file c.jsonl"),
    _dataset("a path with NUL", 'path: "a\\0b.jsonl"\ntype: alpaca', "datasets[0].path"),
    _dataset("a path of 5,000 letters", f"path: {'x' * 5000}\ntype: alpaca", "cannot be read"),
    _dataset("a URL", "path: https://host/a.jsonl\ntype: alpaca", "is not a local file"),
    _dataset("a name of the Hub", "path: owner/name\ntype: alpaca", "dataset.dataset_name"),
    _dataset("no type", "path: a.jsonl", f"{CONFIG}:2", "datasets[0].type", "is missing"),
    _dataset("an unknown type", "path: a.jsonl\ntype: alpacca", f"{CONFIG}:3",
             "did you mean `alpaca`?"),
    _dataset("a type that is a number", "path: a.jsonl\ntype: 5", "datasets[0].type"),
    _dataset("a type that is a list", "path: a.jsonl\ntype: [alpaca]", "datasets[0].type"),
    _dataset("an unknown key", "path: a.jsonl\ntype: alpaca\nfeild: x", f"{CONFIG}:4",
             "datasets[0].feild", "unknown key"),
    _dataset("a loader of other files", "path: a.jsonl\ntype: alpaca\nds_type: csv", f"{CONFIG}:4"),
    _dataset("a loader that nobody has", "path: a.jsonl\ntype: alpaca\nds_type: jsn", "`json`?"),
    _dataset("files that are no texts", "path: a.jsonl\ntype: alpaca\ndata_files: [1, 2]",
             "data_files"),
    _dataset("a split of a file", "path: a.jsonl\ntype: alpaca\nsplit: test", "no split `test`"),
    _dataset("shards", "path: a.jsonl\ntype: alpaca\nshards: 4", "datasets[0].shards",
             "is not obeyed"),
    _dataset("roles that are a list", "path: a.jsonl\ntype: chat_template\nroles: [user]",
             "datasets[0].roles", "expected a mapping"),
    _dataset("a role that nobody has", "path: a.jsonl\ntype: chat_template\nroles: {boss: [x]}",
             "datasets[0].roles.boss"),
    _dataset("three faults", "path: c.jsonl\ntype: x1y2z3\nds_type: 5", "has 3 problems"),
)  # fmt: skip


def _directory(*names: str) -> Callable[[Path], object]:
    """A directory of files with these names, each with two good rows."""

    def make(path: Path) -> None:
        path.mkdir()
        for name in names:
            (path / name).write_bytes(ROWS)

    return make


def _in_it(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """A directory with one thing in it."""

    def made(path: Path) -> None:
        path.mkdir()
        make(path / name)

    return made


def _dir(name: str, make: Callable[[Path], object], *said: str) -> CollectionCase:
    return CollectionCase(f"directory: {name}", make, said, "rows")


DIRECTORIES = (
    _dir("nothing in it", _directory(), "without data files", "train.jsonl"),
    _dir("other files", _directory("notes.txt", "model.bin"), "without data files"),
    _dir("hidden files", _directory(".train.jsonl"), "without data files"),
    _dir("two files of no side", _directory("x.jsonl", "y.jsonl"), "which is which is not clear"),
    _dir("no training file", _directory("valid.jsonl", "test.jsonl"), "no file to train on",
         "valid.jsonl, test.jsonl"),
    _dir("a file to test on alone", _directory("test.jsonl"), "no file to train on", "test.jsonl"),
    _dir("two training files", _directory("train.jsonl", "train.csv"), "which is which"),
    _dir("two files to evaluate on", _directory("train.jsonl", "valid-00000-of-00002.jsonl",
         "valid-00001-of-00002.jsonl"), "2 files for one side"),
    _dir("a shard missing", _directory("train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl"),
         "2 of the 3 shards", "number 1"),
    _dir("one shard of three", _directory("train-00000-of-00003.jsonl"), "1 of the 3 shards"),
    _dir("a shard beyond the last", _directory("train-00003-of-00003.jsonl"), "which is which"),
    _dir("shards of two sets", _directory("train-00000-of-00002.jsonl",
         "train-00001-of-00003.jsonl"), "which is which"),
    _dir("shards of a billion", _directory("train-00000-of-999999999.jsonl"), "number 1"),
    _dir("Arrow files", _directory("data-00000-of-00001.arrow"), ".arrow files are not read"),
    _dir("a pipe for training", _in_it("train.jsonl", os.mkfifo), "a pipe"),
    _dir("a link to nothing", _in_it("train.jsonl", lambda p: p.symlink_to("gone.jsonl")),
         "which does not exist"),
    _dir("a loop", _in_it("train.jsonl", lambda p: p.symlink_to(p)), "cannot be read"),
    _dir("an empty file", _in_it("train.jsonl", Path.touch), "is empty"),
    _dir("a broken index", _in_it(INDEX, lambda p: p.write_bytes(b"{")), "not a JSON file"),
)  # fmt: skip

BOM_INDEX = codecs.BOM_UTF8 + json.dumps({"qa": {"file_name": "a.jsonl"}}).encode()
CASES = (*INDEXES, *ENTRIES, *CONFIGS, *DIRECTORIES)
