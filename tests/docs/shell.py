"""Shell blocks of a page, typed one after the other in one directory, as a reader does."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llamafarm.cache import cache_root
from llamafarm.cli.main import main
from tests.docs.pages import ROOT, Block, blocks

_SHELL = ("bash", "sh", "shell")
_NAMED = re.compile(r"^`([^`\n]+)`:\n\n```\w*\n", re.MULTILINE)
_EXIT_CODE = re.compile(r"# exit code (\d+)")
_LEFT_OUT = "…"
_PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Ran:
    """A shell block, what its lines printed (both streams as a terminal shows them), and the exit
    codes that came and that the block promises: those of its comments, else 0.
    """

    block: Block
    output: str
    codes: tuple[int, ...]
    promised: tuple[int, ...]


class _FirstStep(BaseException):
    """Ends a `train` where the first step would be."""


def files_of(page: Path) -> dict[int, tuple[str, str]]:
    """Files that a page gives, under a line with their name: line of the block → name, content."""
    text = page.read_text("utf-8")
    names = {text.count("\n", 0, m.end()) + 1: m[1] for m in _NAMED.finditer(text)}
    contents = {block.line: block.text for block in blocks(page)}
    return {line: (name, contents[line]) for line, name in names.items()}


def shown_after(page: Path) -> dict[int, list[str]]:
    """Output that a page shows: line of the shell block before it → its lines, blank ones aside."""
    shown = {}
    found = blocks(page)
    for before, block in itertools.pairwise(found):
        if before.language in _SHELL and not block.language:
            lines = [line.rstrip() for line in block.text.splitlines()]
            shown[before.line] = [line for line in lines if line and line != _LEFT_OUT]
    return shown


def missing_lines(shown: list[str], output: str) -> list[str]:
    """Lines from the first on that does not stand in the output, in this order. One that ends in
    an ellipsis is the beginning of a line.
    """
    printed = iter([line.rstrip() for line in output.splitlines()])
    return [line for line in shown if not any(_is_line(line, found) for found in printed)]


def _is_line(shown: str, printed: str) -> bool:
    if shown.endswith(_LEFT_OUT) and printed.startswith(shown.removesuffix(_LEFT_OUT)):
        return True
    return shown == printed


def run_page(page: Path, directory: Path, caches: Path) -> list[Ran]:
    """Type every shell block, in a directory that is empty at first. Models come from the person's
    cache; `train` goes as far as the first step.
    """
    models = cache_root() / "models"
    models.mkdir(parents=True, exist_ok=True)
    (caches / "models").symlink_to(models)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(directory):
        patch.setenv("LLAMAFARM_CACHE", str(caches))
        patch.setenv("LLAMAFARM_STATE", str(caches / "state"))
        patch.setenv("NO_COLOR", "1")
        patch.setenv("COLUMNS", "100")
        patch.setattr("llamafarm.training.run.run", _stop_here)
        return list(_type(page))


def _type(page: Path) -> Iterator[Ran]:
    files = files_of(page)
    for block in blocks(page):
        if block.line in files:
            name, content = files[block.line]
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(content, "utf-8")
        elif block.language in _SHELL:
            yield _run(block)


def _run(block: Block) -> Ran:
    screen = io.StringIO()
    codes, promised = [], []
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
        command, _, comment = line.partition("  #")
        if command.strip() and not command.startswith("#"):
            code = _EXIT_CODE.search(f"#{comment}")
            promised.append(int(code[1]) if code else 0)
            codes.append(_run_line(command.strip(), screen))
    return Ran(block, screen.getvalue(), tuple(codes), tuple(promised))


def _run_line(line: str, screen: io.StringIO) -> int:
    words = shlex.split(line)
    if words[0] == "llamafarm":
        try:
            with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
                return main(words[1:])
        except _FirstStep:
            return 0
    done = subprocess.run(
        [sys.executable, str(ROOT / words[1]), *words[2:]] if words[0] == "python" else words,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        env=os.environ,
        check=False,
    )
    screen.write(done.stdout + done.stderr)
    return done.returncode


def _stop_here(*_: object) -> None:
    raise _FirstStep
