"""TensorBoard event files of a run, in `<output>/logs`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.errors import UserError
from llamafarm.monitoring.events import EvalEvent, Event, ResumeEvent, StepEvent

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_STEP_FIELDS = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "epoch")
_EVAL_FIELDS = {"loss": "eval_loss", "perplexity": "perplexity", "accuracy": "accuracy"}
_FLUSH_SECONDS = 10


def require_tensorboard() -> None:
    """Called before anything is trained. Raises UserError when the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "`log_tensorboard` is on, and the package tensorboard is not installed",
            hint="pip install 'llamafarm[tensorboard]', or set monitoring.log_tensorboard: false",
        )


class TensorBoardSink:
    """Writes scalars: train/loss, train/learning_rate …, eval/loss, eval/perplexity, your metrics.

    A ResumeEvent hides what an earlier process wrote after the step it goes on from.
    """

    def __init__(self, directory: Path) -> None:
        require_tensorboard()
        self._directory = directory
        self._writer: SummaryWriter | None = None

    def handle(self, event: Event) -> None:
        """Write the numbers of a step or an evaluation."""
        if isinstance(event, ResumeEvent):
            # Step 0 means that there was no checkpoint: the base evaluation is made again too.
            self._writer = self._open(event.step + 1 if event.step else 0)
        elif isinstance(event, StepEvent):
            values = {f"train/{name}": getattr(event, name) for name in _STEP_FIELDS}
            self._write(values, event.step)
        elif isinstance(event, EvalEvent):
            values = {f"eval/{name}": getattr(event, field) for name, field in _EVAL_FIELDS.items()}
            values |= {f"eval/{name}": value for name, value in event.metrics.items()}
            self._write(values, event.step)

    def close(self) -> None:
        """Write what is still in memory."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _write(self, values: dict[str, float], step: int) -> None:
        if self._writer is None:
            self._writer = self._open(None)
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def _open(self, purge_step: int | None) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._directory), purge_step=purge_step, flush_secs=_FLUSH_SECONDS)
