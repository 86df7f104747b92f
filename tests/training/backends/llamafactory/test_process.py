"""Real processes, with small scripts in the place of LLaMA-Factory's trainer."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llamafarm.errors import RunError
from llamafarm.training.backends.llamafactory import process as module
from llamafarm.training.backends.llamafactory.environment import Environment
from llamafarm.training.backends.llamafactory.process import (
    INSIDE,
    Said,
    TrainerProcess,
    environment_of,
    meaningful_lines,
)

SOURCE = Path(module.__file__).parents[4]
# As long as a slow machine may take to start Python.
PATIENCE = 120.0
TALKS = """\
import json, os, signal, subprocess, sys, time
out, into = os.fdopen(int(sys.argv[2]), "w"), os.fdopen(int(sys.argv[3]))
def say(sentence, **values):
    print(json.dumps({"say": sentence, **values}), file=out, flush=True)
def hear():
    return json.loads(into.readline())
"""
ENGINE = """\
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("inside", {inside!r})
inside = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inside)
line = inside.Line(int(sys.argv[2]), int(sys.argv[3]))
"""

Start = Callable[..., TrainerProcess]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A process that runs a script; `head` comes before it."""

    def make(script: str, head: str = TALKS, python: str = sys.executable) -> TrainerProcess:
        file = tmp_path / "script.py"
        file.write_text(head.replace("{inside!r}", repr(str(INSIDE))) + textwrap.dedent(script))
        monkeypatch.setattr(module, "INSIDE", file)
        return TrainerProcess(
            Environment(Path(python), "0.9.5"),
            tmp_path,
            tmp_path / "job.json",
            tmp_path / "log",
            device="cpu",
        )

    return make


def heard(process: TrainerProcess) -> Said:
    said = process.listen(PATIENCE)
    assert said is not None
    return said


def failure(process: TrainerProcess) -> RunError:
    with process, pytest.raises(RunError) as caught:
        process.listen(PATIENCE)
    return caught.value


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while is_running(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.02)


# Sentences.


def test_sentences_are_heard_in_order_and_answered(start: Start) -> None:
    script = """\
        say("step", step=1)
        answer = hear()
        say("numbers", given=answer, job=sys.argv[1])
        say("over")
    """
    with start(script) as process:
        first = heard(process)
        assert (first.sentence, first.whole("step")) == ("step", 1)
        process.answer(log=True, why="grün")
        second = heard(process)
        assert second.part("given").values == {"log": True, "why": "grün"}
        assert second.text("job").endswith("/job.json")
        assert heard(process).sentence == "over"


def test_nothing_said_is_no_sentence(start: Start) -> None:
    with start("hear()") as process:
        assert process.listen(0.0) is None


def test_a_sentence_may_come_in_pieces(start: Start) -> None:
    script = """\
        out.write('{"say": "st'); out.flush()
        hear()
        out.write('ep", "step": 3}\\n'); out.flush()
        hear()
    """
    with start(script) as process:
        assert process.listen(0.5) is None
        process.answer()
        assert heard(process).whole("step") == 3


def test_it_is_asked_to_stop_soon_while_it_is_busy(start: Start) -> None:
    script = """\
        line.say("ready")
        line.stopping.wait()
        line.say("stopping", answered=line.ask("turn"))
    """
    with start(script, ENGINE) as process:
        assert heard(process).sentence == "ready"
        process.stop_soon()
        assert heard(process).sentence == "turn"
        process.answer(save=True)
        assert heard(process).part("answered").values == {"save": True}


def test_it_runs_in_its_directory_and_prints_into_the_log(start: Start, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of an earlier start\n")
    with start('print("hello"); say("at", place=os.getcwd()); hear()') as process:
        assert heard(process).text("place") == str(tmp_path)
        process.answer()
        process.wait(PATIENCE)
    assert (tmp_path / "log").read_text() == "of an earlier start\nhello\n"


# How it ends.


def test_an_exception_in_it_is_told_with_the_path_of_the_log(start: Start, tmp_path: Path) -> None:
    error = failure(start('print("loading"); raise ValueError("no such template")'))
    assert error.summary == (
        "LLaMA-Factory ended with exit code 1:\n  ValueError: no such template"
    )
    assert error.hint == f"the full log is {tmp_path / 'log'}"
    assert error.exit_code == 1


def test_what_an_earlier_start_has_printed_is_not_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("Traceback (most recent call last):\nValueError: old\n")
    assert failure(start("sys.exit(3)")).summary == "LLaMA-Factory ended with exit code 3"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("run `pip install galore_torch`", "galore_torch"),
        ("run `pip install bitsandbytes>=0.37.0`.", "'bitsandbytes>=0.37.0'"),
        ("please pip install -U apollo-torch.", "apollo-torch"),
        ("pip install 'liger-kernel[extra]'", "'liger-kernel[extra]'"),
    ],
)
def test_a_package_that_it_lacks_is_a_command_for_its_own_python(
    start: Start, tmp_path: Path, text: str, command: str
) -> None:
    error = failure(start(f"raise ImportError({text!r})"))
    assert error.hint == (
        f"uv pip install --python {sys.executable} {command}; the full log is {tmp_path / 'log'}"
    )


