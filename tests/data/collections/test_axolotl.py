from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm.data.collections import Collection, expand
from llamafarm.data.formats import RowSpec
from llamafarm.data.read_conversations import read_conversations
from llamafarm.errors import DataError
from llamafarm.strategy.model import FORMAT_ALIASES

from ..rows_on_disk import request_for, write_jsonl


def _config(tmp_path: Path, text: str) -> Path:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"a": 1}\n')
    path = tmp_path / "config.yml"
    path.write_text(text)
    return path


def _read(tmp_path: Path, text: str) -> Collection:
    found = expand(_config(tmp_path, text))
    assert found is not None
    RowSpec(found.data_format, found.columns, found.roles)
    return found


def _dataset(tmp_path: Path, lines: str) -> Collection:
    """One dataset with these `key: value` lines."""
    inner = "".join(f"    {line}\n" for line in lines.splitlines())
    return _read(tmp_path, f"datasets:\n  - path: a.jsonl\n{inner}")


def _faults(tmp_path: Path, text: str) -> str:
    with pytest.raises(DataError) as caught:
        expand(_config(tmp_path, text))
    return caught.value.render()


def _said(tmp_path: Path, found: Collection, row: dict[str, object]) -> list[tuple[str, str]]:
    write_jsonl(tmp_path / "a.jsonl", [row])
    request = request_for(
        found.train[0], data_format=found.data_format, columns=found.columns, roles=found.roles
    )
    (conversation,) = read_conversations(request)
    return [(message.role, message.content) for message in conversation.messages]


def test_a_config_names_its_files_and_how_they_are_split(tmp_path: Path) -> None:
    text = "base_model: x\nlora_r: 8\ndatasets:\n  - {path: a.jsonl, type: alpaca}\n"
    found = _read(tmp_path, text + "val_set_size: 0.05\n")
    assert found.train == (tmp_path / "a.jsonl",)
    assert (found.data_format, found.eval, found.eval_fraction) == ("alpaca", None, 0.05)
    assert "2 other keys of the config are not read, such as base_model" in found.notices[0]


@pytest.mark.parametrize(
    ("type_name", "data_format"),
    [
        ("alpaca", "alpaca"),
        ("sharegpt", "sharegpt"),
        ("sharegpt.load_role", "sharegpt"),
        ("messages", "messages"),
        *FORMAT_ALIASES.items(),
    ],
)
def test_types_are_formats_of_rows(type_name: str, data_format: str, tmp_path: Path) -> None:
    assert _dataset(tmp_path, f"type: {type_name}").data_format == data_format


def test_a_style_after_the_type_is_announced(tmp_path: Path) -> None:
    found = _dataset(tmp_path, "type: alpaca:phi")
    assert found.data_format == "alpaca"
    assert "the style `phi` is not used" in found.notices[0]


def test_fields_of_a_type_are_read_under_our_names(tmp_path: Path) -> None:
    lines = """type:
  field_instruction: q
  field_input: ctx
  field_output: a
  field_system: sys
  format: "[INST] {instruction} [/INST]"
"""
    found = _dataset(tmp_path, lines)
    assert "datasets[0].type.format is not used" in found.notices[0]
    row: dict[str, object] = {"q": "Why?", "ctx": "Rain.", "a": "So.", "sys": "Be kind."}
    assert _said(tmp_path, found, row) == [
        ("system", "Be kind."),
        ("user", "Why?\n\nRain."),
        ("assistant", "So."),
    ]


@pytest.mark.parametrize(
    "names",
    [
        "message_property_mappings: {role: who, content: says, name: name}",
        "message_field_role: who\nmessage_field_content: says",
    ],
)
@pytest.mark.parametrize("type_name", ["chat_template", "sharegpt"])
def test_turns_are_read_under_their_names(type_name: str, names: str, tmp_path: Path) -> None:
    lines = f"""type: {type_name}
field_messages: dialog
{names}
roles:
  user: [human, patient]
  assistant: [gpt, assistant, doctor]
roles_to_train: [assistant]
train_on_eos: turn
train_on_eot: turn
message_field_training: training
"""
    found = _dataset(tmp_path, lines)
    assert found.roles == {"user": "patient", "assistant": "doctor"}
    turns = [
        {"who": "patient", "says": "Hm?"},
        {"who": "doctor", "says": "Fine."},
        {"who": "human", "says": "Sure?"},
        {"who": "gpt", "says": "Yes."},
    ]
    assert _said(tmp_path, found, {"dialog": turns}) == [
        ("user", "Hm?"),
        ("assistant", "Fine."),
        ("user", "Sure?"),
        ("assistant", "Yes."),
    ]


