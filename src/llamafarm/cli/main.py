"""The command line: one table of commands, each imported only when it runs, and one place for
errors.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from llamafarm.cli.help import build_command, option_rows, write_example, write_intro, write_rows
from llamafarm.cli.output import (
    OutputClosed,
    flush_result,
    never_write_again,
    open_missing_streams,
    result,
    say,
)
from llamafarm.cli.usage import UsageError, house_error, unknown_command
from llamafarm.errors import EXIT_DEFECT, EXIT_OK, EXIT_USER, LlamafarmError

COMMANDS: Mapping[str, str] = {
    "train": "Fine-tune a model, evaluate it, keep the best.",
    "recommend": "Write the strategy that fits data, model and machine, with its reasons.",
    "init": "Write a first strategy that explains itself.",
    "setup": "Check everything that train needs, and train nothing.",
    "prepare": "Turn raw files into clean training rows.",
    "inspect": "Show what is in a dataset before it is trained on.",
    "datasplit": "Split a dataset into a training and an evaluation file.",
    "list-strategies": "List the strategies of a file.",
    "info": "Show every value of a strategy, where it comes from, and why.",
    "generate": "Ask a trained model one thing.",
    "chat": "Talk to a trained model.",
    "evaluate": "Measure a model on a dataset, alone or against its base.",
    "runs": "List the runs of a directory, or compare some of them.",
    "report": "Write the HTML report of a run again.",
    "dashboard": "Show the runs of a directory in a browser, live, until Ctrl-C.",
    "compare-backends": "Ask both fine-tuners what they would do with a strategy, and compare.",
    "convert": "Make a trained model ready for Ollama or llama.cpp, and prove it.",
    "schema": "Print the JSON Schema of strategy files, for editors.",
    "doctor": "Show versions, devices, and which optional parts are there.",
}
"""Every command with its one line; its module has the same name, with underscores."""

_INTRO = "Describe a fine-tuning run in one YAML strategy, train it with one command."
_EXAMPLE = """
llamafarm train --dataset questions.jsonl
llamafarm COMMAND --help
"""
_STOPPED_BY_CTRL_C = 130
_STOPPED_BY_A_CLOSED_PIPE = 141


class Root(TyperCommand):
    """What answers when no command is named."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The table; no command is imported for it."""
        write_intro(formatter, ctx.command_path, "COMMAND [OPTIONS]", _INTRO)
        write_rows(formatter, "Commands", list(COMMANDS.items()))
        write_rows(formatter, "Options", option_rows(self.get_params(ctx)))
        write_example(formatter, _EXAMPLE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code. argv: without the name of the program."""
    argv = sys.argv[1:] if argv is None else argv
    return _handle_errors(lambda: _dispatch(argv), argv)


def run() -> NoReturn:
    """The console script."""
    _prepare_process()
    leave(main())


def run_function(function: Callable[..., None], name: str, example: str) -> int:
    """The same for a script that is a single command; it then leaves with the exit code."""
    _prepare_process()
    argv = sys.argv[1:]
    return _handle_errors(lambda: _run(build_command(function, name, example), name, argv), argv)


def leave(code: int) -> NoReturn:
    """End the process. In a library's clean-up Ctrl-C would be a traceback: it ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def _prepare_process() -> None:
    # What libraries tell programmers is not for our users; `python -W` still decides.
    if not sys.warnoptions:
        warnings.simplefilter("ignore", FutureWarning)
    # It advises a package that would download a kernel.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    open_missing_streams()
    # Whatever an output cannot show is replaced: an answer must not end in an encoding error.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # always, but in tests


def _dispatch(argv: Sequence[str]) -> None:
    """Import the command that is named, and only that one. Raises UserError for an unknown name."""
    name = argv[0] if argv else ""
    if name in COMMANDS:
        module = importlib.import_module(f"llamafarm.cli.{name.replace('-', '_')}")
        command = build_command(module.command, name, module.EXAMPLE)
        _run(command, f"llamafarm {name}", argv[1:])
    elif name and not name.startswith("-"):
        raise unknown_command(name, COMMANDS)
    else:
        _run(build_command(_root, "llamafarm", "", Root), "llamafarm", argv)


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from llamafarm.cli.defects import package_version

        result(f"llamafarm {package_version('llamafarm')}")
    else:
        say(context.get_help())
        raise typer.Exit(EXIT_USER)


def _run(command: Any, path: str, argv: Sequence[str]) -> None:
    """Parse, then do. path: what the command is called, e.g. `llamafarm train`."""
    try:
        context = command.make_context(path, list(argv), obj=tuple(argv))
    except UsageError as error:
        raise house_error(error, path, command) from None
    except BrokenPipeError:  # of the help
        raise OutputClosed from None
    with context:
        command.invoke(context)
    flush_result()


def _handle_errors(action: Callable[[], None], argv: Sequence[str]) -> int:
    """The one handler of errors. Nothing that a user can cause leaves a traceback on the screen."""
    try:
        action()
    except typer.Exit as stop:
        return stop.exit_code
    except LlamafarmError as error:
        say(error.render())
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("stopped")
        return _STOPPED_BY_CTRL_C
    except OutputClosed:
        never_write_again()
        return _STOPPED_BY_A_CLOSED_PIPE
    except Exception as error:  # whatever is not caught before is a defect of ours
        from llamafarm.cli.defects import defect_message, log_defect

        say(defect_message(error, log_defect(error, argv)))
        return EXIT_DEFECT
    return EXIT_OK
