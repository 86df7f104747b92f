"""The run's side of a tracker: starts its process, and says when it stops taking the run."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from llamafarm.errors import UserError
from llamafarm.monitoring.events import CheckpointEvent, EndEvent, EvalEvent, Event
from llamafarm.monitoring.trackers.registry import TRACKERS
from llamafarm.monitoring.trackers.tracker import RunFacts

# Log in, find the project, open the run.
_PATIENCE_AT_START = 60.0
_PATIENCE_AT_END = 60.0
_LONGEST_REASON = 300
_LOG_BYTES = 10_000
_ERROR_CLASS = re.compile(r"^[\w.]+(?:Error|Exception): ")


def require_trackers(names: Iterable[str]) -> None:
    """Called before anything is trained. Raises UserError for a package that is missing."""
    for name in names:
        kind = TRACKERS[name]
        if importlib.util.find_spec(kind.package) is None:
            raise UserError(
                f"`report_to: {name}` is written, and the package {kind.package} is not installed",
                hint=f"pip install 'llamafarm[{name}]', or take it out of training_args.report_to",
            )


class TrackerSink:
    """Tells one tracker of the run. It reads what is in `metrics.jsonl`, so that nothing here waits
    for it; what its client prints is in `logs/NAME.log`.

    trouble: why it takes no more; empty while it does.
    """

    def __init__(self, name: str, facts: RunFacts, metrics_file: Path) -> None:
        """Raises UserError where the tracker refuses the run at once: it is not logged in, say. A
        resumed run goes on without it.
        """
        self._kind = TRACKERS[name]
        self._log = Path(facts.directory) / "logs" / f"{name}.log"
        self._follower: _Follower | None = None
        self.trouble = ""
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            self._follower = _Follower(name, metrics_file, self._log)
            refused = not self._follower.takes(facts)
        except OSError as error:
            self._give_up(f"it could not be started: {error}")
            return
        except BaseException:  # Ctrl-C, say: a client that hangs would outlive the run
            self._give_up("the run was stopped")
            raise
        if refused:
            why = self._reason()
            self._give_up(f"it does not take the run: {why}")
            if not facts.resumed:
                raise UserError(
                    f"{self._kind.title} does not take the run: {why}",
                    hint=f"{self._kind.log_in}; its output is in {self._log}",
                )

    def handle(self, event: Event) -> None:
        """Look now and then whether it still follows."""
        looks = isinstance(event, EvalEvent | CheckpointEvent | EndEvent)
        if looks and self._follower is not None and self._follower.has_ended:
            self._give_up(f"it takes no more: {self._reason()}")

    def close(self) -> None:
        """Let it take the rest. After a minute the run ends without it."""
        follower, self._follower = self._follower, None
        if follower is None:
            return
        try:
            code = follower.finish(_PATIENCE_AT_END)
        except subprocess.TimeoutExpired:
            follower.kill()
            self._give_up(f"it had not taken everything after {_PATIENCE_AT_END:.0f} s")
        else:
            if code:
                self._give_up(f"it did not take everything: {self._reason()}")

    def _give_up(self, why: str) -> None:
        self.trouble = f"{self._kind.title} is not told of this run any more ({why})"
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.kill()

    def _reason(self) -> str:
        """The last line of its log."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, self._log.stat().st_size - _LOG_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        told = [line.strip() for line in lines if line.strip()]
        return _ERROR_CLASS.sub("", told[-1])[:_LONGEST_REASON] if told else "it says nothing"


class _Follower:
    """The process. While its input is open, the run goes on."""

    def __init__(self, name: str, metrics_file: Path, log: Path) -> None:
        theirs, self._input = os.pipe()
        self._answer, answers = os.pipe()
        module = "llamafarm.monitoring.trackers.follow"
        try:
            with log.open("ab") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module, name, str(metrics_file)],
                    stdin=theirs,
                    stdout=answers,
                    stderr=errors,
                    # Ctrl-C is for the run; what was written until then is still to be told.
                    start_new_session=True,
                )
        except OSError:
            self._close_ours()
            raise
        finally:
            os.close(theirs)
            os.close(answers)

    def takes(self, facts: RunFacts) -> bool:
        """Whether the tracker takes the run; also true where that is not known after a minute: it
        may still, and its log says so.
        """
        with contextlib.suppress(BrokenPipeError):
            os.write(self._input, facts.to_line())
        readable, _, _ = select.select([self._answer], [], [], _PATIENCE_AT_START)
        if not readable:
            return True
        said = os.read(self._answer, 64)
        if not said:
            self._process.wait()  # its log is then complete
        return bool(said)

    @property
    def has_ended(self) -> bool:
        """Whether it is gone before the run."""
        return self._process.poll() is not None

    def finish(self, seconds: float) -> int:
        """Say that the run is over, and wait for the exit code. Raises TimeoutExpired."""
        self._close_ours()
        return self._process.wait(seconds)

    def kill(self) -> None:
        """At once."""
        self._close_ours()
        self._process.kill()
        self._process.wait()

    def _close_ours(self) -> None:
        for descriptor in {self._input, self._answer} - {-1}:
            os.close(descriptor)
        self._input = self._answer = -1
