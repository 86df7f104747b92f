"""Small plans on a tiny real model, and how to train them in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llamafarm.data.report import DataReport, LengthSummary
from llamafarm.data.request import DataRequest
from llamafarm.data.tokenized import ListRows, PreparedData, TokenRows
from llamafarm.models.fingerprint import weight_files, weights_fingerprint
from llamafarm.models.shape_reader import read_shape
from llamafarm.models.source import ModelSource
from llamafarm.models.tokenizer import load_tokenizer
from llamafarm.monitoring.events import EvalEvent, Event, StepEvent
from llamafarm.planning.plan import (
    AdapterPlan,
    BatchPlan,
    DevicePlan,
    EvaluationPlan,
    Every,
    Forecast,
    LoggingPlan,
    ModelPlan,
    OptimizerPlan,
    SavingPlan,
    TrainingPlan,
)
from llamafarm.training.backends.pytorch.loop import train
from llamafarm.training.checkpoint import newest_valid
from llamafarm.training.job import Outcome, TrainingJob
from llamafarm.training.run_directory import RunDirectory, open_run_directory
from llamafarm.training.signals import StopRequest

NUM_ROWS = 37
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


def random_rows(
    count: int, seed: int, *, shared_prefix: int = 6, vocabulary: int = 200
) -> ListRows:
    """Rows of 12 to 40 tokens; the tokens after the first few are trained."""
    random = np.random.default_rng(seed)
    prefix = list(range(10, 10 + shared_prefix))
    rows = []
    for _ in range(count):
        # Some tokens are common and some are rare, so that there is something to learn.
        words = 20 + random.geometric(0.15, int(random.integers(6, 34))) % (vocabulary - 20)
        ids = prefix + words.tolist()
        rows.append((ids, [t > shared_prefix + 2 for t in range(len(ids))]))
    return ListRows(rows, name="rows.jsonl")


def tiny_data() -> PreparedData:
    train_rows, eval_rows = random_rows(NUM_ROWS, 1), random_rows(9, 2)
    lengths = LengthSummary(NUM_ROWS, 1, 1, 1, 1, 1, 1)
    report = DataReport("text", (), lengths, None, "", "", (), (), (), (), "data")
    return PreparedData(train_rows, eval_rows, report)


LORA = AdapterPlan(
    r=4,
    alpha=8,
    dropout=0.1,
    bias="none",
    target_modules=("q_proj", "v_proj", "down_proj"),
    modules_to_save=(),
    layers_to_transform=None,
    layers_pattern=None,
    use_rslora=False,
    use_dora=False,
)


def tiny_plan(model_dir: Path, output_dir: Path, **changes: Any) -> TrainingPlan:
    """12 steps of LoRA with dropout; `optimizer`, `batch`, `evaluation`, `saving` take dicts of
    changes.
    """
    source = ModelSource(
        str(model_dir),
        str(model_dir),
        "local",
        model_dir,
        weights_fingerprint(weight_files(model_dir)),
    )
    batch = BatchPlan(4, 2, 4, 5, 12, 2.4, True, 0)
    batch = replace(batch, **changes.pop("batch", {}))
    batch = replace(batch, steps_per_epoch=-(-NUM_ROWS // batch.effective_batch_size))
    optimizer = OptimizerPlan(
        "adamw_torch", 5e-2, 0.01, 0.9, 0.999, 1e-8, 1.0, "cosine", {}, 2, 0.0, None
    )
    evaluation = EvaluationPlan(True, True, Every(4), "eval_loss", False, True, 0, 1e-4)
    plan = TrainingPlan(
        strategy_id="tiny",
        title="Tiny",
        backend="pytorch",
        output_dir=output_dir,
        model=ModelPlan(source, read_shape(model_dir), "float32"),
        adapter=LORA,
        quantization=None,
        device=DevicePlan("cpu", "test", "no", False, 1),
        optimizer=replace(optimizer, **changes.pop("optimizer", {})),
        batch=batch,
        evaluation=replace(evaluation, **changes.pop("evaluation", {})),
        saving=replace(SavingPlan(Every(5), 3), **changes.pop("saving", {})),
        logging=LoggingPlan(Every(1), True, (), "tiny"),
        data=DataRequest(Path("rows.jsonl"), None, None, True, 0.1, TEMPLATE, 64, 42),
        data_fingerprint="data",
        num_trainable_parameters=1,
        max_length=64,
        gradient_checkpointing=False,
        torch_compile=False,
        seed=42,
        on_nonfinite="stop",
        forecast=Forecast(1, 2, (), 1, 2, 1, None, None, ""),
    )
    adapter = changes.pop("adapter", {})
    if adapter is None:
        plan = replace(plan, adapter=None)
    else:
        plan = replace(plan, adapter=replace(LORA, **adapter))
    return replace(plan, **changes)


@dataclass(frozen=True)
class Trained:
    """A finished run and everything it said."""

    directory: RunDirectory
    events: tuple[Event, ...]
    outcome: Outcome

    @property
    def losses(self) -> list[float]:
        return [e.loss for e in self.events if isinstance(e, StepEvent)]

    @property
    def eval_losses(self) -> list[float]:
        return [e.eval_loss for e in self.events if isinstance(e, EvalEvent)]

    @property
    def weights_hash(self) -> str:
        return hash_of(self.directory.final_model)


def hash_of(directory: Path) -> str:
    """SHA-256 over the weight files of a model directory."""
    files = sorted(f for f in directory.glob("*.safetensors") if f.stem != "optimizer")
    assert files
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def train_plan(
    plan: TrainingPlan,
    *,
    data: PreparedData | None = None,
    resume: bool = False,
    on_event: Callable[[Event, StopRequest], None] | None = None,
) -> Trained:
    """Train in this process. on_event may set `received` of the stop request, as a signal would."""
    events: list[Event] = []
    stop = StopRequest()

    def emit(event: Event) -> None:
        events.append(event)
        if on_event is not None:
            on_event(event, stop)

    with open_run_directory(plan.output_dir, resume=resume, overwrite=False) as directory:
        checkpoint = newest_valid(directory.checkpoints)[0] if resume else None
        tokenizer = load_tokenizer(plan.model.source.directory)
        job = TrainingJob(plan, data or tiny_data(), tokenizer, directory, emit, stop, checkpoint)
        outcome = train(job)
    return Trained(directory, tuple(events), outcome)


def stock_loss(model: Any, rows: TokenRows) -> float:
    """Token-weighted loss with nothing but transformers."""
    import torch

    model.eval()
    loss_sum, count = 0.0, 0
    for i in range(len(rows)):
        ids = torch.tensor(rows.input_ids(i), dtype=torch.int64)[None]
        trained = torch.tensor(rows.trained(i))
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        loss_sum += float(losses[trained[1:]].double().sum())
        count += int(trained.sum())
    return loss_sum / count
