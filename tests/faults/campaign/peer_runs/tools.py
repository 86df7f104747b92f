"""The tools that are driven, each behind the same few questions: start it, where are its weights,
where are its checkpoints, where can it be killed. None of them knows what is judged.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from llamafarm.training.backends.llamafactory.environment import VERSION
from tests.faults.campaign.peer_runs.faults import InItsProcess, InSave, InTraining, points_of
from tests.faults.campaign.peer_runs.processes import start_script
from tests.faults.campaign.peer_runs.scripts import ARGUMENTS, FINAL
from tests.faults.campaign.shim import Fault, Shim, read_log
from tests.faults.campaign.workplace import Workplace, make_workplace
from tests.faults.campaign.zygote import shared_zygote

Before = Callable[[], object]
LLAMAFACTORY = "llamafarm, `type: llamafactory`"
_EQUAL = ("max_steps", "eval_steps", "save_steps", "save_total_limit", "learning_rate")


class Process(Protocol):
    """A run in progress, or done."""

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def signal(self, number: Any) -> bool: ...

    @property
    def stdout(self) -> str: ...

    @property
    def stderr(self) -> str: ...


@dataclass(frozen=True)
class Scene:
    """The directory of one case: `out` is the run's, everything else lies beside it."""

    root: Path
    out: Path

    @property
    def steps(self) -> Path:
        """A line for every optimizer step of its processes."""
        return self.root / "steps.log"

    def stream(self) -> Path:
        """A new name for the streams of a process."""
        return self.root / f"process-{len(list(self.root.glob('process-*.stderr')))}"


@dataclass(frozen=True, slots=True)
class Point:
    """Where a save can be cut: the at-th of its points; within: in the middle of a write."""

    name: str
    at: int
    within: bool = False


class Tool(Protocol):
    """One way of training with one tool. name, version, method: as published."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def method(self) -> str: ...

    def start(
        self, scene: Scene, settings: Sequence[str] = (), before: Before | None = None
    ) -> Process:
        """The command that a person starts, and starts again after a fault."""

    def final(self, out: Path) -> Path:
        """The directory of the final weights."""

    def checkpoints(self, out: Path) -> list[Path]:
        """Directories with a checkpoint's name, oldest first."""

    def weights(self, checkpoint: Path) -> Path:
        """The weights of a checkpoint or of the final model."""

    def optimizer(self, checkpoint: Path) -> Path:
        """The optimizer's state in a checkpoint."""

    def in_save(self, out: Path) -> bool:
        """Whether what is there is a save cut short."""

    def kill(self, scene: Scene, step: int, log: Path, point: Point | None) -> Before:
        """A kill in the save after a step; None: only the log is written."""

    def points(self, log: Path, step: int) -> list[Point]:
        """From the log of a run that was not killed."""

    def told_of(self, out: Path, step: int) -> str:
        """What its own records say of a step's loss."""


@dataclass(frozen=True)
class Peer:
    """A script for another library."""

    name: str
    version: str
    method: str
    script: str
    weights_file: str
    workplace: Workplace

    def start(
        self, scene: Scene, settings: Sequence[str] = (), before: Before | None = None
    ) -> Process:
        """The script itself goes on from the last checkpoint."""
        argv = (self.script, str(self.workplace.root), str(scene.out), *settings)
        return start_script(argv, scene.stream(), before)

    def final(self, out: Path) -> Path:
        return out / FINAL

    def checkpoints(self, out: Path) -> list[Path]:
        return _numbered(out)

    def weights(self, checkpoint: Path) -> Path:
        return checkpoint / self.weights_file

    def optimizer(self, checkpoint: Path) -> Path:
        return checkpoint / "optimizer.pt"

    def in_save(self, out: Path) -> bool:
        """trainer_state.json is written last."""
        states = [path / "trainer_state.json" for path in self.checkpoints(out)]
        return any(not state.exists() or state.stat().st_size == 0 for state in states)

    def kill(self, scene: Scene, step: int, log: Path, point: Point | None) -> Before:
        return InSave(scene.out, step, log, point.at if point else 0)

    def points(self, log: Path, step: int) -> list[Point]:
        names = points_of(log)
        # A directory that is already there is made again before every file.
        return [Point(n, at) for at, n in enumerate(names, start=1) if n not in names[: at - 1]]

    def told_of(self, out: Path, step: int) -> str:
        history: list[dict[str, Any]] = []
        for checkpoint in self.checkpoints(out):
            history = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
        losses = [(e["step"] - step, e["loss"]) for e in history if "loss" in e]
        at, after = ([x for n, x in losses if n == 0], [x for n, x in losses if n > 0])
        return f"loss in its log: {_kind_of(at)}, later {_kind_of(after)}"


