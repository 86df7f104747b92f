from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamafarm.data.request import DataRequest, HubDataset, Mixture, WeightedFile
from llamafarm.decision import Decision
from llamafarm.errors import DataError, StrategyError, UserError
from llamafarm.planning.resolve_data import resolve_data
from llamafarm.strategy.model import (
    DatasetSection,
    Preprocessing,
    PromptTemplate,
    Strategy,
    TrainingArgs,
)
from tests.planning.building import at_line

OWN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("data.jsonl", "train.jsonl", "eval.jsonl", "test.jsonl"):
        (tmp_path / name).write_text("{}\n")
    return tmp_path


def settle(
    here: Path,
    dataset: dict[str, Any],
    own: str | None = OWN,
    context: int = 8192,
    bundled_data: Path | None = None,
    **parts: Any,
) -> tuple[DataRequest, tuple[Decision, ...]]:
    return resolve_data(
        Strategy(id="my_training", dataset=DatasetSection(**dataset), **parts),
        model_context=context,
        tokenizer_template=own,
        working_directory=here,
        bundled_data=bundled_data,
        skip_bad_rows=False,
    )


def remarks(decisions: tuple[Decision, ...], source: str = "warning") -> list[str]:
    return [d.reason for d in decisions if d.source == source]


def by_field(decisions: tuple[Decision, ...], field: str) -> Decision:
    return next(d for d in decisions if d.field == field)


def test_a_path_alone_is_split_ninety_to_ten(here: Path) -> None:
    request, decisions = settle(here, {"path": "data.jsonl"})
    assert request.train_location == here / "data.jsonl"
    assert request.eval_location is None
    assert (request.eval_wanted, request.eval_fraction, request.seed) == (True, 0.1, 42)
    share = by_field(decisions, "dataset.eval_split")
    assert (share.source, share.reason) == (
        "table",
        "10% of the rows are kept for evaluation: row standard training",
    )


def test_a_train_file_alone_is_split_too(here: Path) -> None:
    request, _ = settle(here, {"train_file": "train.jsonl", "eval_split": 0.2})
    assert request.train_location == here / "train.jsonl"
    assert request.eval_fraction == 0.2


def test_train_and_eval_files_are_used_as_they_are(here: Path) -> None:
    request, _ = settle(here, {"train_file": "train.jsonl", "eval_file": "eval.jsonl"})
    assert request.eval_location == here / "eval.jsonl"
    assert request.eval_fraction == 0


def test_a_path_goes_with_an_eval_file(here: Path) -> None:
    request, _ = settle(here, {"path": "data.jsonl", "eval_file": "eval.jsonl"})
    assert (request.train_location, request.eval_location) == (
        here / "data.jsonl",
        here / "eval.jsonl",
    )


def test_a_test_file_is_found_and_kept(here: Path) -> None:
    request, _ = settle(here, {"path": "data.jsonl", "test_file": "test.jsonl"})
    assert request.test_location == here / "test.jsonl"


def test_a_hub_dataset_has_its_splits(here: Path) -> None:
    request, _ = settle(
        here,
        {"dataset_name": "ada/qa", "dataset_config_name": "en", "eval_split": "validation"},
    )
    assert request.train_location == HubDataset("ada/qa", "en", "train")
    assert request.eval_location == HubDataset("ada/qa", "en", "validation")


def test_a_hub_dataset_without_an_eval_split_is_split(here: Path) -> None:
    request, _ = settle(here, {"dataset_name": "ada/qa", "train_split": "all"})
    assert request.train_location == HubDataset("ada/qa", None, "all")
    assert (request.eval_location, request.eval_fraction) == (None, 0.1)


def test_of_two_training_sets_one_is_used_and_the_other_named(here: Path) -> None:
    request, decisions = settle(here, {"train_file": "train.jsonl", "path": "data.jsonl"})
    assert request.train_location == here / "train.jsonl"
    assert remarks(decisions) == ["dataset.path is not used: dataset.train_file is"]


