"""What `type: llamafactory` refuses, passes on and remarks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llamafarm.errors import Problem, StrategyError
from llamafarm.models.shape import ModelShape
from llamafarm.models.shape_reader import read_shape
from llamafarm.planning import llamafactory
from llamafarm.planning.llamafactory import (
    PASSED_ON,
    STAGES,
    learns_from_pairs,
    llamafactory_problems,
    unfrozen_parameters,
    with_native_dataset,
)
from llamafarm.planning.plan import TrainingPlan
from llamafarm.strategy.keys.llamafactory import _SPELLINGS
from llamafarm.strategy.keys.training import native_rows
from llamafarm.strategy.model import DatasetSection, Method, Strategy, TrainingArgs
from tests.planning.building import SMOLLM2, at_line, decision, plan_for, remarks
from tests.strategy.support import load

FIELDS = Path(__file__).with_name("llamafactory-0.9.5-fields.json")
"""Names of the arguments of LLaMA-Factory 0.9.5."""
ABLE = "sft, pt, dpo"


def strategy_of(
    native: Mapping[str, Any] | None = None, lines: Mapping[str, int] | None = None, **values: Any
) -> Strategy:
    """A strategy for LLaMA-Factory. lines: where paths of it are written in strategies.yaml."""
    origins = {path: at_line(line) for path, line in (lines or {}).items()}
    return Strategy(
        id="my_training",
        backend="llamafactory",
        native=dict(native or {}),
        origins=origins,
        **values,
    )


def problems(strategy: Strategy) -> list[Problem]:
    return list(llamafactory_problems(strategy))


def native_problem(name: str, value: object) -> Problem:
    path = f"native.{name}"
    (found,) = problems(strategy_of({name: value}, {path: 12}))
    assert (found.where, found.path) == ("strategies.yaml:12", path)
    return found


def native_plan(**native: object) -> TrainingPlan:
    return plan_for(strategy_of(native))


def test_a_strategy_without_keys_of_its_own_is_planned() -> None:
    engine = plan_for(strategy_of()).llamafactory
    assert engine is not None
    assert (engine.stage, engine.method, engine.native) == ("sft", "lora", {})


def test_the_pytorch_fine_tuner_has_no_such_part() -> None:
    assert plan_for(Strategy(id="s")).llamafactory is None


def test_all_problems_are_told_at_once() -> None:
    strategy = strategy_of({"stage": "kto", "packing": True}, method=Method(bias="all"))
    with pytest.raises(StrategyError) as caught:
        plan_for(strategy)
    assert [p.path for p in caught.value.problems] == [
        "native.stage",
        "native.packing",
        "method.bias",
    ]


# Stages.


@pytest.mark.parametrize("stage", ["sft", "pt", "dpo"])
def test_a_stage_that_is_there_is_in_plan_and_decisions(stage: str) -> None:
    plan = plan_for(strategy_of({"stage": stage}, {"native.stage": 7}))
    assert plan.llamafactory is not None
    assert plan.llamafactory.stage == stage
    assert "stage" not in plan.llamafactory.native
    found = decision(plan, "native.stage")
    assert found.value == stage
    assert found.reason == "my_training, line 7: passed on to LLaMA-Factory"


@pytest.mark.parametrize("stage", ["kto", "rm", "ppo"])
def test_a_stage_that_is_not_there_is_refused_with_its_reason(stage: str) -> None:
    found = native_problem("stage", stage)
    assert found.message == f"stage: {stage} is not available here: {STAGES[stage]}"
    assert found.hint == f"there are: {ABLE}"


@pytest.mark.parametrize("stage", ["finetune", 3, None, ["sft"], {"sft": 1}])
def test_a_stage_that_is_none_names_those_that_are(stage: object) -> None:
    assert native_problem("stage", stage).message.startswith(f"expected one of {ABLE} (got ")


@pytest.mark.parametrize(
    ("strategy", "pairs"),
    [
        (strategy_of({"stage": "dpo"}), True),
        (strategy_of({"stage": "sft"}), False),
        (strategy_of(), False),
        (Strategy(id="s", native={"stage": "dpo"}), False),
    ],
)
def test_only_the_stage_dpo_of_llamafactory_learns_from_pairs(
    strategy: Strategy, pairs: bool
) -> None:
    assert learns_from_pairs(strategy) is pairs


# Keys of its own.


@pytest.mark.parametrize(
    ("name", "hint"),
    [("galore_rnk", "did you mean `galore_rank`?"), ("xyzzy", "remove this line")],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(name: str, hint: str) -> None:
    found = native_problem(name, 1)
    assert found.message == f"LLaMA-Factory 0.9.5 has no key {name}"
    assert found.hint == hint


@pytest.mark.parametrize("name", sorted(llamafactory._REFUSED))
def test_every_refused_key_is_refused_with_its_reason(name: str) -> None:
    found = native_problem(name, "something")
    assert found.message == f"{name} cannot be set: {llamafactory._REFUSED[name]}"
    assert found.hint == "remove this line"


@pytest.mark.parametrize("name", sorted(llamafactory._HARMLESS))
def test_a_value_that_is_given_anyway_passes_with_a_notice(name: str) -> None:
    plan = native_plan(**{name: False})
    assert plan.llamafactory is not None
    assert plan.llamafactory.native == {}
    assert remarks(plan, f"native.{name}", "notice") == [f"native.{name} is what it is anyway"]
    assert native_problem(name, True)


@pytest.mark.parametrize("name", sorted(llamafactory._WITHOUT_EFFECT))
def test_a_key_without_effect_is_not_passed_on_and_says_so(name: str) -> None:
    plan = native_plan(**{name: "x"})
    assert plan.llamafactory is not None
    assert plan.llamafactory.native == {}
    source = "warning" if name in ("template", "custom_template", "deepspeed") else "notice"
    text = f"native.{name} has no effect: {llamafactory._WITHOUT_EFFECT[name]}"
    assert remarks(plan, f"native.{name}", source) == [text]


def test_the_template_is_a_warning_that_nobody_should_miss() -> None:
    (line,) = [w for w in native_plan(template="llama3").warnings if "template" in w]
    assert line == (
        "native.template has no effect: rows are rendered by the model's own chat template"
    )


def test_other_keys_are_passed_on_as_they_are_with_a_decision() -> None:
    passed_on = sorted(PASSED_ON - {"rope_scaling"})  # not beside an adapter
    native: dict[str, Any] = {name: f"value of {name}" for name in passed_on}
    native["freeze_trainable_layers"] = 3
    lines = {f"native.{name}": line for line, name in enumerate(native, start=1)}
    plan = plan_for(strategy_of(native, lines))
    assert plan.llamafactory is not None
    assert plan.llamafactory.native == native
    for line, name in enumerate(native, start=1):
        found = decision(plan, f"native.{name}")
        assert found.value == str(native[name])
        assert found.reason == f"my_training, line {line}: passed on to LLaMA-Factory"


def test_every_name_of_llamafactory_has_its_place_here() -> None:
    names = set(json.loads(FIELDS.read_text(encoding="utf-8")))
    spelled = {row.path.split(".")[0] for row in _SPELLINGS}
    shared = {row.path.split(".")[1] for row in native_rows()}
    assert names <= llamafactory._KNOWN | spelled | shared


def test_no_name_is_known_that_llamafactory_does_not_have() -> None:
    names = set(json.loads(FIELDS.read_text(encoding="utf-8")))
    # A key of ours, which older strategies have.
    assert llamafactory._KNOWN - names == {"custom_template"}


def test_a_key_is_passed_on_or_without_effect_or_refused_and_only_one_of_them() -> None:
    kinds = (PASSED_ON, llamafactory._WITHOUT_EFFECT.keys(), llamafactory._REFUSED.keys())
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))
    assert llamafactory._HARMLESS.keys() <= llamafactory._REFUSED.keys()


# Settings of ours.


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("method.bias", {"method": Method(bias="lora_only")}),
        ("method.layers_to_transform", {"method": Method(layers_to_transform=(0,))}),
        ("method.layers_pattern", {"method": Method(layers_pattern="layers")}),
        (
            "training_args.label_smoothing_factor",
            {"training_args": TrainingArgs(label_smoothing_factor=0.1)},
        ),
    ],
)
def test_a_setting_that_cannot_be_translated_is_refused_where_it_stands(
    path: str, values: dict[str, Any]
) -> None:
    (found,) = problems(strategy_of(lines={path: 9}, **values))
    name = path.rpartition(".")[2]
    assert (found.where, found.path) == ("strategies.yaml:9", path)
    assert found.message == (
        f"{name} cannot be translated: LLaMA-Factory 0.9.5 has no setting that does the same"
    )
    assert found.hint == "remove this line, or write `type: pytorch`"


def test_alpha_must_be_a_whole_number() -> None:
    (found,) = problems(strategy_of(lines={"method.alpha": 9}, method=Method(alpha=12.5)))
    assert (found.where, found.path) == ("strategies.yaml:9", "method.alpha")
    assert found.message == "LLaMA-Factory takes whole numbers (got 12.5)"
    assert found.hint == "write `alpha: 12`"
    assert problems(strategy_of(method=Method(alpha=16.0))) == []


def test_metrics_of_answers_are_refused_with_the_command_that_measures_them() -> None:
    (found,) = problems(strategy_of(lines={"metrics": 20}, metrics=("exact_match",)))
    assert (found.where, found.path) == ("strategies.yaml:20", "metrics")
    assert "not measured while LLaMA-Factory trains" in found.message
    assert "llamafarm evaluate RUN --dataset FILE --metric NAME" in found.hint


def test_a_problem_of_a_file_names_its_line(tmp_path: Path) -> None:
    text = """\
        s:
          components:
            fine_tuner:
              type: llamafactory
              config:
                native:
                  galore_rnk: 8
        """
    (found,) = problems(load(tmp_path, text))
    assert found.where.endswith("strategies.yaml:7")
    assert found.path == "native.galore_rnk"


# The dataset as LLaMA-Factory names it.


def test_a_named_dataset_is_an_entry_of_the_index_in_its_directory() -> None:
    strategy = strategy_of({"dataset": "alpaca_en", "dataset_dir": "rows/"}, {"native.dataset": 5})
    found = with_native_dataset(strategy)
    assert found.dataset.path == "rows/dataset_info.json#alpaca_en"
    assert found.origin("dataset.path") == strategy.origin("native.dataset")


def test_the_index_is_in_data_where_no_directory_is_named() -> None:
    found = with_native_dataset(strategy_of({"dataset": "alpaca_en"}))
    assert found.dataset.path == "data/dataset_info.json#alpaca_en"


@pytest.mark.parametrize(
    "strategy",
    [
        strategy_of({"dataset": "a"}, dataset=DatasetSection(path="mine.jsonl")),
        strategy_of({"dataset": "a"}, dataset=DatasetSection(train_file="mine.jsonl")),
        strategy_of({"dataset": "a"}, dataset=DatasetSection(dataset_name="org/name")),
        strategy_of(),
        strategy_of({"dataset": 3}),
        Strategy(id="s", native={"dataset": "a"}),
    ],
)
def test_nothing_is_changed_where_other_rows_are_named_or_none(strategy: Strategy) -> None:
    assert with_native_dataset(strategy) is strategy


# What `type: freeze` trains.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ModelShape]:
    """A real model of four layers, and its shape as planning reads it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    directory = tmp_path_factory.mktemp("tiny")
    config.save_pretrained(directory)
    return LlamaForCausalLM(config), read_shape(directory)


