"""What runs inside LLaMA-Factory's own environment, by that environment's Python: its trainer, with
a callback that tells this project's process what happens, and asks it what to do.

`process.py` starts it as a file, never imports it, and it imports nothing of llamafarm. Two pipes,
a line of JSON each: `say` out, answers in. The pipe in also says that the other process is gone:
then this one ends as well, whatever it is doing.

Its sentences: `loading` · `ready` (the model is built) · `step` (asks what is due) · `numbers` (its
log of the step) · `evaluating` (rows done) · `smaller` (fewer rows at a time, for want of memory) ·
`evaluated` · `turn` (asks whether to save and stop) · `saved`, `not_saved` · `nonfinite` (the step
is left out) · `facts` and `row` (for a comparison) · `over`.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import math
import os
import queue
import resource
import shutil
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

IGNORED = -100


class Line:
    """The two pipes. stopping: the other process asked to end soon."""

    def __init__(self, out: int, into: int) -> None:
        self._out = os.fdopen(out, "w", encoding="utf-8")
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stopping = threading.Event()
        threading.Thread(target=self._listen, args=(into,), daemon=True).start()

    def _listen(self, into: int) -> None:
        with os.fdopen(into, encoding="utf-8") as lines:
            for line in lines:
                said = json.loads(line)
                if said.get("stop_soon"):
                    self.stopping.set()
                else:
                    self._answers.put(said)
        os._exit(0)

    def say(self, sentence: str, **values: Any) -> None:
        """Tell."""
        self._out.write(json.dumps({"say": sentence, **values}) + "\n")
        self._out.flush()

    def ask(self, sentence: str, **values: Any) -> dict[str, Any]:
        """Tell, and wait for the answer."""
        self.say(sentence, **values)
        return self._answers.get()


class Bridge:
    """One training, as its trainer goes through it. job: what `process.py` wrote for it."""

    def __init__(self, line: Line, job: dict[str, Any]) -> None:
        import torch

        self.torch, self.line, self.job = torch, line, job
        self.trainer: Any = None
        self.due: dict[str, Any] = {}
        self.evaluating = False
        self.tokens = job["tokens"]
        self.trained_tokens = job["trained_tokens"]
        self.step_loss: Any = 0.0
        self.step_labels: Any = 0
        self.finite = True
        self.not_saved = ""
        self.eval_rows = job["eval_batch_size"]
        self.begun = time.monotonic()

    # Around the trainer's own methods: what no callback is told.

    def count(self, inputs: Any) -> None:
        """The tokens of a micro-batch, before it is used up."""
        self.tokens += int(inputs["attention_mask"].sum())
        trained = int((inputs["labels"][..., 1:] != IGNORED).sum())
        self.trained_tokens += trained
        self.step_labels += trained

    def add_loss(self, loss: Any) -> None:
        """The share of a micro-batch in the loss of its step."""
        self.step_loss = self.step_loss + loss.detach()

    def save(self, write: Any) -> None:
        """A save of the trainer's. One that fails is told, and costs nothing that was there."""
        place = Path(self.trainer.args.output_dir) / f"checkpoint-{self.trainer.state.global_step}"
        try:
            write()
        except Exception as error:  # a disk, safetensors or torch may each say it differently
            self.not_saved = f"{type(error).__name__}: {error}"
            shutil.rmtree(place, ignore_errors=True)

    # Moments of the training.

    def on_train_begin(self, args: Any, state: Any, control: Any) -> None:
        """Before the first step of this process."""
        trainer = self.trainer
        model = trainer.model
        said = self.line.ask(
            "ready",
            step=state.global_step,
            total_steps=state.max_steps,
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            device=str(args.device),
            effective_batch_size=args.per_device_train_batch_size
            * args.gradient_accumulation_steps
            * args.world_size,
            dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        )
        if self.job["mode"] == "compare":
            self._tell_facts(state.max_steps)
            self.finish()
        if said["evaluate"]:
            self._evaluate()
            said = self.line.ask("turn")
        if said["stop"]:
            self.finish()
        self.begun = time.monotonic()

    def on_pre_optimizer_step(self, state: Any) -> None:
        """A non-finite number must not reach the weights."""
        torch = self.torch
        gradients = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        norms = torch._foreach_norm(gradients)
        total = torch.stack([norm.to(norms[0].device) for norm in norms]).sum()
        loss = float(self.step_loss)
        # A gradient scaler leaves out steps that overflow, until it has found its scale.
        scaled = getattr(self.trainer.accelerator, "scaler", None) is not None
        self.finite = math.isfinite(loss) and (scaled or bool(torch.isfinite(total)))
        if self.finite:
            return
        what = "gradient" if math.isfinite(loss) else "loss"
        self.line.ask("nonfinite", step=state.global_step + 1, what=what)
        for parameter in self.trainer.model.parameters():
            parameter.grad = None

    def on_step_end(self, state: Any, control: Any) -> None:
        """Ask what is due; the trainer logs before it saves."""
        counted = self.step_labels if self.finite else 0
        self.due = self.line.ask(
            "step",
            step=state.global_step,
            epoch=state.epoch,
            tokens=self.tokens,
            trained_tokens=self.trained_tokens,
            loss_sum=float(self.step_loss) * counted if counted else 0.0,
            labels=counted,
            seconds=time.monotonic() - self.begun,
        )
        self.step_loss, self.step_labels = 0.0, 0
        control.should_log = any(self.due.values())
        self.begun = time.monotonic()

    def on_log(self, logs: Any, control: Any) -> None:
        """The trainer's log of a step, then what is due."""
        if self.evaluating or not any(self.due.values()):
            return
        due, self.due = self.due, {}
        if due["log"]:
            self.line.say("numbers", logs=_plain(logs), memory=self._memory())
        if due["evaluate"]:
            self._evaluate()
        self._take_turn(control)
        self.begun = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any) -> None:
        """A checkpoint of the trainer's own is on disk, or could not be written."""
        place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.not_saved:
            why, self.not_saved = self.not_saved, ""
            self.line.ask("not_saved", why=why)
        else:
            self.line.ask("saved", path=str(place.absolute()))
        self.begun = time.monotonic()
        if control.should_training_stop:
            self.finish()

    def finish(self) -> None:
        """Nothing is left to do: no second copy of the model, no model card."""
        self.line.ask("over", peak_memory=self._memory(peak=True))
        leave()

    def _take_turn(self, control: Any) -> None:
        said = self.line.ask("turn")
        control.should_save = bool(said["save"])
        if said["stop"]:
            control.should_training_stop = True
            if not said["save"]:
                self.finish()

    def _memory(self, *, peak: bool = False) -> int:
        torch = self.torch
        if torch.cuda.is_available() and self.trainer.args.device.type == "cuda":
            found = torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated
            return int(found())
        if peak:
            scale = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        except OSError:
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    # Evaluation.

    def _evaluate(self) -> None:
        started = time.monotonic()
        self.evaluating = True
        try:
            values = self._by_row()
        finally:
            self.evaluating = False
        self.line.ask("evaluated", seconds=time.monotonic() - started, **values)

    def _by_row(self) -> dict[str, Any]:
        """Each row's mean loss, its trained tokens, and how many of them are ranked first; of
        pairs each one's loss, and whether the chosen answer is preferred.
        """
        trainer, pairs = self.trainer, self.job["pairs"]
        measure = self._pair if pairs else self._rows
        dataset = trainer.eval_dataset
        if dataset is None:  # of a comparison: there is nothing to evaluate while training
            few = min(len(trainer.train_dataset), self.job["rows_measured"])
            dataset = trainer.train_dataset.select(range(few))
        losses: list[float | None] = []
        tokens: list[int] = []
        correct: list[int] = []
        trainer.model.eval()
        try:
            while (start := len(losses)) < len(dataset):
                if self.line.stopping.is_set():
                    return {"aborted": True}
                stop = min(start + (1 if pairs else self.eval_rows), len(dataset))
                rows = self._measured(measure, [dataset[i] for i in range(start, stop)])
                for loss, count, right in rows:
                    losses.append(loss if math.isfinite(loss) else None)
                    tokens.append(count)
                    correct.append(right)
                self.line.say("evaluating", rows_done=len(losses), rows=len(dataset))
        finally:
            trainer.model.train()
        return {"losses": losses, "tokens": tokens, "correct": correct}

    def _measured(self, measure: Any, features: list[dict[str, Any]]) -> Any:
        """Nothing where memory was short: the same rows come again, fewer at a time."""
        try:
            return measure(features)
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error).lower() or len(features) == 1:
                raise
            why = str(error)
        self.eval_rows = len(features) // 2
        if self.torch.cuda.is_available():
            self.torch.cuda.empty_cache()
        self.line.say("smaller", rows=self.eval_rows, why=why[:160])
        return []

    def _rows(self, features: list[dict[str, Any]]) -> list[tuple[float, int, int]]:
        torch, trainer = self.torch, self.trainer
        inputs = trainer._prepare_inputs(trainer.data_collator([dict(f) for f in features]))
        labels = inputs.pop("labels")[:, 1:]
        with torch.no_grad(), trainer.compute_loss_context_manager():
            logits = trainer.model(**inputs).logits[:, :-1]
        found = []
        for row in range(len(features)):
            scored = labels[row] != IGNORED
            wanted, given = labels[row][scored], logits[row][scored].float()
            loss = torch.nn.functional.cross_entropy(given, wanted, reduction="none").double()
            right = int((given.argmax(dim=-1) == wanted).sum())
            found.append((float(loss.mean()), int(scored.sum()), right))
        return found

    def _pair(self, features: list[dict[str, Any]]) -> list[tuple[float, int, int]]:
        torch, trainer = self.torch, self.trainer
        inputs = trainer._prepare_inputs(trainer.data_collator([dict(f) for f in features]))
        with torch.no_grad(), trainer.compute_loss_context_manager():
            loss, metrics = trainer.get_batch_loss_metrics(trainer.model, inputs, "eval")
        return [(float(loss), 1, round(metrics["eval_rewards/accuracies"]))]

    # Comparison.

    def _tell_facts(self, total_steps: int) -> None:
        trainer = self.trainer
        groups = trainer.optimizer.param_groups
        schedule = trainer.lr_scheduler
        rates = [
            base * scale(step)
            for base, scale in zip(schedule.base_lrs[:1], schedule.lr_lambdas[:1], strict=True)
            for step in range(total_steps)
        ]
        self.line.say(
            "facts",
            learning_rates=rates,
            weight_decays=sorted({float(g["weight_decay"]) for g in groups if g["params"]}),
            optimizer=type(getattr(trainer.optimizer, "optimizer", trainer.optimizer)).__name__,
            step_0=self._by_row(),
        )
        for name, dataset in (("train", trainer.train_dataset), ("eval", trainer.eval_dataset)):
            most = self.job["rows_compared"]
            for row in range(min(len(dataset), most) if dataset is not None else 0):
                batch = trainer.data_collator([dict(dataset[row])])
                seen = batch["attention_mask"][0].bool()
                ids, labels = (batch[key][0][seen].tolist() for key in ("input_ids", "labels"))
                self.line.say("row", side=name, ids=ids, labels=labels)