def test_a_signal_that_ended_it_has_its_name(start: Start) -> None:
    error = failure(start("os.kill(os.getpid(), signal.SIGKILL)"))
    assert error.summary == "LLaMA-Factory was ended by SIGKILL"


def test_its_end_is_seen_where_a_child_of_it_holds_the_pipe(start: Start) -> None:
    script = """\
        if not os.fork():
            time.sleep(3600)
        os._exit(4)
    """
    with start(script) as process:
        process.wait(PATIENCE)
        with pytest.raises(RunError, match="ended with exit code 4"):
            process.listen(0.2)


def test_an_answer_to_a_process_that_has_ended_is_its_failure(start: Start) -> None:
    with start("sys.exit(5)") as process:
        process.wait(PATIENCE)
        with pytest.raises(RunError, match="ended with exit code 5"):
            process.answer()


def test_what_was_said_before_the_end_is_heard(start: Start) -> None:
    with start('say("step", step=1); sys.exit(2)') as process:
        process.wait(PATIENCE)
        assert heard(process).whole("step") == 1
        with pytest.raises(RunError, match="exit code 2"):
            process.listen(PATIENCE)


def test_an_interpreter_that_is_not_there_is_named(start: Start, tmp_path: Path) -> None:
    python = str(tmp_path / "no-python")
    with (
        pytest.raises(RunError, match="No such file or directory") as caught,
        start("", python=python),
    ):
        pass
    assert python in caught.value.summary
    assert "llamafarm doctor" in caught.value.hint


@pytest.mark.parametrize(
    "line",
    ["hello", "", "[1]", "3", "null", '{"step": 3}', '{"say": "step"', "\\xff\\xfe"],
)
def test_a_line_that_is_no_sentence_is_not_known(start: Start, tmp_path: Path, line: str) -> None:
    error = failure(start(f'os.write(out.fileno(), b"""{line}\\n"""); hear()'))
    assert error.summary.startswith("LLaMA-Factory said what this version does not know: ")
    assert error.hint.endswith(f"the full log is {tmp_path / 'log'}")
    assert "made for LLaMA-Factory 0.9.5" in error.hint


# Words of a sentence.


def said(**values: object) -> Said:
    return Said("step", values, Path("log"))


@pytest.mark.parametrize("kind", ["whole", "number", "text", "numbers", "wholes", "part"])
@pytest.mark.parametrize("values", [{}, {"x": {1}}])
def test_a_word_that_lacks_or_is_something_else_is_not_known(
    kind: str, values: dict[str, object]
) -> None:
    with pytest.raises(RunError, match="does not know: step: x in") as caught:
        getattr(said(**values), kind)("x")
    assert caught.value.hint.endswith("the full log is log")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("whole", 1.0),
        ("whole", True),
        ("whole", None),
        ("whole", "3"),
        ("number", "3"),
        ("number", True),
        ("text", 3),
        ("numbers", "abc"),
        ("numbers", [1, "2"]),
        ("numbers", [True]),
        ("wholes", "abc"),
        ("wholes", [1.5]),
        ("part", [1]),
    ],
)
def test_a_word_of_another_kind_is_not_known(kind: str, value: object) -> None:
    with pytest.raises(RunError, match="does not know"):
        getattr(said(x=value), kind)("x")


def test_words_are_what_they_are_called() -> None:
    found = said(whole=3, number=0.5, none=None, text="t", ids=[1], some=[1, None], part={"x": 2})
    assert (found.whole("whole"), found.number("number"), found.number("whole")) == (3, 0.5, 3.0)
    assert math.isnan(found.number("none"))
    assert (found.text("text"), found.wholes("ids")) == ("t", (1,))
    assert found.numbers("some")[0] == 1.0 and math.isnan(found.numbers("some")[1])
    assert (found.part("part").sentence, found.part("part").whole("x")) == ("step.part", 2)


def test_what_is_not_known_is_told_short_and_without_secrets() -> None:
    error = said(key="hf_0123456789abcdef0123", rest="x" * 5000).unknown()
    assert "hf_***" in error.summary and "0123456789abcdef" not in error.summary
    assert len(error.summary) < 300


# What is left behind.

WITH_CHILD = """\
child = subprocess.Popen(["sleep", "3600"])
say("ready", own=os.getpid(), child=child.pid)
hear()
time.sleep(3600)
"""


def test_neither_it_nor_its_children_outlive_the_block(start: Start) -> None:
    with start(WITH_CHILD) as process:
        ready = heard(process)
        own, child = ready.whole("own"), ready.whole("child")
        assert is_running(own) and is_running(child)
    wait_until_gone(own)
    wait_until_gone(child)


