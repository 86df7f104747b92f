"""Small plans on a tiny real model, and how to train them in this process."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from llamafarm.data.report import DataReport, LengthSummary
from llamafarm.data.request import DataRequest
from llamafarm.data.tokenized import ListRows, PreparedData, TokenRows
from llamafarm.hardware.facts import Hardware
from llamafarm.models.fingerprint import weight_files, weights_fingerprint
from llamafarm.models.shape_reader import read_shape
from llamafarm.models.source import ModelSource
from llamafarm.models.tokenizer import load_tokenizer
from llamafarm.monitoring.events import EvalEvent, Event, StepEvent
from llamafarm.monitoring.metrics_file import read_events
from llamafarm.monitoring.summary import RunSummary
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
from llamafarm.training.run import RunInputs, RunOptions, run
from llamafarm.training.run_directory import RunDirectory, open_run_directory
from llamafarm.training.signals import StopRequest
from tests.hardware.recorded import make_cpu

NUM_ROWS = 37
VOCABULARY = 512
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


def write_tiny_model(directory: Path, **config: Any) -> Path:
    """A random Llama of two layers with 512 tokens and a word-level tokenizer, without pytest.

    config: what LlamaConfig is to hold besides, e.g. attention_dropout.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<|im_start|>", "<|im_end|>", *(f"w{i}" for i in range(VOCABULARY - 3))]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    tokenizer.save_pretrained(directory)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**(shape | config))).save_pretrained(directory)
    return directory


def random_rows(
    count: int,
    seed: int,
    *,
    shared_prefix: int = 6,
    vocabulary: int = 200,
    longest: int = 40,
    name: str = "rows.jsonl",
) -> ListRows:
    """Rows of 12 to nearly `longest` tokens; the tokens after the first few are trained."""
    random = np.random.default_rng(seed)
    prefix = list(range(10, 10 + shared_prefix))
    rows = []
    for _ in range(count):
        # Some tokens are common and some are rare, so that there is something to learn.
        length = int(random.integers(6, longest - 6))
        words = 20 + random.geometric(0.15, length) % (vocabulary - 20)
        ids = prefix + words.tolist()
        rows.append((ids, [t > shared_prefix + 2 for t in range(len(ids))]))
    return ListRows(rows, name=name)


def tiny_data(num_rows: int = NUM_ROWS, *, eval_name: str = "rows.jsonl") -> PreparedData:
    train_rows, eval_rows = random_rows(num_rows, 1), random_rows(9, 2, name=eval_name)
    lengths = LengthSummary(num_rows, 1, 1, 1, 1, 1, 1)
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
    changes. num_rows: of the data it is for.
    """
    num_rows = changes.pop("num_rows", NUM_ROWS)
    source = ModelSource(
        str(model_dir),
        str(model_dir),
        "local",
        model_dir,
        weights_fingerprint(weight_files(model_dir)),
    )
    batch = BatchPlan(4, 2, 4, 5, 12, 2.4, True, 0)
    batch = replace(batch, **changes.pop("batch", {}))
    batch = replace(batch, steps_per_epoch=-(-num_rows // batch.effective_batch_size))
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
        stop_on_overfitting=False,
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


class Killed(BaseException):
    """What a SIGKILL looks like inside one process: nothing of the program may catch it."""


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


@dataclass(frozen=True)
class Ran:
    """A finished run as `train` leaves it. events: of its last process, as they were sent."""

    directory: RunDirectory
    events: tuple[Event, ...]
    summary: RunSummary

    @property
    def recorded(self) -> list[Event]:
        """The events of all its processes, from metrics.jsonl."""
        return read_events(self.directory.metrics_file)

    @property
    def weights_hash(self) -> str:
        return hash_of(self.directory.final_model)


@dataclass
class _Watcher:
    """A sink that keeps the events of one process and shows them to a test."""

    on_event: Callable[[Event], None] | None
    events: list[Event] = field(default_factory=list)

    def handle(self, event: Event) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def close(self) -> None:
        pass


def run_plan(
    plan: TrainingPlan,
    *,
    data: PreparedData | None = None,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    report: bool = False,
) -> Ran:
    """All of `train` after planning, in this process: signals, metrics.jsonl, summary.json; the
    report too, which takes longer than a tiny run, where it is asked for.
    """
    watcher = _Watcher(on_event)
    inputs = RunInputs(
        plan,
        data or tiny_data(),
        load_tokenizer(plan.model.source.directory),
        Hardware(make_cpu("test", 2, 16)),
        "tiny: {}\n",
    )
    with contextlib.ExitStack() as stack:
        if not report:
            stack.enter_context(mock.patch("llamafarm.training.run._report"))
        summary = run(inputs, RunOptions(resume=resume), [watcher])
    return Ran(RunDirectory(plan.output_dir), tuple(watcher.events), summary)


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
