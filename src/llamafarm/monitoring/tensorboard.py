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
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llamafarm.errors import UserError
from llamafarm.files import write_all
from llamafarm.monitoring.events import (
    EndEvent,
    Event,
    FindingEvent,
    ResumeEvent,
    SettingsEvent,
)
from llamafarm.monitoring.markdown import markdown_table
from llamafarm.monitoring.scalars import scalars_of
from llamafarm.monitoring.trackers.tracker import RunFacts, Value

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event as Record
    from tensorboard.compat.proto.summary_pb2 import Summary

_FILE_VERSION = "brain.Event:2"
# What people compare runs by; the whole strategy stands beside them as text.
_HYPER_PARAMETERS = (
    *("method", "rank", "alpha", "dropout", "learning_rate", "scheduler", "warmup_steps"),
    *("weight_decay", "max_grad_norm", "num_epochs", "total_steps", "micro_batch_size"),
    *("accumulation_steps", "train_rows", "eval_rows"),
)


def require_tensorboard() -> None:
    """Called before anything is trained. Raises UserError when the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "`log_tensorboard` is on, and the package tensorboard is not installed",
            hint="pip install 'llamafarm[tensorboard]', or set monitoring.log_tensorboard: false",
        )


class TensorBoardSink:
    """Writes the run's values as hyper-parameters and as text, the scalars of `scalars_of`, and
    findings as text.

    A ResumeEvent hides what an earlier process wrote after the step it goes on from.
    trouble: why nothing is written any more; empty while all is. What was written stays readable:
    TensorBoard passes over a last record that is torn.
    """

    def __init__(self, directory: Path, facts: RunFacts) -> None:
        require_tensorboard()
        self._directory = directory
        self._facts = facts
        self._first_step = 0
        self._descriptor = -1
        self.trouble = ""

    def handle(self, event: Event) -> None:
        """Write what is shown of an event, unless the disk refused earlier ones."""
        if self.trouble:
            return
        try:
            self._write_event(event)
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

    def _write_event(self, event: Event) -> None:
        match event:
            case ResumeEvent():
                self._first_step = event.step
                # Step 0 means that there was no checkpoint: the base evaluation is made again too.
                self._hide_from(event.step + 1 if event.step else 0)
            case SettingsEvent() if self._first_step == 0:
                self._write_summary(_hyper_parameters(event, self._facts), 0)
                self._write_summary(_text("strategy", _as_table(self._facts.config)), 0)
            case FindingEvent():
                self._write_summary(_text(f"findings/{event.rule}", _finding(event)), event.step)
            case EndEvent() if self._descriptor >= 0:
                self._write_summary(_session_end(event), event.step)
            case _:
                self._write_scalars(event)

    def _hide_from(self, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record
        from tensorboard.compat.proto.event_pb2 import SessionLog

        start = SessionLog(status=SessionLog.START)
        self._write(Record(wall_time=time.time(), step=step, session_log=start))

    def _write_scalars(self, event: Event) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        if (told := scalars_of(event)) is not None:
            scalars = [Summary.Value(tag=tag, simple_value=v) for tag, v in told.values.items()]
            self._write_summary(Summary(value=scalars), told.step)

    def _write_summary(self, summary: Summary, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record

        self._write(Record(wall_time=time.time(), step=step, summary=summary))

    def _write(self, record: Record) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record

        if self._descriptor < 0:
            self._descriptor = _new_file(self._directory)
            header = Record(wall_time=time.time(), file_version=_FILE_VERSION)
            write_all(self._descriptor, _framed(header))
        write_all(self._descriptor, _framed(record))


def _hyper_parameters(event: SettingsEvent, facts: RunFacts) -> Summary:
    """The record by which TensorBoard's table of runs knows this one."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    values: dict[str, Value] = {name: getattr(event, name) for name in _HYPER_PARAMETERS}
    found: Summary = hparams_pb(values, trial_id=facts.id)
    return found


def _session_end(event: EndEvent) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    done = event.status == "completed"
    status = api_pb2.STATUS_SUCCESS if done else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    return Summary(
        value=[
            Summary.Value(
                tag=metadata.SESSION_END_INFO_TAG,
                metadata=metadata.create_summary_metadata(data),
                tensor=metadata.NULL_TENSOR,
            )
        ]
    )


def _text(tag: str, markdown: str) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
    described = create_summary_metadata(display_name=tag, description="")
    return Summary(value=[Summary.Value(tag=tag, metadata=described, tensor=tensor)])


def _as_table(values: Mapping[str, Value]) -> str:
    return markdown_table(("value", "of this run"), [(name, str(v)) for name, v in values.items()])


def _finding(event: FindingEvent) -> str:
    return f"{event.text}: {event.advice}" if event.advice else event.text


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