def test_an_error_in_the_block_leaves_nothing_running(start: Start) -> None:
    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt), start(WITH_CHILD) as process:
        ready = heard(process)
        pids += [ready.whole("own"), ready.whole("child")]
        raise KeyboardInterrupt
    for pid in pids:
        wait_until_gone(pid)


def test_children_of_a_process_that_has_ended_are_ended_too(start: Start) -> None:
    with start(WITH_CHILD.replace("hear()\ntime.sleep(3600)", "sys.exit(1)")) as process:
        child = heard(process).whole("child")
        process.wait(PATIENCE)
        assert is_running(child)
    wait_until_gone(child)


def test_no_pipe_stays_open(start: Start) -> None:
    def pipes() -> int:
        return psutil.Process().num_fds()

    before = pipes()
    with start("hear()"):
        pass
    with pytest.raises(RunError), start("", python="/no/python"):
        pass
    assert pipes() == before


def test_it_ends_by_itself_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        ENGINE.replace("{inside!r}", repr(str(INSIDE)))
        + 'line.say("ready", own=os.getpid())\ntime.sleep(3600)\n'
    )
    parent = textwrap.dedent(f"""\
        import sys, time
        from pathlib import Path
        from llamafarm.training.backends.llamafactory import process
        from llamafarm.training.backends.llamafactory.environment import Environment
        process.INSIDE = Path({str(script)!r})
        place = Path({str(tmp_path)!r})
        python = Environment(Path(sys.executable), "0.9.5")
        with process.TrainerProcess(python, place, place / "job", place / "log", device="cpu") as p:
            print(p.listen({PATIENCE}).whole("own"), flush=True)
            time.sleep(3600)
    """)
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-c", parent], env=environ, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        own = int(killed.stdout.readline())
        assert is_running(own)
        killed.send_signal(signal.SIGKILL)
    wait_until_gone(own)


# Its environment.


def test_it_gets_no_secrets_and_no_code() -> None:
    found = environment_of(
        {
            "PATH": "/bin",
            "HOME": "/home/ada",
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "2",
            "HF_TOKEN": "hf_x",
            "WANDB_API_KEY": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "PYTHONPATH": "/code",
            "PYTHONSTARTUP": "/code.py",
            "LD_PRELOAD": "/code.so",
            "USE_MODELSCOPE_HUB": "1",
            "LLAMAFACTORY_VERBOSITY": "DEBUG",
            "MY_PATH": "x",
        },
        "cpu",
    )
    kept = {"PATH", "HOME", "LC_ALL", "OMP_NUM_THREADS"}
    kept |= {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
    assert found.keys() == kept | module._SET.keys()
    assert found["HF_HUB_OFFLINE"] == "1"


def test_what_is_set_for_it_wins() -> None:
    assert environment_of({"HF_HUB_OFFLINE": "0"}, "cpu")["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("cuda:1", None, "1"),
        ("cuda", None, "0"),
        ("cuda:1", "4,5", "5"),
        ("cuda:0", "4,5", "4"),
        ("cuda", "GPU-a,GPU-b", "GPU-a"),
        ("cpu", "4,5", ""),
        ("cpu", None, ""),
        ("mps", None, None),
    ],
)
def test_it_sees_the_device_of_the_plan_only(
    device: str, visible: str | None, expected: str | None
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert environment_of(environ, device).get("CUDA_VISIBLE_DEVICES") == expected


def test_the_process_gets_that_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    script = (
        'say("got", token=os.environ.get("HF_TOKEN"), off=os.environ["HF_HUB_OFFLINE"]); hear()'
    )
    with start(script) as process:
        assert heard(process).values == {"token": None, "off": "1"}


# The end of a log.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", []),
        ("a\n\nb\nc\nd\ne\n", ["b", "c", "d", "e"]),
        (" 10%|█\r 20%|██\rdone\n", ["10%|█", "20%|██", "done"]),
        (
            "at\nTraceback (most recent call last):\n  File x\n    raise\nValueError: bad\nmore\n",
            ["ValueError: bad", "more"],
        ),
        (
            (
                "Traceback (most recent call last):\n  a\nKeyError: 1\n\nDuring handling …:\n\n"
                "Traceback (most recent call last):\n  b\nRuntimeError: 2\n"
            ),
            ["RuntimeError: 2"],
        ),
        ("Traceback (most recent call last):\n  File x\n    cut\n", ["cut"]),
        ("Traceback (most recent call last):\n", []),
        ("E: " + "x" * 500, ["E: " + "x" * 297]),
        ("token hf_0123456789abcdef0123", ["token hf_***"]),
    ],
)
def test_of_a_log_the_last_exception_or_the_last_lines_are_told(text: str, told: list[str]) -> None:
    assert meaningful_lines(text) == told
