"""What a run leaves, seen from outside: whether it is the finished run, and whether a reader finds
the old state or the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.training.checkpoint import list_checkpoints, newest_valid, verify_checkpoint
from tests.faults.campaign.shim import Operation

# Of an event, what is the same in every run of one strategy.
_SAME: Mapping[str, tuple[str, ...]] = {
    "step": ("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "trained_tokens"),
    "eval": ("step", "epoch", "eval_loss", "perplexity", "accuracy", "rows", "best"),
}


@dataclass(frozen=True)
class Reference:
    """The run that nothing happened to. files: SHA-256 of each file of final_model; events: all
    losses, learning rates, norms and evaluations; seconds: how long it took; operations: all that
    it changed on disk.
    """

    weights: str
    files: Mapping[str, str]
    events: tuple[tuple[Any, ...], ...]
    seconds: float
    stopped_early: bool
    operations: tuple[Operation, ...]

    @property
    def steps(self) -> int:
        """How many optimizer steps it took."""
        return max(event[1] for event in self.events)


def reference_of(out: Path, seconds: float, operations: tuple[Operation, ...]) -> Reference:
    """What later runs are compared with."""
    assert run_status(out) == "completed", run_status(out)
    events = read_events(out)
    early = any(event["event"] == "early_stop" for event in events)
    return Reference(
        weights_hash(out / "final_model"),
        file_hashes(out / "final_model"),
        _same_events(events),
        seconds,
        early,
        operations,
    )


def unseen(out: Path, operations: Sequence[Operation]) -> list[str]:
    """Files that are not what the recorded operations made: something wrote past the shim."""
    sizes: dict[str, int | None] = {}
    for operation in operations:
        path, to = operation.path, operation.to
        if operation.kind == "create":
            sizes[path] = 0
        elif operation.kind == "truncate":
            sizes[path] = None
        elif operation.kind == "write" and (size := sizes.get(path)) is not None:
            sizes[path] = size + operation.size
        elif operation.kind == "unlink":
            sizes.pop(path, None)
        elif operation.kind == "rename":
            sizes = {_moved(name, path, to): size for name, size in sizes.items()}
    found = {str(f.relative_to(out)): f.stat().st_size for f in out.rglob("*") if f.is_file()}
    return [name for name, size in found.items() if sizes.get(name, -1) not in (None, size)]


def _moved(name: str, path: str, to: str) -> str:
    inside = name == path or name.startswith(f"{path}/")
    return to + name[len(path) :] if inside else name


def weights_hash(directory: Path) -> str:
    """SHA-256 over the weight files of a model directory."""
    digest = hashlib.sha256()
    files = sorted(f for f in directory.glob("*.safetensors") if f.stem != "optimizer")
    if not files:
        raise FileNotFoundError(f"no weights in {directory}")
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_events(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that have their newline."""
    file = out / "metrics.jsonl"
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]


def steps_of(out: Path) -> list[int]:
    """The steps that metrics.jsonl tells of, in its order."""
    return [event["step"] for event in read_events(out) if event["event"] == "step"]


def run_status(out: Path) -> str:
    """What run.json says; empty where there is none."""
    file = out / "run.json"
    return str(json.loads(file.read_text())["status"]) if file.exists() else ""


def newest_step(out: Path) -> int:
    """Step of the newest checkpoint that verifies; 0 where there is none."""
    checkpoint, _ = newest_valid(out / "checkpoints")
    return checkpoint.step if checkpoint else 0


def check_finished(out: Path, reference: Reference) -> str:
    """Why this is not the finished run; empty when it is."""
    if (status := run_status(out)) != "completed":
        return f"run.json says {status or 'nothing'}"
    if (found := weights_hash(out / "final_model")) != reference.weights:
        return f"other weights: {found[:12]} instead of {reference.weights[:12]}"
    if left := stages(out):
        return f"left behind: {', '.join(left)}"
    steps = steps_of(out)
    if steps != list(range(1, reference.steps + 1)):
        return f"metrics.jsonl has the steps {steps}"
    events = _same_events(read_events(out))
    if events != reference.events:
        other = next(a for a, b in zip(events, reference.events, strict=False) if a != b)
        return f"metrics.jsonl has other numbers: {other}"
    return ""


def check_state(out: Path, reference: Reference) -> str:
    """Why a reader, or a resume, would find neither the old state nor the new one right now."""
    if (out / "final_model").exists() and file_hashes(out / "final_model") != reference.files:
        return "final_model is not whole"
    return check_records(out)


def check_records(out: Path) -> str:
    """The same without the final model: where a save was refused, it may be of another step."""
    for name in ("run.json", "summary.json"):
        if (file := out / name).exists():
            try:
                json.loads(file.read_bytes())
            except ValueError as error:
                return f"{name} is half a file: {error}"
    checkpoints = list_checkpoints(out / "checkpoints")
    faults = [(c.step, verify_checkpoint(c.path)) for c in checkpoints]
    faulty = [f"{step}: {fault}" for step, fault in faults if fault]
    if len(faulty) == len(faults) and faulty:
        return f"no checkpoint verifies ({'; '.join(faulty)})"
    return ""


def last_lines(text: str, count: int = 6) -> str:
    """Of what a run has said."""
    return "\n".join(text.splitlines()[-count:])


def stages(out: Path) -> list[str]:
    """What an unfinished write has left."""
    return sorted(str(path.relative_to(out)) for path in out.rglob(".tmp-*"))


def file_hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of each file, by its path."""
    # The model card tells how long the run took.
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != "README.md"
    }


def _same_events(events: list[dict[str, Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(
        (event["event"], *(event[name] for name in _SAME[event["event"]]))
        for event in events
        if event["event"] in _SAME
    )
