from __future__ import annotations

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError

from llamafarm.data.readers import open_source
from llamafarm.data.request import HubDataset
from llamafarm.errors import DataError

NAME = HubDataset("somebody/questions", None, "train")


def _fails_with(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> str:
    def load_dataset(*args: object, **kwargs: object) -> None:
        raise fault

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as caught:
        open_source(NAME)
    assert caught.value.exit_code == 2
    return caught.value.render()


def test_an_unreachable_dataset_says_how_to_bring_it_as_a_file() -> None:
    with pytest.raises(DataError) as caught:
        open_source(NAME)
    text = caught.value.render()
    assert "somebody/questions cannot be reached" in text
    assert 'to_json("data.jsonl")' in text
    assert "--dataset data.jsonl" in text


def test_a_gated_dataset_says_how_to_get_access(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = DatasetNotFoundError("Dataset 'somebody/questions' is a gated dataset on the Hub.")
    text = _fails_with(monkeypatch, fault)
    assert "https://huggingface.co/datasets/somebody/questions" in text
    assert "HF_TOKEN" in text


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ValueError("Unknown split \"train\". Should be one of ['test']."), "dataset.train_split"),
        (ValueError("Config name is missing.\nPlease pick one"), "dataset.dataset_config_name"),
        (DatasetNotFoundError("Dataset doesn't exist on the Hub"), "dataset.dataset_name"),
        (RuntimeError("Dataset scripts are no longer supported"), "scripts are no longer"),
    ],
)
def test_other_refusals_name_the_key_to_change(
    fault: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in _fails_with(monkeypatch, fault)


def test_rows_of_a_loaded_split_are_records(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load_dataset(*args: object, **kwargs: object) -> datasets.Dataset:
        asked.append((args, kwargs))
        return datasets.Dataset.from_list([{"question": "Why?"}, {"question": "When?"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_source(HubDataset("somebody/questions", "small", "test"))
    assert asked == [(("somebody/questions", "small"), {"split": "test"})]
    assert source.name == "somebody/questions (small) [test]"
    assert [(r.source.line, dict(r.fields)) for r in source.items()] == [
        (1, {"question": "Why?"}),
        (2, {"question": "When?"}),
    ]
    assert source.sha256 == open_source(HubDataset("somebody/questions", "small", "test")).sha256
