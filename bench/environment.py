"""TRL's own virtual environment, with the versions of torch and transformers that this project runs
on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

TRL_VERSION = "1.16.0"
SHARED_PACKAGES = ("torch", "transformers", "peft", "datasets", "accelerate")
ROOT = Path(__file__).resolve().parent.parent
TRL_ENVIRONMENT = ROOT / "bench" / ".venv-trl"


def trl_requirements() -> list[str]:
    """What TRL's environment holds: TRL, and the rest exactly as installed here (local tags like
    +cpu left off).
    """
    shared = [f"{name}=={version(name).split('+')[0]}" for name in SHARED_PACKAGES]
    return [f"trl=={TRL_VERSION}", *shared]


def trl_python(directory: Path = TRL_ENVIRONMENT) -> Path:
    """The interpreter of TRL's environment, which is made, or brought to these versions, with uv.

    Raises FileNotFoundError when there is no uv, CalledProcessError when it cannot install.
    """
    python = directory / "bin" / "python"
    requirements = trl_requirements()
    note = directory / ".requirements"
    if note.is_file() and note.read_text(encoding="utf-8").split() == requirements:
        return python
    uv = find_uv()
    # uv does not look where pip is told to find wheels, unless it is told too.
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")
    environment = os.environ | {"UV_FIND_LINKS": links}
    subprocess.run(
        [uv, "venv", "--quiet", "--allow-existing", "--python", "3.11", directory],
        env=environment,
        check=True,
    )
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, *requirements],
        env=environment,
        check=True,
    )
    note.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    return python


def find_uv() -> str:
    """uv on the path, or where `make setup` brings it."""
    found = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".uv" / "bin"))
    if found is None:
        raise FileNotFoundError("uv is not installed: run `make setup` first")
    return found