@dataclass(frozen=True)
class Ours:
    """The command of this package. strategy: of the workplace."""

    method: str
    strategy: str
    weights_file: str
    workplace: Workplace
    name: str = "llamafarm"
    version: str = version("llamafarm")

    def start(
        self, scene: Scene, settings: Sequence[str] = (), before: Before | None = None
    ) -> Process:
        """`--resume` starts at step 0 where there is nothing to go on from."""
        argv = ("train", "--strategy", self.strategy, "--output", str(scene.out), "--resume")
        more = [word for setting in settings for word in ("--set", setting)]
        return shared_zygote().start(
            (*argv, *more), self.workplace.root, self.workplace.env, before
        )

    def final(self, out: Path) -> Path:
        return out / "final_model"

    def checkpoints(self, out: Path) -> list[Path]:
        return _numbered(out / "checkpoints")

    def weights(self, checkpoint: Path) -> Path:
        return checkpoint / self.weights_file

    def optimizer(self, checkpoint: Path) -> Path:
        return checkpoint / "optimizer.safetensors"

    def in_save(self, out: Path) -> bool:
        """A directory aside is renamed last."""
        return any((out / "checkpoints").glob(".tmp-*"))

    def kill(self, scene: Scene, step: int, log: Path, point: Point | None) -> Before:
        if point is None:
            return Shim(scene.out, log)
        return Shim(scene.out, log, Fault("kill", point.at, "within" if point.within else "before"))

    def points(self, log: Path, step: int) -> list[Point]:
        """All changes of the save and of the rotation after it."""
        found, active = [], False
        for operation in read_log(log)[0]:
            named = re.search(r"checkpoint-(\d+)", operation.path)
            if named and int(named[1]) >= step:
                active = int(named[1]) == step
            if not active or operation.phase not in ("save", "rotate"):
                continue
            name = f"{operation.kind} {operation.path}"
            found.append(Point(f"before {name}", operation.number))
            if operation.kind == "write" and operation.size > 1:
                found.append(Point(f"in the middle of {name}", operation.number, within=True))
        return found

    def told_of(self, out: Path, step: int) -> str:
        lines = (out / "metrics.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        named = sorted({e["event"] for e in events if "finite" in e["event"]})
        return f"{', '.join(named) or 'nothing'} in metrics.jsonl"


class OursThroughLlamaFactory(Ours):
    """The same command with the other fine-tuner: what is done inside a training is done inside its
    process, everything else to the process that was started.
    """

    def start(
        self, scene: Scene, settings: Sequence[str] = (), before: Before | None = None
    ) -> Process:
        if isinstance(before, InTraining):
            before = InItsProcess(before, scene.stream().with_suffix(".py"))
        return super().start(scene, ("backend=llamafactory", *settings), before)

    def optimizer(self, checkpoint: Path) -> Path:
        return checkpoint / "llamafactory_optimizer.pt"


def make_tools(root: Path) -> list[Tool]:
    """All that are driven, with one model, one data set, equal settings. root: is absent."""
    equal = {key: ARGUMENTS[key] for key in _EQUAL}
    changes = {name: {**equal, "lr_scheduler_type": "cosine"} for name in ("lora", "full")}
    place = make_workplace(root, changes)
    adapter, model = "adapter_model.safetensors", "model.safetensors"
    return [
        Peer(
            "Hugging Face Trainer",
            f"transformers {version('transformers')}",
            "full",
            "hugging_face",
            model,
            place,
        ),
        Peer("TRL SFTTrainer", f"trl {version('trl')}", "LoRA", "trl", adapter, place),
        Ours("LoRA", "lora", adapter, place),
        Ours("full", "full", model, place),
        OursThroughLlamaFactory(
            "LoRA", "lora", adapter, place, LLAMAFACTORY, f"LLaMA-Factory {VERSION}"
        ),
    ]


def _numbered(directory: Path) -> list[Path]:
    found = [path for path in directory.glob("checkpoint-*") if path.is_dir()]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def _kind_of(losses: Sequence[float]) -> str:
    if not losses:
        return "none"
    if any(math.isnan(loss) for loss in losses):
        return "NaN"
    return "0.0" if max(losses) == 0 else "a finite number"
