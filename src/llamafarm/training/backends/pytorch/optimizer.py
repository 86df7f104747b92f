"""Optimizers and learning-rate schedules under Hugging Face's names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llamafarm.planning.plan import OptimizerPlan


def make_optimizer(plan: OptimizerPlan, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters; matrices decay, vectors (norms, biases) do
    not.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    adam: dict[str, Any] = {
        "lr": plan.learning_rate,
        "betas": (plan.adam_beta1, plan.adam_beta2),
        "eps": plan.adam_epsilon,
    }
    match plan.name:
        case "adamw_torch":
            return torch.optim.AdamW(groups, **adam)
        case "adamw_torch_fused":
            return torch.optim.AdamW(groups, **adam, fused=True)
        case "adamw_8bit" | "paged_adamw_8bit":
            import bitsandbytes as bnb

            kind = bnb.optim.AdamW8bit if plan.name == "adamw_8bit" else bnb.optim.PagedAdamW8bit
            optimizer: torch.optim.Optimizer = kind(groups, **adam)
            return optimizer
        case "adafactor":
            from transformers.optimization import Adafactor

            factored: torch.optim.Optimizer = Adafactor(
                groups, lr=plan.learning_rate, scale_parameter=False, relative_step=False
            )
            return factored
        case "sgd":
            return torch.optim.SGD(groups, lr=plan.learning_rate)
    raise ValueError(f"no optimizer is called {plan.name}")


def make_scheduler(
    plan: OptimizerPlan, optimizer: torch.optim.Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """transformers' schedule of that name: step 1 of a warm-up has learning rate 0, as there."""
    from transformers import get_scheduler

    scheduler: torch.optim.lr_scheduler.LambdaLR = get_scheduler(
        plan.scheduler,
        optimizer,
        num_warmup_steps=plan.warmup_steps,
        num_training_steps=total_steps,
        scheduler_specific_kwargs=dict(plan.scheduler_kwargs),
    )
    return scheduler


def put_schedule_back(scheduler: torch.optim.lr_scheduler.LambdaLR) -> None:
    """Make the learning rates those of this schedule at its step: of a loaded one they are what
    they were when it was saved, whatever is planned now.
    """
    scheduler.base_lrs = [group["initial_lr"] for group in scheduler.optimizer.param_groups]
    rates = [
        base * factor(scheduler.last_epoch)
        for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = list(rates)
