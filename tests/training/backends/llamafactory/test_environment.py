from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from llamafarm import api
from llamafarm.doctor import examine
from llamafarm.errors import LlamafarmError, OutputError, UserError
from llamafarm.monitoring.events import Event, MessageEvent
from llamafarm.readiness import plan_run
from llamafarm.strategy.model import Strategy
from llamafarm.training.backends.llamafactory import environment
from llamafarm.training.backends.llamafactory.environment import (
    LEFT_OUT,
    PINNED,
    VARIABLE,
    VERSION,
    Environment,
    find_environment,
    install_commands,
    install_environment,
    installed_environment,
    is_missing,
    size_text,
    uv_environment,
)

MODULES = ("llamafactory", "torch", "transformers", "peft", "trl", "accelerate", "datasets")


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account in which nothing was installed."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "data"


def make_environment(
    directory: Path, version: str | None = VERSION, modules: tuple[str, ...] = MODULES
) -> Path:
    """A small environment that says it has this LLaMA-Factory; its program."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(directory)]
    subprocess.run(command, check=True)
    (packages,) = directory.glob("lib/python*/site-packages")
    if version:
        info = packages / f"llamafactory-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: llamafactory\nVersion: {version}\n")
    for name in modules:
        # An import would end the process that asks.
        (packages / f"{name}.py").write_text("raise SystemExit(9)\n")
    return write_script(
        directory / "bin" / "llamafactory-cli", f"#!{directory}/bin/python\nimport llamafactory\n"
    )


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def fake_uv(monkeypatch: pytest.MonkeyPatch, directory: Path, text: str) -> None:
    """The only uv on this machine."""
    write_script(directory / "uv", f"#!/bin/sh\n{textwrap.dedent(text)}")
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)


def refusal_of_named(monkeypatch: pytest.MonkeyPatch, named: Path | str) -> UserError:
    monkeypatch.setenv(VARIABLE, str(named))
    with pytest.raises(UserError) as fault:
        find_environment()
    assert fault.value.summary.startswith(f"{VARIABLE} is {named}")
    assert f"llamafactory=={VERSION}" in fault.value.hint
    assert "unset it" in fault.value.hint
    return fault.value


def test_a_missing_environment_says_what_installs_it_how_large_and_where(data_home: Path) -> None:
    assert is_missing()
    with pytest.raises(UserError, match=r"needs LLaMA-Factory 0\.9\.5 in an environment") as fault:
        find_environment()
    assert fault.value.exit_code == 2
    for part in (
        "llamafarm setup",
        size_text(),
        str(installed_environment()),
        f"export {VARIABLE}",
    ):
        assert part in fault.value.hint


def test_the_place_has_the_versions_of_llamafactory_and_python_in_its_name(data_home: Path) -> None:
    minor = f"py{sys.version_info[0]}{sys.version_info[1]}"
    packages = data_home / "llamafarm" / "packages"
    assert installed_environment() == packages / f"llamafactory-{VERSION}-{minor}"


@pytest.mark.usefixtures("data_home")
def test_what_is_installed_is_found_and_its_interpreter_stays_a_link() -> None:
    make_environment(installed_environment())
    python = installed_environment() / "bin" / "python"
    assert find_environment() == Environment(python, VERSION)
    assert python.is_symlink()
    assert install_environment() == Environment(python, VERSION)


@pytest.mark.usefixtures("data_home")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("no interpreter", "cannot be started (No such file or directory)"),
        ("another version", "its LLaMA-Factory is version 0.9.4, and this version of llamafarm"),
        ("no llamafactory", "has no LLaMA-Factory"),
        ("no torch", "it lacks torch, peft"),
    ],
)
def test_a_broken_one_of_ours_is_to_be_removed_and_made_again(damage: str, said: str) -> None:
    directory = installed_environment()
    if damage == "no interpreter":
        directory.mkdir(parents=True)
    elif damage == "another version":
        make_environment(directory, "0.9.4")
    elif damage == "no llamafactory":
        make_environment(directory, None)
    else:
        make_environment(directory, modules=tuple(set(MODULES) - {"torch", "peft"}))
    with pytest.raises(UserError) as fault:
        find_environment()
    assert said in fault.value.summary
    assert str(directory) in fault.value.summary
    assert fault.value.hint == f"remove it and run setup again: rm -r {directory}"
    (part,) = [s for s in examine().sections if s.name == "LLaMA-Factory"]
    assert (part.status, part.how_to_get) == ("fault", fault.value.hint)


@pytest.mark.usefixtures("data_home")
@pytest.mark.parametrize("form", ["plain", "quoted", "unquoted", "beside", "env", "link"])
def test_a_named_program_leads_to_its_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    program = make_environment(tmp_path / "other place" if form == "quoted" else tmp_path / "other")
    python = program.with_name("python")
    if form in ("quoted", "unquoted"):
        path = f'"{python}"' if form == "quoted" else python
        program = write_script(
            tmp_path / "elsewhere" / "cli", f"#!/bin/sh\n'''exec' {path} \"$0\" \"$@\"\n' '''\n"
        )
    elif form == "beside":
        here = '"$(dirname -- "$(realpath -- "$0")")"/\'python\''
        program.write_text(f"#!/bin/sh\n'''exec' {here} \"$0\" \"$@\"\n' '''\n")
    elif form == "env":
        monkeypatch.setenv("PATH", str(python.parent), prepend=os.pathsep)
        program.write_text("#!/usr/bin/env python\n")
    elif form == "link":
        (tmp_path / "llamafactory-cli").symlink_to(program)
        program = tmp_path / "llamafactory-cli"
    monkeypatch.setenv(VARIABLE, str(program))
    assert find_environment() == Environment(python, VERSION)
    assert not is_missing()
    assert install_environment() == Environment(python, VERSION)
    assert not installed_environment().exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "which is not there"),
        ("", "which is no script of Python; the program llamafactory-cli is expected"),
        ("#!\n", "which is no script of Python"),
        ("\x7fELF\x00", "which is no script of Python"),
        ("#!/usr/bin/yes\n", "which is a script for /usr/bin/yes, not for Python"),
        ("#!/bin/sh\nexec llamafactory\n", "which is a script for /bin/sh, not for Python"),
        ("#!/no/such/python\n", "its interpreter /no/such/python cannot be started"),
    ],
)
def test_a_named_program_that_is_none_is_refused_with_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    path = tmp_path / "llamafactory-cli"
    if text is not None:
        write_script(path, text)
    assert said in refusal_of_named(monkeypatch, path).summary


def test_a_directory_and_a_file_that_cannot_be_run_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "which is a directory" in refusal_of_named(monkeypatch, tmp_path).summary
    plain = tmp_path / "llamafactory-cli"
    plain.write_text(f"#!{sys.executable}\n")
    assert "which is not executable" in refusal_of_named(monkeypatch, plain).summary
    assert "which is no script" in refusal_of_named(monkeypatch, "/bin/true").summary
    refused = refusal_of_named(monkeypatch, tmp_path / ("long" * 200))
    assert "which cannot be read: File name too long" in refused.summary
    assert "which cannot be read" in refusal_of_named(monkeypatch, "~no-such-user/x").summary


def test_a_named_one_of_another_version_and_one_without_llamafactory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_environment(tmp_path / "old", "0.9.4")
    assert "is version 0.9.4" in refusal_of_named(monkeypatch, old).summary
    bare = make_environment(tmp_path / "bare", None)
    assert "has no LLaMA-Factory" in refusal_of_named(monkeypatch, bare).summary


def test_an_interpreter_that_says_nothing_or_never_answers_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script(tmp_path / "python", "#!/bin/sh\necho no module named encodings >&2; exit 3\n")
    program = write_script(tmp_path / "llamafactory-cli", f"#!{tmp_path}/python\n")
    summary = refusal_of_named(monkeypatch, program).summary
    assert "gave no answer (exit code 3): no module named encodings" in summary
    write_script(tmp_path / "python", "#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(environment, "_ANSWER_SECONDS", 0.2)
    assert "did not answer in 0.2 s" in refusal_of_named(monkeypatch, program).summary


def test_the_commands_fill_the_new_environment_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    target = Path("/data/new")
    make, fill = install_commands("/bin/uv", target, python="/py", torch="2.13.0", environ={})
    assert make[-5:] == ["--quiet", "--relocatable", "--python", "/py", "/data/new"]
    assert fill[fill.index("--python") + 1] == "/data/new/bin/python"
    assert fill[fill.index("--only-binary") + 1] == ":all:"
    assert fill[fill.index("--overrides") + 1] == "/data/new/left-out.txt"
    assert tuple(fill[-2 - len(PINNED) :]) == ("llamafactory==0.9.5", "torch==2.13.0", *PINNED)
    monkeypatch.setattr("sys.platform", "linux")
    _, fill = install_commands("/bin/uv", target, torch="2.13.0", environ={})
    assert fill[-1].startswith("bitsandbytes==")


@pytest.mark.parametrize(
    ("torch", "environ", "backend"),
    [
        ("2.13.0+cpu", {}, "cpu"),
        ("2.13.0+cu130", {}, "cu130"),
        ("2.13.0", {}, None),
        ("2.13.0+git1234", {}, None),
        ("2.13.0+cpu", {"PIP_FIND_LINKS": "/wheels"}, None),
        ("2.13.0+cpu", {"UV_TORCH_BACKEND": "auto"}, None),
    ],
)
def test_torch_is_another_copy_of_the_build_that_we_have(
    torch: str, environ: dict[str, str], backend: str | None
) -> None:
    _, fill = install_commands("uv", Path("/new"), torch=torch, environ=environ)
    assert "torch==2.13.0" in fill
    found = fill[fill.index("--torch-backend") + 1] if "--torch-backend" in fill else None
    assert found == backend


def test_wheels_that_pip_knows_about_are_made_known_to_uv() -> None:
    assert uv_environment({"A": "b"}) == {"A": "b"}
    assert uv_environment({"PIP_FIND_LINKS": "/a  /b"})["UV_FIND_LINKS"] == "/a,/b"
    own = {"PIP_FIND_LINKS": "/a", "UV_FIND_LINKS": "/c"}
    assert uv_environment(own)["UV_FIND_LINKS"] == "/c"


@pytest.mark.parametrize(
    ("platform", "torch", "size"),
    [
        ("linux", "2.13.0+cpu", "about 2.0 GB"),
        ("linux", "2.13.0", "about 7.0 GB"),
        ("linux", "2.13.0+cu130", "about 7.0 GB"),
        ("darwin", "2.13.0", "about 2.0 GB"),
    ],
)
def test_the_size_follows_the_build_of_torch(
    monkeypatch: pytest.MonkeyPatch, platform: str, torch: str, size: str
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("importlib.metadata.version", lambda name: torch)
    assert size_text() == size


def test_too_little_room_is_told_in_bytes_before_anything_is_written(
    data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_500_000_000))
    with pytest.raises(OutputError, match=r"2,000,000,000 bytes.*1,500,000,000 bytes") as fault:
        install_environment()
    assert "XDG_DATA_HOME" in fault.value.hint
    assert VARIABLE in fault.value.hint
    assert not data_home.exists()


def test_a_place_that_cannot_be_written_names_the_variable_that_moves_it(
    data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_home.write_text("a file")
    with pytest.raises(OutputError, match="cannot be written") as fault:
        install_environment()
    assert "XDG_DATA_HOME" in fault.value.hint


def test_without_uv_the_extra_that_brings_it_is_named(
    data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "uv", None)
    with pytest.raises(UserError, match="uv is not there") as fault:
        install_environment()
    assert "pip install 'llamafarm[llamafactory]'" in fault.value.hint


def test_the_uv_of_the_extra_is_used_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = environment._find_uv()
    asked = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith("uv ")


def test_a_failed_installation_says_what_uv_said_without_passwords_and_leaves_nothing(
    data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_uv(
        monkeypatch,
        tmp_path / "bin",
        """\
        case "$*" in *" venv "*) exit 0;; esac
        echo "Using Python 3.11"
        echo "error: Failed to fetch: https://me:s3cretpass@registry.test/simple/torch/" >&2
        exit 2
        """,
    )
    lines: list[str] = []
    with pytest.raises(UserError, match=r"could not be installed; uv said:") as fault:
        install_environment(lines.append)
    told = "error: Failed to fetch: https://***@registry.test/simple/torch/"
    assert lines == [told]
    assert fault.value.summary.splitlines()[1:] == [f"  {told}"]
    assert "run setup again" in fault.value.hint
    packages = installed_environment().parent
    assert [path.name for path in packages.iterdir()] == [".lock"]


@pytest.mark.usefixtures("data_home")
def test_what_uv_made_is_kept_only_when_it_is_a_llamafactory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_uv(monkeypatch, tmp_path / "bin", "exit 0\n")
    with pytest.raises(UserError, match="what uv installed cannot be used"):
        install_environment()
    assert is_missing()


@pytest.mark.usefixtures("data_home")
def test_uv_runs_in_the_new_environment_with_the_packages_that_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_uv(monkeypatch, tmp_path / "bin", "pwd -P; [ ! -f left-out.txt ] || cat left-out.txt\n")
    lines: list[str] = []
    with pytest.raises(UserError):
        install_environment(lines.append)
    assert Path(lines[0]).parent == installed_environment().parent.resolve()
    assert lines[-2:] == [f'{name} ; python_version < "3"' for name in LEFT_OUT]


@pytest.mark.usefixtures("data_home")
def test_setup_says_what_it_installs_and_how_large_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "uv", None)
    events: list[Event] = []
    with pytest.raises(UserError, match="uv is not there"):
        api._install_llamafactory(events.append)
    (event,) = events
    assert isinstance(event, MessageEvent)
    assert "installing LLaMA-Factory 0.9.5" in event.text
    assert size_text() in event.text
    assert str(installed_environment()) in event.text


@pytest.mark.usefixtures("data_home")
def test_a_run_without_its_environment_has_that_among_all_its_problems() -> None:
    problems: list[LlamafarmError] = []
    strategy = Strategy(id="s", backend="llamafactory")
    with pytest.raises(Exception, match="not planned"):
        plan_run(
            strategy,
            skip_bad_rows=False,
            allow_download=False,
            emit=lambda event: None,
            problems=problems,
        )
    assert "environment of its own" in problems[0].summary
    assert len(problems) > 1


@pytest.mark.usefixtures("data_home")
def test_doctor_has_it_among_the_optional_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (part,) = [s for s in examine().sections if s.name == "LLaMA-Factory"]
    assert part.status == "missing"
    assert VARIABLE in part.how_to_get
    program = make_environment(tmp_path / "other")
    monkeypatch.setenv(VARIABLE, str(program))
    (part,) = [s for s in examine().sections if s.name == "LLaMA-Factory"]
    assert (part.status, part.detail) == ("ok", f"{VERSION}, {program.with_name('python')}")


def test_the_real_environment_holds_what_was_tested_together_and_starts(
    llamafactory_environment: Environment,
) -> None:
    question = (
        "import importlib.metadata as m, importlib.util as u, torch, transformers, sys;"
        "print(*(f'{n}=={m.version(n)}' for n in sys.argv[1].split()));"
        "print(*(n for n in sys.argv[2].split() if u.find_spec(n)))"
    )
    names = " ".join(pin.partition("==")[0] for pin in PINNED)
    done = subprocess.run(
        [llamafactory_environment.python, "-I", "-c", question, names, " ".join(LEFT_OUT)],
        capture_output=True,
        text=True,
        check=True,
    )
    versions, left_out = done.stdout.splitlines()[-2:]
    if not os.environ.get(VARIABLE):
        assert versions.split() == list(PINNED)
        assert left_out == ""
    assert llamafactory_environment.version == VERSION
