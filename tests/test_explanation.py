"""`info`: each value as `train` would decide it, its origin, its reason; and what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamafarm import info
from llamafarm.api import explain_field
from llamafarm.decision import Decision
from llamafarm.errors import UserError
from llamafarm.explanation import StrategyInfo
from llamafarm.planning.recommended import decision_name
from llamafarm.planning.render import short_field
from llamafarm.strategy.fields import field_specs
from llamafarm.strategy.overrides import Override
from tests.data.rows_on_disk import qa, write_jsonl
from tests.hardware.recorded import LAPTOP

FILE = Path("strategies.yaml")


@pytest.fixture(autouse=True)
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_dir: Path, tiny_model_dir: Path
) -> Path:
    """A strategy whose rows are there, on a recorded machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llamafarm.hardware.probe.probe", lambda: LAPTOP)
    write_jsonl(tmp_path / "rows.jsonl", map(qa, range(130)))
    FILE.write_text(
        f"""\
mine:
  name: "Mine"
  description: "What it is for."
  components:
    fine_tuner:
      type: pytorch
      config:
        base_model: {tiny_model_dir}
        training_args:
          learning_rate: 2e-4
          num_train_epochs: 40
  dataset:
    path: rows.jsonl
"""
    )
    return tmp_path


def found(known: StrategyInfo, field: str) -> Decision:
    (value,) = [
        d for d in known.decisions if d.field == field and d.source not in ("warning", "notice")
    ]
    return value


def test_each_origin_is_told_with_its_reason() -> None:
    flag = Override("training_args.seed", 7, "--set seed=7")
    known = info("mine", FILE, overrides=(flag,))
    assert known.unknown == ()
    assert (known.title, known.description, known.file) == ("Mine", "What it is for.", FILE)
    rate = found(known, "learning_rate")
    assert (rate.value, rate.source, rate.reason) == (
        "0.0002",
        "strategy",
        "strategies.yaml:10",
    )
    seed = found(known, "seed")
    assert (seed.value, seed.source, seed.reason) == ("7", "flag", "--set seed=7")
    warmup = found(known, "warmup_steps")
    assert (warmup.source, "row 100-1000" in warmup.reason) == ("table", True)
    assert found(known, "device").source == "detected"
    assert found(known, "weight_decay") == Decision("weight_decay", "0.01", "default", "")
    warned = [d.reason for d in known.decisions if d.source == "warning"]
    assert any("40 epochs; the table advises 3 to 5" in text for text in warned)


def test_every_field_with_a_value_has_one_line() -> None:
    known = info("mine", FILE)
    names = [d.field for d in known.decisions if d.source not in ("warning", "notice")]
    assert len(set(names)) == len(names)
    values = [d for d in known.decisions if d.source not in ("warning", "notice")]
    assert not [d for d in values if d.value == "-"]
    told = set(names)
    not_decided = [
        path
        for path, spec in field_specs().items()
        if spec.default is not None and not {short_field(path), decision_name(path)} & told
    ]
    assert not_decided == ["title", "description"]


def test_without_rows_what_model_and_machine_decide_is_told_and_the_rest_named() -> None:
    Path("rows.jsonl").unlink()
    known = info("mine", FILE)
    (problem,) = known.unknown
    assert "there is no file rows.jsonl" in problem.message
    assert problem.where == "strategies.yaml:13"
    assert found(known, "method.r").source == "table"
    assert found(known, "device").value == "cpu"
    assert found(known, "warmup_steps") == Decision(
        "warmup_steps", "-", "default", "left out: by data size."
    )
    assert found(known, "learning_rate").reason == "strategies.yaml:10"


def test_without_model_and_rows_the_file_is_told_and_both_are_named(tiny_model_dir: Path) -> None:
    text = FILE.read_text().replace(str(tiny_model_dir), "./no/model").replace("rows.jsonl", "no")
    FILE.write_text(text)
    known = info("mine", FILE)
    told = " ".join(problem.message for problem in known.unknown)
    assert "no/model" in told
    assert "there is no file no" in told
    assert found(known, "method.r").value == "-"


def test_nothing_is_read_where_nothing_is_to_be_decided() -> None:
    Path("rows.jsonl").unlink()
    known = info("mine", FILE, resolved=False)
    assert known.unknown == ()
    assert found(known, "method.r").reason == "left out: by model size."
    assert found(known, "learning_rate").reason == "strategies.yaml:10"


def test_one_field_is_explained_with_its_table() -> None:
    known = info("mine", FILE)
    rate = explain_field(known, "learning_rate")
    assert rate.path == "training_args.learning_rate"
    assert rate.decision == found(known, "learning_rate")
    assert rate.allowed == "a number >= 0"
    assert ("100-1000", "5e-05 to 0.0001") in rate.table
    assert rate.meaning == "Peak learning rate; 0 trains nothing."
    epochs = explain_field(known, "training_args.num_train_epochs")
    assert [d.source for d in epochs.remarks] == ["warning"]


@pytest.mark.parametrize("path", field_specs())
def test_every_field_can_be_explained(path: str) -> None:
    known = StrategyInfo("s", "", "", (), ())
    assert explain_field(known, path).allowed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("learning_rat", "did you mean `training_args.learning_rate`?"),
        ("use_fp16", "may mean 4 fields"),
        ("nonsense_at_all", "`info NAME` lists them"),
    ],
)
def test_another_name_is_an_error_that_teaches(name: str, text: str) -> None:
    with pytest.raises(UserError) as refused:
        explain_field(StrategyInfo("s", "", "", (), ()), name)
    assert text in refused.value.render()


@pytest.mark.parametrize(
    ("name", "path"),
    [("base_model", "base_model.id"), ("precision", "training_args.mixed_precision")],
)
def test_a_field_is_found_by_its_name_in_the_list(name: str, path: str) -> None:
    known = info("mine", FILE)
    field = explain_field(known, name)
    assert field.path == path and field.decision == found(known, name)


def test_a_value_that_follows_from_others_is_called_that() -> None:
    known = info("mine", FILE)
    with pytest.raises(UserError, match=r"`total_steps` is no field: \d+ follows"):
        explain_field(known, "total_steps")
