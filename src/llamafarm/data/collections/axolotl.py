"""The datasets of an axolotl config as a collection: local files, and how their rows are read.

The rest of the config (model, adapter, optimizer) is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from llamafarm.data.collections.axolotl_files import dataset_files
from llamafarm.data.collections.collection import Collection
from llamafarm.data.collections.settings import Findings, Settings
from llamafarm.data.formats import FORMATS
from llamafarm.data.readers import display_name
from llamafarm.data.row_reader import TURN_FIELDS
from llamafarm.data.turn_reader import ROLES, TURN_ROLES, TurnRole
from llamafarm.errors import DataError, StrategyError
from llamafarm.strategy.model import FORMAT_ALIASES, DataFormat
from llamafarm.strategy.nodes import MappingNode, ScalarNode, SequenceNode, shown
from llamafarm.strategy.yaml_reader import read_yaml

# axolotl's name for a field → ours. The field with the turns has another name in each format.
_COLUMNS = {
    "field_instruction": "instruction",
    "field_input": "input",
    "field_output": "output",
    "field_system": "system",
    "field_tools": "tools",
    "field": "text",
    "message_field_role": "role",
    "message_field_content": "content",
}
_OF_TYPE = ("field_instruction", "field_input", "field_output", "field_system")
_TRAINED_FIELDS = ("train", "training", "train_on_turn")
_TEMPLATE = "conversations are written by the model's chat template, or `prompt_template.format`"
_PART = "it takes a part of the rows: write them into a file of their own"
_REFUSED = {
    "shards": _PART,
    "shards_idx": _PART,
    "skip": _PART,
    "name": "it chooses a part of a Hub dataset: leave it out for a file",
    "input_transform": "rows are read as they stand",
    "input_format": "rows are read as they stand",
    "drop_system_message": "leave the system turns out of the file",
    "message_field_training_detail": "a turn is trained whole, or not",
    "field_human": "name the turns with field_messages",
    "field_model": "name the turns with field_messages",
    "logprobs_field": "distillation is not done by this version",
    "temperature": "distillation is not done by this version",
    "step_separator": "steps are not scored by this version",
    "max_completion_length": "write `data_preprocessing.max_output_length`",
    "train_on_last_step_only": "steps are not scored by this version",
}
_PASSED_OVER = {
    "chat_template": _TEMPLATE,
    "chat_template_jinja": _TEMPLATE,
    "conversation": _TEMPLATE,
    "revision": "it belongs to a Hub dataset",
    "trust_remote_code": "no code is run for data",
    "preprocess_shards": "rows are read one after the other",
    "field_thinking": "reasoning is read from the content",
    "template_thinking_key": "reasoning is read from the content",
    "split_thinking": "reasoning is read from the content",
}
_TYPE_PASSED_OVER = {
    "system_prompt": "write it into `prompt_template.system`",
    "system_format": _TEMPLATE,
    "format": _TEMPLATE,
    "no_input_format": _TEMPLATE,
}
# Their rows say themselves what is trained: all of a text, and the pieces with that label.
_WITHOUT_QUESTIONS = ("text", "input_output")
_CONFIG_PASSED_OVER = {
    "chat_template": _TEMPLATE,
    "chat_template_jinja": _TEMPLATE,
    "dataset_exact_deduplication": "write `data_preprocessing.remove_duplicates: true`",
    "default_system_message": "write it into `prompt_template.system`",
    "pretraining_dataset": "only `datasets` is read",
    "rl": "of preferences, the chosen answers are trained",
}


@dataclass(frozen=True, slots=True)
class _Dataset:
    """One entry, understood. settings: its keys, for faults that show beside other entries."""

    files: tuple[Path, ...]
    data_format: DataFormat
    columns: Mapping[str, str]
    roles: Mapping[str, str]
    settings: Settings

    @property
    def shape(self) -> tuple[object, ...]:
        """Entries are read together only if these are equal."""
        return self.data_format, dict(self.columns), dict(self.roles)


def axolotl_collection(path: Path) -> Collection | None:
    """The datasets of a config; None for a YAML file that is none.

    Paths are looked up beside the config, then in the working directory. Raises DataError with
    every problem of the file.
    """
    try:
        root = read_yaml(path)
    except StrategyError as fault:
        raise DataError(fault.summary, fault.problems, hint=fault.hint) from fault
    if not isinstance(root, MappingNode) or not _is_config(root):
        return None
    found = Findings(display_name(path))
    config = Settings(root, "", found)
    collection = _collection(config, path.parent, found)
    found.raise_problems()
    return replace(collection, notices=tuple(found.notices))


def _is_config(root: MappingNode) -> bool:
    entry = root.get("datasets")
    items = entry.value.items if entry and isinstance(entry.value, SequenceNode) else ()
    return any(isinstance(item, MappingNode) and item.get("path") for item in items)


def _collection(config: Settings, directory: Path, found: Findings) -> Collection:
    training = list(_datasets(config, "datasets", directory, found))
    testing = list(_datasets(config, "test_datasets", directory, found))
    fraction = _fraction(config, evaluated=bool(testing))
    _trained_inputs(config, [*training, *testing])
    config.pass_over(_CONFIG_PASSED_OVER)
    unread = [entry.key for entry in config.unread()]
    if unread:
        config.notice(f"{len(unread)} other keys of the config are not read, such as {unread[0]}")
    shape = _common_shape([*training, *testing])
    evaluated = [file for dataset in testing for file in dataset.files]
    if len(evaluated) > 1:
        config.fault("test_datasets", "rows are evaluated from one file", "join them into one")
    return replace(
        shape,
        train=tuple(file for dataset in training for file in dataset.files),
        eval=evaluated[0] if evaluated else None,
        eval_fraction=fraction,
    )


def _datasets(config: Settings, key: str, directory: Path, found: Findings) -> Iterator[_Dataset]:
    node = config.node(key)
    if node is None:
        return
    if not isinstance(node, SequenceNode):
        config.fault(key, f"expected a list of datasets (got {shown(node)})")
        return
    for number, item in enumerate(node.items):
        path = f"{key}[{number}]"
        if isinstance(item, MappingNode):
            yield _dataset(Settings(item, path, found), directory)
        else:
            found.fault(f"expected a mapping (got {shown(item)})", line=item.line, path=path)


def _dataset(entry: Settings, directory: Path) -> _Dataset:
    data_format, columns = _type(entry)
    columns |= entry.mapped(_COLUMNS) | _property_names(entry)
    turns = "conversations" if data_format == "sharegpt" else "messages"
    columns |= entry.mapped({"field_messages": turns})
    roles, speakers = _roles(entry)
    _refuse_useless(entry, data_format, columns, roles)
    _training(entry, speakers)
    files = dataset_files(entry, directory)
    entry.refuse(_REFUSED)
    entry.pass_over(_PASSED_OVER)
    entry.refuse_unread()
    different = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    return _Dataset(files, data_format, different, roles, entry)


def _type(entry: Settings) -> tuple[DataFormat, dict[str, str]]:
    """The format that `type` names, and the columns that it names where it is a mapping."""
    node = entry.node("type")
    inner = entry.section("type") if isinstance(node, MappingNode) else None
    if inner is not None:
        columns = inner.mapped({key: _COLUMNS[key] for key in _OF_TYPE})
        inner.pass_over(_TYPE_PASSED_OVER)
        inner.refuse_unread()
        return "alpaca", columns
    if node is None:
        hint = "write e.g. `type: alpaca`; rows that are tokens already are not read"
        entry.fault("type", "is missing", hint)
        return "auto", {}
    text = entry.text("type")
    name, _, style = text.partition(":")
    if style:
        entry.notice(f"{entry.path('type')}: the style `{style}` is not used: {_TEMPLATE}")
    return _format_named(entry, name) if text else "auto", {}


def _format_named(entry: Settings, name: str) -> DataFormat:
    """axolotl's loaders of ShareGPT rows differ in what they make of them, not in the rows."""
    if name.partition(".")[0] == "sharegpt":
        return "sharegpt"
    formats: Mapping[str, DataFormat] = {
        **{known: known for known in get_args(DataFormat)},
        **FORMAT_ALIASES,
    }
    if name in formats:
        return formats[name]
    near = get_close_matches(name, formats, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(sorted(formats))}"
    entry.fault("type", f'no rows of type "{name}" are read', hint)
    return "auto"