@pytest.mark.parametrize(
    ("native", "parts"),
    [
        ({}, (".2.", ".3.")),
        ({"freeze_trainable_layers": 1}, (".3.",)),
        ({"freeze_trainable_layers": "1"}, (".3.",)),
        ({"freeze_trainable_layers": -3}, (".0.", ".1.", ".2.")),
        ({"freeze_trainable_layers": 0}, ()),
        ({"freeze_trainable_layers": 9}, (".0.", ".1.", ".2.", ".3.")),
        ({"freeze_trainable_modules": "mlp"}, (".2.mlp.", ".3.mlp.")),
        (
            {"freeze_trainable_modules": "mlp, input_layernorm", "freeze_trainable_layers": 1},
            (".3.mlp.", ".3.input_layernorm."),
        ),
        (
            {"freeze_trainable_modules": ["mlp", "self_attn"], "freeze_trainable_layers": 1},
            (".3.mlp.", ".3.self_attn."),
        ),
        (
            {"freeze_extra_modules": "embed_tokens,norm", "freeze_trainable_layers": 1},
            (".3.", "embed_tokens.", "model.norm."),
        ),
    ],
)
def test_unfrozen_parameters_are_those_of_the_real_model(
    tiny: tuple[Any, ModelShape], native: dict[str, object], parts: tuple[str, ...]
) -> None:
    model, shape = tiny
    expected = sum(
        p.numel() for name, p in model.named_parameters() if any(part in name for part in parts)
    )
    assert unfrozen_parameters(strategy_of(native), shape) == expected


def test_freeze_is_planned_with_the_parameters_that_it_trains() -> None:
    plan = plan_for(
        strategy_of({"freeze_trainable_layers": 1}, method=Method(type="freeze")), shape=SMOLLM2
    )
    assert plan.llamafactory is not None
    assert (plan.llamafactory.method, plan.adapter) == ("freeze", None)
    layer = [linear for linear in SMOLLM2.linear_layers if ".29." in linear.name]
    assert plan.num_trainable_parameters == sum(part.d_out * part.d_in for part in layer)


@pytest.mark.parametrize("count", ["two", 1.5, None, [2], True])
def test_a_number_of_layers_that_is_none_is_refused(count: object) -> None:
    found = native_problem("freeze_trainable_layers", count)
    assert found.message.startswith("expected a whole number (got ")
    assert found.hint == "2 trains the last two layers, -2 the first two"
