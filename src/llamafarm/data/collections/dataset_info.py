"""LLaMA-Factory's index of datasets, dataset_info.json: one entry of it as a collection."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args

from llamafarm.data.collections.collection import Collection
from llamafarm.data.collections.directory import data_files
from llamafarm.data.collections.settings import Findings, Settings
from llamafarm.data.encoding import UTF8_BOM
from llamafarm.data.json_reader import strict_json
from llamafarm.data.readers import display_name
from llamafarm.errors import DataError, Problem, count_of
from llamafarm.strategy.model import DataFormat
from llamafarm.strategy.nodes import MappingNode, from_plain

INDEX_NAME = "dataset_info.json"
MAX_INDEX_BYTES = 2**24
_LISTED = 20

Formatting = Literal["alpaca", "sharegpt", "openai"]
_FORMATS: Mapping[Formatting, DataFormat] = {
    "alpaca": "alpaca",
    "sharegpt": "sharegpt",
    "openai": "messages",
}
_PLACES = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
# Their name for a column → ours. What an entry of the other formatting has no use for is refused.
_COMMON = {"system": "system", "tools": "tools", "kto_tag": "label"}
_OF_ALPACA = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
}
_ANSWER = "response"
_RANKED = {"chosen": "chosen", "rejected": "rejected"}
_ROLE_TAGS = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function_call",
    "system_tag": "system",
}
_FIELD_TAGS = {"role_tag": "role", "content_tag": "content"}
_NOT_TRAINED = "pictures, films and sound are not trained by this version: leave the column out"
_MEDIA = dict.fromkeys(("images", "videos", "audios"), _NOT_TRAINED)


def is_index(path: Path) -> bool:
    """Whether a file is such an index; the Hub's own dataset_info.json, which describes one
    dataset, is none.
    """
    places = {"file_name", *_PLACES}
    return any(isinstance(e, dict) and places & e.keys() for e in _load(path).values())


def index_collection(path: Path, name: str | None) -> Collection:
    """One entry of an index; the only one when no name is given.

    Raises DataError when the entry is not there, or with every key that cannot be obeyed.
    """
    found = Findings(display_name(path))
    entries = _load(path)
    chosen = _chosen(path, found.name, entries, name)
    node = from_plain(entries[chosen])
    if not isinstance(node, MappingNode):
        found.fault("expected an object with file_name", path=chosen)
        found.raise_problems()
        raise AssertionError("a problem was raised")
    collection = _entry(Settings(node, chosen, found), path.parent, found)
    found.raise_problems()
    return collection


def _load(path: Path) -> dict[str, object]:
    name = display_name(path)
    with path.open("rb") as file:
        data = file.read(MAX_INDEX_BYTES + 1)
    if len(data) > MAX_INDEX_BYTES:
        raise DataError(
            f"{name} is larger than {MAX_INDEX_BYTES // 2**20} MiB: too large for an index",
            hint=f"{INDEX_NAME} names data files, it does not hold their rows",
        )
    try:
        value = strict_json(data.removeprefix(UTF8_BOM).decode("utf-8"))
    except (ValueError, RecursionError) as fault:
        raise DataError(f"{name} is not a JSON file", [Problem(str(fault), where=name)]) from fault
    if not isinstance(value, dict):
        raise DataError(f"{name} holds no datasets", hint='{"my_data": {"file_name": "my.jsonl"}}')
    return value


def _chosen(path: Path, shown: str, entries: Mapping[str, object], name: str | None) -> str:
    names = sorted(entries)
    listed = ", ".join(names[:_LISTED])
    listed += f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise DataError(
            f"{shown} has {count_of(len(names), 'dataset')}: {listed or 'none'}",
            hint=f"choose one: {shown}#{names[0] if names else 'NAME'}",
        )
    if name not in entries:
        near = get_close_matches(name, names, n=1)
        raise DataError(
            f"{shown} has no dataset `{name}`; it has {listed or 'none'}",
            hint=f"did you mean {shown}#{near[0]}?" if near else f"choose one: {shown}#NAME",
        )
    return name


def _entry(entry: Settings, directory: Path, found: Findings) -> Collection:
    train = _files(entry, directory)
    formatting: Formatting = "alpaca"
    if entry.has("formatting"):
        text = entry.choice("formatting", get_args(Formatting))
        formatting = next((known for known in _FORMATS if known == text), "alpaca")
    ranking = entry.flag("ranking")
    columns, data_format = _columns(entry, formatting, ranking)
    fields, roles = _tags(entry, formatting)
    _other_keys(entry)
    entry.refuse_unread()
    return Collection(
        train=train,
        data_format=data_format,
        columns={ours: theirs for ours, theirs in {**columns, **fields}.items() if ours != theirs},
        roles=roles,
        notices=tuple(found.notices),
    )


def _files(entry: Settings, directory: Path) -> tuple[Path, ...]:
    """The file of an entry, or the files of a directory that it names."""
    name = entry.text("file_name")
    places = [key for key in _PLACES if entry.has(key)]
    if not name:
        if not entry.has("file_name"):
            _refuse_place(entry, places)
        return ()
    entry.pass_over(dict.fromkeys(places, "the file is"))
    path = directory / name
    if path.is_dir():
        files = data_files(path)
        if not files:
            entry.fault("file_name", f"{display_name(path)} is a directory without data files")
        return files
    if not path.exists():
        message = f"{display_name(path)} does not exist"
        entry.fault("file_name", message, f"files are looked up beside {INDEX_NAME}")
    return (path,)


def _refuse_place(entry: Settings, places: list[str]) -> None:
    if not places:
        entry.fault("file_name", "is missing", f"name a file beside {INDEX_NAME}")
    elif places[0] != "hf_hub_url":
        entry.fault(places[0], "rows are read from files and from the Hugging Face Hub")
    else:
        hint = f"write `dataset.dataset_name: {entry.text('hf_hub_url')}`"
        if subset := entry.text("subset"):
            hint += f" and `dataset.dataset_config_name: {subset}`"
        entry.fault("hf_hub_url", "the dataset lies on the Hub, not in a file", hint)


def _columns(
    entry: Settings, formatting: Formatting, ranking: bool
) -> tuple[dict[str, str], DataFormat]:
    """Our columns, and the format of the rows."""
    data_format: DataFormat = "preference" if ranking else _FORMATS[formatting]
    section = entry.section("columns")
    if section is None:
        return {}, data_format
    names = {**_COMMON, **(_RANKED if ranking else {})}
    if formatting == "alpaca":
        names |= {key: ours for key, ours in _OF_ALPACA.items() if not (ranking and key == _ANSWER)}
    else:
        names["messages"] = "messages" if formatting == "openai" else "conversations"
    columns = section.mapped(names)
    section.refuse(_MEDIA)
    _refuse_useless(section, names, formatting)
    section.refuse_unread()
    if formatting == "alpaca" and not ranking and set(columns) == {"instruction"}:
        entry.notice(f"{section.path('prompt')} is the only column: the rows are plain texts")
        return {"text": columns["instruction"]}, "text"
    _notice_unnamed(entry, columns, formatting)
    return columns, data_format


def _refuse_useless(section: Settings, names: Mapping[str, str], formatting: str) -> None:
    for key in (*_OF_ALPACA, "messages"):
        if key not in names and section.has(key):
            other = (
                "ranking" if key == _ANSWER and "chosen" in names else f"formatting {formatting}"
            )
            section.fault(key, f"has no effect with {other}", "leave it out")
    for key in _RANKED:
        if key not in names and section.has(key):
            section.fault(key, "has no effect without ranking", "write `ranking: true`")


def _notice_unnamed(entry: Settings, columns: Mapping[str, str], formatting: str) -> None:
    """LLaMA-Factory passes over a column that the entry does not name."""
    optional = ("input", "history") if formatting == "alpaca" else ()
    unnamed = [name for name in (*optional, "system", "tools") if name not in columns]
    if unnamed:
        entry.notice(f"read where rows have them, though not named: {', '.join(unnamed)}")


def _tags(entry: Settings, formatting: Formatting) -> tuple[dict[str, str], dict[str, str]]:
    """Names of a turn's own fields, and of who speaks."""
    section = entry.section("tags")
    if section is None:
        return {}, {}
    if formatting == "alpaca":
        entry.fault("tags", "has no effect with formatting alpaca", "write `formatting: sharegpt`")
        return {}, {}
    fields = section.mapped(_FIELD_TAGS)
    roles = section.mapped(_ROLE_TAGS)
    section.refuse_unread()
    return fields, roles


def _other_keys(entry: Settings) -> None:
    entry.refuse(
        {
            "subset": "it chooses a part of a Hub dataset: leave it out for a file",
            "folder": "it chooses a part of a Hub dataset: write the path into file_name",
        }
    )
    if (split := entry.text("split")) and split != "train":
        entry.fault("split", f"a file has no split `{split}`", "leave it out")
    entry.pass_over(
        {
            "num_samples": "write `dataset.max_samples` for the number of rows",
            "revision": "it belongs to a Hub dataset",
        }
    )
