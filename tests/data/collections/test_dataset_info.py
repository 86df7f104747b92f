from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamafarm.data.collections import Collection, expand
from llamafarm.data.formats import RowSpec
from llamafarm.data.read_conversations import read_conversations
from llamafarm.data.rows import Conversation
from llamafarm.errors import DataError

from ..rows_on_disk import request_for, write_jsonl


def _index(tmp_path: Path, **entries: Any) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps(entries))
    return path


def _one(tmp_path: Path, **entry: Any) -> Collection:
    found = expand(_index(tmp_path, qa={"file_name": "rows.jsonl", **entry}))
    assert found is not None
    RowSpec(found.data_format, found.columns, found.roles)
    return found


def _faults(tmp_path: Path, **entry: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        expand(_index(tmp_path, qa={"file_name": "rows.jsonl", **entry}))
    return [f"{p.path}: {p.message} ({p.hint})" for p in caught.value.problems]


def _rows(found: Collection) -> tuple[Conversation, ...]:
    request = request_for(
        found.train[0], data_format=found.data_format, columns=found.columns, roles=found.roles
    )
    return read_conversations(request)


def test_the_only_entry_needs_no_name(tmp_path: Path) -> None:
    found = _one(tmp_path)
    assert found == Collection((tmp_path / "rows.jsonl",), data_format="alpaca")


def test_an_entry_is_chosen_by_name_from_the_file_or_its_directory(tmp_path: Path) -> None:
    path = _index(tmp_path, a={"file_name": "rows.jsonl"}, b={"file_name": "b.jsonl"})
    (tmp_path / "b.jsonl").write_text("{}\n")
    for place in (path, tmp_path):
        found = expand(place, name="b")
        assert found is not None
        assert found.train == (tmp_path / "b.jsonl",)


def test_several_entries_without_a_name_are_listed(tmp_path: Path) -> None:
    path = _index(tmp_path, **{f"set{i:02}": {"file_name": "rows.jsonl"} for i in range(25)})
    with pytest.raises(DataError, match=r"has 25 datasets: set00, .* and 5 more") as caught:
        expand(path)
    assert f"{path}#set00" in caught.value.hint


def test_an_unknown_entry_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = _index(tmp_path, medical={"file_name": "rows.jsonl"}, legal={"file_name": "rows.jsonl"})
    with pytest.raises(DataError, match=r"no dataset `medcal`; it has legal, medical") as caught:
        expand(path, name="medcal")
    assert f"did you mean {path}#medical?" in caught.value.hint


def test_alpaca_columns_are_read_under_our_names(tmp_path: Path) -> None:
    columns = {"prompt": "q", "query": "ctx", "response": "a", "system": "sys", "history": "past"}
    found = _one(tmp_path, columns=columns)
    assert found.data_format == "alpaca"
    assert found.columns == {
        "instruction": "q",
        "input": "ctx",
        "output": "a",
        "system": "sys",
        "history": "past",
    }
    row = {"q": "Why?", "ctx": "Rain.", "a": "So.", "sys": "Be kind.", "past": [["A", "B"]]}
    write_jsonl(tmp_path / "rows.jsonl", [row])
    said = [(m.role, m.content) for m in _rows(found)[0].messages]
    assert said == [
        ("system", "Be kind."),
        ("user", "A"),
        ("assistant", "B"),
        ("user", "Why?\n\nRain."),
        ("assistant", "So."),
    ]


def test_columns_that_the_entry_does_not_name_are_announced(tmp_path: Path) -> None:
    found = _one(tmp_path, columns={"prompt": "instruction", "response": "output"})
    assert found.columns == {}
    assert "read where rows have them, though not named: input, history" in found.notices[0]


def test_a_prompt_alone_means_plain_texts(tmp_path: Path) -> None:
    found = _one(tmp_path, columns={"prompt": "body"})
    assert (found.data_format, found.columns) == ("text", {"text": "body"})
    write_jsonl(tmp_path / "rows.jsonl", [{"body": "Once."}])
    assert _rows(found)[0].text == "Once."


@pytest.mark.parametrize("formatting", ["sharegpt", "openai"])
def test_turns_are_read_under_the_names_of_the_tags(formatting: str, tmp_path: Path) -> None:
    found = _one(
        tmp_path,
        formatting=formatting,
        columns={"messages": "dialog", "system": "sys", "tools": "api"},
        tags={
            "role_tag": "who",
            "content_tag": "says",
            "user_tag": "patient",
            "assistant_tag": "doctor",
            "system_tag": "frame",
            "observation_tag": "lab",
            "function_tag": "order",
        },
    )
    row = {
        "sys": "Be brief.",
        "dialog": [{"who": "patient", "says": "Hm?"}, {"who": "doctor", "says": "Fine."}],
    }
    write_jsonl(tmp_path / "rows.jsonl", [row])
    said = [(m.role, m.content) for m in _rows(found)[0].messages]
    assert said == [("system", "Be brief."), ("user", "Hm?"), ("assistant", "Fine.")]
    assert found.roles["function_call"] == "order"
    assert found.roles["tool"] == "lab"


def test_the_tags_of_the_openai_example_are_read(tmp_path: Path) -> None:
    found = _one(
        tmp_path,
        formatting="sharegpt",
        columns={"messages": "messages"},
        tags={
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    )
    turns = [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Fine."}]
    write_jsonl(tmp_path / "rows.jsonl", [{"messages": turns}])
    assert [m.content for m in _rows(found)[0].messages] == ["Hm?", "Fine."]


def test_the_chosen_answer_of_a_ranking_is_read(tmp_path: Path) -> None:
    columns = {"prompt": "q", "query": "ctx", "chosen": "good", "rejected": "bad"}
    found = _one(tmp_path, ranking=True, columns=columns)
    assert found.data_format == "preference"
    write_jsonl(tmp_path / "rows.jsonl", [{"q": "Q", "ctx": "", "good": "Yes.", "bad": "No."}])
    assert [m.content for m in _rows(found)[0].messages] == ["Q", "Yes."]


def test_a_ranking_of_turns_is_read(tmp_path: Path) -> None:
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    found = _one(tmp_path, formatting="sharegpt", ranking=True, columns=columns)
    row = {
        "conversations": [{"from": "human", "value": "Q"}],
        "chosen": {"from": "gpt", "value": "Yes."},
        "rejected": {"from": "gpt", "value": "No."},
    }
    write_jsonl(tmp_path / "rows.jsonl", [row])
    assert [m.content for m in _rows(found)[0].messages] == ["Q", "Yes."]


def test_the_label_of_a_kto_entry_is_obeyed(tmp_path: Path) -> None:
    columns = {"prompt": "q", "response": "a", "kto_tag": "good"}
    found = _one(tmp_path, columns=columns)
    write_jsonl(tmp_path / "rows.jsonl", [{"q": "Q", "a": "A", "good": False}])
    with pytest.raises(DataError, match="undesirable"):
        _rows(found)


def test_a_directory_stands_for_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name in ("b.jsonl", "a.jsonl", "notes.txt"):
        (tmp_path / "parts" / name).write_text("{}\n")
    found = _one(tmp_path, file_name="parts")
    assert [path.name for path in found.train] == ["a.jsonl", "b.jsonl"]


def test_a_dataset_of_the_hub_is_refused_with_the_keys_that_read_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        expand(_index(tmp_path, qa={"hf_hub_url": "owner/name", "subset": "small"}))
    hint = caught.value.problems[0].hint
    assert "dataset.dataset_name: owner/name" in hint
    assert "dataset.dataset_config_name: small" in hint


def test_a_file_goes_before_the_hub(tmp_path: Path) -> None:
    found = _one(tmp_path, hf_hub_url="owner/name")
    assert found.train == (tmp_path / "rows.jsonl",)
    assert "hf_hub_url is not used: the file is" in found.notices[0]


def test_a_number_of_samples_is_announced_with_the_key_that_does_it(tmp_path: Path) -> None:
    assert "write `dataset.max_samples`" in _one(tmp_path, num_samples=500).notices[0]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"file_name": "gone.jsonl"}, "qa.file_name: "),
        ({"file_name": None}, "qa.file_name: is missing"),
        ({"file_name": 5}, "qa.file_name: expected a text (got 5)"),
        ({"file_name": None, "script_url": "x.py"}, "qa.script_url: rows are read from files"),
        ({"formatting": "sharegtp"}, "did you mean `sharegpt`?"),
        ({"formating": "sharegpt"}, "qa.formating: unknown key (did you mean `formatting`?)"),
        ({"ranking": "yes"}, "qa.ranking: expected true or false"),
        ({"subset": "small"}, "qa.subset: is not obeyed"),
        ({"folder": "small"}, "qa.folder: is not obeyed"),
        ({"split": "test"}, "qa.split: a file has no split `test`"),
        ({"columns": ["a"]}, "qa.columns: expected a mapping"),
        ({"columns": {"prompt": 1}}, "qa.columns.prompt: expected a text"),
        ({"columns": {"promt": "q"}}, "qa.columns.promt: unknown key (did you mean `prompt`?)"),
        ({"columns": {"prompt": "q", "images": "pics"}}, "qa.columns.images: is not obeyed"),
        ({"columns": {"prompt": "q", "chosen": "c"}}, "write `ranking: true`"),
        ({"columns": {"messages": "m"}}, "qa.columns.messages: has no effect with formatting"),
        ({"formatting": "sharegpt", "columns": {"prompt": "q"}}, "qa.columns.prompt: has no"),
        ({"ranking": True, "columns": {"response": "q"}}, "has no effect with ranking"),
        ({"tags": {"user_tag": "x"}}, "qa.tags: has no effect with formatting alpaca"),
        ({"formatting": "sharegpt", "tags": {"usr_tag": "x"}}, "did you mean `user_tag`?"),
    ],
)
def test_a_key_that_cannot_be_obeyed_is_refused_by_its_path(
    entry: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert said in "\n".join(_faults(tmp_path, **entry))


def test_all_faults_of_an_entry_come_at_once(tmp_path: Path) -> None:
    faults = _faults(tmp_path, file_name="gone.jsonl", split="test", rank=True, subset="x")
    assert len(faults) == 4


def test_keys_that_are_null_count_as_left_out(tmp_path: Path) -> None:
    found = _one(tmp_path, subset=None, columns={"prompt": "q", "response": "a", "images": None})
    assert found.columns == {"instruction": "q", "output": "a"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1]", "holds no datasets"),
        ("{", "is not a JSON file"),
        ('{"a": {"file_name": "x"}, "a": {}}', "stands twice"),
        ('{"a": 5}', "expected an object with file_name"),
        ("{}", "has 0 datasets: none"),
    ],
)
def test_a_broken_index_is_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        expand(path)
    assert said in caught.value.render()


def test_the_hubs_own_description_of_a_dataset_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{}\n")
    description = {"citation": "", "features": {"text": {"dtype": "string"}}, "splits": {}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(description))
    found = expand(tmp_path)
    assert found is not None
    assert found.train == (tmp_path / "train.jsonl",)
