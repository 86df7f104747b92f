"""`convert`: everything between a trained model and a directory that is deployed.

Like api.py it puts rooms together and decides nothing itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from llamafarm.certify import certify_file, engine_versions
from llamafarm.errors import (
    GateRefused,
    Interrupted,
    LlamafarmError,
    ModelError,
    Problem,
    UserError,
    count_of,
)
from llamafarm.export.convert import Work, write_safetensors
from llamafarm.export.file_types import FileType, parse_file_type
from llamafarm.export.k_quants import require_engine
from llamafarm.export.modelfile import Modelfile, new_modelfile, parse_modelfile
from llamafarm.export.names import gguf_file_name, model_name
from llamafarm.export.ollama import (
    OllamaOutcome,
    OllamaServer,
    create_and_ask,
    find_server,
    lines_to_type,
)
from llamafarm.export.parity import Certificate, Ending, Layer
from llamafarm.export.parity_report import certificate_json, certificate_line, render_certificate
from llamafarm.export.readme import ReadmeFacts, readme
from llamafarm.export.request import DEFAULT_QUANTIZATION, ConvertRequest, Format
from llamafarm.export.safetensors_writer import model_nbytes
from llamafarm.export.source import ExportSource, find_source, open_model
from llamafarm.export.target import check_target, make_room, staged_target
from llamafarm.files import to_json_bytes, write_bytes, write_bytes_atomic
from llamafarm.hardware.probe import cpu_threads
from llamafarm.models.gguf_file import read_gguf
from llamafarm.models.llama_cpp import require_llama_cpp
from llamafarm.models.record import RECORD_FILE, ModelRecord
from llamafarm.planning.plan import ExportPlan
from llamafarm.recipes import Recipe, Tools, end_ids, recipe_of_gguf, recipe_of_model

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
    tools = Tools(cpu_threads(), on_work, on_note)
    gguf = _gguf_source(request)
    if gguf is not None:
        check_target(request.target, gguf, overwrite=request.overwrite)
    if gguf is not None and request.format != "safetensors":
        wanted = None if request.quantization is None else _file_type(request.quantization)
        name = model_name(request.target, request.name)
        return _make_gguf(request, name, recipe_of_gguf(gguf, name, wanted, tools), tools)
    source = find_source(request.source, working_directory=Path.cwd())
    _check_whole(source)
    check_target(request.target, source.directory, base=source.base, overwrite=request.overwrite)
    if request.format == "safetensors":
        return _merge(request, source, on_work)
    name = model_name(request.target, request.name)
    file_type = _file_type(request.quantization or DEFAULT_QUANTIZATION)
    return _make_gguf(request, name, recipe_of_model(source, name, file_type, tools), tools)


def request_of(plan: ExportPlan, run: Path) -> ConvertRequest:
    """What a run's export asks of `convert`."""
    return ConvertRequest(
        source=str(run),
        target=plan.target,
        format=plan.format,
        quantization=plan.quantization,
        name=model_name(Path(plan.name), plan.name if plan.name_is_given else None),
        system_prompt=plan.system_prompt if plan.format == "ollama" else None,
        parameters=plan.parameters,
        overwrite=True,
    )


def check_export(plan: ExportPlan) -> None:
    """Before training: raises UserError for what would only come out after it."""
    request = request_of(plan, plan.target.parent)
    require_engine(parse_file_type(plan.quantization))
    require_llama_cpp()
    if plan.format == "ollama":
        system = plan.system_prompt or ""
        new_modelfile("m.gguf", stop_words=(), system=system, asked=request.parameters).render()


def _check_combination(request: ConvertRequest) -> None:
    """A flag that cannot take effect is an error."""
    problems = []
    if request.format == "safetensors":
        for flag, value in (("--quantization", request.quantization), ("--name", request.name)):
            if value is not None:
                problems.append(
                    Problem(
                        "names and types are of GGUF files; a safetensors directory has neither",
                        where=flag,
                        hint="leave it out, or choose --format ollama or gguf",
                    )
                )
    if request.format != "ollama" and request.system_prompt is not None:
        problems.append(
            Problem(
                "stands in a Modelfile, which only --format ollama writes",
                where="--system-prompt",
                hint="leave it out, or choose --format ollama",
            )
        )
    if problems:
        raise UserError(f"the command line has {count_of(len(problems), 'problem')}", problems)


def _check_whole(source: ExportSource) -> None:
    """A checkpoint says itself whether it is complete; without its manifest it is none."""
    from llamafarm.training.checkpoint import MANIFEST, verify_checkpoint

    directory = source.directory
    of_a_run = source.run is not None and directory.parent.name == "checkpoints"
    if not of_a_run and not (directory / MANIFEST).is_file():
        return
    fault = verify_checkpoint(directory)
    if fault:
        raise ModelError(
            f"{directory} cannot be used: {fault}",
            hint="take another checkpoint, or final_model of the run",
        )


def _merge(request: ConvertRequest, source: ExportSource, on_work: Work) -> Converted:
    model = open_model(source)
    nbytes = model_nbytes(model.weights)
    make_room(request.target, nbytes)
    with signals_stop(), staged_target(request.target) as stage:
        write_safetensors(source, model, stage, on_work=on_work)
        _write_record(stage, source.record)
    return Converted(request.target, request.format, request.target, "safetensors", nbytes)


def _gguf_source(request: ConvertRequest) -> Path | None:
    """The source, where it is a GGUF file."""
    path = Path(request.source).expanduser()
    return path if path.suffix.lower() == ".gguf" and path.is_file() else None


