"""The Python environment that LLaMA-Factory lives in. Its packages exclude the versions that
llamafarm needs, so it is never imported: its interpreter is found, asked, and started.

`setup` builds the environment with uv in the user's data directory, once for each version of
LLaMA-Factory and of Python; `LLAMAFARM_LLAMAFACTORY` names another one.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamafarm.cache import build_once, packages_root
from llamafarm.errors import OutputError, RunError, UserError, listed
from llamafarm.files import write_bytes
from llamafarm.hardware.probe import free_disk_bytes
from llamafarm.redact import redact

VERSION = "0.9.5"
VARIABLE = "LLAMAFARM_LLAMAFACTORY"
# Tested together; transformers, peft, trl, accelerate and datasets are the newest that it allows.
PINNED = (
    "accelerate==1.11.0",
    "datasets==4.0.0",
    "huggingface-hub==1.33.0",
    "peft==0.18.1",
    "safetensors==0.8.0",
    "tokenizers==0.22.2",
    "transformers==5.6.0",
    "trl==0.24.0",
)
# Of 4-bit models; it has no wheels for CUDA elsewhere.
PINNED_ON_LINUX = ("bitsandbytes==0.50.2",)
# What the registry has of these works only with CUDA, and text needs none of it. A marker that is
# never true leaves a package out, also for versions of uv without `--excludes`.
LEFT_OUT = ("torchaudio", "torchvision")
_OVERRIDES = "left-out.txt"
# Measured with torch 2.13 on Linux x86_64.
_BYTES_CPU = 2_000_000_000
_BYTES_CUDA = 7_000_000_000
_GB = 10**9
_ELSEWHERE = f"export {VARIABLE}=/path/to/llamafactory-cli"
_NEEDED = ("llamafactory", "torch", "transformers", "peft", "trl", "accelerate", "datasets")
# Prints the version, or null, and which modules are not there; nothing of them is imported.
_QUESTION = f"""
import importlib.metadata, importlib.util, json
def version_of(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
lacks = [name for name in {_NEEDED} if importlib.util.find_spec(name) is None]
found = {{name: version_of(name) for name in {_NEEDED} if version_of(name)}}
print(json.dumps([version_of("llamafactory"), lacks, found]))
"""
# What it is given is written by this project's own, newer libraries.
_AT_LEAST = {"transformers": 5, "datasets": 4}
_ANSWER_SECONDS = 60
_LINES_KEPT = 200
_LINES_SHOWN = 8
# What uv tells of its work: each package, and the directory that is renamed afterwards.
_SAYS_LITTLE = (" + ", "Using ")
# How pip and uv write the path of a Python that is too long for the first line, or has a space.
_EXEC = re.compile(r"""^'''exec' (?:"(?P<quoted>[^"$`]+)"|(?P<plain>[^\s"'$`]+)) "\$0\"""", re.M)
_SHELLS = ("sh", "bash", "dash")
# Local versions of torch that uv knows as a build to choose.
_TORCH_BUILD = re.compile(r"cpu|cu[0-9]+|rocm[0-9.]+|xpu")


@dataclass(frozen=True, slots=True)
class Environment:
    """A LLaMA-Factory that can be started. python: its interpreter, never resolved (that of a
    virtual environment is a link); libraries: versions of what it stands on.
    """

    python: Path
    version: str
    libraries: Mapping[str, str] = field(default_factory=dict, compare=False)


def find_environment() -> Environment:
    """The environment of the program that LLAMAFARM_LLAMAFACTORY names, else the installed one.

    Raises UserError, with what to type, when it is missing, broken, or of another version.
    """
    named = os.environ.get(VARIABLE)
    if named:
        advice = (
            f"point {VARIABLE} to bin/llamafactory-cli of an environment with "
            f"llamafactory=={VERSION}, or unset it"
        )
        return _checked(_interpreter_of(named, advice), f"{VARIABLE} is {named}", advice)
    directory = installed_environment()
    if is_missing():
        raise UserError(
            f"type: llamafactory needs LLaMA-Factory {VERSION} in an environment of its own, which "
            "is not there",
            hint=f"`llamafarm setup STRATEGY_FILE` installs it ({size_text()}) into {directory}; "
            f"or {_ELSEWHERE}",
        )
    advice = f"remove it and run setup again: rm -r {shlex.quote(str(directory))}"
    return _checked(_python_of(directory), f"{directory} cannot be used", advice)


def is_missing() -> bool:
    """Whether there is none at all, neither named nor installed: `setup` would install it."""
    return not os.environ.get(VARIABLE) and not installed_environment().is_dir()


def installed_environment() -> Path:
    """Where install_environment puts it, there or not."""
    major, minor = sys.version_info[:2]
    return packages_root() / f"llamafactory-{VERSION}-py{major}{minor}"


def size_text() -> str:
    """What it takes on disk, in words."""
    return f"about {_needed_bytes(_our_torch()) / _GB:.1f} GB"


def install_environment(on_line: Callable[[str], None] | None = None) -> Environment:
    """Build the environment where find_environment looks, once, and return it; one that is there,
    or is named, is used.

    on_line: gets what uv says of its work, a line at a time. Raises UserError with uv's own words
    when it fails, OutputError when the place cannot be written or has too little room, RunError
    when the disk fills up.
    """
    if not is_missing():
        return find_environment()
    directory = installed_environment()
    uv = _find_uv()
    _check_room(directory)
    try:
        build_once(directory, lambda stage: _build(stage, uv, on_line), durable=False)
    except (OutputError, RunError) as fault:
        raise type(fault)(fault.summary, hint=_another_place()) from fault
    return find_environment()


def install_commands(
    uv: str,
    target: Path,
    *,
    python: str = sys.executable,
    torch: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[list[str], list[str]]:
    """The command that makes an empty environment in `target`, and the one that fills it.

    torch: version of ours, for another copy of the same build. Nothing is compiled, so no package
    runs code of its own while it is installed.
    """
    version, _, build = (torch or _our_torch()).partition("+")
    quiet = [uv, "--color", "never", "--no-progress"]
    make = [*quiet, "venv", "--quiet", "--relocatable", "--python", python, str(target)]
    fill = [*quiet, "pip", "install", "--python", str(_python_of(target))]
    fill += ["--only-binary", ":all:", "--overrides", str(target / _OVERRIDES)]
    # The registry's own torch has one build; where wheels are at hand they are ours.
    at_hand = uv_environment(environ).get("UV_FIND_LINKS") or environ.get("UV_TORCH_BACKEND")
    if _TORCH_BUILD.fullmatch(build) and not at_hand:
        fill += ["--torch-backend", build]
    fill += [f"llamafactory=={VERSION}", f"torch=={version}", *PINNED]
    return make, fill + (list(PINNED_ON_LINUX) if sys.platform == "linux" else [])


def uv_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables for uv: directories of wheels that pip knows about are made known to it too."""
    links = environ.get("UV_FIND_LINKS") or ",".join(environ.get("PIP_FIND_LINKS", "").split())
    return {**environ, "UV_FIND_LINKS": links} if links else dict(environ)


def _build(stage: Path, uv: str, on_line: Callable[[str], None] | None) -> None:
    make, fill = install_commands(uv, stage)
    _run(make, stage, on_line)
    left_out = "".join(f'{name} ; python_version < "3"\n' for name in LEFT_OUT)
    write_bytes(stage / _OVERRIDES, left_out.encode())
    _run(fill, stage, on_line)
    advice = f"look at the package registry that uv is set up with; or {_ELSEWHERE}"
    _checked(_python_of(stage), "what uv installed cannot be used", advice)


def _run(command: list[str], directory: Path, on_line: Callable[[str], None] | None) -> None:
    """Started in the new environment, uv reads no settings of a project that the user is in."""
    said: deque[str] = deque(maxlen=_LINES_KEPT)
    hint = f"with access to a package registry, run setup again; or {_ELSEWHERE}"
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=uv_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as fault:
        raise UserError(f"{command[0]} cannot be started: {fault}", hint=hint) from fault
    with process:
        try:
            for line in process.stdout or ():
                text = redact(line.rstrip())
                if text and not text.startswith(_SAYS_LITTLE):
                    said.append(text)
                    if on_line:
                        on_line(text)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = list(said)[-_LINES_SHOWN:]
        raise UserError(
            "\n  ".join([f"LLaMA-Factory {VERSION} could not be installed; uv said:", *lines]),
            hint=hint,
        )


def _find_uv() -> str:
    """The uv of this machine, else the one that comes as a Python package."""
    found = shutil.which("uv")
    if found:
        return found
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise UserError(
            f"uv is not there to install LLaMA-Factory {VERSION}",
            hint=f"pip install 'llamafarm[llamafactory]', then run setup again; or {_ELSEWHERE}",
        ) from None


def _check_room(directory: Path) -> None:
    needed, free = _needed_bytes(_our_torch()), free_disk_bytes(directory)
    if free < needed:
        raise OutputError(
            f"LLaMA-Factory {VERSION} needs {needed / _GB:.1f} GB of disk ({needed:,} bytes), and "
            f"{free / _GB:.1f} GB ({free:,} bytes) are free at {directory}",
            hint=_another_place(),
        )


def _another_place() -> str:
    """macOS has no variable for the data directory."""
    room = "make room" if sys.platform == "darwin" else "export XDG_DATA_HOME=/path/with/room"
    return f"{room}, then run setup again; or {_ELSEWHERE}"


def _our_torch() -> str:
    """The version with its build, e.g. `2.13.0+cpu`, without importing it."""
    return importlib.metadata.version("torch")


def _needed_bytes(torch: str) -> int:
    """The registry's torch for Linux has no build in its version, and is one for CUDA."""
    is_cpu = sys.platform == "darwin" or torch.endswith("+cpu")
    return _BYTES_CPU if is_cpu else _BYTES_CUDA


def _python_of(directory: Path) -> Path:
    return directory / "bin" / "python"


def _interpreter_of(named: str, advice: str) -> Path:
    """The Python that a script of a package is started with: its first line says so, or its second
    one where the first is a shell's; else the one beside it.
    """

    def refusal(found: str) -> UserError:
        return UserError(f"{VARIABLE} is {named}, {found}", hint=advice)

    try:
        path = Path(named).expanduser().absolute()
        if path.is_dir():
            raise refusal("which is a directory; the program llamafactory-cli is expected")
        with path.open("rb") as file:
            text = file.read(4096).decode("utf-8", "replace")
        beside = path.resolve().with_name("python")
    except FileNotFoundError:
        raise refusal("which is not there") from None
    except (OSError, RuntimeError) as fault:
        raise refusal(f"which cannot be read: {getattr(fault, 'strerror', fault)}") from fault
    if not os.access(path, os.X_OK):
        raise refusal("which is not executable")
    first = text.splitlines()[0].split() if text.startswith("#!") else []
    words = [word for word in (first[0][2:], *first[1:]) if word] if first else []
    if not words:
        raise refusal("which is no script of Python; the program llamafactory-cli is expected")
    program = Path(words[0])
    if program.name == "env" and len(words) > 1:
        program = Path(shutil.which(words[-1]) or words[-1])
    elif program.name in _SHELLS:
        exec_line = _EXEC.search(text)
        if exec_line:
            program = Path(exec_line["quoted"] or exec_line["plain"])
        elif beside.exists():
            program = beside
    # Whatever else it is, it is not started to find out.
    if not program.name.startswith(("python", "pypy")):
        raise refusal(
            f"which is a script for {program}, not for Python; the program llamafactory-cli is "
            "expected"
        )
    return program


def _checked(python: Path, which: str, advice: str) -> Environment:
    """which: the environment, for the reader. Raises UserError."""
    try:
        asked = subprocess.run(
            [str(python), "-I", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except OSError as fault:
        raise UserError(
            f"{which}: its interpreter {python} cannot be started ({fault.strerror})", hint=advice
        ) from fault
    except subprocess.TimeoutExpired as fault:
        raise UserError(
            f"{which}: its interpreter {python} did not answer in {_ANSWER_SECONDS} s", hint=advice
        ) from fault
    lines = asked.stdout.decode("utf-8", "replace").splitlines()
    try:
        version, lacks, libraries = json.loads(lines[-1])
    except (ValueError, TypeError, IndexError):
        said = asked.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        reason = f"gave no answer (exit code {asked.returncode})"
        raise UserError(
            ": ".join([f"{which}: its interpreter {python} {reason}", *said]), hint=advice
        ) from None
    if version is None:
        raise UserError(f"{which}: its interpreter {python} has no LLaMA-Factory", hint=advice)
    if version != VERSION:
        raise UserError(
            f"{which}: its LLaMA-Factory is version {version}, and this version of llamafarm works "
            f"with {VERSION}",
            hint=advice,
        )
    if lacks:
        raise UserError(f"{which}: it lacks {listed(lacks)}", hint=advice)
    old = [
        f"{name} {libraries[name]}"
        for name, least in _AT_LEAST.items()
        if name in libraries and int(libraries[name].partition(".")[0]) < least
    ]
    if old:
        wanted = " and ".join(f"{name} {least} or newer" for name, least in _AT_LEAST.items())
        raise UserError(f"{which}: it has {listed(old)}, and {wanted} is needed", hint=advice)
    return Environment(python, version, libraries)
