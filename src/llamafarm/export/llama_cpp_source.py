"""The Python files of llama.cpp's converter, out of a source package; nothing of it is compiled."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from llamafarm.cache import build_once, packages_root
from llamafarm.errors import ModelError
from llamafarm.files import write_bytes
from llamafarm.models.packaged import _base_python_with_pip

REQUIREMENT = "llama-cpp-python==0.3.36"
SCRIPT = "convert_hf_to_gguf.py"
OWN_CHECKOUT = "or use a checkout of llama.cpp: export LLAMA_CPP_PATH=/path/to/llama.cpp"
_PACKAGE = "llama-cpp-python"
_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_ROOT = "llama_cpp_python-0.3.36/vendor/llama.cpp/"
_WANTED_DIRECTORIES = ("conversion/", "gguf-py/")
# The package holds 122 such files, 1.8 MB.
_MOST_FILES = 1000
_MOST_BYTES = 16 * 2**20


def installed_sources() -> Path:
    """Where install_sources puts the converter, whether it is there or not."""
    return packages_root() / REQUIREMENT


def install_sources() -> Path:
    """Download the source package (77 MB), keep the converter of it, and return its directory.

    Done once: what is there already is kept. Raises ModelError with the installer's own words when
    the download fails, or when the archive is another one than the version stands for.
    """
    return build_once(installed_sources(), _build)


def _build(stage: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="download-", dir=stage) as name:
        archive = _download(Path(name))
        _check(archive)
        extract_converter(archive, stage)


def _download(directory: Path) -> Path:
    """With the hash among the requirements, pip runs nothing of an archive that it does not fit."""
    requirements = directory / "requirements.txt"
    write_bytes(requirements, f"{REQUIREMENT} --hash=sha256:{_SHA256}\n".encode())
    done = subprocess.run(
        download_command(requirements, directory), capture_output=True, text=True, check=False
    )
    archives = sorted(directory.glob("*.tar.gz"))
    if done.returncode or not archives:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise ModelError(
            "\n  ".join([f"{REQUIREMENT} could not be downloaded; pip said:", *said]),
            hint=f"with access to a package registry, run setup again; {OWN_CHECKOUT}",
        )
    return archives[0]


def download_command(requirements: Path, target: Path) -> list[str]:
    """The command that downloads the source package into a directory: pip of this Python, else pip
    as uv runs it, else pip of the Python that this virtual environment was made from.
    """
    options = ["download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    options += ["--no-binary", _PACKAGE, "--require-hashes"]
    options += ["--requirement", str(requirements), "--dest", str(target)]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", *options]
    uv = shutil.which("uv")
    if uv:
        return [uv, "tool", "run", "--python", sys.executable, "pip", *options]
    base = _base_python_with_pip()
    if base:
        return [base, "-m", "pip", *options]
    raise ModelError(
        f"neither pip nor uv is there to download {REQUIREMENT}",
        hint=f"{sys.executable} -m ensurepip, then run setup again; {OWN_CHECKOUT}",
    )


def _check(archive: Path) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise ModelError(
            f"{archive.name} is not the archive that {REQUIREMENT} stands for: its SHA-256 is "
            f"{found}, expected {_SHA256}",
            hint=f"look at the package registry that pip is set up with; {OWN_CHECKOUT}",
        )


def extract_converter(archive: Path, target: Path) -> None:
    """Write the script, `conversion` and `gguf-py` of the archive into a directory, nothing else.

    Raises ModelError, with some files written, when one of them is a link or a device or would lie
    elsewhere, when they are more or larger than a converter is, and when there is no script.
    """
    files = size = 0
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = member.name.removeprefix(_ROOT)
            if name == member.name or not _is_wanted(name) or member.isdir():
                continue
            files, size = files + 1, size + member.size
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or ".." in PurePosixPath(name).parts:
                raise _refusal(archive, f"{member.name} is no plain file in it")
            if files > _MOST_FILES or size > _MOST_BYTES:
                raise _refusal(archive, "it holds far more than a converter")
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, content.read())
    if not (target / SCRIPT).is_file():
        raise _refusal(archive, f"it holds no {_ROOT}{SCRIPT}")


def _is_wanted(name: str) -> bool:
    return name == SCRIPT or name.startswith(_WANTED_DIRECTORIES)


def _refusal(archive: Path, reason: str) -> ModelError:
    return ModelError(
        f"{archive.name} cannot be used as llama.cpp's converter: {reason}", hint=OWN_CHECKOUT
    )