def _file_type(name: str) -> FileType:
    file_type = parse_file_type(name)
    require_engine(file_type)
    return file_type


def _make_gguf(request: ConvertRequest, name: str, recipe: Recipe, tools: Tools) -> Converted:
    if request.verify:
        require_llama_cpp()
    make_room(request.target, recipe.nbytes, smaller="take a smaller type: --quantization q4_k_m")
    file_name = gguf_file_name(name, recipe.file_type)
    system = recipe.system if request.system_prompt is None else request.system_prompt
    modelfile = new_modelfile(
        file_name, stop_words=recipe.stop_words, system=system, asked=request.parameters
    )
    modelfile_text = modelfile.render()
    certificate = None
    with signals_stop(), staged_target(request.target) as stage:
        file = stage / file_name
        recipe.write(file)
        _write_record(stage, recipe.record)
        if request.format == "ollama":
            write_bytes(stage / "Modelfile", modelfile_text.encode("utf-8"))
        if request.verify:
            certificate = certify_stage(stage, file, recipe, modelfile, tools)
            _require_passed(certificate, file.name)
            _write_certificate(stage, file, certificate)
        facts = ReadmeFacts(
            name=name,
            gguf=file_name,
            file_type=recipe.file_type,
            base_model=recipe.base_name,
            licence=recipe.licence,
            certificate="" if certificate is None else certificate_line(certificate),
            modelfile=request.format == "ollama",
            system=system,
        )
        write_bytes(stage / "README.md", readme(facts).encode("utf-8"))
        nbytes = file.stat().st_size
    made = Converted(
        request.target,
        request.format,
        request.target / file_name,
        recipe.file_type,
        nbytes,
        certificate,
    )
    return _serve(made, name, facts, tools.on_work) if request.format == "ollama" else made


def certify_stage(
    stage: Path, file: Path, recipe: Recipe, modelfile: Modelfile, tools: Tools
) -> Certificate:
    """Measure what lies in the directory. modelfile: what was meant to stand in its Modelfile."""
    ids = end_ids(read_gguf(file))
    ending, others = Ending(recipe.end_token_id, ids), []
    if (stage / "Modelfile").is_file():
        served = parse_modelfile((stage / "Modelfile").read_text("utf-8"))
        words = served.stop_words
        ending = Ending(recipe.end_token_id, ids, words, modelfile.stop_words)
        others = [_modelfile_layer(served, modelfile)]
    return certify_file(
        file,
        recipe.reference(file),
        file_type=recipe.file_type,
        tolerance=recipe.tolerance,
        bos_text=recipe.bos_text,
        ending=ending,
        others=others,
        threads=tools.threads,
        on_work=tools.on_work,
    )


def _modelfile_layer(served: Modelfile, meant: Modelfile) -> Layer:
    """Everything in the Modelfile but its stop words, which are a layer of their own."""
    names = [f.name for f in fields(Modelfile) if f.name != "stop_words"]
    different = [name for name in names if getattr(served, name) != getattr(meant, name)]
    finding = ""
    if different:
        name = different[0]
        finding = f"{name} is {getattr(served, name)!r}, and has to be {getattr(meant, name)!r}"
    return Layer("Modelfile", len(names), len(different), finding)


def _write_record(directory: Path, record: ModelRecord) -> None:
    """What training left beside the model, for whoever asks, measures or converts this one; no part
    of it is quantised by bitsandbytes any more.
    """
    if record != ModelRecord():
        record = replace(record, base_quantization=None)
        write_bytes(directory / RECORD_FILE, record.to_bytes())


def _require_passed(certificate: Certificate, name: str) -> None:
    if not certificate.passed:
        raise GateRefused(
            f"{name} is not the model that was trained; nothing was kept\n"
            + render_certificate(certificate),
            hint="the layer that fails says why: docs/DEPLOYMENT.md; a finer type than this one is "
            "`--quantization f16`; --no-verify makes the file all the same",
        )


def _write_certificate(stage: Path, file: Path, certificate: Certificate) -> None:
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


def _serve(made: Converted, name: str, facts: ReadmeFacts, on_work: Work) -> Converted:
    """Create the model in Ollama where a server answers; else the lines to type."""
    made = replace(made, lines_to_type=lines_to_type(made.target, name))
    server = find_server()
    if server is None:
        return made
    on_work(f"creating {name} in {server}", 0, 0)
    try:
        outcome = create_and_ask(server, made.target, name, _TEST_PROMPT)
    except LlamafarmError as fault:
        proved = "" if made.certificate is None else ", and its certificate passed"
        text = f"{made.target} is complete{proved}; Ollama did not take it: {fault.summary}"
        raise type(fault)(text, fault.problems, hint=fault.hint) from fault
    facts = replace(facts, ollama=_ollama_line(server, outcome))
    write_bytes_atomic(made.target / "README.md", readme(facts).encode("utf-8"))
    return replace(made, ollama=outcome)


def _ollama_line(server: OllamaServer, outcome: OllamaOutcome) -> str:
    """What was seen, for the README."""
    template = "uses the template in it" if outcome.template_seen else "shows no other template"
    end = "ended its answer itself" if outcome.stopped else "stopped at the length limit"
    return f"Ollama {server.version} made the model, {template}, and {end}."


@contextlib.contextmanager
def signals_stop() -> Iterator[None]:
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
