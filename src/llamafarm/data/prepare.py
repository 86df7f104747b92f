"""The one way from data files to token rows: read, clean, split, tokenise, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from llamafarm.cache import build_once, cache_root
from llamafarm.data import cache
from llamafarm.data.layout import Layout, lay_out
from llamafarm.data.readers import RowSource, open_source
from llamafarm.data.report import DataReport, LengthSummary, SourceFile
from llamafarm.data.request import DataRequest
from llamafarm.data.rows import Conversation
from llamafarm.data.scan import conversations, with_system
from llamafarm.data.summary import (
    eval_size_warning,
    format_name,
    length_summary,
    token_notices,
    token_warnings,
    truncation_warning,
)
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.data.token_row import Limits, RowTokenizer, TokenCounts
from llamafarm.data.tokenized import PreparedData
from llamafarm.data.tokenizing import (
    Progress,
    SidedRow,
    SideWriters,
    TokenisedFile,
    tokenise,
)
from llamafarm.errors import DataError, Problem, RunError
from llamafarm.models.tokenizer import tokenizer_fingerprint

Side = Literal["train", "eval"]


def prepare(
    request: DataRequest,
    tokenizer: Any,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> PreparedData:
    """Token rows of both sides, from the cache where the same request met the same files before.

    tokenizer: a fast Hugging Face tokenizer; progress: told (rows tokenised, rows in all). Raises
    DataError for files and rows that cannot be used, RunError when the cache cannot be written.
    """
    sources = _open_sources(request)
    template = ChatTemplate.for_tokenizer(request.chat_template, tokenizer, date=TRAINING_DATE)
    folder = cache_root() if cache_dir is None else cache_dir
    key = cache.entry_key(_key_parts(request, sources, tokenizer))
    entry = folder / "tokens" / key / "rows"
    manifest = cache.read_entry(entry)
    if manifest is not None:
        notice = f"tokenised rows taken from the cache ({key[:12]})"
        return _open_entry(entry, manifest, sources, notice)
    limits = Limits(request.max_length, request.max_input_length, request.max_output_length)
    job = _Job(request, sources, template, RowTokenizer(tokenizer, template, limits), progress)
    built = _build(entry, job)
    return _open_entry(entry, built, sources, f"tokenised, and kept in the cache ({key[:12]})")


def _open_sources(request: DataRequest) -> dict[str, RowSource]:
    """Opened locations by role. Evaluation data is not opened where none is wanted."""
    locations = {
        "train": request.train_location,
        "eval": request.eval_location if request.eval_wanted else None,
        "test": request.test_location,
    }
    return {role: open_source(place) for role, place in locations.items() if place is not None}


def _key_parts(
    request: DataRequest, sources: Mapping[str, RowSource], tokenizer: Any
) -> dict[str, object]:
    """Everything that the tokens and the report depend on; the report names the files."""
    import transformers

    splits = request.eval_wanted and "eval" not in sources
    return {
        "sources": {role: [s.name, s.kind, s.sha256] for role, s in sources.items()},
        "template": request.chat_template,
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "transformers": transformers.__version__,
        "split": [request.eval_fraction, request.seed, request.shuffle] if splits else None,
        "eval_wanted": [request.eval_wanted, request.eval_location is not None],
        "labels": [request.group_by, request.stratify_by],
        "format": [request.data_format, dict(request.columns)],
        "system": request.system_prompt,
        "limits": [
            request.max_length,
            request.max_input_length,
            request.max_output_length,
            request.max_samples,
        ],
        "cleaning": [
            request.skip_bad_rows,
            request.remove_duplicates,
            request.filter_empty,
            list(request.remove_patterns),
        ],
    }


@dataclass(frozen=True, slots=True)
class _Job:
    """One preparation that is not in the cache."""

    request: DataRequest
    sources: Mapping[str, RowSource]
    template: ChatTemplate
    tokenizer: RowTokenizer
    progress: Progress | None


def _build(entry: Path, job: _Job) -> cache.Manifest:
    """Make the entry, whole or not at all; another process at the same work is waited for."""
    cache.remove_entry(entry)
    build_once(entry, lambda stage: _fill(stage, job))
    manifest = cache.read_entry(entry)
    if manifest is None:
        raise RunError(
            f"the token cache {entry} does not hold what was written",
            hint="check the disk, or set LLAMAFARM_CACHE to another directory",
        )
    return manifest


def _fill(stage: Path, job: _Job) -> None:
    layout = lay_out(job.request, job.sources)
    sides = ["train", "eval"] if job.request.eval_wanted else ["train"]
    with SideWriters(stage, sides) as writers:
        done = _tokenise_all(writers, job, layout)
        fingerprints = writers.finish()
        _check_sides(writers.row_counts(), done)
    cache.write_manifest(stage, fingerprints, _report(stage, job, layout, done, fingerprints))


def _tokenise_all(writers: SideWriters, job: _Job, layout: Layout) -> dict[str, TokenisedFile]:
    rows = sum(len(sides) for sides in layout.sides.values())
    on_batch = _progress_counter(job.progress, rows)
    return {
        role: tokenise(
            job.sources[role].name,
            _sided_rows(layout, role, sides, job.request.system_prompt),
            job.tokenizer,
            writers,
            num_workers=job.request.num_workers,
            skip_bad_rows=job.request.skip_bad_rows,
            on_batch=on_batch,
        )
        for role, sides in layout.sides.items()
    }


def _sided_rows(
    layout: Layout, role: str, sides: Mapping[int, str], system_prompt: str | None
) -> Iterator[SidedRow]:
    for side, conversation in conversations(layout.scans[role], layout.pipeline, sides):
        yield side, with_system(conversation, system_prompt)


def _progress_counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    counted = 0

    def on_batch(rows: int) -> None:
        nonlocal counted
        counted += rows
        if progress is not None:
            progress(counted, total)

    return on_batch


def _check_sides(rows: Mapping[str, int], done: Mapping[str, TokenisedFile]) -> None:
    for side, count in rows.items():
        if count:
            continue
        dropped = [row for file in done.values() for row in file.dropped][:5]
        raise DataError(
            f"no row is left to {'train' if side == 'train' else 'evaluate'} on",
            [Problem(row.reason, where=str(row.source)) for row in dropped],
            hint="raise max_length (and max_input_length, max_output_length), or shorten the rows",
        )


def _report(
    stage: Path,
    job: _Job,
    layout: Layout,
    done: Mapping[str, TokenisedFile],
    fingerprints: Mapping[str, str],
) -> DataReport:
    counts = TokenCounts()
    for file in done.values():
        counts.add(file.counts)
    lengths = {side: _lengths(stage, side) for side in fingerprints}
    truncated = tuple(row for file in done.values() for row in file.truncated)
    formats = sum((found.formats for found in layout.scans.values()), Counter[str]())
    rows = sum(side.rows for side in lengths.values())
    return DataReport(
        data_format=format_name(formats),
        files=tuple(
            SourceFile(found.source.name, found.source.sha256, len(found), role)
            for role, found in layout.scans.items()
        ),
        train=lengths["train"],
        eval=lengths.get("eval"),
        split=layout.split,
        template=f"{len(job.template.text):,} characters, sha256 {job.template.fingerprint[:12]}",
        truncated=truncated,
        dropped=(
            *(row for found in layout.scans.values() for row in found.dropped),
            *(row for file in done.values() for row in file.dropped),
        ),
        warnings=(
            *layout.warnings,
            *(eval_size_warning(lengths["eval"].rows) if "eval" in lengths else []),
            *truncation_warning(truncated, rows, job.request.max_length),
            *token_warnings(counts),
        ),
        notices=(*layout.notices, *_template_notices(job), *token_notices(counts)),
        fingerprint=_combined(fingerprints),
    )


def _lengths(stage: Path, side: str) -> LengthSummary:
    return length_summary(cache.ArrowRows(cache.arrow_path(stage, side), "", ""))


def _combined(fingerprints: Mapping[str, str]) -> str:
    lines = "".join(f"{side}={digest}\n" for side, digest in sorted(fingerprints.items()))
    return sha256(lines.encode()).hexdigest()


def _template_notices(job: _Job) -> list[str]:
    if not job.template.writes_date:
        return []
    day = f"{TRAINING_DATE:%d %B %Y}"
    return [f"the chat template writes a date: rows carry {day}, so that a run can be repeated"]


def _open_entry(
    entry: Path, manifest: cache.Manifest, sources: Mapping[str, RowSource], notice: str
) -> PreparedData:
    names = {side: sources.get(side, sources["train"]).name for side in manifest.fingerprints}
    sides = {
        side: cache.ArrowRows(cache.arrow_path(entry, side), names[side], fingerprint)
        for side, fingerprint in manifest.fingerprints.items()
    }
    report = replace(manifest.report, notices=(*manifest.report.notices, notice))
    return PreparedData(sides["train"], sides.get("eval"), report)


def conversations_of(request: DataRequest, side: Side, *, most: int) -> list[Conversation]:
    """The first rows of one side as conversations, by the very split that training makes.

    Raises DataError for files and rows that cannot be used.
    """
    sources = _open_sources(request)
    layout = lay_out(request, sources)
    found: list[Conversation] = []
    for role, sides in layout.sides.items():
        for row_side, conversation in _sided_rows(layout, role, sides, request.system_prompt):
            if row_side == side and len(found) < most:
                found.append(conversation)
    return found
