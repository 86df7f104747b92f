"""docs/CLI.md and the parser say the same: every command, argument and flag, in both directions."""

from __future__ import annotations

import importlib
import re
import shlex
from typing import Any

import pytest

from llamafarm.api import GENERATED_ROWS
from llamafarm.cli.help import build_command
from llamafarm.cli.main import COMMANDS, main
from tests.docs.pages import (
    PAGES,
    ROOT,
    Block,
    blocks,
    command_lines,
    prose,
    sections,
    tables,
    ticked,
)

REFERENCE = ROOT / "docs" / "CLI.md"


def parser_of(name: str) -> Any:
    module = importlib.import_module(f"llamafarm.cli.{name.replace('-', '_')}")
    return build_command(module.command, name, module.EXAMPLE)


def parameters(name: str) -> dict[str, str]:
    """As help shows them: `--epochs N`, `INPUT`; the value is the flag alone."""
    found: dict[str, str] = {}
    for parameter in parser_of(name).params:
        if parameter.param_type_name == "argument":
            found[parameter.metavar] = parameter.metavar
        elif parameter.opts != ["--help"]:
            flag = parameter.opts[0]
            shown = flag if parameter.is_flag else f"{flag} {parameter.metavar}"
            found[shown] = flag
    return found


def documented(name: str) -> list[str]:
    """What the section's tables list."""
    section = sections(prose(REFERENCE))[name]
    listed = [t for t in tables(section) if t.header[0].split(" ")[0] in ("Flag", "Argument")]
    return [ticked(row[0])[0] for table in listed for row in table.rows]


def shell_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page, "bash", "sh", "shell")]


def typed_commands() -> list[tuple[str, list[str]]]:
    """Every command line of the documentation that calls this program: where, and its words."""
    calls = []
    for block in shell_blocks():
        for line in command_lines(block):
            for part in re.split(r"\s(?:&&|\||>)\s", line):
                words = shlex.split(part)
                match words:
                    case ["llamafarm", *rest] | ["uv", "run", "python", "cli.py", *rest]:
                        calls.append((f"{block}: {part}", rest))
                    case ["python", "cli.py", *rest] | ["uv", "run", "llamafarm", *rest]:
                        calls.append((f"{block}: {part}", rest))
    return calls


def test_reference_lists_the_commands_in_the_order_of_help() -> None:
    table = next(t for t in tables(prose(REFERENCE)) if t.header == ("Command", "Does"))
    assert [ticked(row[0])[0] for row in table.rows] == list(COMMANDS)


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    headings = [h for h in sections(prose(REFERENCE)) if re.fullmatch(r"[a-z-]+", h)]
    assert headings == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_section_lists_every_argument_and_flag_and_no_other(name: str) -> None:
    assert sorted(documented(name)) == sorted(parameters(name))


@pytest.mark.parametrize("name", COMMANDS)
def test_section_has_an_example_and_the_exit_codes(name: str) -> None:
    section = sections(REFERENCE.read_text("utf-8"))[name]
    assert f"llamafarm {name}" in section
    assert "```bash" in section
    assert re.search(r"Codes: 0\b", section)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_what_the_reference_lists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert [entry for entry in documented(name) if entry not in shown] == []


def test_every_command_line_of_the_documentation_has_known_commands_and_flags() -> None:
    calls = typed_commands()
    assert len(calls) > 10
    for where, (name, *words) in calls:
        if name in ("--help", "--version"):
            continue
        assert name in COMMANDS, where
        flags = [word.split("=")[0] for word in words if word.startswith("--")]
        unknown = set(flags) - set(parameters(name).values()) - {"--help"}
        assert unknown == set(), where


def test_every_convert_line_of_the_documentation_parses() -> None:
    """Arguments and values too: nothing is missing, and none is of another kind."""
    calls = [(where, words) for where, (name, *words) in typed_commands() if name == "convert"]
    assert len(calls) > 5
    for where, words in calls:
        context = parser_of("convert").make_context(where, words)
        assert context.params["format_name"] in ("ollama", "gguf", "safetensors"), where


def test_reference_gives_the_number_of_rows_that_evaluate_answers() -> None:
    section = sections(prose(REFERENCE))["evaluate"]
    assert f"the first {GENERATED_ROWS} rows are also answered in full" in section
