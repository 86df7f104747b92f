"""What a checkpoint holds is what is put back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from llamafarm.errors import RunError
from llamafarm.models.packing_probe import Packability
from llamafarm.training.backends.pytorch import snapshot as module
from llamafarm.training.backends.pytorch.model import TrainableModel
from llamafarm.training.backends.pytorch.snapshot import Snapshot
from llamafarm.training.checkpoint import STATE_FILE
from llamafarm.training.state import LoopState

SOURCE = Path(module.__file__).parents[4]
STATE = LoopState(
    step=3,
    epoch=0.6,
    loss_sum=1 / 3,
    base_eval_loss=math.nan,
    best_step=2,
    best_metric=1.1,
    token_budget=77,
    eval_rows=2,
    activations_recomputed=True,
    recent_losses=[0.1, 0.2],
    recent_norms=[-1.0],
)


class Parts:
    """A small run after some steps of Adam, and its snapshot."""

    def __init__(self, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 0.9**step)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**seed)
        trainable = TrainableModel(
            self.model, Packability(True, ""), {"config.json": b"{}"}, is_adapter=False
        )
        self.snapshot = Snapshot(
            trainable, self.optimizer, self.scheduler, self.scaler, {"seed": str(seed)}
        )
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.ones(1, 3)).square().sum().backward()
        self.optimizer.step()
        self.scheduler.step()

    @property
    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]


def write(parts: Parts, directory: Path, state: LoopState = STATE) -> Path:
    directory.mkdir()
    for name, data in parts.snapshot.files(state):
        (directory / name).write_bytes(data)
    return directory


def test_what_is_put_back_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    first, second = Parts(1, steps=3), Parts(2, steps=1)
    restored = second.snapshot.restore(write(first, tmp_path / "checkpoint-3"))
    assert repr(restored) == repr(STATE)  # a NaN is not equal to itself
    assert second.scaler.state_dict() == first.scaler.state_dict()
    first.step()
    second.step()
    assert all(torch.equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))
    assert second.scheduler.get_last_lr() == first.scheduler.get_last_lr()


def test_a_finished_model_lacks_exactly_what_only_a_resume_needs(tmp_path: Path) -> None:
    parts = Parts(1, steps=1)
    whole = {name for name, _ in parts.snapshot.files(STATE)}
    assert whole - {name for name, _ in parts.snapshot.model_files()} == set(
        parts.snapshot.resume_only
    )


def test_the_state_is_json_that_says_what_it_belongs_to(tmp_path: Path) -> None:
    path = write(Parts(1, steps=1), tmp_path / "checkpoint-3")
    saved = json.loads((path / STATE_FILE).read_text())
    assert saved["global_step"] == 3
    assert saved["best_global_step"] == 2
    assert saved["identity"] == {"seed": "1"}


def test_its_size_is_known_before_it_is_written() -> None:
    parts = Parts(1, steps=2)
    files = dict(parts.snapshot.files(STATE))
    small = len(files[STATE_FILE]) + 2000  # and the headers of the two files
    written = sum(len(data) for data in files.values())
    assert written - small <= parts.snapshot.num_bytes() <= written


def test_weights_and_moments_that_are_not_finite_are_named() -> None:
    parts = Parts(1, steps=2)
    assert parts.snapshot.non_finite() == ()
    with torch.no_grad():
        parts.model[0].weight[0, 0] = math.nan
        parts.optimizer.state[parts.model[1].bias]["exp_avg_sq"][0] = math.inf
    assert parts.snapshot.non_finite() == ("0.weight", "optimizer state 3, exp_avg_sq")


PROGRAM = r"""
import re, resource
from pathlib import Path
import torch
from tests.training.test_snapshot import STATE, Parts
parts = Parts(1, steps=1)
state = parts.optimizer.state[parts.model[0].weight]
LARGE
held = int(re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 10 * 2**20, resource.RLIM_INFINITY))
written = []
try:
    for name, _ in parts.snapshot.files(STATE):
        written.append(name)
except MemoryError:
    print("refused", *written)
"""
LARGE = {
    "optimizer": "state['exp_avg'] = torch.ones(5_000_000)",
    "weights": "parts.model[0].weight.data = torch.ones(5_000_000)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a limit")
@pytest.mark.parametrize("what", LARGE)
def test_no_memory_to_write_it_is_an_error_and_not_the_end_of_the_process(what: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("LARGE", LARGE[what])],
        cwd=root,
        env={"PYTHONPATH": f"{SOURCE}:{root}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.split()
    assert said[:2] == ["refused", "config.json"]
    assert ("model.safetensors" in said) == (what == "optimizer")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("optimizer", {"names": 3}),
        ("optimizer", {"names": [], "values": {}, "param_groups": []}),
        ("scheduler", {"dict": [["last_epoch"]]}),
        ("loop", {"step": {"tensor": [1], "dtype": "nothing"}}),
        ("loop", []),
    ],
)
def test_a_state_of_another_shape_is_refused_by_name(
    tmp_path: Path, part: str, value: object
) -> None:
    path = write(Parts(0, 2), tmp_path / "checkpoint-2")
    state = json.loads((path / STATE_FILE).read_text())
    (path / STATE_FILE).write_text(json.dumps(state | {part: value}))
    with pytest.raises(RunError, match="checkpoint-2 does not hold the state of this run"):
        Parts(0, 0).snapshot.restore(path)
