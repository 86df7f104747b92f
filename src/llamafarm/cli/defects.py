"""What is kept of an error that nobody expected: a log file that a report can carry."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from llamafarm.files import write_bytes
from llamafarm.redact import redact, redact_command

_PACKAGES = ("llamafarm", "torch", "transformers", "peft", "accelerate", "datasets", "typer")


def state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """LLAMAFARM_STATE, else llamafarm/ in the user's state directory (XDG_STATE_HOME)."""
    if own := environ.get("LLAMAFARM_STATE"):
        return Path(own)
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "llamafarm"


def log_defect(error: BaseException, argv: Sequence[str]) -> Path | None:
    """Write the traceback with the versions of everything, and without secrets; None where nothing
    can be written.
    """
    now = datetime.now(UTC)
    content = redact(_report(error, argv, now)).encode("utf-8", "backslashreplace")
    name = f"defect-{now:%Y%m%d-%H%M%S}-{os.getpid()}.log"
    for directory in (state_directory() / "logs", Path(tempfile.gettempdir())):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_bytes(directory / name, content)
        except OSError:
            continue
        return directory / name
    return None


def defect_message(error: BaseException, log: Path | None) -> str:
    """The text on stderr."""
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    what = redact(what)
    if log is None:
        return f"error: a defect of llamafarm: {what}\n" + redact(
            "".join(traceback.format_exception(error))
        )
    return (
        f"error: a defect of llamafarm: {what}\n"
        f"  the details are in {log}\n"
        "hint: send that file along when you report it"
    )


def package_version(name: str) -> str:
    """Without importing the package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _report(error: BaseException, argv: Sequence[str], now: datetime) -> str:
    versions = [f"{name} {package_version(name)}" for name in _PACKAGES]
    return "\n".join(
        [
            f"time      {now:%Y-%m-%d %H:%M:%S} UTC",
            f"command   llamafarm {redact_command(argv)}",
            f"system    {platform.platform()}, Python {platform.python_version()}",
            f"versions  {', '.join(versions)}",
            "",
            "".join(traceback.format_exception(error)),
        ]
    )
