"""Raw files to one file of training rows: read, recognised, compared, written, reported."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llamafarm.data.documents.duplicates import ExactDuplicates, NearDuplicates
from llamafarm.data.documents.found import FoundRow, json_line, shape_of
from llamafarm.data.documents.inputs import InputFile, check_output, find_inputs
from llamafarm.data.documents.ledger import Ledger, place_name
from llamafarm.data.documents.read_file import encoding_of, rows_of
from llamafarm.data.documents.recognise import LOOKED_FOR
from llamafarm.data.documents.report import FileReport, PrepareReport
from llamafarm.data.documents.request import PrepareRequest
from llamafarm.data.documents.row_files import UNUSABLE
from llamafarm.data.documents.spool import RowOrigin, Spool
from llamafarm.data.readers import display_name
from llamafarm.data.records import ROW_HINT
from llamafarm.errors import DataError, OutputError, Problem, UserError, count_of
from llamafarm.files import append_stream, fsync_directory

SAME = "says the same as an earlier row"
NEARLY_SAME = "says nearly the same as an earlier row"
LEFT_OUT = "field left out, with which the row would be read as another"

_STAGE_PREFIX = ".tmp-"
_REASONS_NAMED = 5
_FILES_NAMED = 3

Work = Callable[[str, int, int], None]


def prepare_data(request: PrepareRequest, *, on_work: Work | None = None) -> PrepareReport:
    """Read every input, and write the rows found in them to one JSONL file, whole or not at all.

    on_work: told (what is done, bytes of the inputs done, bytes in all). Raises DataError with all
    inputs that cannot be read, and where no row is left; OutputError where the output exists, is an
    input, or cannot be written; UserError for limits that no row meets, and for missing packages.
    """
    _check_limits(request)
    inputs = find_inputs(request.inputs)
    try:
        check_output(request, inputs.files)
        with (
            _work_folder(request.output) as folder,
            Spool(folder / "rows.jsonl") as spool,
            NearDuplicates(folder) as near,
        ):
            job = _Job(request, inputs.files, folder, spool, near)
            job.read(on_work or _quiet)
            job.drop_near_duplicates(on_work or _quiet)
            job.refuse_nothing()
            _write(request.output, spool.lines())
            return job.report(inputs.notices)
    except OSError as fault:
        raise OutputError(
            f"{display_name(request.output)} cannot be written: {fault.strerror or fault}",
            hint="give another place with --output",
        ) from fault


def _quiet(_what: str, _done: int, _total: int) -> None:
    pass


def _check_limits(request: PrepareRequest) -> None:
    if request.min_chars > request.max_chars:
        least, most = f"{request.min_chars:,}", f"{request.max_chars:,}"
        raise UserError(
            f"no row has at least {least} and at most {most} characters",
            hint="give a smaller --min-chars or a larger --max-chars",
        )


@contextlib.contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """For what is kept on disk meanwhile: on the file system that has room for the output."""
    parent = next(folder for folder in output.absolute().parents if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=f"{_STAGE_PREFIX}prepare-", dir=parent) as folder:
        yield Path(folder)


def _write(output: Path, lines: Iterator[bytes]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f"{_STAGE_PREFIX}{output.name}-{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        with append_stream(aside) as stream:
            stream.writelines(lines)
        aside.replace(output)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    fsync_directory(output.parent)


@dataclass(slots=True)
class _Seen:
    """What was found in one file."""

    encoding: str = ""
    recognised: Counter[str] = field(default_factory=Counter)


class _Job:
    """One preparation: its rows are in the spool, what happened to them in the ledger."""

    def __init__(
        self,
        request: PrepareRequest,
        files: Sequence[InputFile],
        folder: Path,
        spool: Spool,
        near: NearDuplicates,
    ) -> None:
        self._request = request
        self._files = files
        self._folder = folder
        self._spool = spool
        self._near = near
        self._exact = ExactDuplicates()
        self._ledger = Ledger()
        self._seen = [_Seen() for _ in files]

    def read(self, on_work: Work) -> None:
        """All rows into the spool. Raises DataError with every file that cannot be read."""
        problems: list[Problem] = []
        sizes = [file.path.stat().st_size for file in self._files]
        for index, file in enumerate(self._files):
            on_work(f"reading {file.name}", sum(sizes[:index]), sum(sizes))
            try:
                self._read_file(index, file)
            except DataError as fault:
                problems += fault.problems or [Problem(fault.summary, hint=fault.hint)]
        if problems:
            raise DataError(f"{count_of(len(problems), 'input')} cannot be read", problems)

    def _read_file(self, index: int, file: InputFile) -> None:
        ledger, seen = self._ledger.of_file(file.name, file.unit), self._seen[index]
        encoding = encoding_of(file)
        seen.encoding = str(encoding) if encoding is not None else ""
        rows = rows_of(file, encoding, self._request.max_chars, self._folder, ledger)
        for row in rows:
            seen.recognised[row.kind] += 1
            self._take(index, row)

    def _take(self, index: int, row: FoundRow) -> None:
        file = self._files[index]
        ledger = self._ledger.of_file(file.name, file.unit)
        reason = self._too_short_or_long(row)
        if reason:
            ledger.dropped(reason, row.number)
            return
        shape, without = shape_of(row, self._request.row_shape)
        try:
            line = json_line(row, shape, without)
        except (TypeError, ValueError) as fault:
            ledger.dropped(UNUSABLE, row.number, f"holds what JSON cannot hold: {fault}")
            return
        if not self._request.keep_duplicates:
            first = self._exact.first_equal(row, len(self._spool))
            if first < len(self._spool):
                ledger.dropped(SAME, row.number, f"as {self._place(first)}")
                return
            self._near.add(row)
        self._spool.add(line, RowOrigin(index, row.number, row.kind, shape))
        written_as = f"{row.kind} written as {shape}"
        if not file.is_document and not written_as.startswith(f"{shape} ") and row.fields is None:
            ledger.changed(written_as, row.number)
        for name in sorted(without):
            ledger.changed(f"{LEFT_OUT}: {name}", row.number)

    def _too_short_or_long(self, row: FoundRow) -> str:
        length = sum(len(text) for text in row.texts())
        if length < self._request.min_chars:
            return f"shorter than {self._request.min_chars:,} characters"
        if length > self._request.max_chars:
            return f"longer than {self._request.max_chars:,} characters"
        return ""

    def drop_near_duplicates(self, on_work: Work) -> None:
        """Of rows that say nearly the same, the first one stays."""
        if self._request.keep_duplicates:
            return
        on_work("comparing rows", 0, 0)
        for row, earlier, similarity in self._near.dropped():
            self._spool.drop(row)
            origin = self._spool.origin(row)
            file = self._files[origin.file]
            detail = f"{similarity:.2f} as {self._place(earlier)}"
            self._ledger.of_file(file.name, file.unit).dropped(NEARLY_SAME, origin.number, detail)

    def _place(self, row: int) -> str:
        origin = self._spool.origin(row)
        file = self._files[origin.file]
        return place_name(file.name, file.unit, origin.number)

    def refuse_nothing(self) -> None:
        """Raise DataError where no row is left to be written."""
        if self._spool.kept():
            return
        tallies = self._ledger.all_dropped()
        names = ", ".join(file.name for file in self._files[:_FILES_NAMED])
        more = len(self._files) - _FILES_NAMED
        names += f" and {more:,} more" if more > 0 else ""
        hint = LOOKED_FOR if any(file.is_document for file in self._files) else ROW_HINT
        if not tallies:
            raise DataError(f"nothing in {names} can be trained on", hint=hint)
        dropped = sum(tally.count for tally in tallies)
        reasons = [
            Problem(f"{tally.what}: {place.detail}" if place.detail else tally.what, place.where)
            for tally in tallies
            for place in tally.first
        ]
        raise DataError(
            f"nothing in {names} can be trained on: {dropped:,} dropped",
            reasons[:_REASONS_NAMED],
            hint=hint,
        )

    def report(self, notices: Sequence[str]) -> PrepareReport:
        """What was done."""
        kept = self._spool.kept()
        shapes: Counter[str] = Counter()
        rows: Counter[int] = Counter()
        for (file, shape), count in kept.items():
            shapes[shape] += count
            rows[file] += count
        files = tuple(
            FileReport(file.name, file.kind, seen.encoding, seen.recognised, rows[index])
            for index, (file, seen) in enumerate(zip(self._files, self._seen, strict=True))
        )
        empty = [f"{file.name}: nothing found in it" for file in files if not file.recognised]
        return PrepareReport(
            output=self._request.output,
            found=sum(seen.recognised.total() for seen in self._seen),
            rows=kept.total(),
            shapes=dict(shapes.most_common()),
            files=files,
            changed=self._ledger.all_changed(),
            dropped=self._ledger.all_dropped(),
            notices=(*notices, *empty),
        )
