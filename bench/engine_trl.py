"""One run of TRL's SFTTrainer. Started in TRL's own environment: `python -m bench.engine_trl
SPEC.json`.

TRL takes rows that hold `input_ids` and `labels` as they are. What is changed from its defaults is
what equal work needs (learning rate, order of rows, fp32), and the options under test; all of it is
reported, read back from the configuration itself. The batches are read once before training, and
compared with the rows that were given.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from bench.feed import Fed, check_fed, fed_batches, packed_length
from bench.spec import EngineRun, Row, RunSpec, Step, peak_rss_bytes, read_rows

PACKAGES = ("trl", "torch", "transformers", "peft", "accelerate", "datasets")


@dataclass
class StepClock(TrainerCallback):
    """Time between the ends of optimizer steps: everything in between counts, data and logging
    included.
    """

    load_average: float = 0.0
    stamps: list[float] = field(default_factory=list)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.load_average = os.getloadavg()[0]
        self.stamps.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.stamps.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of each step."""
        return [end - start for start, end in pairwise(self.stamps)]


def run(spec: RunSpec) -> EngineRun:
    """Train, and measure every step."""
    torch.set_num_threads(spec.threads)
    rows = read_rows(Path(spec.rows_file))[: spec.num_rows]
    clock = StepClock()
    trainer = make_trainer(spec, rows, clock)
    fed = fed_batches(trainer.get_train_dataloader(), trainer.args.max_steps)
    check_fed(rows, fed, same_order=not spec.options.get("packing"))
    first_loss = loss_of_first_rows(trainer, rows[: spec.batch_size])
    loaded = peak_rss_bytes()
    trainer.train()
    peak = peak_rss_bytes()
    adapter = str(Path(spec.output_directory) / "adapter")
    trainer.save_model(adapter)
    return EngineRun(
        steps=tuple(measured_steps(clock, fed, trainer.state.log_history)),
        first_loss=first_loss,
        peak_rss_bytes=peak,
        loaded_rss_bytes=loaded,
        load_average=clock.load_average,
        adapter_directory=adapter,
        versions={name: version(name) for name in PACKAGES},
        settings=changed_settings(trainer.args),
    )


def make_trainer(spec: RunSpec, rows: Sequence[Row], clock: StepClock) -> SFTTrainer:
    """The trainer on rows of ids and labels."""
    columns = {
        "input_ids": [list(row.input_ids) for row in rows],
        "labels": [list(row.labels) for row in rows],
    }
    adapter = LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=0.0,
        target_modules=list(spec.target_modules),
        task_type="CAUSAL_LM",
    )
    return SFTTrainer(
        model=spec.model_directory,
        args=SFTConfig(**trainer_arguments(spec, rows)),
        train_dataset=Dataset.from_dict(columns),
        peft_config=adapter,
        callbacks=[clock],
    )


def trainer_arguments(spec: RunSpec, rows: Sequence[Row]) -> dict[str, Any]:
    """Equal work, and the options under test."""
    arguments = {
        "output_dir": str(Path(spec.output_directory) / "trainer"),
        "per_device_train_batch_size": spec.batch_size,
        "max_steps": spec.total_steps,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": spec.scheduler,
        "weight_decay": spec.weight_decay,
        "adam_beta1": spec.adam_beta1,
        "adam_beta2": spec.adam_beta2,
        "adam_epsilon": spec.adam_epsilon,
        "max_grad_norm": spec.max_grad_norm,
        "seed": spec.seed,
        # Its default is bf16, which most CPUs emulate, many times slower than fp32.
        "bf16": False,
        "use_cpu": True,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    if spec.options.get("packing"):
        # One packed row a step, as long as the tokens of a step of the others on average.
        arguments |= {
            "per_device_train_batch_size": 1,
            "max_steps": -1,
            "num_train_epochs": 1,
            "max_length": packed_length(rows, spec.total_steps),
        }
    elif spec.options.get("padding_free"):
        # TRL refuses a length limit here; the rows are within it already.
        arguments |= {"max_length": None}
    return arguments | dict(spec.options)


def loss_of_first_rows(trainer: SFTTrainer, rows: Sequence[Row]) -> float:
    """Loss of the first step's rows before training, by the trainer's own collator and loss."""
    examples = [{"input_ids": list(r.input_ids), "labels": list(r.labels)} for r in rows]
    if trainer.padding_free and trainer.args.packing:
        merged = {
            key: [value for example in examples for value in example[key]]
            for key in ("input_ids", "labels")
        }
        examples = [merged | {"seq_lengths": [len(r.input_ids) for r in rows]}]
    batch = trainer.data_collator(examples)
    trainer.model.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, dict(batch))
    trainer.model.train()
    trainer._metrics["eval"].clear()
    return float(loss)


def measured_steps(
    clock: StepClock, fed: Sequence[Fed], history: Sequence[dict[str, Any]]
) -> Iterable[Step]:
    """Times, contents and the trainer's own log, step by step."""
    logged = [entry for entry in history if "grad_norm" in entry]
    for seconds, batch, entry in zip(clock.seconds(), fed, logged, strict=True):
        yield Step(
            seconds=seconds,
            tokens=batch.tokens,
            trained_tokens=batch.trained_tokens,
            slots=batch.slots,
            loss=float(entry["loss"]),
            grad_norm=float(entry["grad_norm"]),
        )


def changed_settings(args: SFTConfig) -> dict[str, Any]:
    """Every setting that differs from SFTConfig's own default (paths left out)."""
    shipped = SFTConfig(output_dir=args.output_dir, use_cpu=True).to_dict()
    hidden = {"use_cpu", "output_dir", "logging_dir"}
    return {
        name: value
        for name, value in args.to_dict().items()
        if name not in hidden and value != shipped.get(name)
    }


if __name__ == "__main__":
    print(run(RunSpec.read(Path(sys.argv[1]))).to_json())