def _property_names(entry: Settings) -> dict[str, str]:
    """`message_property_mappings`: names of a turn's own fields."""
    section = entry.section("message_property_mappings")
    if section is None:
        return {}
    columns = section.mapped({name: name for name in TURN_FIELDS})
    for other in section.unread():
        if not isinstance(other.value, ScalarNode) or other.value.text != other.key:
            section.fault(other.key, "this field of a turn has one name only", "leave it out")
    return columns


def _roles(entry: Settings) -> tuple[dict[str, str], dict[str, TurnRole]]:
    """Our name for who speaks → the one name that the reader does not know yet; and every name →
    who speaks under it, where the config comes first.
    """
    section = entry.section("roles")
    roles: dict[str, str] = {}
    speakers = dict(ROLES)
    if section is None:
        return roles, speakers
    for ours in TURN_ROLES:
        names = section.texts(ours)
        speakers |= {_plain(name): ours for name in names}
        new = [name for name in names if ROLES.get(_plain(name)) != ours]
        if len(new) > 1:
            message = f"one name of its own a role, found {', '.join(new)}"
            section.fault(ours, message, "write one of them throughout the file")
        elif new:
            roles[ours] = new[0]
    section.refuse_unread()
    return roles, speakers


def _plain(name: str) -> str:
    return name.strip().lower()