def test_names_of_roles_are_those_of_the_config(tmp_path: Path) -> None:
    roles = "roles: {assistant: [doctor]}\nroles_to_train: [Doctor, assistant]"
    assert _dataset(tmp_path, f"type: chat_template\n{roles}").roles == {"assistant": "doctor"}
    swapped = "roles: {assistant: [human], user: [gpt]}"
    entry = f"path: a.jsonl\n    type: chat_template\n    {swapped}\n    roles_to_train"
    assert "not those of gpt" in _faults(tmp_path, f"datasets:\n  - {entry}: [gpt, human]\n")


def test_only_a_name_that_the_reader_does_not_know_counts_as_one_of_its_own(tmp_path: Path) -> None:
    roles = "roles: {user: [human, prompter], assistant: [Bot, doctor], tool: [observation]}"
    found = _dataset(tmp_path, f"type: chat_template\n{roles}")
    assert found.roles == {"assistant": "doctor"}


def test_the_field_of_plain_texts_may_have_another_name(tmp_path: Path) -> None:
    found = _dataset(tmp_path, "type: completion\nfield: body")
    assert (found.data_format, found.columns) == ("text", {"text": "body"})


def test_a_file_to_evaluate_is_not_split_off(tmp_path: Path) -> None:
    text = (
        "datasets: [{path: a.jsonl, type: alpaca}]\n"
        "test_datasets: [{path: b.jsonl, type: alpaca, ds_type: json, split: train}]\n"
    )
    found = _read(tmp_path, text + "val_set_size: 0\n")
    assert (found.eval, found.eval_fraction) == (tmp_path / "b.jsonl", None)
    assert "has no effect beside test_datasets" in _faults(tmp_path, text + "val_set_size: 0.1\n")


