from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llamafarm.cli.main import COMMANDS

from .conftest import Done

GOLDEN = Path(__file__).parents[1] / "golden" / "help"

# The contract, section 2: the flags of this version, besides --help.
FLAGS = {
    "train": (
        "--strategy --strategy-file --train-dataset --eval-dataset --dataset --base-model --output "
        "--epochs --batch-size --learning-rate --eval-percent --allow-leakage "
        "--allow-custom-metrics --set --resume --resume-anyway --overwrite --skip-bad-rows "
        "--max-restarts --export --json"
    ),
    "recommend": (
        "--dataset --eval-dataset --base-model --use --set --output --overwrite --name "
        "--skip-bad-rows --allow-leakage --json"
    ),
    "init": (
        "--dataset --eval-dataset --base-model --overwrite --name --skip-bad-rows "
        "--allow-leakage --json"
    ),
    "setup": "--strategy --verify-only --allow-leakage --allow-custom-metrics --json",
    "prepare": (
        "--output --input --format --min-chars --max-chars --keep-duplicates --overwrite --json"
    ),
    "inspect": (
        "--eval-dataset --base-model --preview --html --set --skip-bad-rows --allow-leakage --json"
    ),
    "datasplit": (
        "--eval-percent --eval-rows --test-percent --test-rows --stable --group-by --stratify-by "
        "--seed --output-dir --skip-bad-rows --json"
    ),
    "list-strategies": "--strategy-file --json",
    "info": "--strategy-file --dataset --base-model --field --no-resolve --json",
    "generate": "--max-new-tokens --temperature --json",
    "chat": "",
    "evaluate": (
        "--dataset --tasks --limit --compare-base --compare --metric --allow-custom-metrics --json"
    ),
    "runs": "--sort --json",
    "report": "--open --json",
    "dashboard": "--port --no-browser",
    "compare-backends": "--strategy-file --dataset --set --json",
    "convert": "--format --quantization --name --system-prompt --overwrite --no-verify --json",
    "schema": "",
    "doctor": "--json",
}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_looks_as_agreed(llamafarm: Callable[..., Done], command: str) -> None:
    argv = [command, "--help"] if command else ["--help"]
    expected = (GOLDEN / f"{command or 'llamafarm'}.txt").read_text(encoding="utf-8")
    assert llamafarm(*argv) == Done(0, expected, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_of_that_command(
    llamafarm: Callable[..., Done], command: str
) -> None:
    example = llamafarm(command, "--help").out.split("\nExample:\n")[1]
    assert example.startswith(f"  llamafarm {command}")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_flags_of_the_contract_and_no_others(
    llamafarm: Callable[..., Done], command: str
) -> None:
    options = llamafarm(command, "--help").out.split("\nOptions:\n")[1].split("\nExample:\n")[0]
    found = re.findall(r"^  (--[a-z-]+)", options, flags=re.MULTILINE)
    assert found == [*FLAGS[command].split(), "--help"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_says_what_the_command_says_of_itself(command: str) -> None:
    module = importlib.import_module(f"llamafarm.cli.{command.replace('-', '_')}")
    assert module.command.__doc__.splitlines()[0].startswith(COMMANDS[command].rstrip("."))


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_help_fits_the_terminal(
    llamafarm: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    described = llamafarm("train", "--help").out.split("\nExample:\n")[0]
    assert max(len(line) for line in described.splitlines()) <= min(int(columns), 100)
