"""What is refused before anything is planned."""

from __future__ import annotations

from typing import Any

import pytest

from llamafarm.errors import HardwareError, Problem, StrategyError
from llamafarm.hardware.facts import Hardware
from llamafarm.strategy.model import HardwareSection, Method, Quantization, Strategy, TrainingArgs
from tests.hardware.recorded import A10, LAPTOP, M2_16GB
from tests.planning.building import SMOLLM2, at_line, plan_for, with_args


def refusals(
    strategy: Strategy, machine: Hardware = LAPTOP, *, bitsandbytes: bool = True
) -> tuple[Problem, ...]:
    with pytest.raises(StrategyError) as caught:
        plan_for(strategy, machine, bitsandbytes=bitsandbytes)
    assert caught.value.exit_code == 2
    return caught.value.problems


def method(**values: Any) -> Strategy:
    return Strategy(id="s", method=Method(**values))


def test_freeze_needs_llamafactory() -> None:
    (problem,) = refusals(method(type="freeze"))
    assert "llamafactory" in problem.message
    assert "`type: lora`" in problem.hint


def test_qlora_without_bitsandbytes_says_how_to_get_it() -> None:
    (problem,) = refusals(method(type="qlora"), bitsandbytes=False)
    assert "bitsandbytes" in problem.message
    assert "llamafarm[qlora]" in problem.hint


def test_qlora_on_apple_silicon_says_what_to_use() -> None:
    (problem,) = refusals(method(type="qlora"), M2_16GB)
    assert "Apple GPU" in problem.message
    assert "`type: lora`" in problem.hint


def test_qlora_on_a_cpu_and_on_cuda_is_allowed() -> None:
    assert plan_for(method(type="qlora"), LAPTOP).quantization is not None
    assert plan_for(method(type="qlora"), A10).quantization is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"quantization": Quantization(load_in_4bit=True, load_in_8bit=True)},
            "4-bit and 8-bit are both asked for",
        ),
        ({"type": "qlora", "quantization": Quantization(load_in_4bit=False)}, "needs a quantised"),
        (
            {"type": "full_finetune", "quantization": Quantization(load_in_4bit=True)},
            "cannot be trained",
        ),
    ],
)
def test_a_quantisation_that_contradicts_itself_is_refused(
    values: dict[str, Any], message: str
) -> None:
    (problem,) = refusals(method(**values))
    assert message in problem.message


def test_a_rank_above_the_narrowest_layer_is_refused_with_its_width() -> None:
    (problem,) = refusals(method(r=193))
    assert problem.message == "expected at most 192, the width of k_proj (got 193)"
    assert plan_for(method(r=192)).adapter is not None


def test_a_target_that_matches_nothing_is_refused_with_what_there_is() -> None:
    (problem,) = refusals(method(target_modules=("q_proj", "query_proj", "w1")))[:1]
    assert "query_proj" in problem.message
    assert "did you mean" in problem.hint
    second = refusals(method(target_modules=("w1",)))[0]
    assert "q_proj, k_proj, v_proj" in second.hint


def test_every_wrong_target_is_reported() -> None:
    assert len(refusals(method(target_modules=("w1", "w2")))) == 2


def test_no_target_at_all_is_refused() -> None:
    (problem,) = refusals(method(target_modules=()))
    assert "is empty" in problem.message


def test_a_module_to_save_that_is_not_there_is_refused_with_what_there_is() -> None:
    (problem,) = refusals(method(modules_to_save=("embed_token",)))
    assert "did you mean `embed_tokens`?" in problem.hint


def test_blocks_that_are_not_there_are_refused_with_their_range() -> None:
    (problem,) = refusals(method(layers_to_transform=(0, 30, 31)))
    assert problem.message == "expected indices from 0 to 29 (got 30, 31)"
    (empty,) = refusals(method(layers_to_transform=()))
    assert "nothing" in empty.message


def test_a_layers_pattern_must_exist_and_have_indices() -> None:
    (unknown,) = refusals(method(layers_to_transform=(0,), layers_pattern="blocks"))
    assert "blocks" in unknown.message
    (alone,) = refusals(method(layers_pattern="layers"))
    assert "without layers_to_transform" in alone.message


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_eight_bit_optimizers_need_bitsandbytes_and_a_device_for_it(name: str) -> None:
    (missing,) = refusals(with_args(optim=name), bitsandbytes=False)
    assert "llamafarm[qlora]" in missing.hint
    (apple,) = refusals(with_args(optim=name), M2_16GB)
    assert "`optim: adamw_torch`" in apple.hint
    assert plan_for(with_args(optim=name)).optimizer.name == name


def test_a_setting_that_the_schedule_does_not_have_is_refused() -> None:
    (problem,) = refusals(with_args(lr_scheduler_kwargs={"num_cycle": 2}))
    assert problem.hint == "there are: num_cycles"
    (linear,) = refusals(with_args(lr_scheduler_type="linear", lr_scheduler_kwargs={"power": 2}))
    assert "has no setting power" in linear.message


def test_a_polynomial_schedule_may_not_rise() -> None:
    with pytest.raises(StrategyError, match="cannot rise"):
        plan_for(
            with_args(
                lr_scheduler_type="polynomial",
                lr_scheduler_kwargs={"lr_end": 1.0},
                learning_rate=0.1,
            )
        )


@pytest.mark.parametrize("name", ["eval_steps", "save_steps", "logging_steps", "warmup_steps"])
def test_part_of_a_step_is_refused(name: str) -> None:
    (problem,) = refusals(with_args(**{name: 2.5}))
    assert f"`{name}: 2`" in problem.hint


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    (problem,) = refusals(with_args(metric_for_best_model="eval_los"))
    assert "did you mean `eval_loss`?" in problem.hint


def test_all_problems_come_at_once_each_with_its_line() -> None:
    strategy = Strategy(
        id="my_training",
        method=Method(type="qlora", target_modules=("w1",), modules_to_save=("heads",)),
        training_args=TrainingArgs(metric_for_best_model="f1", eval_steps=1.5),
        origins={"method.target_modules": at_line(9), "training_args.eval_steps": at_line(14)},
    )
    problems = refusals(strategy, bitsandbytes=False)
    assert [p.path for p in problems] == [
        "method.type",
        "method.target_modules",
        "method.modules_to_save",
        "training_args.eval_steps",
        "training_args.metric_for_best_model",
    ]
    assert problems[1].where == "strategies.yaml:9"


def test_an_absent_device_is_a_hardware_error() -> None:
    with pytest.raises(HardwareError):
        plan_for(Strategy(id="s", hardware=HardwareSection(device="cuda")))


def test_the_recorded_model_has_what_the_tests_name() -> None:
    assert {m.name for m in SMOLLM2.other_modules} == {"model.embed_tokens", "model.norm"}
