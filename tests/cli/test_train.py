from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from llamafarm import api
from llamafarm.cli.decisions import decisions_for
from llamafarm.decision import Decision
from llamafarm.errors import Interrupted
from llamafarm.monitoring.events import Event, PlanEvent, Sink
from llamafarm.monitoring.metrics_file import MetricsFile
from llamafarm.monitoring.summary import summarise
from llamafarm.strategy.overrides import Override
from tests.monitoring.events_of_a_run import events_of_a_run

from .conftest import Done

Run = Callable[..., Done]
Fake = Callable[..., Mock]

PLAN = PlanEvent(
    strategy_id="quick",
    output_dir="fine_tuned_models/quick",
    decisions=(
        Decision("training_args.learning_rate", "0.001", "flag", "--learning-rate 1e-3"),
        Decision("training_args.seed", "42", "default", ""),
        Decision("method.target_modules", "q_proj, " * 9, "detected", "linear layers"),
    ),
)


def a_run(run_dir: Path, events: Iterable[Event] = ()) -> Callable[..., api.TrainResult]:
    """A `train` that sends these events to the sinks and leaves metrics.jsonl."""
    events = list(events) or [PLAN, *events_of_a_run()]

    def train(request: api.TrainRequest, sinks: Sequence[Sink] = ()) -> api.TrainResult:
        metrics = MetricsFile(run_dir / "metrics.jsonl")
        for event in events:
            for sink in (metrics, *sinks):
                sink.handle(event)
        for sink in (metrics, *sinks):
            sink.close()
        plan: Any = None
        return api.TrainResult(run_dir, summarise(events), plan)

    return train


def request_of(llamafarm: Run, fake_api: Fake, tmp_path: Path, *argv: str) -> api.TrainRequest:
    fake = fake_api("train", a_run(tmp_path))
    done = llamafarm("train", *argv)
    assert done.code == 0, done.err
    request = fake.call_args.args[0]
    assert isinstance(request, api.TrainRequest)
    return request


def test_nothing_typed_is_a_request_with_nothing_in_it(
    llamafarm: Run, fake_api: Fake, tmp_path: Path
) -> None:
    assert request_of(llamafarm, fake_api, tmp_path) == api.TrainRequest()


def test_the_seed_s_train_line_names_strategy_and_data(
    llamafarm: Run, fake_api: Fake, tmp_path: Path
) -> None:
    request = request_of(
        llamafarm,
        fake_api,
        tmp_path,
        *("--strategy", "demo3_training_optimized", "--strategy-file", "demos/strategies.yaml"),
        *("--train-dataset", "medical_qa_train.jsonl", "--eval-dataset", "medical_qa_eval.jsonl"),
    )
    assert (request.strategy, request.strategy_file) == (
        "demo3_training_optimized",
        Path("demos/strategies.yaml"),
    )
    assert request.overrides == (
        Override(
            "dataset.train_file", "medical_qa_train.jsonl", "--train-dataset medical_qa_train.jsonl"
        ),
        Override(
            "dataset.eval_file", "medical_qa_eval.jsonl", "--eval-dataset medical_qa_eval.jsonl"
        ),
    )


@pytest.mark.parametrize(
    ("flag", "text", "path"),
    [
        ("--dataset", "rows.jsonl", "dataset.path"),
        ("--train-dataset", "rows.jsonl", "dataset.train_file"),
        ("--eval-dataset", "rows.jsonl", "dataset.eval_file"),
        ("--base-model", "org/model", "base_model.id"),
        ("--output", "a directory", "training_args.output_dir"),
        ("--epochs", "0.5", "training_args.num_train_epochs"),
        ("--batch-size", "4", "training_args.per_device_train_batch_size"),
        ("--learning-rate", "1e-3", "training_args.learning_rate"),
        ("--eval-percent", "15", "dataset.eval_percent"),
    ],
)
def test_a_flag_is_an_override_with_the_text_that_was_typed(
    llamafarm: Run, fake_api: Fake, tmp_path: Path, flag: str, text: str, path: str
) -> None:
    request = request_of(llamafarm, fake_api, tmp_path, flag, text)
    assert request.overrides == (Override(path, text, f"{flag} {text}"),)


