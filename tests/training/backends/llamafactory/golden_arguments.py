"""Plans whose translation is kept under tests/golden/llamafactory.

`python -m tests.training.backends.llamafactory.golden_arguments` writes them again; look at the
difference before keeping it.
"""

from __future__ import annotations

from pathlib import Path

from llamafarm.planning.plan import TrainingPlan
from llamafarm.strategy.model import (
    BaseModelSpec,
    DatasetSection,
    HardwareSection,
    Method,
    Strategy,
    TrainingArgs,
)
from llamafarm.training.backends.llamafactory.translate import arguments_of, dataset_info
from llamafarm.training.backends.llamafactory.workplace import Workplace
from tests.hardware.recorded import A10, H200, LAPTOP, RTX_4090
from tests.planning.building import (
    LLAMA_1B,
    LLAMA_3B,
    LLAMA_7B,
    hub_source,
    make_request,
    plan_for,
)

GOLDEN = Path(__file__).parents[3] / "golden" / "llamafactory"
FILES = ("train.yaml", "dataset_info.json")

EVERYTHING = Strategy(
    id="everything",
    backend="llamafactory",
    dataset=DatasetSection(shuffle=False),
    method=Method(
        r=16,
        alpha=32,
        dropout=0.1,
        target_modules=("q_proj", "v_proj"),
        modules_to_save=("embed_tokens",),
        use_rslora=True,
        use_dora=True,
    ),
    training_args=TrainingArgs(
        num_train_epochs=2,
        learning_rate=1e-5,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=3,
        gradient_accumulation_steps=4,
        gradient_checkpointing=True,
        lr_scheduler_type="cosine_with_restarts",
        lr_scheduler_kwargs={"num_cycles": 2},
        warmup_steps=7,
        optim="adafactor",
        weight_decay=0.1,
        adam_beta1=0.8,
        adam_beta2=0.95,
        adam_epsilon=1e-7,
        max_grad_norm=0.5,
        neftune_noise_alpha=5.0,
        torch_compile=True,
        dataloader_num_workers=2,
        mixed_precision="bf16",
        seed=7,
    ),
)


def plans() -> dict[str, tuple[TrainingPlan, bool, str]]:
    """Name of the directory → plan, whether there are evaluation rows, checkpoint to go on from."""
    full = Method(type="full_finetune")
    return {
        "lora_everything": (
            plan_for(EVERYTHING, H200, LLAMA_1B, rows=500),
            True,
            "resume/checkpoint-40",
        ),
        "qlora": (
            plan_for(
                Strategy(
                    id="qlora",
                    backend="llamafactory",
                    base_model=BaseModelSpec(id="meta-llama/Llama-2-7b-hf"),
                    method=Method(type="qlora"),
                ),
                RTX_4090,
                LLAMA_7B,
                rows=500,
                source=hub_source("meta-llama/Llama-2-7b-hf"),
            ),
            True,
            "",
        ),
        "full_finetune": (
            plan_for(
                Strategy(id="full", backend="llamafactory", method=full), H200, LLAMA_3B, rows=500
            ),
            True,
            "",
        ),
        "freeze": (
            plan_for(
                Strategy(
                    id="freeze",
                    backend="llamafactory",
                    method=Method(type="freeze"),
                    native={
                        "freeze_trainable_layers": 1,
                        "freeze_trainable_modules": "mlp,self_attn",
                        "optim_args": "scale_parameter=False",
                        "plot_loss": True,
                    },
                ),
                A10,
                LLAMA_1B,
                rows=500,
            ),
            True,
            "",
        ),
        "dpo": (
            plan_for(
                Strategy(
                    id="dpo",
                    backend="llamafactory",
                    native={"stage": "dpo", "pref_beta": 0.2, "pref_loss": "sigmoid"},
                ),
                LAPTOP,
                request=make_request(answers="paired"),
            ),
            True,
            "",
        ),
        "pt": (
            plan_for(
                Strategy(
                    id="pt",
                    backend="llamafactory",
                    native={"stage": "pt"},
                    hardware=HardwareSection(device="cpu"),
                    method=full,
                    training_args=TrainingArgs(eval_strategy="no", mixed_precision="no"),
                )
            ),
            False,
            "",
        ),
    }


def write(directory: Path, plan: TrainingPlan, has_eval: bool, resume: str) -> None:
    """As the engine writes them."""
    arguments = arguments_of(plan, has_eval=has_eval, resume_from=resume)
    Workplace(directory).write_arguments(arguments, dataset_info(plan, has_eval=has_eval))


if __name__ == "__main__":
    for name, case in plans().items():
        (GOLDEN / name).mkdir(parents=True, exist_ok=True)
        write(GOLDEN / name, *case)
