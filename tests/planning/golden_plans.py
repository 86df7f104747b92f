"""Strategies and machines whose decisions are kept as text under tests/golden/plans.

`python -m tests.planning.golden_plans` writes them again; look at the difference before keeping it.
"""

from __future__ import annotations

from pathlib import Path

from llamafarm.planning.plan import TrainingPlan
from llamafarm.planning.render import render_decisions
from llamafarm.strategy.model import (
    BaseModelSpec,
    HardwareSection,
    Method,
    Precision,
    Strategy,
    TrainingArgs,
)
from tests.hardware.recorded import A10, H200, LAPTOP, M2_16GB, RTX_4090, T4
from tests.planning.building import (
    LLAMA_1B,
    LLAMA_3B,
    LLAMA_7B,
    at_line,
    hub_source,
    make_report,
    plan_for,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"
LLAMA_2_7B = "meta-llama/Llama-2-7b-hf"

SCENARIO_1 = Strategy(
    id="scenario_1",
    method=Method(r=4, dropout=0.15),
    training_args=TrainingArgs(
        num_train_epochs=2,
        learning_rate=0.00005,
        weight_decay=0.01,
        eval_strategy="steps",
        eval_steps=20,
    ),
    origins={
        path: at_line(line, "scenario_1")
        for path, line in {
            "method.r": 6,
            "method.dropout": 7,
            "training_args.num_train_epochs": 9,
            "training_args.learning_rate": 10,
            "training_args.weight_decay": 11,
            "training_args.eval_strategy": 12,
            "training_args.eval_steps": 13,
        }.items()
    },
)
SCENARIO_2 = Strategy(
    id="scenario_2",
    hardware=HardwareSection(device="cuda", precision=Precision(use_bf16=True)),
    method=Method(r=32),
    training_args=TrainingArgs(
        per_device_train_batch_size=8, gradient_accumulation_steps=1, mixed_precision="bf16"
    ),
    origins={
        path: at_line(line, "scenario_2")
        for path, line in {
            "hardware.device": 6,
            "hardware.precision.use_bf16": 8,
            "method.r": 10,
            "training_args.per_device_train_batch_size": 12,
            "training_args.gradient_accumulation_steps": 13,
            "training_args.mixed_precision": 14,
        }.items()
    },
)
SCENARIO_3 = Strategy(
    id="scenario_3",
    hardware=HardwareSection(device="mps", precision=Precision(use_fp16=False)),
    training_args=TrainingArgs(per_device_train_batch_size=2, gradient_accumulation_steps=2),
    origins={
        path: at_line(line, "scenario_3")
        for path, line in {
            "hardware.device": 6,
            "hardware.precision.use_fp16": 8,
            "training_args.per_device_train_batch_size": 10,
            "training_args.gradient_accumulation_steps": 11,
        }.items()
    },
)

LLAMAFACTORY = Strategy(
    id="other_engine",
    backend="llamafactory",
    method=Method(r=8),
    native={
        "stage": "sft",
        "template": "llama3",
        "loraplus_lr_ratio": 16.0,
        "flash_attn": "auto",
        "packing": False,
        "plot_loss": True,
    },
    origins={
        path: at_line(line, "other_engine")
        for path, line in {
            "method.r": 6,
            "native.stage": 8,
            "native.template": 9,
            "native.loraplus_lr_ratio": 10,
            "native.flash_attn": 11,
            "native.packing": 12,
            "native.plot_loss": 13,
        }.items()
    },
)


def plans() -> dict[str, TrainingPlan]:
    """Name of the file → plan."""
    return {
        "scenario_1_laptop": plan_for(SCENARIO_1, LAPTOP, rows=80),
        "scenario_2_h200": plan_for(
            SCENARIO_2, H200, LLAMA_7B, rows=5000, source=hub_source(LLAMA_2_7B)
        ),
        "scenario_2_t4": plan_for(SCENARIO_2, T4, LLAMA_1B, rows=5000),
        "scenario_3_m2": plan_for(SCENARIO_3, M2_16GB, rows=412),
        "nothing_written_laptop": plan_for(Strategy(id="my_strategy"), LAPTOP, rows=412),
        "copied_recipe_laptop": plan_for(
            Strategy(
                id="copied",
                training_args=TrainingArgs(
                    mixed_precision="bf16", eval_steps=500, eval_strategy="steps"
                ),
                origins={"training_args.mixed_precision": at_line(10, "copied")},
            ),
            LAPTOP,
            rows=412,
        ),
        "qlora_7b_rtx_4090": plan_for(
            Strategy(
                id="qlora_7b",
                base_model=BaseModelSpec(id=LLAMA_2_7B),
                method=Method(type="qlora"),
            ),
            RTX_4090,
            LLAMA_7B,
            report=make_report(5000, tokens=600, longest=2000),
            source=hub_source(LLAMA_2_7B),
        ),
        "full_3b_a10": plan_for(
            Strategy(id="full_3b", method=Method(type="full_finetune")), A10, LLAMA_3B, rows=20_000
        ),
        "llamafactory_laptop": plan_for(LLAMAFACTORY, LAPTOP, rows=412),
        "no_evaluation_laptop": plan_for(
            Strategy(id="blind", training_args=TrainingArgs(eval_strategy="no")), LAPTOP
        ),
    }


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, plan in plans().items():
        text = render_decisions(plan.decisions) + "\n"
        (GOLDEN / f"{name}.txt").write_text(text, encoding="utf-8")
