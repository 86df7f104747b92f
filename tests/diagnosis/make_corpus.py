"""Make the runs of the corpus: `python -m tests.diagnosis.make_corpus [--only TEXT]`.

Each is a real `train` of the packaged SmolLM2-135M-Instruct on one CPU thread, in a process of its
own. What is there already is not made again, so that the command can be stopped and repeated. Kept
of a run is its metrics.jsonl, as it was written, compressed.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.diagnosis.cases import FAULTS, Case, Fault, all_cases
from tests.diagnosis.datasets import (
    backwards,
    rows_of,
    shuffled_answers,
    with_noise_row,
    write_rows,
)

CORPUS = Path(__file__).parent / "corpus"
EVAL_ROWS = 12
# As long as a step of these runs, and more.
_DELAY_SECONDS = 3.0
_MOST_TOKENS = 100

_STRATEGY = """\
version: "2.0"
corpus:
  components:
    fine_tuner:
      type: pytorch
      config:
        # The upper third of the layers: the backward pass ends there, which saves time.
        method:
          type: lora
          r: 8
          alpha: 16
          layers_to_transform: [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]
        # The same numbers on every machine, whatever it could do besides.
        hardware: {device: cpu, precision: {use_bf16: false}}
        training_args:
          num_train_epochs: 2
          per_device_train_batch_size: 4
          gradient_accumulation_steps: 1
          learning_rate: 1.0e-3
          warmup_steps: 0.1
          eval_strategy: steps
          eval_steps: 8
          save_strategy: "no"
          logging_steps: 1
  prompt_template: {system: "Be brief."}
  dataset:
    train_file: train.jsonl
    eval_file: eval.jsonl
"""


def corpus_file(case: Case) -> Path:
    """Where its events are."""
    return CORPUS / f"{case.name}.jsonl.gz"


def main() -> None:
    """Make what is missing, one run at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of `PART NAME` of the runs to make")
    only = parser.parse_args().only
    missing = [
        case
        for case in all_cases()
        if only in f"{case.part} {case.name}" and not corpus_file(case).exists()
    ]
    # What takes seconds to import is imported once; each run then has a process of its own.
    importlib.import_module("llamafarm.training.backends.pytorch.loop")
    processes = multiprocessing.get_context("fork")
    for number, case in enumerate(missing, start=1):
        # Another one may have made it meanwhile.
        if corpus_file(case).exists():
            continue
        started = time.monotonic()
        process = processes.Process(target=make, args=(case,), daemon=True)
        process.start()
        process.join()
        took = time.monotonic() - started
        text = f"{number}/{len(missing)} {case.name}: {took:.0f} s, exit {process.exitcode}"
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def make(case: Case) -> None:
    """Train it and keep its events."""
    from llamafarm.api import TrainRequest, train
    from llamafarm.strategy.overrides import Override

    fault = FAULTS[case.fault]
    settings = {**fault.config, **case.config, "training_args.seed": case.seed}
    settings["training_args.output_dir"] = "run"
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work)
        _write_data(case, fault, directory)
        (directory / "strategies.yaml").write_text(_STRATEGY, encoding="utf-8")
        request = TrainRequest(
            "corpus",
            Path("strategies.yaml"),
            tuple(Override(path, value, path) for path, value in settings.items()),
        )
        # Paths in the events are then the same on every machine.
        with contextlib.chdir(directory), _one_thread(), _planted(case.fault):
            train(request)
        content = (directory / "run" / "metrics.jsonl").read_bytes()
    CORPUS.mkdir(exist_ok=True)
    part = corpus_file(case).with_suffix(".part")
    part.write_bytes(gzip.compress(content, mtime=0))
    part.replace(corpus_file(case))


def _write_data(case: Case, fault: Fault, directory: Path) -> None:
    rows = rows_of(case.data, fault.train_rows + EVAL_ROWS, case.seed)
    if case.fault in ("shuffled", "shuffled_20"):
        rows = shuffled_answers(rows, case.seed)
    if case.fault == "rank_1":
        rows = backwards(rows)
    train_rows, eval_rows = rows[EVAL_ROWS:], rows[:EVAL_ROWS]
    if case.fault == "leaked":
        train_rows = [*train_rows, *eval_rows]
    if case.fault == "spike_row":
        train_rows = with_noise_row(train_rows, _vocabulary(), case.seed)
    write_rows(train_rows, directory / "train.jsonl")
    write_rows(eval_rows, directory / "eval.jsonl")


def _vocabulary() -> list[str]:
    """Every token of the default model that is readable text by itself, in order."""
    from llamafarm.models.resolve import resolve_model
    from llamafarm.models.tokenizer import load_tokenizer
    from llamafarm.strategy.model import BaseModelSpec

    spec = BaseModelSpec(id="smollm2-135m-instruct")
    tokenizer = load_tokenizer(resolve_model(spec, working_directory=Path()).directory)
    texts = (tokenizer.decode([token]) for token in range(len(tokenizer)))
    return [text for text in texts if text.strip() and text.isprintable() and "\ufffd" not in text]


@contextmanager
def _one_thread() -> Iterator[None]:
    """So that the numbers do not depend on how many cores there are."""
    from llamafarm.decision import Decision

    decision = Decision("hardware.threads", "1", "default", "for the corpus")
    with mock.patch("llamafarm.planning.resolve.choose_threads", lambda _: (1, decision)):
        yield


@contextmanager
def _planted(fault: str) -> Iterator[None]:
    """Faults that lie in the machine or the program, not in the data or the strategy."""
    plant = {
        "slow_data": _slow_data,
        "frozen": lambda: _no_updates_from(1),
        "stalled": lambda: _no_updates_from(9),
        "small_memory": _small_memory,
    }.get(fault)
    if plant is None:
        yield
        return
    with plant():
        yield


def _slow_data() -> Any:
    from llamafarm.training.backends.pytorch.batches import BatchFeed

    batch = BatchFeed.batch

    def late(self: BatchFeed, step: int) -> Any:
        time.sleep(_DELAY_SECONDS)
        return batch(self, step)

    return mock.patch.object(BatchFeed, "batch", late)


def _no_updates_from(step: int) -> Any:
    """The optimizer does its work, and the weights are put back."""
    from torch.optim import AdamW

    update, count = AdamW.step, [0]

    def kept(self: AdamW, *given: Any, **named: Any) -> Any:
        import torch

        count[0] += 1
        if count[0] < step:
            return update(self, *given, **named)
        parameters = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        result = update(self, *given, **named)
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        return result

    return mock.patch.object(AdamW, "step", kept)


def _small_memory() -> Any:
    from tests.training.faulty import SmallMemory

    memory = SmallMemory(_MOST_TOKENS)
    path = "llamafarm.training.backends.pytorch.gradients.label_logits"
    return mock.patch(path, memory.label_logits)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # The run of the moment ends with the driver, where that one leaves by itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
