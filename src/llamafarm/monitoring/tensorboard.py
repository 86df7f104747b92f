"""TensorBoard event files of a run, in `<output>/logs`.

They are written here and not by a SummaryWriter, which leaves that to a thread: an error of the
disk would end the thread with a traceback, and the run some steps later.
"""

from __future__ import annotations

import importlib.util
import io
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.errors import UserError
from llamafarm.files import write_all
from llamafarm.monitoring.events import EvalEvent, Event, ResumeEvent, StepEvent

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event as Record

_STEP_FIELDS = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "epoch")
_EVAL_FIELDS = {"loss": "eval_loss", "perplexity": "perplexity", "accuracy": "accuracy"}
_FILE_VERSION = "brain.Event:2"


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
    trouble: why nothing is written any more; empty while all is. What was written stays readable:
    TensorBoard passes over a last record that is torn.
    """

    def __init__(self, directory: Path) -> None:
        require_tensorboard()
        self._directory = directory
        self._descriptor = -1
        self.trouble = ""

    def handle(self, event: Event) -> None:
        """Write the numbers of a step or an evaluation, unless the disk refused earlier ones."""
        if self.trouble:
            return
        try:
            self._write_numbers(event)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Nothing waits in memory."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            os.close(descriptor)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        why = error.strerror or error
        self.trouble = f"TensorBoard's files in {self._directory} cannot be written: {why}"

    def _write_numbers(self, event: Event) -> None:
        if isinstance(event, ResumeEvent):
            # Step 0 means that there was no checkpoint: the base evaluation is made again too.
            self._hide_from(event.step + 1 if event.step else 0)
        elif isinstance(event, StepEvent):
            values = {f"train/{name}": getattr(event, name) for name in _STEP_FIELDS}
            self._write_scalars(values, event.step)
        elif isinstance(event, EvalEvent):
            values = {f"eval/{name}": getattr(event, field) for name, field in _EVAL_FIELDS.items()}
            values |= {f"eval/{name}": value for name, value in event.metrics.items()}
            self._write_scalars(values, event.step)

    def _hide_from(self, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record
        from tensorboard.compat.proto.event_pb2 import SessionLog

        start = SessionLog(status=SessionLog.START)
        self._write(Record(wall_time=time.time(), step=step, session_log=start))

    def _write_scalars(self, values: dict[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Record(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def _write(self, record: Record) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record

        if self._descriptor < 0:
            self._descriptor = _new_file(self._directory)
            header = Record(wall_time=time.time(), file_version=_FILE_VERSION)
            write_all(self._descriptor, _framed(header))
        write_all(self._descriptor, _framed(record))


def _framed(record: Record) -> bytes:
    """A record with its length and checksums."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    stream = io.BytesIO()
    RecordWriter(stream).write(record.SerializeToString())
    return stream.getvalue()


def _new_file(directory: Path) -> int:
    """The descriptor of a file that TensorBoard reads after those that are there: by its name,
    which begins with the seconds and goes on with the nanoseconds.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
    return os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