def test_nothing_to_train_on_says_what_to_type(here: Path) -> None:
    with pytest.raises(DataError) as caught:
        settle(here, {})
    assert caught.value.exit_code == 2
    assert "--dataset FILE" in caught.value.problems[0].hint


def test_a_missing_file_is_a_data_error_with_near_names(here: Path) -> None:
    with pytest.raises(DataError) as caught:
        settle(here, {"path": "dat.jsonl"})
    assert "data.jsonl" in caught.value.problems[0].hint


def test_all_problems_are_reported_at_once(here: Path) -> None:
    with pytest.raises(UserError) as caught:
        settle(
            here,
            {"train_file": "no.jsonl", "eval_file": "none.jsonl"},
            training_args=TrainingArgs(max_seq_length=10_000),
            prompt_template=PromptTemplate(format="{instruction}{output}"),
        )
    paths = [p.path for p in caught.value.problems]
    assert sorted(paths) == [
        "dataset.eval_file",
        "dataset.train_file",
        "prompt_template.format",
        "training_args.max_seq_length",
    ]


@pytest.mark.parametrize(("split", "hint"), [(10, "eval_split: 0.1"), (0, 'eval_strategy: "no"')])
def test_a_share_that_is_none_is_refused(here: Path, split: float, hint: str) -> None:
    with pytest.raises(StrategyError) as caught:
        settle(here, {"path": "data.jsonl", "eval_split": split})
    assert hint in caught.value.problems[0].hint


def test_a_split_name_with_a_local_file_is_refused(here: Path) -> None:
    with pytest.raises(StrategyError, match="names a split of the Hub"):
        settle(here, {"path": "data.jsonl", "eval_split": "validation"})


def test_a_share_written_as_text_is_a_number(here: Path) -> None:
    assert settle(here, {"path": "data.jsonl", "eval_split": "0.15"})[0].eval_fraction == 0.15


def test_a_share_beside_an_eval_file_is_named_as_useless(here: Path) -> None:
    _, decisions = settle(
        here, {"train_file": "train.jsonl", "eval_file": "eval.jsonl", "eval_split": 0.2}
    )
    assert "dataset.eval_split has no effect" in remarks(decisions)[0]


def test_eval_strategy_no_wants_no_evaluation_set_and_warns(here: Path) -> None:
    request, decisions = settle(
        here,
        {"train_file": "train.jsonl", "eval_file": "eval.jsonl", "eval_split": 0.3},
        training_args=TrainingArgs(eval_strategy="no"),
    )
    assert (request.eval_wanted, request.eval_location, request.eval_fraction) == (False, None, 0)
    texts = remarks(decisions)
    assert any("learning from memorising" in text for text in texts)
    assert any("dataset.eval_file is not read" in text for text in texts)
    assert any("dataset.eval_split has no effect" in text for text in texts)


def test_hub_settings_beside_a_local_file_are_named(here: Path) -> None:
    _, decisions = settle(here, {"path": "data.jsonl", "train_split": "all"})
    assert remarks(decisions) == ["dataset.train_split has no effect: the data are a local file"]


@pytest.mark.parametrize(("context", "length"), [(2048, 2048), (4096, 4096), (131072, 4096)])
def test_max_length_is_the_context_or_4096(here: Path, context: int, length: int) -> None:
    assert settle(here, {"path": "data.jsonl"}, context=context)[0].max_length == length


def test_a_written_max_length_is_taken_up_to_the_context(here: Path) -> None:
    written = {"training_args": TrainingArgs(max_seq_length=8192)}
    assert settle(here, {"path": "data.jsonl"}, context=8192, **written)[0].max_length == 8192
    with pytest.raises(StrategyError) as caught:
        settle(here, {"path": "data.jsonl"}, context=4096, **written)
    assert caught.value.problems[0].hint == "write `max_seq_length: 4096` or less"


def test_data_preprocessing_max_length_is_the_same_setting(here: Path) -> None:
    preprocessing = Preprocessing(max_length=512)
    request, _ = settle(here, {"path": "data.jsonl"}, data_preprocessing=preprocessing)
    assert request.max_length == 512


