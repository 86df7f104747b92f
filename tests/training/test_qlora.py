"""QLoRA on the CPU: bitsandbytes holds the base, the adapters learn, the run resumes bitwise."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from llamafarm.errors import Interrupted
from llamafarm.monitoring.events import Event, StepEvent
from llamafarm.planning.plan import QuantizationPlan
from llamafarm.training.signals import StopRequest

from .runs import tiny_plan, train_plan

pytest.importorskip("bitsandbytes", reason="the optional part llamafarm[qlora] is not installed")
NF4 = QuantizationPlan(4, "nf4", double_quant=True, compute_dtype="float32")


def stop_at_six(event: Event, stop: StopRequest) -> None:
    if isinstance(event, StepEvent) and event.step == 6:
        stop.received = signal.SIGTERM


def test_a_four_bit_base_trains_and_resumes_bitwise(tiny_model_dir: Path, tmp_path: Path) -> None:
    whole = train_plan(tiny_plan(tiny_model_dir, tmp_path / "whole", quantization=NF4))
    plain = train_plan(tiny_plan(tiny_model_dir, tmp_path / "plain"))
    assert whole.losses[-1] < whole.losses[0]
    # The quantised base is another base: its own first number shows that it was used.
    assert whole.eval_losses[0] != plain.eval_losses[0]
    plan = tiny_plan(tiny_model_dir, tmp_path / "cut", quantization=NF4)
    with pytest.raises(Interrupted):
        train_plan(plan, on_event=stop_at_six)
    assert train_plan(plan, resume=True).weights_hash == whole.weights_hash