@pytest.mark.parametrize(
    ("argv", "section", "field", "value"),
    [
        (["--epochs", "0.5"], "training_args", "num_train_epochs", 0.5),
        (["--batch-size", "4"], "training_args", "per_device_train_batch_size", 4),
        (["--learning-rate", "1e-3"], "training_args", "learning_rate", 1e-3),
        (["--eval-percent", "15"], "dataset", "eval_split", 0.15),
        (["--train-dataset", "null"], "dataset", "train_file", "null"),
        (["--set", "training_args.max_steps=20"], "training_args", "max_steps", 20),
        (["--set", "max_steps=20"], "training_args", "max_steps", 20),
    ],
)
def test_a_flag_reaches_the_strategy(
    llamafarm: Run,
    fake_api: Fake,
    tmp_path: Path,
    argv: list[str],
    section: str,
    field: str,
    value: object,
) -> None:
    from llamafarm.strategy.loader import default_strategy

    request = request_of(llamafarm, fake_api, tmp_path, *argv)
    strategy = default_strategy("default", request.overrides)
    assert getattr(getattr(strategy, section), field) == value


def test_set_may_be_repeated_and_comes_after_the_flags(
    llamafarm: Run, fake_api: Fake, tmp_path: Path
) -> None:
    request = request_of(
        llamafarm, fake_api, tmp_path, "--set", "a.b=1", "--epochs", "3", "--set", "c.d=[x, y]"
    )
    assert [o.text for o in request.overrides] == ["--epochs 3", "--set a.b=1", "--set c.d=[x, y]"]


def test_every_set_that_cannot_be_read_is_named(llamafarm: Run) -> None:
    done = llamafarm("train", "--set", "max_steps", "--set", "=3")
    assert done.code == 2
    assert done.err.startswith("error: the command line has 2 problems\n")
    assert "--set max_steps" in done.err and "--set =3" in done.err


def test_switches_are_passed_on(llamafarm: Run, fake_api: Fake, tmp_path: Path) -> None:
    request = request_of(
        llamafarm, fake_api, tmp_path, "--resume", "--resume-anyway", "--skip-bad-rows"
    )
    assert request == api.TrainRequest(resume=True, resume_anyway=True, skip_bad_rows=True)
    assert request_of(llamafarm, fake_api, tmp_path, "--overwrite").overwrite


def test_switches_that_contradict_each_other_are_refused_together(llamafarm: Run) -> None:
    done = llamafarm("train", "--resume-anyway")
    assert done.code == 2 and "only works together with --resume" in done.err
    done = llamafarm("train", "--resume", "--overwrite")
    assert done.code == 2 and "--overwrite  contradicts --resume" in done.err


def test_decisions_come_first_then_progress_then_the_result_on_stdout(
    llamafarm: Run, fake_api: Fake, tmp_path: Path
) -> None:
    fake_api("train", a_run(tmp_path))
    done = llamafarm("train")
    talk = done.err.splitlines()
    assert talk[0] == "quick → fine_tuned_models/quick"
    assert talk[2].split() == ["learning_rate", "0.001", "flag", "--learning-rate", "1e-3"]
    assert talk[4] == "  and 1 default: run.json there has every value"
    assert talk[6].startswith("training 460,800 parameters")
    assert "eval at step 8: loss 1.839" in done.err
    assert done.out.startswith("eval loss 2.231 → 1.839 (-17.6 %), best at step 8 of 12")
    assert "◆" in done.out and "perplexity" in done.out
    assert done.out.splitlines()[-1] == str(tmp_path)


def test_train_for_a_program_prints_the_summary_alone(
    llamafarm: Run, fake_api: Fake, tmp_path: Path
) -> None:
    fake_api("train", a_run(tmp_path))
    done = llamafarm("train", "--json")
    assert json.loads(done.out) == summarise(events_of_a_run()).to_json()


def test_a_stopped_run_says_how_to_go_on(llamafarm: Run, fake_api: Fake) -> None:
    fake_api("train", Interrupted(2, "after step 3 of 12", hint="the same command with --resume"))
    assert llamafarm("train") == Done(
        130, "", "stopped: after step 3 of 12\nhint: the same command with --resume\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_decisions_whole() -> None:
    assert "q_proj, " * 9 in decisions_for(io.StringIO(), PLAN.decisions)


def test_on_a_wide_terminal_a_long_value_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    shown = decisions_for(Terminal(), PLAN.decisions).splitlines()
    assert shown[2] == "  method.target_modules  q_proj, q_proj, q_proj …  detected  linear layers"


def test_on_a_narrow_terminal_the_reason_follows_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    late = Decision("training_args.save_steps", "20", "warning", "there is no resume point")
    assert decisions_for(Terminal(), [*PLAN.decisions, late]).splitlines() == [
        "  learning_rate          0.001 (flag: --learning-rate 1e-3)",
        "  seed                   42 (default)",
        "  method.target_modules  q_proj, q_proj, q_proj, q_proj,",
        "                         q_proj, q_proj, q_proj, q_proj,",
        "                         q_proj,  (detected: linear layers)",
        "  warning  there is no resume point",
    ]