def _refuse_useless(
    entry: Settings,
    data_format: DataFormat,
    columns: Mapping[str, str],
    roles: Mapping[str, str],
) -> None:
    """Names for fields that rows of this format do not have."""
    if data_format == "auto":
        return
    fields = FORMATS[data_format].fields
    for ours, theirs in columns.items():
        if ours not in fields:
            entry.fault("type", f"rows of type {data_format} have no {ours} ({theirs})")
    if roles and "role" not in fields:
        entry.fault("roles", f"has no effect: rows of type {data_format} have no turns")


def _training(entry: Settings, speakers: Mapping[str, TurnRole]) -> None:
    """Which turns are trained: the assistant's, each with what ends it."""
    trained = entry.texts("roles_to_train")
    others = [name for name in trained if speakers.get(_plain(name)) != "assistant"]
    if others:
        message = f"only the assistant's turns are trained, not those of {', '.join(others)}"
        entry.fault("roles_to_train", message, "leave it out")
    node = entry.node("roles_to_train")
    if isinstance(node, SequenceNode) and not node.items:
        entry.fault("roles_to_train", "is empty: nothing would be trained", "leave it out")
    for key in ("train_on_eos", "train_on_eot"):
        if entry.text(key) not in ("", "turn"):
            entry.fault(key, "each trained turn is trained with its end", "leave it out")
    field = entry.text("message_field_training")
    if field and field not in _TRAINED_FIELDS:
        hint = f"name it {' or '.join(_TRAINED_FIELDS)} in the file"
        entry.fault("message_field_training", f"the field {field} is not looked at", hint)


def _fraction(config: Settings, *, evaluated: bool) -> float | None:
    """`val_set_size`: a fraction; what cannot be obeyed is said."""
    node = config.node("val_set_size")
    if node is None:
        return None
    size = node.value if isinstance(node, ScalarNode) else None
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 <= size < math.inf:
        config.fault("val_set_size", f"expected a fraction (got {shown(node)})", "0.1")
    elif evaluated and size:
        config.fault("val_set_size", "has no effect beside test_datasets", "leave one of them out")
    elif size == 0 and not evaluated:
        config.notice('val_set_size is not used: for no evaluation write `eval_strategy: "no"`')
    elif size >= 1:
        config.notice(f"val_set_size is not used: write `dataset.eval_rows: {size:g}`")
    elif size:
        return float(size)
    return None


def _trained_inputs(config: Settings, datasets: Sequence[_Dataset]) -> None:
    """`train_on_inputs`, which asks for nothing where no row has a question."""
    wanted = config.flag("train_on_inputs")
    if wanted and any(dataset.data_format not in _WITHOUT_QUESTIONS for dataset in datasets):
        hint = "only answers are trained, questions are not: leave it out"
        config.fault("train_on_inputs", "is not obeyed", hint)


def _common_shape(datasets: Sequence[_Dataset]) -> Collection:
    """How the rows of all entries are read; each that differs from the first is a problem, unless
    the keys of the rows tell the formats apart.
    """
    if not datasets:
        return Collection(())
    first = datasets[0]
    formats = {dataset.data_format for dataset in datasets}
    named = any(dataset.columns or dataset.roles for dataset in datasets)
    if (
        len(formats) > 1
        and not named
        and not any(f in FORMATS and FORMATS[f].by_name for f in formats)
    ):
        first.settings.notice("types differ: the shape of every row is recognised by its keys")
        return Collection((), data_format="auto")
    for other in datasets[1:]:
        if "auto" not in (first.data_format, other.data_format) and other.shape != first.shape:
            message = "its rows are read in another way than those of the first dataset"
            other.settings.fault("type", message, "give the datasets one type and one set of names")
    return Collection((), data_format=first.data_format, columns=first.columns, roles=first.roles)