def test_two_max_lengths_that_differ_are_named_and_training_args_wins(here: Path) -> None:
    origins = {
        "training_args.max_seq_length": at_line(8),
        "data_preprocessing.max_length": at_line(20),
    }
    request, decisions = settle(
        here,
        {"path": "data.jsonl"},
        training_args=TrainingArgs(max_seq_length=1024),
        data_preprocessing=Preprocessing(max_length=512),
        origins=origins,
    )
    assert request.max_length == 1024
    assert "my_training, line 8" in remarks(decisions)[0]
    assert "my_training, line 20" in remarks(decisions)[0]


def test_what_is_done_to_rows_reaches_the_request(here: Path) -> None:
    request, _ = settle(
        here,
        {
            "path": "data.jsonl",
            "format": "qa",
            "columns": {"question": "Q"},
            "max_samples": 7,
            "shuffle": False,
            "group_by": "topic",
            "stratify_by": "kind",
            "preprocessing_num_workers": 3,
        },
        data_preprocessing=Preprocessing(
            remove_duplicates=True,
            filter_empty=True,
            remove_patterns=("x",),
            max_input_length=5,
            max_output_length=6,
        ),
        prompt_template=PromptTemplate(system="Be brief."),
        training_args=TrainingArgs(seed=7),
    )
    assert (request.data_format, request.columns, request.max_samples) == (
        "qa",
        {"question": "Q"},
        7,
    )
    assert (request.shuffle, request.group_by, request.stratify_by) == (False, "topic", "kind")
    assert (request.num_workers, request.seed, request.system_prompt) == (3, 7, "Be brief.")
    assert (request.remove_duplicates, request.filter_empty) == (True, True)
    assert request.remove_patterns == ("x",)
    assert (request.max_input_length, request.max_output_length) == (5, 6)


def test_the_bundled_demo_data_are_said_to_be_that(here: Path) -> None:
    bundled = here / "bundled"
    (bundled / "medical").mkdir(parents=True)
    (bundled / "medical" / "medical_qa.jsonl").write_text("{}\n")
    request, decisions = resolve_data(
        Strategy(id="s", dataset=DatasetSection(path="medical_qa.jsonl")),
        model_context=8192,
        tokenizer_template=OWN,
        working_directory=here,
        bundled_data=bundled,
        skip_bad_rows=True,
    )
    assert request.train_location == bundled / "medical" / "medical_qa.jsonl"
    assert request.skip_bad_rows
    assert "bundled demo data" in by_field(decisions, "dataset.path").reason
    (here / "medical_qa.jsonl").write_text("{}\n")
    _, decisions = settle(here, {"path": "medical_qa.jsonl"})
    assert "bundled" not in by_field(decisions, "dataset.path").reason


@pytest.mark.parametrize("name", ["h#1.jsonl", "e#e/a.jsonl"])
def test_a_file_may_have_a_number_sign_in_its_path(here: Path, name: str) -> None:
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).write_text("{}\n")
    assert settle(here, {"path": name})[0].train_location == here / name
    assert settle(here, {"train_file": str(here / name)})[0].train_location == here / name


def test_a_number_sign_chooses_an_entry_of_an_index_wherever_it_lies(here: Path) -> None:
    folder = here / "dir#x"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    index = {"mine": {"file_name": "rows.jsonl"}, "other": {"file_name": "none.jsonl"}}
    (folder / "dataset_info.json").write_text(json.dumps(index))
    for path in ("dir#x/dataset_info.json#mine", "dir#x#mine"):
        request, decisions = settle(here, {"path": path})
        assert request.train_location == folder / "rows.jsonl"
        assert by_field(decisions, "dataset.path").value == path


