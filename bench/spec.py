"""What every engine is given and what it gives back. Standard library only: both environments
import it.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

IGNORED_LABEL = -100
SMOLLM2_LINEAR_LAYERS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)


@dataclass(frozen=True, slots=True)
class Engine:
    """One column of the comparison. options: flags that differ from the tool as it is shipped.

    same_steps False: it groups rows in its own way, so single steps cannot be compared with the
    others'.
    """

    name: str
    title: str
    tool: str
    options: Mapping[str, Any] = field(default_factory=dict)
    same_steps: bool = True


ENGINES = (
    Engine("llamafarm", "llamafarm", "llamafarm"),
    Engine("trl", "TRL, as shipped", "trl"),
    Engine(
        "trl-no-checkpointing",
        "TRL, gradient_checkpointing=False",
        "trl",
        {"gradient_checkpointing": False},
    ),
    Engine(
        "trl-padding-free",
        "TRL, padding_free=True, no checkpointing",
        "trl",
        {"gradient_checkpointing": False, "padding_free": True},
    ),
    Engine(
        "trl-packing",
        "TRL, packing=True, no checkpointing",
        "trl",
        {"gradient_checkpointing": False, "packing": True},
        same_steps=False,
    ),
)
OURS, BASELINE = ENGINES[0], ENGINES[1]


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation. labels: the token id where it is trained, IGNORED_LABEL elsewhere."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def num_trained(self) -> int:
        """Predictions that are scored: labels behind the first position."""
        return sum(label != IGNORED_LABEL for label in self.labels[1:])


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run of one engine. Files are absolute paths; rows_file holds rows in the order they are
    trained in.
    """

    model_directory: str
    rows_file: str
    output_directory: str
    batch_size: int = 8
    warmup_steps: int = 5
    timed_steps: int = 10
    threads: int = 2
    seed: int = 42
    learning_rate: float = 5e-4
    scheduler: str = "linear"
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    lora_r: int = 8
    lora_alpha: int = 16
    target_modules: tuple[str, ...] = SMOLLM2_LINEAR_LAYERS
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run."""
        return self.warmup_steps + self.timed_steps

    @property
    def num_rows(self) -> int:
        """Rows that are trained on."""
        return self.total_steps * self.batch_size

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> RunSpec:
        """Read what `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        return RunSpec(**(values | {"target_modules": tuple(values["target_modules"])}))


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step. tokens: of the conversations as written; slots: positions that were
    computed, padding included (fewer than tokens where a common start is computed once); loss: per
    trained token, before the update.
    """

    seconds: float
    tokens: int
    trained_tokens: int
    slots: int
    loss: float
    grad_norm: float


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What one process of an engine measured.

    first_loss: of the first batch_size rows under the untrained adapter, as the engine itself
    computes it; settings: every setting that differs from the tool's own default; load_average: of
    the machine just before the first step.
    """

    steps: tuple[Step, ...]
    first_loss: float
    peak_rss_bytes: int
    loaded_rss_bytes: int
    load_average: float
    adapter_directory: str
    versions: Mapping[str, str]
    settings: Mapping[str, Any]

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> EngineRun:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        return EngineRun(**(values | {"steps": tuple(Step(**step) for step in values["steps"])}))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """One row a line."""
    lines = [json.dumps(asdict(row), separators=(",", ":")) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote."""
    lines = path.read_text(encoding="utf-8").splitlines()
    values = [json.loads(line) for line in lines]
    return [Row(tuple(value["input_ids"]), tuple(value["labels"])) for value in values]


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far. The unit of ru_maxrss is a byte on macOS, 1
    KiB on Linux.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
