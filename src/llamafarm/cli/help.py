"""How `--help` looks, the same for every command and every version of Typer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

_WIDEST_HELP = 100
_WIDEST_FIRST_COLUMN = 34


class HouseCommand(TyperCommand):
    """A command whose help ends with a worked example (its epilog, printed as it is)."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, what it does, arguments, options, example."""
        params: list[Any] = self.get_params(ctx)
        arguments = [p for p in params if p.param_type_name == "argument"]
        required = [_name_of(p) for p in (*arguments, *params) if p.required]
        optional = [f"[{_name_of(p)}]" for p in arguments if not p.required]
        usage = " ".join([*dict.fromkeys(required), *optional, "[OPTIONS]"])
        write_intro(formatter, ctx.command_path, usage, self.help or "")
        write_rows(formatter, "Arguments", [(_name_of(p), p.help or "") for p in arguments])
        write_rows(formatter, "Options", option_rows(params))
        write_example(formatter, self.epilog or "")


def build_command(
    function: Callable[..., None], name: str, example: str, cls: type[TyperCommand] = HouseCommand
) -> Any:
    """The command that a function with Typer's annotations describes; its docstring is the help."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    settings = {"max_content_width": _WIDEST_HELP}
    app.command(name, cls=cls, epilog=example, context_settings=settings)(function)
    return typer.main.get_command(app)


def write_intro(formatter: Any, path: str, usage: str, text: str) -> None:
    """The usage line and the first paragraphs."""
    formatter.write_usage(path, usage)
    formatter.write_paragraph()
    formatter.write_text(text.strip())


def write_rows(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    """A section of names with their meaning."""
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows, col_max=_WIDEST_FIRST_COLUMN)


def write_example(formatter: Any, example: str) -> None:
    """Lines to copy."""
    if example:
        formatter.write("\nExample:\n")
        formatter.write("".join(f"  {line}\n" for line in example.strip().splitlines()))


def option_rows(params: Sequence[Any]) -> list[tuple[str, str]]:
    """Each option with its meaning."""
    return [(_name_of(p), p.help or "") for p in params if p.param_type_name == "option"]


def _name_of(parameter: Any) -> str:
    """`SOURCE`, `--json`, `--output DIR`."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    names = ", ".join(parameter.opts)
    return names if parameter.is_flag else f"{names} {parameter.metavar}"