def _plain(values: Any) -> dict[str, Any]:
    """What JSON has, and finite."""
    found = {}
    for name, value in values.items():
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, float) and not math.isfinite(number):
            number = None
        found[name] = number
    return found


def callback(bridge: Bridge) -> Any:
    """The bridge as the trainer calls it."""
    from transformers import TrainerCallback

    class Telling(TrainerCallback):  # type: ignore[misc]  # untyped here
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bridge.on_train_begin(args, state, control)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bridge.on_pre_optimizer_step(state)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bridge.on_step_end(state, control)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            bridge.on_log(logs or {}, control)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            bridge.on_save(args, state, control)

    return Telling()


def watch(bridge: Bridge) -> None:
    """No callback is told of the trainer itself, of a batch, or of its loss."""
    from transformers import Trainer

    train, training_step = Trainer.train, Trainer.training_step
    save_checkpoint = Trainer._save_checkpoint

    def telling_train(self: Any, *args: Any, **kwargs: Any) -> Any:
        bridge.trainer = self
        return train(self, *args, **kwargs)

    def counting_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        bridge.count(inputs)
        loss = training_step(self, model, inputs, *args, **kwargs)
        bridge.add_loss(loss)
        return loss

    def telling_save(self: Any, *args: Any, **kwargs: Any) -> None:
        bridge.save(lambda: save_checkpoint(self, *args, **kwargs))

    Trainer.train, Trainer.training_step = telling_train, counting_step
    Trainer._save_checkpoint = telling_save


def leave() -> None:
    """At once: nothing that is left in this process is wanted."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def stand_in_for_torchaudio() -> None:
    """LLaMA-Factory imports it for rows with sound, which are never given to it here; its wheels do
    not load without CUDA.
    """
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        module = types.ModuleType("torchaudio")
        module.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        module.__version__ = "0.0.0"  # type: ignore[attr-defined]
        sys.modules["torchaudio"] = module


def main() -> None:
    """argv: the job's file, and the numbers of the two pipes."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    line = Line(int(sys.argv[2]), int(sys.argv[3]))
    stand_in_for_torchaudio()
    import torch
    import yaml

    torch.set_num_threads(job["threads"])
    arguments = yaml.safe_load(Path(job["arguments"]).read_text(encoding="utf-8"))
    tuner = importlib.import_module("llamafactory.train.tuner")
    line.say("loading")
    bridge = Bridge(line, job)
    watch(bridge)
    tuner.run_exp(arguments, callbacks=[callback(bridge)])
    # The trainer ended without a word of ours: it had no step to take.
    bridge.finish()


if __name__ == "__main__":
    main()
