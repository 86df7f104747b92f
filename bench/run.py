"""Runs the engines one after the other, each in its own process, in an order that turns with every
round.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.checks import check
from bench.environment import ROOT, trl_python
from bench.figures import Measured, figures
from bench.gemm_limit import Dimensions, ProbeSpec, probe_shapes, useful_flops
from bench.judge import JudgeSpec, Verdict
from bench.report import Machine, Report, Section, verdict_line, write_report
from bench.spec import BASELINE, Engine, EngineRun, Row, RunSpec, write_rows
from bench.workload import Dataset, datasets, packaged_model
from llamafarm.hardware.waiting import sleep_soon

TARGETS = {"uniform": 1.6, "varied": 2.0}
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured. spec: what all runs have in common; its paths are filled in here."""

    engines: tuple[Engine, ...]
    dataset_names: tuple[str, ...]
    rounds: int
    held_out_rows: int
    spec: RunSpec
    directory: Path
    write_report: bool


@dataclass(frozen=True, slots=True)
class Bench:
    """A plan with what its runs need: interpreters by tool, and where everything is written."""

    plan: Plan
    spec: RunSpec
    pythons: Mapping[str, Path]
    directory: Path


def run_bench(plan: Plan) -> None:
    """Measure, check, keep the runs, and write the page. Raises NotComparableError before anything
    is written.
    """
    sleep_soon()  # as `llamafarm train` does, here for every engine
    started = datetime.now(UTC)
    model = packaged_model()
    pythons = {"llamafarm": Path(sys.executable), "trl": trl_python()}
    directory = plan.directory.absolute()
    shutil.rmtree(directory, ignore_errors=True)
    spec = replace(plan.spec, model_directory=str(model.directory))
    bench = Bench(plan, spec, pythons, directory)
    made = datasets(model, spec.num_rows, plan.held_out_rows, spec.seed)
    sections = [measure(bench, dataset) for dataset in made if dataset.name in plan.dataset_names]
    results = RESULTS / f"{started:%Y-%m-%dT%H%M}.json"
    report = Report(
        date=f"{started:%Y-%m-%d}",
        command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        machine=this_machine(),
        results_file=results.name,
        sections=sections,
    )
    if plan.write_report:
        keep(results, report)
        write_report(PAGE, report)
        say(f"written: {results.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def measure(bench: Bench, dataset: Dataset) -> Section:
    """All rounds on one data set. The engines are judged after the first, before more time goes."""
    folder = bench.directory / dataset.name
    folder.mkdir(parents=True)
    write_rows(folder / "train.jsonl", dataset.train)
    write_rows(folder / "held_out.jsonl", dataset.held_out)
    spec, engines = bench.spec, bench.plan.engines
    dimensions = Dimensions.read(Path(spec.model_directory))
    runs: dict[str, list[EngineRun]] = {engine.name: [] for engine in engines}
    limits = [one_round(bench, folder, dataset, 0, runs)]
    verdict = run_judge(bench, folder, runs)
    check(runs, verdict, engines)
    limits += [one_round(bench, folder, dataset, n, runs) for n in range(1, bench.plan.rounds)]
    check(runs, verdict, engines)
    timed = dataset.train[spec.warmup_steps * spec.batch_size :]
    tokens = sum(len(row.input_ids) for row in timed)
    measured = Measured(
        warmup_steps=spec.warmup_steps,
        runs=runs,
        held_out=verdict.held_out,
        flops_per_token=useful_flops(timed, dimensions, spec.lora_r) / tokens,
        limit=max(limits),
    )
    lines = figures(engines, measured, BASELINE.name)
    section = Section(dataset.title, spec, measured, lines, verdict.base_held_out_loss)
    say(verdict_line(section, TARGETS[dataset.name]))
    return section


def one_round(
    bench: Bench, folder: Path, dataset: Dataset, number: int, runs: Mapping[str, list[EngineRun]]
) -> float:
    """Every engine once, added to `runs`; returns the machine's best product rate in FLOP/s."""
    limit = probe_limit(bench, folder, dataset.train)
    for engine in turned(bench.plan.engines, number):
        run = run_engine(bench, folder, engine, number)
        runs[engine.name].append(run)
        say(progress_line(dataset, engine, number, run, bench.spec.warmup_steps))
    return limit


def turned(engines: Sequence[Engine], number: int) -> list[Engine]:
    """A different engine begins every round."""
    first = number % len(engines)
    return [*engines[first:], *engines[:first]]


def run_engine(bench: Bench, folder: Path, engine: Engine, number: int) -> EngineRun:
    """One process of one engine."""
    output = folder / f"{engine.name}-{number}"
    output.mkdir()
    spec = replace(
        bench.spec,
        rows_file=str(folder / "train.jsonl"),
        output_directory=str(output),
        options=engine.options,
    )
    spec.write(output / "spec.json")
    python = bench.pythons[engine.tool]
    return EngineRun.from_json(
        last_line(bench, python, f"bench.engine_{engine.tool}", output / "spec.json")
    )


def probe_limit(bench: Bench, folder: Path, rows: Sequence[Row]) -> float:
    """FLOP/s of the best product, for a step of average size."""
    dimensions = Dimensions.read(Path(bench.spec.model_directory))
    steps = len(rows) / bench.spec.batch_size
    tokens = round(sum(len(row.input_ids) for row in rows) / steps)
    labels = round(sum(row.num_trained for row in rows) / steps)
    file = folder / "gemm.json"
    ProbeSpec(probe_shapes(dimensions, tokens, labels), bench.spec.threads).write(file)
    return float(last_line(bench, Path(sys.executable), "bench.gemm_limit", file))


def run_judge(bench: Bench, folder: Path, runs: Mapping[str, Sequence[EngineRun]]) -> Verdict:
    """What the adapters of the first round are worth."""
    spec = JudgeSpec(
        model_directory=bench.spec.model_directory,
        first_rows_file=str(folder / "train.jsonl"),
        num_first_rows=bench.spec.batch_size,
        held_out_file=str(folder / "held_out.jsonl"),
        adapters={name: of_engine[0].adapter_directory for name, of_engine in runs.items()},
        threads=bench.spec.threads,
    )
    spec.write(folder / "judge.json")
    line = last_line(bench, Path(sys.executable), "bench.judge", folder / "judge.json")
    return Verdict(**json.loads(line))


def last_line(bench: Bench, python: Path, module: str, spec_file: Path) -> str:
    """Run a module on a file; its answer is the last line it prints. Raises CalledProcessError when
    it fails.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": str(bench.spec.threads),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    log = spec_file.with_suffix(".log")
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [python, "-m", module, spec_file],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            check=False,
        )
    if done.returncode:
        say(log.read_text(encoding="utf-8")[-3000:])
    done.check_returncode()
    spec_file.with_suffix(".out").write_text(done.stdout, encoding="utf-8")
    return done.stdout.strip().splitlines()[-1]


def this_machine() -> Machine:
    """Facts, as this project's own hardware room reads them."""
    from llamafarm.hardware.probe import probe

    cpu = probe().cpu
    return Machine(
        cpu=cpu.name,
        cores=cpu.usable_cores,
        capability=cpu.capability,
        memory_bytes=cpu.memory_total_bytes,
        system=platform.system(),
    )


def keep(path: Path, report: Report) -> None:
    """All runs and figures as JSON. Paths of this machine are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_without_paths(asdict(report)), indent=1) + "\n", encoding="utf-8")


_PATHS = {"model_directory", "rows_file", "output_directory", "adapter_directory"}


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_paths(v) for k, v in value.items() if k not in _PATHS}
    if isinstance(value, list | tuple):
        return [_without_paths(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def progress_line(
    dataset: Dataset, engine: Engine, number: int, run: EngineRun, warmup_steps: int
) -> str:
    """One run, for the person who waits."""
    timed = run.steps[warmup_steps:]
    speed = sum(step.tokens for step in timed) / sum(step.seconds for step in timed)
    return (
        f"{time.strftime('%H:%M:%S')}  {dataset.name}, round {number + 1}, {engine.name}: "
        f"{speed:.1f} useful tokens/s, {run.peak_rss_bytes / 1024**3:.2f} GiB"
    )


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)
