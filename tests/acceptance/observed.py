"""What of a `train` line arrives in PEFT, in torch's optimizer and in the steps of the loop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llamafarm.hardware.facts import Hardware
from llamafarm.planning.plan import TrainingPlan
from llamafarm.training.backends.pytorch import batches, gradients, loop
from llamafarm.training.run import RunInputs, run
from tests.hardware.recorded import LAPTOP

from .typed import Done, type_in


@dataclass
class Observed:
    """A run, seen from inside. autocast: type of the matrix products, once per pass of a step;
    steps: conversations in each micro-batch, a list for each optimizer step.
    """

    done: Done = field(default_factory=lambda: Done(-1, "", ""))
    plan: TrainingPlan | None = None
    peft: Any = None
    dropouts: set[float] = field(default_factory=set)
    base_dtypes: set[torch.dtype] = field(default_factory=set)
    optimizer_groups: list[dict[str, Any]] = field(default_factory=list)
    autocast: list[torch.dtype | None] = field(default_factory=list)
    steps: list[list[int]] = field(default_factory=list)
    batch_threads: set[str] = field(default_factory=set)

    @property
    def run_dir(self) -> Path:
        assert self.plan is not None
        return self.plan.output_dir


def observe(line: str, *more: str, hardware: Hardware = LAPTOP) -> Observed:
    """Train. A plan for a recorded GPU is carried out on this CPU, and is otherwise unchanged."""
    seen = Observed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llamafarm.hardware.probe.probe", lambda: hardware)
        patch.setattr("llamafarm.training.run.run", _on_this_cpu(seen))
        patch.setattr(loop, "build_model", _seeing_the_model(seen))
        patch.setattr(loop, "make_optimizer", _seeing_the_optimizer(seen))
        patch.setattr(loop.BatchFeed, "batch", _seeing_steps(seen))
        patch.setattr(gradients, "label_logits", _seeing_micro_batches(seen))
        patch.setattr(batches, "pack", _seeing_threads(seen))
        seen.done = type_in(line, *more)
    assert seen.done.code == 0, seen.done.err
    return seen


def _on_this_cpu(seen: Observed) -> Any:
    def carry_out(inputs: RunInputs, *rest: Any) -> Any:
        seen.plan = inputs.plan
        device = replace(inputs.plan.device, device="cpu", threads=torch.get_num_threads())
        return run(replace(inputs, plan=replace(inputs.plan, device=device)), *rest)

    return carry_out


def _seeing_the_model(seen: Observed) -> Any:
    build_model = loop.build_model

    def build(plan: TrainingPlan, tokenizer: Any) -> Any:
        trainable = build_model(plan, tokenizer)
        model = trainable.model
        seen.peft = model.peft_config["default"]
        seen.base_dtypes = {p.dtype for p in model.parameters() if not p.requires_grad}
        named = dict(model.named_modules())
        dropouts = [m for name, m in named.items() if name.endswith("lora_dropout.default")]
        seen.dropouts = {getattr(dropout, "p", 0.0) for dropout in dropouts}
        inside = next(module for name, module in named.items() if name.endswith("q_proj"))
        # Sample answers at the end are given as `generate` gives them: without it.
        inside.register_forward_pre_hook(
            lambda *_: seen.autocast.append(_autocast()) if torch.is_grad_enabled() else None
        )
        return trainable

    return build


def _autocast() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def _seeing_the_optimizer(seen: Observed) -> Any:
    make_optimizer = loop.make_optimizer

    def make(*args: Any) -> torch.optim.Optimizer:
        optimizer = make_optimizer(*args)
        seen.optimizer_groups = [{**group} for group in optimizer.param_groups]
        return optimizer

    return make


def _seeing_steps(seen: Observed) -> Any:
    batch = loop.BatchFeed.batch

    def next_batch(feed: Any, step: int) -> Any:
        seen.steps.append([])
        return batch(feed, step)

    return next_batch


def _seeing_micro_batches(seen: Observed) -> Any:
    label_logits = gradients.label_logits

    def forward(model: Any, row: Any, **options: Any) -> Any:
        seen.steps[-1].append(len(row.documents))
        return label_logits(model, row, **options)

    return forward


def _seeing_threads(seen: Observed) -> Any:
    import threading

    pack = batches.pack

    def packing(*args: Any, **options: Any) -> Any:
        seen.batch_threads.add(threading.current_thread().name)
        return pack(*args, **options)

    return packing
