"""Ordinary training scripts for the Hugging Face Trainer (all weights) and TRL's SFTTrainer (LoRA),
as their documentation and examples write them: regular saves and evaluations, the best checkpoint
loaded at the end, and a resume from the last checkpoint where there is one.

`python -m tests.faults.campaign.peer_runs.scripts hugging_face|trl WORKPLACE OUT [KEY=JSON …]`; the
keys are fields of TrainingArguments.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FINAL = "final"
_EVAL_ROWS = 6
# Equal to the strategies of the workplace.
ARGUMENTS: Mapping[str, Any] = {
    "max_steps": 24,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "cosine",
    "eval_strategy": "steps",
    "eval_steps": 3,
    "save_steps": 3,
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "logging_steps": 1,
    "seed": 42,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}


def hugging_face(workplace: Path, out: Path, changes: Mapping[str, Any]) -> None:
    """All weights, with the Trainer of transformers."""
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(workplace / "model")
    model = AutoModelForCausalLM.from_pretrained(workplace / "model")

    def tokenize(row: Mapping[str, Any]) -> dict[str, Any]:
        chat = [*row["prompt"], *row["completion"]]
        encoded = tokenizer.apply_chat_template(chat, return_dict=True)
        prompt = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=True
        )
        length = len(prompt["input_ids"])
        return {**encoded, "labels": [-100] * length + encoded["input_ids"][length:]}

    rows = Dataset.from_list([tokenize(row) for row in _rows(workplace)])
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(out), **{**ARGUMENTS, **changes}),
        train_dataset=rows.skip(_EVAL_ROWS),
        eval_dataset=rows.take(_EVAL_ROWS),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )
    _train(trainer, out)


def trl(workplace: Path, out: Path, changes: Mapping[str, Any]) -> None:
    """LoRA, with the SFTTrainer of TRL and PEFT."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list(_rows(workplace))
    trainer = SFTTrainer(
        model=str(workplace / "model"),
        args=SFTConfig(output_dir=str(out), **{**ARGUMENTS, **changes}),
        train_dataset=rows.skip(_EVAL_ROWS),
        eval_dataset=rows.take(_EVAL_ROWS),
        peft_config=LoraConfig(
            r=4,
            lora_alpha=8,
            lora_dropout=0.1,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    _train(trainer, out)


def _train(trainer: Any, out: Path) -> None:
    """As the examples of transformers do: from the last checkpoint where there is one."""
    from transformers.trainer_utils import get_last_checkpoint

    last = get_last_checkpoint(str(out)) if out.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(out / FINAL))


def _rows(workplace: Path) -> list[dict[str, Any]]:
    lines = (workplace / "data.jsonl").read_text().splitlines()
    return [
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }
        for row in map(json.loads, lines)
    ]


SCRIPTS: Mapping[str, Callable[[Path, Path, Mapping[str, Any]], None]] = {
    "hugging_face": hugging_face,
    "trl": trl,
}


def main(argv: Sequence[str]) -> None:
    """What a console would call."""
    tool, workplace, out, *settings = argv
    pairs = (setting.partition("=") for setting in settings)
    SCRIPTS[tool](Path(workplace), Path(out), {key: json.loads(value) for key, _, value in pairs})


if __name__ == "__main__":
    main(sys.argv[1:])
