from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llamafarm.data.report import LengthSummary
from llamafarm.models.shape import ModelShape
from llamafarm.planning.forecast import choose_speed, flops_per_token
from llamafarm.strategy.model import Method, Strategy, TrainingArgs
from tests.hardware.recorded import A10, LAPTOP, M2_16GB
from tests.planning.building import LLAMA_1B, SMOLLM2, make_report, plan_for
from tests.planning.test_memory import LORA, workload

ALL_TRAINED = LengthSummary(1, 2048, 2048, 2048, 2048, 2048, 2048)


def forecast(machine: Any = LAPTOP, speed: float | None = None, **args: Any) -> Any:
    strategy = Strategy(id="s", training_args=TrainingArgs(**args))
    return plan_for(strategy, machine, rows=800, speed=speed).forecast


@pytest.mark.parametrize(("full", "gflops"), [(False, 5.41), (True, 7.82)])
def test_operations_per_token_are_those_of_the_published_count(full: bool, gflops: float) -> None:
    """Llama-3.2-1B at 2,048 tokens: 5.41 GFLOP a token with LoRA r 16, 7.82 full."""
    adapter = None if full else replace(LORA, r=16)
    work = workload(shape=LLAMA_1B, adapter=adapter, train=ALL_TRAINED)
    assert flops_per_token(work) / 1e9 == pytest.approx(gflops, rel=0.01)


def test_checkpointing_computes_the_forward_pass_again() -> None:
    plain, again = workload(), workload(gradient_checkpointing=True)
    assert 1.3 < flops_per_token(again) / flops_per_token(plain) < 1.6


def test_prompt_tokens_need_no_head() -> None:
    half = replace(ALL_TRAINED, trained_tokens=1024)
    saved = flops_per_token(workload(train=ALL_TRAINED)) - flops_per_token(workload(train=half))
    assert saved == pytest.approx(4 * SMOLLM2.vocab_size * SMOLLM2.hidden_size / 2)


def test_tokens_are_those_of_the_steps_that_are_taken() -> None:
    assert forecast(num_train_epochs=3).train_tokens == 3 * 80_000
    assert forecast(max_steps=50).train_tokens == 40_000


def test_a_measured_rate_gives_time_and_speed() -> None:
    fast, slow = (forecast(speed=speed, num_train_epochs=9) for speed in (2e11, 1e11))
    answers = sample_seconds(SMOLLM2)
    assert slow.seconds - answers == pytest.approx(2 * (fast.seconds - answers))
    assert fast.tokens_per_second == pytest.approx(2 * slow.tokens_per_second)
    assert "200 GFLOP/s" in fast.basis


def a_token(shape: ModelShape) -> float:
    """The kernels of model and adapter, and every weight once."""
    return 2 * 0.06 + shape.num_parameters * 4 / 8e9


def sample_seconds(shape: ModelShape) -> float:
    """Three rows, base and best, 32 tokens each, in a run so long that nothing cuts them."""
    return 3 * 2 * 32 * a_token(shape)


def test_answers_in_every_evaluation_take_their_time() -> None:
    often = {"eval_steps": 50, "num_train_epochs": 9}
    plain = forecast(speed=2e11, **often).seconds
    chosen = {"metric_for_best_model": "rouge_l", **often}
    more = forecast(speed=2e11, **chosen).seconds - plain + sample_seconds(SMOLLM2)
    evaluations = more / (8 * 64 * a_token(SMOLLM2))
    assert evaluations == pytest.approx(round(evaluations))
    assert evaluations >= 2


def test_a_cpu_without_a_measurement_uses_the_measured_default() -> None:
    found = forecast()
    assert found.seconds is not None
    assert 100 < found.tokens_per_second < 250
    assert "2 AVX2 cores" in found.basis


@pytest.mark.parametrize("machine", [A10, M2_16GB])
def test_where_nothing_was_measured_no_time_is_invented(machine: Any) -> None:
    found = forecast(machine)
    assert (found.seconds, found.tokens_per_second) == (None, None)


def test_an_unknown_kind_of_processor_has_no_measured_default() -> None:
    arm = replace(LAPTOP.cpu, capability="NO AVX")
    assert choose_speed(None, workload(), arm, 4).flops is None
    assert choose_speed(None, workload(), LAPTOP.cpu, 4).flops is not None


def test_more_evaluations_take_more_time() -> None:
    assert forecast(eval_steps=5).seconds > forecast(eval_steps=50).seconds
    assert forecast(eval_strategy="no").seconds < forecast(eval_steps=50).seconds


def test_disk_grows_with_the_resume_points_and_what_is_trained() -> None:
    one, three = forecast(save_total_limit=1), forecast(save_total_limit=3)
    adapter = 1_221_120 * 4
    assert three.disk_bytes - one.disk_bytes == 2 * 3 * adapter
    full = Strategy(id="s", method=Method(type="full_finetune"))
    assert plan_for(full).forecast.disk_bytes > SMOLLM2.num_parameters * 12 * 4
    assert forecast(save_strategy="no").disk_bytes < one.disk_bytes + adapter


def test_the_limit_is_what_is_free_now() -> None:
    assert forecast().memory_limit_bytes == LAPTOP.cpu.memory_available_bytes
    assert forecast(A10).memory_limit_bytes == A10.accelerators[0].memory_free_bytes


def test_a_run_without_evaluation_rows_is_forecast_too() -> None:
    strategy = Strategy(id="s", training_args=TrainingArgs(eval_strategy="no"))
    assert plan_for(strategy, report=make_report(50, 0)).forecast.seconds is not None
