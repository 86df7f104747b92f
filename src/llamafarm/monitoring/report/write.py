"""`report.html` and `plots/` of a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llamafarm.errors import OutputError
from llamafarm.files import staged_directory, write_bytes, write_text_atomic
from llamafarm.monitoring.report.charts import charts_of
from llamafarm.monitoring.report.content import content_of
from llamafarm.monitoring.report.page import render_page
from llamafarm.monitoring.report.pictures import pictures_of
from llamafarm.monitoring.run_record import RunRecord


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """Where it is. pictures: the PNG files; unread: what of the run could not be read."""

    page: Path
    pictures: tuple[Path, ...]
    unread: tuple[str, ...] = ()


def write_report(record: RunRecord) -> WrittenReport:
    """Write both, in place of earlier ones. Raises OutputError when the directory refuses."""
    charts = charts_of(record.events)
    pictures = pictures_of(charts)
    page = render_page(content_of(record), charts, pictures)
    path, directory = record.root / "report.html", record.root / "plots"
    files = {f"{key}.png": data for key, data in pictures.items()}
    try:
        if files:
            with staged_directory(directory) as stage:
                for name, data in files.items():
                    write_bytes(stage / name, data)
        write_text_atomic(path, page)
    except OSError as error:
        raise OutputError(
            f"the report in {record.root} cannot be written: {error.strerror or error}",
            hint="free some space, or see that the run directory may be written to",
        ) from error
    return WrittenReport(path, tuple(directory / name for name in files), record.unread)
