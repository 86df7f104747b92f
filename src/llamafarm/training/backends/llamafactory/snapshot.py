"""A checkpoint of LLaMA-Factory's trainer as one of this project: the same model files as any other
run's, its state for a resume under names of its own, and a manifest over all of it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llamafarm.errors import RunError
from llamafarm.planning.plan import TrainingPlan
from llamafarm.training.backends.pytorch.tensors import decode, encode
from llamafarm.training.checkpoint import STATE_FILE
from llamafarm.training.state import LoopState
from llamafarm.training.static_files import static_files

ADAPTER_CONFIG = "adapter_config.json"
_PREFIX = "llamafactory_"
# What its trainer reads for a resume, besides the weights; these are pickles but for one.
_OWN = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "trainer_state.json")


class TrainerSnapshot:
    """What the trainer has saved last. saved: its directory; None: nothing yet."""

    resume_only = (STATE_FILE, *(_PREFIX + name for name in _OWN))

    def __init__(self, plan: TrainingPlan, tokenizer: Any, identity: Mapping[str, str]) -> None:
        self._plan, self._tokenizer, self._identity = plan, tokenizer, dict(identity)
        self._static: Mapping[str, bytes] | None = None
        self.saved: Path | None = None

    def model_files(self) -> Iterator[tuple[str, bytes | memoryview]]:
        """Weights as the trainer wrote them, with this project's static files."""
        saved = self._require()
        if self._static is None:
            self._static = static_files(self._plan, self._tokenizer, self._save_config)
        yield from self._static.items()
        for path in _weight_files(saved):
            yield from _file(path, path.name)

    def files(self, state: LoopState) -> Iterator[tuple[str, bytes | memoryview]]:
        """With everything that its trainer needs to go on."""
        saved = self._require()
        yield from self.model_files()
        for name in _OWN:
            if (saved / name).is_file():
                yield from _file(saved / name, _PREFIX + name)
        record = {
            "global_step": state.step,
            "best_metric": state.best_metric,
            "best_global_step": state.best_step,
            "loop": {name: encode(value) for name, value in state.to_json().items()},
            "optimizer": {},
            "identity": self._identity,
        }
        yield STATE_FILE, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()

    def num_bytes(self) -> int:
        """Of the files that are large."""
        if self.saved is None:
            return 0
        own = [self.saved / name for name in _OWN]
        return sum(p.stat().st_size for p in (*_weight_files(self.saved), *own) if p.is_file())

    def non_finite(self) -> tuple[str, ...]:
        """Names of weights that hold a NaN or an Infinity."""
        import torch
        from safetensors import safe_open

        found = []
        for path in _weight_files(self._require()):
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118  # no mapping
                    tensor = weights.get_tensor(name)
                    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                        found.append(name)
        return tuple(found)

    def restore(self, path: Path) -> LoopState:
        """The state of the loop; the trainer reads the rest itself."""
        try:
            saved = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
            return LoopState.from_json({k: decode(v) for k, v in saved["loop"].items()})
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"{path} does not hold the state of this run ({type(error).__name__}: {error})",
                hint="remove it: --resume then goes on from the one before",
            ) from error

    def _save_config(self, directory: Path) -> None:
        saved = self._require()
        if self._plan.adapter is not None:
            config = json.loads((saved / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            config["base_model_name_or_path"] = self._plan.model.source.name
            config["inference_mode"] = True
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            (directory / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
        else:
            config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
            config["use_cache"] = True
            text = json.dumps(config, indent=2) + "\n"
            (directory / "config.json").write_text(text, encoding="utf-8")
        generation = self._plan.model.source.directory / "generation_config.json"
        if generation.is_file():
            (directory / generation.name).write_bytes(generation.read_bytes())

    def _require(self) -> Path:
        if self.saved is None:
            raise FileNotFoundError("LLaMA-Factory has not saved anything")
        return self.saved


def own_names(checkpoint: Path) -> dict[str, str]:
    """Of the files that its trainer needs to go on: their names here, and its own."""
    own = {_PREFIX + name: name for name in _OWN}
    kept = (*(p.name for p in _weight_files(checkpoint)), ADAPTER_CONFIG, "config.json")
    names = own | {name: name for name in kept}
    return {name: own_name for name, own_name in names.items() if (checkpoint / name).is_file()}


def _weight_files(directory: Path) -> list[Path]:
    return sorted((*directory.glob("*.safetensors"), *directory.glob("*.safetensors.index.json")))


def _file(path: Path, name: str) -> Iterator[tuple[str, bytes | memoryview]]:
    """Mapped: an optimizer's state may be larger than memory."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            yield name, b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                yield name, view
            finally:
                with contextlib.suppress(BufferError):
                    view.release()