def test_several_datasets_of_one_shape_are_read_together(tmp_path: Path) -> None:
    entry = "{path: %s, type: {field_instruction: q, field_output: a}}"
    found = _read(tmp_path, f"datasets: [{entry % 'a.jsonl'}, {entry % 'b.jsonl'}]\n")
    assert found.train == (tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert found.columns == {"instruction": "q", "output": "a"}


def test_rows_tell_two_types_apart_where_no_names_are_given(tmp_path: Path) -> None:
    found = _read(
        tmp_path, "datasets: [{path: a.jsonl, type: alpaca}, {path: b.jsonl, type: sharegpt}]\n"
    )
    assert found.data_format == "auto"
    assert "the shape of every row is recognised by its keys" in found.notices[0]


@pytest.mark.parametrize(
    "second",
    [
        "{path: b.jsonl, type: {field_instruction: other, field_output: a}}",
        "{path: b.jsonl, type: sharegpt}",
    ],
)
def test_datasets_of_two_shapes_are_refused(second: str, tmp_path: Path) -> None:
    first = "{path: a.jsonl, type: {field_instruction: q, field_output: a}}"
    text = _faults(tmp_path, f"datasets:\n  - {first}\n  - {second}\n")
    assert "config.yml:3" in text
    assert "in another way than those of the first dataset" in text


def test_a_type_that_only_its_name_tells_is_not_left_to_the_keys(tmp_path: Path) -> None:
    text = "datasets: [{path: a.jsonl, type: alpaca}, {path: b.jsonl, type: jeopardy}]\n"
    assert "in another way than those of the first dataset" in _faults(tmp_path, text)


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ("path: parts\ndata_files: [one.jsonl, two.jsonl]", ["parts/one.jsonl", "parts/two.jsonl"]),
        ("path: json\ndata_files: a.jsonl", ["a.jsonl"]),
        ("path: split", ["split/train.jsonl"]),
        ("path: split\nsplit: validation", ["split/valid.jsonl"]),
        ("path: split\ntrain_on_split: validation", ["split/valid.jsonl"]),
        ("path: split\nsplit: dev\ntrain_on_split: dev", ["split/valid.jsonl"]),
        ("path: held\nsplit: test", ["held/test.jsonl"]),
        (
            "path: shards\nsplit: validation",
            [f"shards/valid-0000{i}-of-00002.parquet" for i in (0, 1)],
        ),
        ("path: ./b.jsonl\nds_type: json", ["b.jsonl"]),
    ],
)
def test_files_are_found_beside_the_config(lines: str, files: list[str], tmp_path: Path) -> None:
    for name in (
        "parts/one.jsonl",
        "parts/two.jsonl",
        "split/train.jsonl",
        "split/valid.jsonl",
        "held/test.jsonl",
        "shards/valid-00000-of-00002.parquet",
        "shards/valid-00001-of-00002.parquet",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    inner = "".join(f"    {line}\n" for line in lines.splitlines())
    found = _read(tmp_path, f"datasets:\n  - type: alpaca\n{inner}")
    assert [str(path.relative_to(tmp_path)) for path in found.train] == files


def test_what_a_directory_holds_besides_is_announced(tmp_path: Path) -> None:
    for name in ("split/train.jsonl", "split/old.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    found = _read(tmp_path, "datasets: [{path: split, type: alpaca}]\n")
    assert "not read: old.jsonl" in "\n".join(found.notices)


def test_a_directory_whose_names_do_not_tell_is_refused(tmp_path: Path) -> None:
    for name in ("mixed/rows.jsonl", "mixed/valid.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    text = "datasets:\n  - path: mixed\n    type: alpaca\n"
    said = " ".join(_faults(tmp_path, text).split())
    assert "rows.jsonl, valid.jsonl: which is which is not clear" in said
    assert "train.jsonl, valid.jsonl and test.jsonl" in said
    found = _read(tmp_path, f"{text}    split: validation\n")
    assert found.train == (tmp_path / "mixed" / "valid.jsonl",)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_directory_with_the_file_of_one_split_has_no_other(split: str, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "test.jsonl").write_text("{}\n")
    text = _faults(
        tmp_path, f"datasets:\n  - path: held\n    type: alpaca\n    train_on_split: {split}\n"
    )
    assert "config.yml:4 datasets[0].train_on_split" in " ".join(text.split())
    assert f"has no split `{split}`" in text


def test_files_are_found_in_the_working_directory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "here.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path / "work")
    found = _read(tmp_path, "datasets: [{path: here.jsonl, type: alpaca}]\n")
    assert found.train == (Path("here.jsonl"),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("path: owner/name", "`dataset.dataset_name: owner/name`"),
        ("path: s3://bucket/a.jsonl", "s3://bucket/a.jsonl is not a local file"),
        ("path: gone.jsonl", "there is no file gone.jsonl"),
        ("path: owner/gone.jsonl", "there is no file owner/gone.jsonl"),
        ("path: json\n    data_files: [gone.jsonl, a.jsonl, lost.jsonl]", "there is no file lost"),
        ("path: ''", "expected a text"),
        ("data_files: a.jsonl\n    path:", "path\n"),
        ("path: a.jsonl\n    split: test", "a file has no split `test`"),
        ("path: a.jsonl\n    train_on_split: test", "a file has no split `test`"),
        (
            "path: a.jsonl\n    split: train\n    train_on_split: test",
            "split says `train`, this `test`",
        ),
        ("path: ~nouser/x.jsonl", "there is no file ~nouser/x.jsonl"),
        ("path: json\n    data_files: ~nouser/x.jsonl", "there is no file ~nouser/x.jsonl"),
        ("path: a.jsonl\n    ds_type: csv", "is read as jsonl, by its name"),
        ("path: a.jsonl\n    ds_type: arrow", "expected one of json, csv, parquet"),
        ("path: a.jsonl\n    typ: alpaca", "did you mean `type`?"),
        ("path: a.jsonl\n    shards: 4", "datasets[0].shards"),
        ("path: a.jsonl\n    name: small", "datasets[0].name"),
        ("path: a.jsonl\n    drop_system_message: true", "datasets[0].drop_system_message"),
        ("path: a.jsonl\n    roles_to_train: [user]", "not those of user"),
        ("path: a.jsonl\n    roles_to_train: [tool, gpt, user, system]", "of tool, user, system"),
        ("path: a.jsonl\n    roles_to_train: []", "is empty: nothing would be trained"),
        ("path: a.jsonl\n    train_on_eos: all", "datasets[0].train_on_eos"),
        ("path: a.jsonl\n    train_on_eot: last", "datasets[0].train_on_eot"),
        ("path: a.jsonl\n    message_field_training: weight", "the field weight is not looked at"),
        (
            "path: a.jsonl\n    field_messages: turns",
            "rows of type alpaca have no messages (turns)",
        ),
        ("path: a.jsonl\n    roles: {user: [me]}", "rows of type alpaca have no turns"),
        ("path: a.jsonl\n    roles: {usr: [me]}", "did you mean `user`?"),
        ("path: a.jsonl\n    roles: {user: [me, you]}", "one name of its own a role"),
        ("path: a.jsonl\n    message_property_mappings: {name: by}", "mappings.name"),
        ("path: a.jsonl\n    path: b.jsonl", "the key stands twice"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_line_and_path(
    line: str, said: str, tmp_path: Path
) -> None:
    text = _faults(tmp_path, f"datasets:\n  - type: alpaca\n    {line}\n")
    assert said in text
    assert "config.yml:" in text
    assert "datasets[0]" in text


@pytest.mark.parametrize(
    ("type_line", "said"),
    [
        ("type: alpacca", "did you mean `alpaca`?"),
        ("type:", "rows that are tokens already are not read"),
        ("type: {field_instruction: q, field_otput: a}", "did you mean `field_output`?"),
        ("type: [alpaca]", "expected a text"),
    ],
)
def test_an_unknown_type_is_refused(type_line: str, said: str, tmp_path: Path) -> None:
    assert said in _faults(tmp_path, f"datasets:\n  - path: a.jsonl\n    {type_line}\n")


def test_all_faults_of_a_config_come_at_once(tmp_path: Path) -> None:
    text = _faults(
        tmp_path,
        """datasets:
  - {path: gone.jsonl, type: alpaca}
  - {path: lost.jsonl, type: alpacca, shards: 2}
  - 5
test_datasets: {path: b.jsonl}
val_set_size: ten
""",
    )
    assert "config.yml has 7 problems" in text
    assert [f"config.yml:{line} " in text for line in (2, 3, 4, 5, 6)] == [True] * 5


@pytest.mark.parametrize(
    ("size", "fraction", "said"),
    [
        ("0.1", 0.1, ""),
        ("500", None, "write `dataset.eval_rows: 500`"),
        ("0", None, 'write `eval_strategy: "no"`'),
        ("null", None, ""),
    ],
)
def test_the_size_of_the_evaluation_set(
    size: str, fraction: float | None, said: str, tmp_path: Path
) -> None:
    found = _read(tmp_path, f"datasets: [{{path: a.jsonl, type: alpaca}}]\nval_set_size: {size}\n")
    assert found.eval_fraction == fraction
    assert said in "\n".join(found.notices)
    assert bool(said) == bool(found.notices)


def test_settings_that_change_the_rows_are_announced_with_the_key_that_does_it(
    tmp_path: Path,
) -> None:
    found = _read(
        tmp_path,
        "datasets: [{path: a.jsonl, type: alpaca, chat_template: chatml}]\n"
        "train_on_inputs: false\ndataset_exact_deduplication: true\ndefault_system_message: Hi\n",
    )
    notices = "\n".join(found.notices)
    assert "datasets[0].chat_template is not used" in notices
    assert "train_on_inputs" not in notices
    assert "`data_preprocessing.remove_duplicates: true`" in notices
    assert "`prompt_template.system`" in notices


def test_training_on_questions_is_refused_by_name(tmp_path: Path) -> None:
    text = "datasets: [{path: a.jsonl, type: alpaca}]\ntrain_on_inputs: true\n"
    said = " ".join(_faults(tmp_path, text).split())
    assert "config.yml:2 train_on_inputs is not obeyed" in said
    assert "only answers are trained" in said


@pytest.mark.parametrize("type_name", ["completion", "input_output"])
def test_rows_without_questions_are_trained_as_they_say(type_name: str, tmp_path: Path) -> None:
    text = f"datasets: [{{path: a.jsonl, type: {type_name}}}]\ntrain_on_inputs: true\n"
    assert _read(tmp_path, text).notices == ()
    text += "test_datasets: [{path: b.jsonl, type: alpaca}]\n"
    assert "train_on_inputs" in _faults(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "my_training: {base_model: x}\n",
        "datasets: a.jsonl\n",
        "datasets: []\n",
        "datasets: [a.jsonl]\n",
        "- 1\n",
        "",
    ],
)
def test_a_yaml_file_without_datasets_is_no_collection(text: str, tmp_path: Path) -> None:
    assert expand(_config(tmp_path, text)) is None


def test_a_broken_yaml_file_is_refused_by_its_line(tmp_path: Path) -> None:
    text = _faults(tmp_path, "datasets:\n  - path: [a\n")
    assert "cannot be read as YAML" in text
    assert "config.yml:" in text
