"""`convert`: everything between a trained model and a directory that is deployed.

Like api.py it puts rooms together and decides nothing itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llamafarm.errors import GateRefused, Interrupted, ModelError, Problem, UserError
from llamafarm.export.convert import (
    GgufPlan,
    Work,
    plan_gguf,
    serving_of,
    write_gguf_file,
    write_safetensors,
)
from llamafarm.export.file_types import parse_file_type
from llamafarm.export.k_quants import require_engine
from llamafarm.export.modelfile import Modelfile, new_modelfile, parse_modelfile
from llamafarm.export.names import gguf_file_name, model_name
from llamafarm.export.ollama import OllamaOutcome, create_and_ask, find_server, lines_to_type
from llamafarm.export.parity import Certificate
from llamafarm.export.parity_report import certificate_json, certificate_line, render_certificate
from llamafarm.export.readme import ReadmeFacts, readme
from llamafarm.export.request import DEFAULT_QUANTIZATION, ConvertRequest, Format
from llamafarm.export.safetensors_writer import model_nbytes
from llamafarm.export.source import ExportSource, find_source, open_model
from llamafarm.export.target import check_space, check_target, staged_target
from llamafarm.files import to_json_bytes, write_bytes
from llamafarm.hardware.probe import cpu_threads
from llamafarm.models.llama_cpp import require_llama_cpp

CERTIFICATE_FILE = "parity.json"
_TEST_PROMPT = "Say hello."


@dataclass(frozen=True, slots=True)
class Converted:
    """What was made. file: the GGUF, or the directory of a merged model; certificate: None where
    none was made; ollama: what the model answered there, None where no server answered;
    lines_to_type: for Ollama, by hand.
    """

    target: Path
    format: Format
    file: Path
    file_type: str
    num_bytes: int
    certificate: Certificate | None = None
    ollama: OllamaOutcome | None = None
    lines_to_type: tuple[str, ...] = ()


def convert(request: ConvertRequest, *, on_work: Work, on_note: Callable[[str], None]) -> Converted:
    """Make the target directory, whole or not at all.

    Raises UserError for what is asked or given, GateRefused when the certificate does not pass,
    RunError when the disk is full. The source is only read.
    """
    _check_combination(request)
    source = find_source(request.source, working_directory=Path.cwd())
    _check_whole(source.directory)
    check_target(request.target, source.directory, overwrite=request.overwrite)
    with _signals_stop():
        if request.format == "safetensors":
            return _merge(request, source, on_work)
        return _make_gguf(request, source, on_work, on_note)


def _check_combination(request: ConvertRequest) -> None:
    """A flag that cannot take effect is an error."""
    problems = []
    if request.format == "safetensors":
        for flag, value in (("--quantization", request.quantization), ("--name", request.name)):
            if value is not None:
                message = "has no effect on a safetensors directory, which keeps the base's type"
                problems.append(Problem(message, where=flag))
    if request.format != "ollama" and request.system_prompt is not None:
        message = "stands in a Modelfile, which only --format ollama writes"
        problems.append(Problem(message, where="--system-prompt"))
    if problems:
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        raise UserError(f"the command line has {count}", problems)


def _check_whole(directory: Path) -> None:
    """A checkpoint says itself whether it is complete."""
    from llamafarm.training.checkpoint import MANIFEST, verify_checkpoint

    fault = verify_checkpoint(directory) if (directory / MANIFEST).is_file() else ""
    if fault:
        raise ModelError(
            f"{directory} cannot be used: {fault}",
            hint="take another checkpoint, or final_model of the run",
        )


def _merge(request: ConvertRequest, source: ExportSource, on_work: Work) -> Converted:
    model = open_model(source)
    nbytes = model_nbytes(model.weights)
    check_space(request.target, nbytes)
    with staged_target(request.target) as stage:
        write_safetensors(source, model, stage, on_work=on_work)
    return Converted(request.target, request.format, request.target, "safetensors", nbytes)


def _make_gguf(
    request: ConvertRequest,
    source: ExportSource,
    on_work: Work,
    on_note: Callable[[str], None],
) -> Converted:
    file_type = parse_file_type(request.quantization or DEFAULT_QUANTIZATION)
    require_engine(file_type)
    if request.verify:
        require_llama_cpp()
    name = model_name(request.target, request.name)
    made_by = f"llamafarm {importlib.metadata.version('llamafarm')}"
    plan = plan_gguf(source, name, file_type, serving_of(source), made_by=made_by)
    check_space(request.target, plan.nbytes)
    if request.format == "ollama":
        _modelfile(request, source, plan, "check.gguf").render()
    threads = cpu_threads()
    certificate = None
    with staged_target(request.target) as stage:
        file = stage / gguf_file_name(name, file_type.name)
        write_gguf_file(plan, file, threads=threads, on_work=on_work)
        if request.format == "ollama":
            text = _modelfile(request, source, plan, file.name).render()
            write_bytes(stage / "Modelfile", text.encode("utf-8"))
        if request.verify:
            certificate = _certify(stage, file, source, plan, threads, on_work, on_note)
        facts = _readme_facts(request, source, plan, file.name, certificate)
        write_bytes(stage / "README.md", readme(facts).encode("utf-8"))
        nbytes = file.stat().st_size
    made = request.target / file.name
    outcome, lines = _serve(request, name, on_work, on_note)
    return Converted(
        request.target, request.format, made, file_type.name, nbytes, certificate, outcome, lines
    )


def _modelfile(
    request: ConvertRequest, source: ExportSource, plan: GgufPlan, gguf: str
) -> Modelfile:
    system = request.system_prompt
    if system is None:
        system = source.record.system_prompt or ""
    ends = [] if plan.end_text is None else [plan.end_text]
    words = [*ends, *source.record.stop_words]
    return new_modelfile(gguf, stop_words=words, system=system, asked=request.parameters)


def _certify(
    stage: Path,
    file: Path,
    source: ExportSource,
    plan: GgufPlan,
    threads: int,
    on_work: Work,
    on_note: Callable[[str], None],
) -> Certificate:
    """Measure, write parity.json, and refuse a file that is not the trained model."""
    from llamafarm.certify import certify_file, engine_versions

    modelfile = stage / "Modelfile"
    served = parse_modelfile(modelfile.read_text("utf-8")) if modelfile.is_file() else None
    certificate = certify_file(
        source,
        file,
        plan,
        file_type=plan.file_type.name,
        bos_text=plan.bos_text,
        end_token_id=plan.serving.end_token_id,
        stop_words=served.stop_words if served is not None else source.record.stop_words,
        threads=threads,
        on_work=on_work,
        on_note=on_note,
    )
    if not certificate.passed:
        raise GateRefused(
            f"{file.name} is not the model that was trained; nothing was kept\n"
            + render_certificate(certificate),
            hint="--no-verify makes it all the same; please report it: this should not happen",
        )
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    values = certificate_json(
        certificate,
        file=file.name,
        sha256=digest,
        versions=engine_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_bytes(stage / CERTIFICATE_FILE, to_json_bytes(values))
    return certificate


def _readme_facts(
    request: ConvertRequest,
    source: ExportSource,
    plan: GgufPlan,
    gguf: str,
    certificate: Certificate | None,
) -> ReadmeFacts:
    system = request.system_prompt if request.system_prompt is not None else ""
    return ReadmeFacts(
        name=plan.origin.name,
        gguf=gguf,
        file_type=plan.file_type.name,
        base_model=source.base_name,
        licence=plan.origin.license,
        certificate="" if certificate is None else certificate_line(certificate),
        modelfile=request.format == "ollama",
        system=system or source.record.system_prompt or "",
    )


def _serve(
    request: ConvertRequest, name: str, on_work: Work, on_note: Callable[[str], None]
) -> tuple[OllamaOutcome | None, tuple[str, ...]]:
    """Create the model in Ollama where a server answers; else the lines to type."""
    if request.format != "ollama":
        return None, ()
    lines = lines_to_type(request.target, name)
    server = find_server()
    if server is None:
        return None, lines
    on_work(f"creating {name} in {server}", 0, 0)
    return create_and_ask(server, request.target, name, _TEST_PROMPT), lines


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """SIGTERM and SIGHUP end the work as Ctrl-C does: what was begun is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Interrupted(number, "nothing was kept of what was being made")

    previous = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
