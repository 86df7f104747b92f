"""The one way from data files to token rows: read, clean, split, find leaks, tokenise, report."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from llamafarm.cache import build_once, cache_root
from llamafarm.data import cache
from llamafarm.data.compressed import without_compression
from llamafarm.data.layout import Layout, OpenFile, Work, check_weights, formats_of, lay_out
from llamafarm.data.parts import Parts
from llamafarm.data.readers import open_source
from llamafarm.data.report import DataReport, LengthSummary, SourceFile, TokenLedger
from llamafarm.data.request import DataLocation, DataRequest, Mixture
from llamafarm.data.rows import Conversation
from llamafarm.data.scan import Dropped, FilePlan, planned_rows
from llamafarm.data.summary import (
    Cuts,
    eval_size_warning,
    format_name,
    length_summary,
    quality_warnings,
    token_notices,
    token_warnings,
    truncation_warning,
)
from llamafarm.data.templates import TRAINING_DATE, ChatTemplate
from llamafarm.data.token_row import Limits, RowTokenizer
from llamafarm.data.tokenized import PreparedData
from llamafarm.data.tokenizing import SidedRow, Tokenised, tokenise
from llamafarm.errors import DataError, Problem, RunError
from llamafarm.models.tokenizer import tokenizer_fingerprint

Side = Literal["train", "eval"]
_PARTIAL = "partial"


def prepare(
    request: DataRequest,
    tokenizer: Any,
    *,
    cache_dir: Path | None = None,
    work: Work | None = None,
) -> PreparedData:
    """Token rows of both sides, from the cache where the same request met the same files before.

    tokenizer: a fast Hugging Face tokenizer; work: told (what is done, how much of it, of how much
    in all). Raises DataError for files and rows that cannot be used, RunError when the cache cannot
    be written. What leaks is in the report: `check_leakage` refuses it.
    """
    files = _open_files(request)
    template = ChatTemplate.for_tokenizer(request.chat_template, tokenizer, date=TRAINING_DATE)
    folder = cache_root() if cache_dir is None else cache_dir
    key = cache.entry_key(_key_parts(request, files, tokenizer))
    entry = folder / "tokens" / key / "rows"
    manifest = cache.read_entry(entry)
    if manifest is not None:
        notice = f"tokenised rows taken from the cache ({key[:12]})"
        return _open_entry(entry, manifest, notice)
    limits = Limits(request.max_length, request.max_input_length, request.max_output_length)
    job = _Job(request, files, template, RowTokenizer(tokenizer, template, limits), work)
    built = _build(entry, job)
    return _open_entry(entry, built, f"tokenised, and kept in the cache ({key[:12]})")


def _open_files(request: DataRequest) -> tuple[OpenFile, ...]:
    """Opened locations, those to train on first. Evaluation data is not opened where none is
    wanted.
    """
    train = request.train_location
    if isinstance(train, Mixture):
        opened = [_open("train", file.path, file.weight) for file in train.files]
    else:
        opened = [_open("train", train)]
    if request.eval_wanted and request.eval_location is not None:
        opened.append(_open("eval", request.eval_location))
    if request.test_location is not None:
        opened.append(_open("test", request.test_location))
    return tuple(opened)


def _open(role: str, location: DataLocation, weight: float = 1.0) -> OpenFile:
    source = open_source(location)
    if (
        isinstance(location, Path)
        and source.kind == "jsonl"
        and without_compression(location) == location
    ):
        return OpenFile(role, source, weight, location.stat().st_size)
    return OpenFile(role, source, weight)


def _key_parts(
    request: DataRequest, files: Sequence[OpenFile], tokenizer: Any
) -> dict[str, object]:
    """Everything that the tokens and the report depend on; the report names the files."""
    import transformers

    splits = request.eval_wanted and request.eval_location is None
    return {
        "sources": [
            [f.role, f.source.name, f.source.kind, f.source.sha256, f.weight] for f in files
        ],
        "template": request.chat_template,
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "transformers": transformers.__version__,
        "seed": request.seed,
        "split": [
            request.eval_fraction,
            request.eval_rows,
            request.eval_auto,
            request.shuffle,
            request.stable_split,
        ]
        if splits
        else None,
        "eval_wanted": [request.eval_wanted, request.eval_location is not None],
        "labels": [request.group_by, request.stratify_by],
        "format": [
            request.data_format,
            dict(request.columns),
            dict(request.roles),
            *([request.answers] if request.answers != "chosen" else []),
        ],
        "turns": [request.system_prompt, request.mask_history],
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
    files: tuple[OpenFile, ...]
    template: ChatTemplate
    tokenizer: RowTokenizer
    work: Work | None


def _build(entry: Path, job: _Job) -> cache.Manifest:
    """Make the entry, whole or not at all; another process at the same work is waited for."""
    cache.remove_entry(entry)
    build_once(entry, lambda stage: _fill(stage, entry.with_name(_PARTIAL), job))
    manifest = cache.read_entry(entry)
    if manifest is None:
        raise RunError(
            f"the token cache {entry} does not hold what was written",
            hint="check the disk, or set LLAMAFARM_CACHE to another directory",
        )
    return manifest


def _fill(stage: Path, partial: Path, job: _Job) -> None:
    """Both passes. What was tokenised by a process that was stopped is not tokenised again."""
    layout = _lay_out_in(stage / "scratch", job)
    check_weights(job.files, layout.plans)
    names = [file.source.name for file in job.files]
    parts = Parts(partial, [side for side in layout.sides if side != "test"], names)
    try:
        done = _tokenise_all(parts, job, layout)
        _check_sides(done)
    except DataError:
        parts.remove()
        raise
    parts.move_to(stage)
    sides = {side: cache.arrow_paths(stage, side) for side in done.rows}
    fingerprints = {side: cache.fingerprint_of(paths) for side, paths in sides.items()}
    lengths = {side: length_summary(map(cache.ArrowPart, paths)) for side, paths in sides.items()}
    cache.write_manifest(stage, fingerprints, _report(job, layout, done, lengths, fingerprints))


def _lay_out_in(scratch: Path, job: _Job) -> Layout:
    scratch.mkdir()
    try:
        return lay_out(job.request, job.files, scratch, job.work)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _tokenise_all(parts: Parts, job: _Job, layout: Layout) -> Tokenised:
    names = dict.fromkeys(file.source.name for file in job.files)
    return tokenise(
        next(iter(names)) if len(names) == 1 else "the dataset",
        _sided_rows(layout),
        job.tokenizer,
        parts,
        num_workers=job.request.num_workers,
        skip_bad_rows=job.request.skip_bad_rows,
        on_rows=_progress_counter(job.work, sum(plan.rows for _, plan in _tokenised(layout))),
    )


def _sided_rows(layout: Layout) -> Iterator[SidedRow]:
    """The rows that become tokens, in the order of the files."""
    for file, plan in _tokenised(layout):
        yield from planned_rows(file.source, layout.pipeline, plan)


def _tokenised(layout: Layout) -> list[tuple[OpenFile, FilePlan]]:
    """The files whose rows become tokens, with which of them do."""
    pairs = zip(layout.files, layout.plans, strict=True)
    return [(file, plan) for file, plan in pairs if file.role != "test"]


def _progress_counter(work: Work | None, total: int) -> Callable[[int], None]:
    return lambda rows: work("tokenising", rows, total) if work is not None else None


def _check_sides(done: Tokenised) -> None:
    for side, count in done.rows.items():
        if count:
            continue
        raise DataError(
            f"no row is left to {'train' if side == 'train' else 'evaluate'} on",
            [Problem(row.reason, where=str(row.source)) for row in done.dropped.named[:5]],
            hint="raise max_length (and max_input_length, max_output_length), or shorten the rows",
        )


def _report(
    job: _Job,
    layout: Layout,
    done: Tokenised,
    lengths: Mapping[str, LengthSummary],
    fingerprints: Mapping[str, str],
) -> DataReport:
    rows = sum(side.rows for side in lengths.values())
    dropped = Dropped()
    for file, found in zip(layout.files, layout.scans, strict=True):
        if file.role != "test":
            dropped.join(found.dropped)
    dropped.join(done.dropped)
    cuts = Cuts(done.truncated, done.rows_truncated, done.trained_tokens_cut)
    return DataReport(
        data_format=format_name(formats_of(layout.scans)),
        files=tuple(
            SourceFile(file.source.name, file.source.sha256, found.rows, file.role, file.weight)
            for file, found in zip(layout.files, layout.scans, strict=True)
        ),
        train=lengths["train"],
        eval=lengths.get("eval"),
        split=layout.split,
        template=f"{len(job.template.text):,} characters, sha256 {job.template.fingerprint[:12]}",
        truncated=tuple(done.truncated),
        dropped=tuple(dropped.named),
        warnings=(
            *layout.warnings,
            *(eval_size_warning(lengths["eval"].rows) if "eval" in lengths else []),
            *truncation_warning(cuts, rows, job.request.max_length),
            *token_warnings(done.counts),
            *quality_warnings(layout.quality),
        ),
        notices=(*layout.notices, *_template_notices(job), *token_notices(done.counts)),
        fingerprint=_combined(fingerprints),
        ledger=_ledger(job, layout, done, dropped, lengths),
        duplicates=layout.duplicates,
        leakage=layout.leakage,
        quality=layout.quality,
    )


def _ledger(
    job: _Job,
    layout: Layout,
    done: Tokenised,
    dropped: Dropped,
    lengths: Mapping[str, LengthSummary],
) -> TokenLedger:
    read = [
        found for file, found in zip(layout.files, layout.scans, strict=True) if file.role != "test"
    ]
    return TokenLedger(
        rows_in=sum(found.records for found in read),
        rows_kept=sum(done.rows.values()),
        dropped=dropped.by_kind(),
        tokens=sum(side.total_tokens for side in lengths.values()),
        trained_tokens=sum(side.trained_tokens for side in lengths.values()),
        answers=done.counts.answers,
        answers_end_trained=done.counts.answers_end_trained,
        rows_truncated=done.rows_truncated,
        trained_tokens_cut=done.trained_tokens_cut,
        template_sha256=job.template.fingerprint,
    )


def _combined(fingerprints: Mapping[str, str]) -> str:
    lines = "".join(f"{side}={digest}\n" for side, digest in sorted(fingerprints.items()))
    return sha256(lines.encode()).hexdigest()


def _template_notices(job: _Job) -> list[str]:
    if not job.template.writes_date:
        return []
    day = f"{TRAINING_DATE:%d %B %Y}"
    return [f"the chat template writes a date: rows carry {day}, so that a run can be repeated"]


def _open_entry(entry: Path, manifest: cache.Manifest, notice: str) -> PreparedData:
    names = [file.name for file in manifest.report.files]
    sides = {
        side: cache.ArrowRows(cache.arrow_paths(entry, side), names, fingerprint)
        for side, fingerprint in manifest.fingerprints.items()
    }
    report = replace(manifest.report, notices=(*manifest.report.notices, notice))
    return PreparedData(sides["train"], sides.get("eval"), report)


def conversations_of(request: DataRequest, side: Side, *, most: int) -> list[Conversation]:
    """The first rows of one side as conversations, by the very split that training makes.

    Raises DataError for files and rows that cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="llamafarm-") as scratch:
        layout = lay_out(request, _open_files(request), Path(scratch))
    rows = (row for row_side, row in _sided_rows(layout) if row_side == side)
    return list(islice(rows, most))