@pytest.mark.parametrize(
    "name", ["a" * 300, "a" * 300 + "/b.jsonl", "a#" + "b" * 300, "~nouser/x.jsonl", "data.jsonl#"]
)
def test_a_name_that_no_file_can_have_is_a_file_that_is_not_there(here: Path, name: str) -> None:
    (here / "bundled").mkdir()
    for key in ("path", "eval_file", "test_file"):
        with pytest.raises(DataError) as fault:
            settle(here, {"path": "data.jsonl", key: name}, bundled_data=here / "bundled")
        (problem,) = fault.value.problems
        assert problem.path == f"dataset.{key}"
        assert problem.message == f"there is no file {name}"


def test_a_pattern_is_not_a_name_of_a_bundled_file(here: Path) -> None:
    (here / "bundled").mkdir()
    (here / "bundled" / "demo.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="1 problem"):
        settle(here, {"path": "de*.jsonl"}, bundled_data=here / "bundled")


def test_files_are_mixed_by_weight_and_every_missing_one_is_named(here: Path) -> None:
    request, _ = settle(here, {"mix": {"data.jsonl": 2.0, "train.jsonl": 0.5}})
    assert request.train_location == Mixture(
        (WeightedFile(here / "data.jsonl", 2.0), WeightedFile(here / "train.jsonl", 0.5))
    )
    with pytest.raises(DataError) as fault:
        settle(here, {"mix": {"none.jsonl": 1.0, "nor this.jsonl": 1.0, "data.jsonl": 1.0}})
    assert len(fault.value.problems) == 2


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"eval_rows": 5}, "cannot hold an exact number"),
        ({"eval_split": "auto"}, "old rows would move"),
    ],
)
def test_a_stable_split_takes_a_fixed_share_only(
    here: Path, dataset: dict[str, Any], message: str
) -> None:
    with pytest.raises(StrategyError, match=message):
        settle(here, {"path": "data.jsonl", "stable_split": True, **dataset})


def test_a_number_of_rows_is_taken_before_a_share(here: Path) -> None:
    request, decisions = settle(here, {"path": "data.jsonl", "eval_rows": 7, "eval_split": 0.2})
    assert request.eval_rows == 7
    assert any("eval_split" in text and "is not used" in text for text in remarks(decisions))


def test_the_share_follows_from_the_number_of_rows_on_request(here: Path) -> None:
    assert settle(here, {"path": "data.jsonl", "eval_split": "auto"})[0].eval_auto


def test_auto_that_nobody_wrote_is_the_table_s_and_gives_way_in_silence(here: Path) -> None:
    _, decisions = settle(here, {"path": "data.jsonl", "eval_split": "auto"})
    assert by_field(decisions, "dataset.eval_split").source == "table"
    dataset = {"path": "data.jsonl", "eval_file": "eval.jsonl", "eval_split": "auto"}
    request, decisions = settle(here, dataset)
    assert (request.eval_auto, request.eval_fraction) == (False, 0)
    assert remarks(decisions) == []


def test_auto_that_somebody_wrote_is_theirs_and_named_where_it_is_useless(here: Path) -> None:
    line = {"origins": {"dataset.eval_split": at_line(7)}}
    _, decisions = settle(here, {"path": "data.jsonl", "eval_split": "auto"}, **line)
    share = by_field(decisions, "dataset.eval_split")
    assert (share.source, share.reason.startswith("my_training, line 7: ")) == ("strategy", True)
    dataset = {"path": "data.jsonl", "eval_file": "eval.jsonl", "eval_split": "auto"}
    _, decisions = settle(here, dataset, **line)
    assert "has no effect" in remarks(decisions)[0]


def test_a_written_share_names_its_row(here: Path) -> None:
    _, decisions = settle(here, {"path": "data.jsonl", "eval_split": 0.2})
    assert by_field(decisions, "dataset.eval_split").reason.endswith("evaluation: row research")


def test_a_user_that_there_is_not_is_a_file_that_is_not_there(here: Path) -> None:
    with pytest.raises(DataError, match=r"no file ~nobody99/x\.jsonl"):
        settle(here, {"path": "~nobody99/x.jsonl"})
