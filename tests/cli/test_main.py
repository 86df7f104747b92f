from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from llamafarm.cli.defects import state_directory
from llamafarm.errors import (
    DataError,
    GateRefused,
    Interrupted,
    LlamafarmError,
    Problem,
    RunError,
)

from .conftest import Done

Run = Callable[..., Done]
HEAVY = ("torch", "transformers", "pydantic", "datasets", "numpy", "rich", "yaml")
SOURCE = Path(__file__).parents[2] / "src"


def python(code: str, *, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that has imported nothing of ours."""
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "argv", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["trian"]]
)
def test_nothing_heavy_is_imported_to_answer_a_question_about_the_commands(argv: list[str]) -> None:
    done = python(
        "import json, sys; from llamafarm.cli.main import main; "
        f"code = main({argv!r}); print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    assert modules.isdisjoint(HEAVY)
    ours = {name for name in modules if name.startswith("llamafarm.")}
    assert ours.isdisjoint({"llamafarm.api", "llamafarm.strategy", "llamafarm.planning"})


def test_no_command_is_imported_for_the_list_of_commands() -> None:
    done = python(
        "import sys; from llamafarm.cli.main import COMMANDS, main; main(['--help']); "
        "names = ['llamafarm.cli.' + name.replace('-', '_') for name in COMMANDS]; "
        "print([name for name in names if name in sys.modules], file=sys.stderr)"
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    done = python("import sys, llamafarm, llamafarm.api; print(sorted(sys.modules))")
    assert set(eval(done.stdout)).isdisjoint(HEAVY)


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_2(llamafarm: Run) -> None:
    done = llamafarm()
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: llamafarm COMMAND")


def test_the_version_is_a_result(llamafarm: Run) -> None:
    done = llamafarm("--version")
    assert done.code == 0 and done.err == ""
    assert done.out.startswith("llamafarm ")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["trian"], "error: unknown command `trian`\nhint: did you mean `train`?\n"),
        (["xyzzy"], "error: unknown command `xyzzy`\nhint: llamafarm --help lists the commands\n"),
        (
            ["train", "--epoch", "3"],
            "error: llamafarm train: unknown option `--epoch`\nhint: did you mean `--epochs`?\n",
        ),
        (
            ["train", "--xyzzy"],
            "error: llamafarm train: unknown option `--xyzzy`\nhint: llamafarm train --help\n",
        ),
        (
            ["--vresion"],
            "error: llamafarm: unknown option `--vresion`\nhint: did you mean `--version`?\n",
        ),
        (
            ["chat"],
            "error: llamafarm chat: missing argument `SOURCE`\nhint: llamafarm chat --help\n",
        ),
        (
            ["evaluate", "run"],
            (
                "error: the command line has 1 problem\n"
                "  --dataset  is missing: there is nothing to measure on\n"
                "             hint: or name --tasks of lm-eval\n"
            ),
        ),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_what_to_type(
    llamafarm: Run, argv: list[str], text: str
) -> None:
    assert llamafarm(*argv) == Done(2, "", text)


@pytest.mark.parametrize("argv", [["chat", "a", "b"], ["train", "--set"]])
def test_other_wrong_command_lines_exit_with_2_too(llamafarm: Run, argv: list[str]) -> None:
    done = llamafarm(*argv)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: llamafarm {argv[0]}: ")
    assert done.err.endswith(f"hint: llamafarm {argv[0]} --help\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RunError("the run diverged", hint="lower the learning rate"), 1),
        (DataError("data.jsonl has 1 problem", [Problem("no answer", where="data.jsonl:3")]), 2),
        (GateRefused("rows leak"), 3),
        (Interrupted(15, "after step 3"), 143),
        (Interrupted(2, "after step 3"), 130),
    ],
)
def test_an_expected_error_is_rendered_on_stderr_with_its_exit_code(
    llamafarm: Run,
    fake_api: Callable[..., object],
    tmp_path: Path,
    error: LlamafarmError,
    code: int,
) -> None:
    fake_api("schema", error)
    assert llamafarm("schema") == Done(code, "", error.render() + "\n")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_ctrl_c_exits_with_130_without_a_traceback(
    llamafarm: Run, fake_api: Callable[..., object], error: type[BaseException]
) -> None:
    fake_api("schema", error)
    assert llamafarm("schema") == Done(130, "", "stopped\n")


def test_a_defect_exits_with_70_and_names_the_log_with_the_traceback(
    llamafarm: Run, fake_api: Callable[..., object], tmp_path: Path
) -> None:
    fake_api("schema", ZeroDivisionError("division by zero"))
    done = llamafarm("schema")
    (log,) = (tmp_path / "state" / "logs").iterdir()
    assert done.code == 70
    assert done.err == (
        "error: a defect of llamafarm: ZeroDivisionError: division by zero\n"
        f"  the details are in {log}\n"
        "hint: send that file along when you report it\n"
    )
    text = log.read_text()
    assert "command   llamafarm schema" in text
    assert "Traceback (most recent call last)" in text
    assert "transformers " in text


def test_a_defect_is_told_and_logged_without_secrets(
    llamafarm: Run,
    fake_api: Callable[..., object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    fake_api("schema", ValueError("hf_0123456789abcdef0123 and 0123456789abcdef"))
    done = llamafarm("schema")
    (log,) = (tmp_path / "state" / "logs").iterdir()
    for text in (done.err, log.read_text()):
        assert "ValueError: hf_*** and ***" in text
        assert "0123456789abcdef" not in text


def test_a_defect_that_cannot_be_logged_is_shown_whole(
    llamafarm: Run, fake_api: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("llamafarm.cli.defects.write_bytes", refuse)
    fake_api("schema", ZeroDivisionError("division by zero"))
    done = llamafarm("schema")
    assert done.code == 70
    assert "Traceback (most recent call last)" in done.err


def test_logs_go_where_the_user_keeps_state(tmp_path: Path) -> None:
    home = str(Path.home())
    assert state_directory({"LLAMAFARM_STATE": "/a"}) == Path("/a")
    assert state_directory({"XDG_STATE_HOME": "/b"}) == Path("/b/llamafarm")
    assert state_directory({}) == Path(f"{home}/.local/state/llamafarm")


def test_a_reader_that_leaves_is_no_error() -> None:
    code = (
        "import sys; from llamafarm import api; from llamafarm.cli.main import main\n"
        "api.schema = lambda: {'x': 'y' * 1_000_000}\n"
        "sys.exit(main(['schema']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = python(code, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("closed", "argv", "code"),
    [(">&-", "--version", 0), ("2>&-", "no-such-command", 2), ("<&- >&- 2>&-", "--help", 0)],
)
def test_a_closed_output_changes_no_exit_code(closed: str, argv: str, code: int) -> None:
    command = ["sh", "-c", f'exec "$0" -m llamafarm {argv} {closed}', sys.executable]
    assert subprocess.run(command, check=False, capture_output=True, timeout=120).returncode == code


def test_a_broken_pipe_elsewhere_is_a_defect(
    llamafarm: Run, fake_api: Callable[..., object]
) -> None:
    fake_api("schema", BrokenPipeError(32, "Broken pipe"))
    assert llamafarm("schema").code == 70


def test_an_output_that_cannot_show_everything_shows_what_it_can() -> None:
    code = (
        "import sys; sys.stdout.reconfigure(encoding='ascii'); from llamafarm import api\n"
        "from llamafarm.cli.main import run\n"
        "api.generate = lambda *a, on_text, **k: on_text('grün → blau')\n"
        "sys.argv = ['llamafarm', 'generate', 'a', 'b']; run()"
    )
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "gr?n -> blau\n")


def test_the_shims_run_the_same_command_line() -> None:
    root = SOURCE.parent
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    for shim, usage in (
        ("cli.py", "llamafarm COMMAND"),
        ("demos/create_data_split.py", "--input FILE"),
    ):
        done = subprocess.run(
            [sys.executable, str(root / shim), "--help"],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert usage in done.stdout.splitlines()[0]


def test_ctrl_c_while_the_process_leaves_is_no_traceback() -> None:
    script = (
        "import atexit, os, signal, sys\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "sys.argv = ['llamafarm', '--version']\n"
        "from llamafarm.cli.main import run\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("llamafarm ")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
