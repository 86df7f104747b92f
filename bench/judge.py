"""The neutral judge: stock transformers and PEFT, one conversation at a time, in fp32. `python -m
bench.judge SPEC.json`.

It says what the first step's loss must be, and what each saved adapter is worth on rows that nobody
trained on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from bench.spec import IGNORED_LABEL, Row, read_rows


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """adapters: directory by engine name."""

    model_directory: str
    first_rows_file: str
    num_first_rows: int
    held_out_file: str
    adapters: Mapping[str, str]
    threads: int

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Losses per trained token. first_loss: base model on the first step's rows; held_out: by
    engine name.
    """

    first_loss: float
    base_held_out_loss: float
    held_out: Mapping[str, float]

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def judge(spec: JudgeSpec) -> Verdict:
    """Judge the base and every adapter."""
    from peft import PeftModel

    torch.set_num_threads(spec.threads)
    first = read_rows(Path(spec.first_rows_file))[: spec.num_first_rows]
    held_out = read_rows(Path(spec.held_out_file))
    base = load(spec.model_directory)
    first_loss, base_loss = mean_loss(base, first), mean_loss(base, held_out)
    losses = {}
    for name, directory in spec.adapters.items():
        model = PeftModel.from_pretrained(load(spec.model_directory), directory).eval()
        losses[name] = mean_loss(model, held_out)
    return Verdict(first_loss, base_loss, losses)


def load(directory: str) -> Any:
    """The base model, in fp32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@torch.no_grad()
def mean_loss(model: Any, rows: Sequence[Row]) -> float:
    """Mean cross-entropy per trained token over all rows, summed in float64."""
    total, count = 0.0, 0
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1]
        labels = torch.tensor(row.labels[1:])
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="none")
        total += float(losses.double().sum())
        count += row.num_trained
    return total / count


if __name__ == "__main__":
    print(judge(JudgeSpec(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))).to_json())
