"""Architectures that are not written here: llama.cpp's own converter, in a process of its own.

That process gets no network and no code of the model: its working copy of the model has rewritten
configurations and no Python files, because the converter asks transformers to trust such code. It
runs with the `gguf` package that lies beside it, whose version it needs.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llamafarm.errors import ModelError, RunError, UserError
from llamafarm.export.llama_cpp_source import (
    REQUIREMENT,
    SCRIPT,
    install_sources,
    installed_sources,
)
from llamafarm.files import fsync_directory
from llamafarm.models.config import sanitised_copy
from llamafarm.models.directory import check_model_directory
from llamafarm.models.fingerprint import weight_files

_CHECKOUT_VARIABLE = "LLAMA_CPP_PATH"
# Ours must not reach the converter: they decide which modules it imports; it needs no token.
_NOT_PASSED_ON = frozenset({"PYTHONPATH", "PYTHONSAFEPATH", "NO_LOCAL_GGUF", "HF_TOKEN"})
_LINES_KEPT = 200
_LINES_SHOWN = 5
# A traceback's frames (indented), progress bars, and what is only told.
_SAYS_LITTLE = ("Traceback ", "INFO:", "DEBUG:")
_NEWER = (
    "a newer llama.cpp may convert it: git clone https://github.com/ggml-org/llama.cpp, then "
    "export LLAMA_CPP_PATH=/path/to/llama.cpp"
)


@dataclass(frozen=True, slots=True)
class Converter:
    """A directory with convert_hf_to_gguf.py and its gguf-py. origin: where it is from, for the
    reader.
    """

    directory: Path
    origin: str

    @property
    def script(self) -> Path:
        """The program."""
        return self.directory / SCRIPT


def find_converter() -> Converter | None:
    """The checkout that LLAMA_CPP_PATH names, else what install_converter installed, else None.

    Raises UserError when LLAMA_CPP_PATH names a directory without the converter.
    """
    named = os.environ.get(_CHECKOUT_VARIABLE)
    if named:
        directory = Path(named).expanduser().absolute()
        if not _holds_converter(directory):
            raise UserError(
                f"{_CHECKOUT_VARIABLE} is {named}, which holds no {SCRIPT} with gguf-py beside it",
                hint="name a checkout of github.com/ggml-org/llama.cpp, or unset "
                f"{_CHECKOUT_VARIABLE}",
            )
        return Converter(directory, f"{_CHECKOUT_VARIABLE}={named}")
    directory = installed_sources()
    return Converter(directory, REQUIREMENT) if _holds_converter(directory) else None


def install_converter() -> Converter:
    """Install the converter into this tool's own directory, once, where find_converter looks.

    Raises ModelError as install_sources does.
    """
    return Converter(install_sources(), REQUIREMENT)


def _holds_converter(directory: Path) -> bool:
    return (directory / SCRIPT).is_file() and (directory / "gguf-py" / "gguf").is_dir()


def listed_architectures(converter: Converter) -> frozenset[str]:
    """Names of the text architectures that the converter lists, e.g. `GPT2LMHeadModel`.

    Read from its source text, which is not run. Raises UserError when that is not Python.
    """
    table = converter.directory / "conversion" / "__init__.py"
    file = table if table.is_file() else converter.script
    try:
        tree = ast.parse(file.read_text("utf-8"))
    except (SyntaxError, ValueError, OSError) as fault:
        raise UserError(
            f"{file} of {converter.origin} cannot be read ({fault})",
            hint="name a whole checkout of github.com/ggml-org/llama.cpp",
        ) from fault
    return frozenset(_table_keys(tree) if file is table else _registered_names(tree))


def _table_keys(tree: ast.Module) -> Iterator[str]:
    """Keys of the dictionary TEXT_MODEL_MAP: from architecture to module."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            targets: list[ast.expr] = (
                node.targets if isinstance(node, ast.Assign) else [node.target]
            )
            if any(isinstance(at, ast.Name) and at.id == "TEXT_MODEL_MAP" for at in targets):
                yield from _texts(key for key in node.value.keys if key is not None)


def _registered_names(tree: ast.Module) -> Iterator[str]:
    """Arguments of the decorators `….register("…")`: checkouts in which the script is one file."""
    for node in ast.walk(tree):
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute):
                yield from _texts(decorator.args if decorator.func.attr == "register" else ())


def _texts(nodes: Iterable[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def convert(
    model_directory: Path,
    target: Path,
    file_type: Literal["F32", "F16", "BF16", "Q8_0"],
    converter: Converter,
    on_line: Callable[[str], None],
    *,
    name: str = "",
) -> None:
    """Convert a Hugging Face model directory into the GGUF file `target`, which appears whole.

    target: in a directory that exists. on_line: gets each line that the converter prints, progress
    bars included. name: of the model, in the file; left out, that of its directory. Raises
    ModelError for a directory that is no complete model, RunError with the converter's last words
    when it fails. An exception, Ctrl-C too, ends the converter and leaves nothing.
    """
    check_model_directory(model_directory)
    target = target.absolute()
    with (
        sanitised_copy(model_directory) as copy,
        tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as stage,
    ):
        _link_weights(model_directory, copy)
        # The converter guesses at a model's family from the name of its directory.
        model = Path(stage) / "model"
        model.symlink_to(copy)
        made = Path(stage) / "made.gguf"
        shown_name = name or model_directory.absolute().name
        options = [f"--outfile={made}", f"--outtype={file_type.lower()}"]
        command = [str(converter.script), str(model), *options, f"--model-name={shown_name}"]
        code, said = _run([sys.executable, *command], on_line)
        if code or not made.is_file():
            raise _failure(model_directory, converter, code, said)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(target)
    fsync_directory(target.parent)


def _link_weights(model_directory: Path, copy: Path) -> None:
    files = weight_files(model_directory)
    for file in files:
        if file.parent != model_directory or file.suffix != ".safetensors":
            raise ModelError(
                f"{model_directory} has its weights elsewhere: its index names {file}",
                hint="download the model again",
            )
        (copy / file.name).symlink_to(file.resolve())
    if [file.name for file in files] == ["model.safetensors"]:
        # The converter would follow an index that transformers passes over.
        (copy / "model.safetensors.index.json").unlink(missing_ok=True)


def _run(command: list[str], on_line: Callable[[str], None]) -> tuple[int, list[str]]:
    """Exit code, and the last lines of what it printed.

    Where this process is killed outright, the converter ends at its next message, which nobody
    reads any more.
    """
    said: deque[str] = deque(maxlen=_LINES_KEPT)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=_environment(),
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout or ():
                if line.strip():
                    said.append(line.rstrip())
                    on_line(said[-1])
            code = process.wait()
        except BaseException:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return code, list(said)


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED_ON}
    # A user's checkout stays as it is, without compiled files.
    return {**kept, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _failure(model: Path, converter: Converter, code: int, said: list[str]) -> RunError:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed (exit code {code})"
    telling = [line for line in said if _tells(line)] or said
    lines = [f"llama.cpp's converter ({converter.origin}) {how} on {model}; it said:"]
    hint = _NEWER
    if code == -signal.SIGKILL:
        hint = "the system ends a program so when memory runs out: end other programs first"
    elif any(os.strerror(errno.ENOSPC) in line for line in telling[-_LINES_SHOWN:]):
        hint = "free some space, or name an output directory on another disk"
    return RunError("\n  ".join([*lines, *telling[-_LINES_SHOWN:]]), hint=hint)


def _tells(line: str) -> bool:
    return not (line[0].isspace() or line.startswith(_SAYS_LITTLE) or "%|" in line)
