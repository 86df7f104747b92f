"""What is made of the result after training: planned, explained, and refused before the first step
where it cannot be.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamafarm.deploy import check_export, request_of
from llamafarm.errors import StrategyError, UserError
from llamafarm.export import k_quants
from llamafarm.export.request import ConvertRequest
from llamafarm.export.route import ExportRoute
from llamafarm.planning.export import choose_export, export_problems, route_decision
from llamafarm.planning.plan import ExportPlan
from llamafarm.strategy.model import Export, PromptTemplate, Strategy
from tests.planning.building import at_line, decision, plan_for, remarks

RUN = Path("/home/ada/project/fine_tuned_models/fever")
OWN = ExportRoute("own", "LlamaForCausalLM", "llamafarm writes LlamaForCausalLM itself")
CONVERTER = ExportRoute("llama.cpp", "OtherForCausalLM", "llama.cpp's converter lists it")
NONE = ExportRoute("none", "OddForCausalLM", "llamafarm does not write it", "install a converter")


def strategy(**export: Any) -> Strategy:
    return Strategy(id="s", export=Export(**export))


def chosen(**export: Any) -> ExportPlan:
    plan, _ = choose_export(strategy(**export), RUN)
    assert plan is not None
    return plan


def test_nothing_is_made_unless_it_is_asked_for() -> None:
    assert choose_export(strategy(), RUN) == (None, [])
    assert plan_for(Strategy(id="s")).export is None


def test_an_export_for_ollama_goes_into_the_run_directory() -> None:
    assert chosen(to_ollama=True) == ExportPlan(
        format="ollama",
        target=RUN / "ollama",
        quantization="q8_0",
        name="fever",
        name_is_given=False,
        system_prompt=None,
        parameters={},
    )


def test_a_gguf_goes_into_a_directory_of_its_own() -> None:
    plan = chosen(to_gguf=True, quantization="f16", model_name="mine")
    assert (plan.format, plan.target, plan.quantization) == ("gguf", RUN / "gguf", "f16")
    assert (plan.name, plan.name_is_given) == ("mine", True)


def test_a_gguf_is_part_of_what_ollama_gets_so_one_export_is_enough() -> None:
    assert chosen(to_ollama=True, to_gguf=True).format == "ollama"


def test_the_plan_says_where_the_export_goes_and_as_what() -> None:
    plan = plan_for(strategy(to_ollama=True))
    assert plan.export is not None
    assert decision(plan, "export.to_ollama").value == "true"
    assert decision(plan, "export.to_ollama").reason.endswith("/ollama after training")
    quantization = decision(plan, "export.quantization")
    assert (quantization.value, quantization.source) == ("q8_0", "default")
    assert (
        decision(plan_for(strategy(to_gguf=True, quantization="f16")), "export.quantization").value
        == "f16"
    )
    assert plan.warnings == ()


@pytest.mark.parametrize(
    ("path", "export"),
    [
        ("export.quantization", {"quantization": "f16"}),
        ("export.model_name", {"model_name": "m"}),
        ("export.system_prompt", {"system_prompt": "Be brief."}),
        ("export.ollama_parameters", {"ollama_parameters": {"num_ctx": 1}}),
    ],
)
def test_a_setting_of_an_export_that_nobody_asked_for_is_warned_about(
    path: str, export: dict[str, Any]
) -> None:
    (text,) = remarks(plan_for(strategy(**export)), path)
    assert text == f"{path} has no effect: write export.to_ollama or export.to_gguf"


@pytest.mark.parametrize(
    ("path", "export"),
    [
        ("export.system_prompt", {"system_prompt": "Be brief."}),
        ("export.ollama_parameters", {"ollama_parameters": {"num_ctx": 1}}),
    ],
)
def test_what_stands_in_a_modelfile_has_no_effect_on_a_gguf(
    path: str, export: dict[str, Any]
) -> None:
    (text,) = remarks(plan_for(strategy(to_gguf=True, **export)), path)
    assert "export.to_ollama" in text
    assert not remarks(plan_for(strategy(to_ollama=True, **export)), path)


def test_the_line_of_a_setting_without_effect_is_named() -> None:
    origins = {"export.quantization": at_line(12)}
    plan = plan_for(Strategy(id="s", export=Export(quantization="f16"), origins=origins))
    (text,) = remarks(plan, "export.quantization")
    assert text.startswith("export.quantization (my_training, line 12) has no effect")


def test_stop_sequences_are_kept_in_the_plan() -> None:
    plan = plan_for(Strategy(id="s", prompt_template=PromptTemplate(stop_sequences=("User:", "X"))))
    assert plan.stop_words == ("User:", "X")
    assert plan.warnings == ()


@pytest.mark.parametrize(
    ("route", "value", "source"),
    [
        (OWN, "possible", "detected"),
        (CONVERTER, "by llama.cpp's converter", "detected"),
        (NONE, "not possible", "warning"),
    ],
)
def test_the_plan_says_whether_a_gguf_could_be_made(
    route: ExportRoute, value: str, source: str
) -> None:
    found = route_decision(route)
    assert (found.value, found.source) == (value, source)
    assert route.detail in found.reason
    assert route.hint in found.reason


@pytest.mark.parametrize("path", ["to_ollama", "to_gguf"])
def test_an_export_that_cannot_be_made_is_a_problem_before_training(path: str) -> None:
    (problem,) = export_problems(strategy(**{path: True}), NONE)
    assert problem.path == f"export.{path}"
    assert problem.message == "cannot be done: llamafarm does not write it"
    assert problem.hint == "install a converter"
    assert export_problems(strategy(**{path: True}), OWN) == ()
    assert export_problems(strategy(**{path: True}), CONVERTER) == ()


def test_an_export_that_cannot_be_made_is_none_of_a_run_s_business_unless_it_is_asked_for() -> None:
    assert export_problems(strategy(), NONE) == ()


def test_a_plan_becomes_what_convert_is_asked_for() -> None:
    plan = chosen(
        to_ollama=True,
        quantization="q4_0",
        system_prompt="Be brief.",
        ollama_parameters={"temperature": 0.2},
    )
    assert request_of(plan, RUN) == ConvertRequest(
        source=str(RUN),
        target=RUN / "ollama",
        format="ollama",
        quantization="q4_0",
        name="fever",
        system_prompt="Be brief.",
        parameters={"temperature": 0.2},
        overwrite=True,
    )


def test_a_system_prompt_is_not_asked_of_a_gguf_which_would_refuse_it() -> None:
    plan = chosen(to_gguf=True, system_prompt="Be brief.")
    assert request_of(plan, RUN).system_prompt is None


def test_a_run_directory_s_name_is_made_into_a_model_s_and_a_given_one_is_not() -> None:
    odd = replace(chosen(to_gguf=True), name="Fieber & Husten v2")
    assert request_of(odd, RUN).name == "Fieber-Husten-v2"
    with pytest.raises(UserError, match="cannot be the name of a model"):
        request_of(replace(odd, name_is_given=True), RUN)


def test_an_export_that_can_be_made_passes_the_check() -> None:
    check_export(chosen(to_ollama=True, ollama_parameters={"num_ctx": 4096, "stop": ("X",)}))
    check_export(chosen(to_gguf=True, quantization="F32"))


@pytest.mark.parametrize(
    ("export", "said"),
    [
        ({"quantization": "q8"}, "no file type 'q8'; did you mean Q8_0?"),
        ({"model_name": "me/mine"}, "cannot be the name of a model"),
        ({"ollama_parameters": {"temprature": 1}}, "does not have this parameter"),
        ({"ollama_parameters": {"num_ctx": "many"}}, "it is a whole number"),
        ({"system_prompt": "a\u200bb"}, "cannot stand in a Modelfile"),
    ],
)
def test_what_would_only_come_out_after_training_comes_out_before(
    export: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_export(chosen(to_ollama=True, **export))
    assert said in caught.value.render()


def test_every_parameter_that_ollama_does_not_have_is_named() -> None:
    parameters = {"temprature": 1, "num_ctx": 1, "max_tokens": 5}
    with pytest.raises(StrategyError) as caught:
        check_export(chosen(to_ollama=True, ollama_parameters=parameters))
    assert [problem.path for problem in caught.value.problems] == [
        "export.ollama_parameters.temprature",
        "export.ollama_parameters.max_tokens",
    ]


def test_a_k_type_needs_its_engine_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k_quants, "find_engine", lambda: None)
    with pytest.raises(UserError) as caught:
        check_export(chosen(to_gguf=True, quantization="q4_k_m"))
    assert "pip install" in caught.value.hint
    check_export(chosen(to_gguf=True, quantization="q4_0"))


def test_the_certificate_needs_its_engine_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else there(name)
    )
    with pytest.raises(UserError, match=r"llama\.cpp engine is not installed"):
        check_export(chosen(to_gguf=True))
