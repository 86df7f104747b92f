"""What the pages show, as pieces of HTML and charts. A page is a view in a frame; a stream of
events is the same view again, of which only what changed is sent.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafarm.errors import LlamafarmError
from llamafarm.monitoring.report.charts import Chart, charts_of, charts_of_runs
from llamafarm.monitoring.report.content import content_of
from llamafarm.monitoring.report.page import SECTION_KEYS, page_environment, run_parts
from llamafarm.monitoring.report.plots import (
    Columns,
    Shape,
    columns_of,
    draw,
    element_ids,
    shape_of,
    steps_of,
)
from llamafarm.monitoring.report.run_tables import (
    count_text,
    difference_tables,
    measures_table,
    not_comparable,
    overview_table,
    row_by_row_table,
)
from llamafarm.monitoring.run_comparison import compare_runs
from llamafarm.monitoring.run_record import RunRecord
from llamafarm.run_directories import MOST_RUNS, named_run
from llamafarm.web.library import RunLibrary

MOST_COMPARED = 8
_MOST_KEPT = 16
_HERE = Path(__file__).parent
_AROUND_CURVES = ("head", "large_drawing", "navigation", "small_drawings", "unread")


@dataclass(frozen=True)
class View:
    """One page. parts: HTML by the id of its element, in order; version: of all that is in it."""

    title: str
    parts: Mapping[str, str]
    charts: tuple[Chart, ...]
    shape: Shape
    columns: Mapping[str, Columns]
    version: str


def make_view(title: str, parts: Mapping[str, str], charts: Sequence[Chart] = ()) -> View:
    """A view of these parts."""
    shape, columns = shape_of(charts), columns_of(charts)
    seen = json.dumps([title, dict(parts), repr(shape), columns])
    version = hashlib.sha256(seen.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return View(title, dict(parts), tuple(charts), shape, columns, version)


class UnknownRun(Exception):  # noqa: N818  # the answer, not a fault
    """No run has this id."""


class Views:
    """Makes them, and keeps the last one of every address while nothing changed. root: the path
    that all addresses begin with.
    """

    def __init__(self, library: RunLibrary, root: str) -> None:
        self._library = library
        self._pages = page_environment(_HERE)
        self._pages.globals["root"] = root
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, ...], tuple[object, View]] = {}

    def page(self, view: View, stream: str) -> str:
        """The view in its frame. stream: the address of its events."""
        from markupsafe import Markup

        plots = draw(view.charts).data if view.charts else "null"
        return self._pages.get_template("frame.html.jinja").render(
            view=view,
            stream=stream,
            directory=self._library.called,
            plots=Markup(plots),  # noqa: S704  # made for a script element
        )

    def runs(self) -> View:
        """The list."""
        try:
            found = self._library.runs()
        except LlamafarmError as error:
            return self._unreadable(error.summary)
        ids = {run.root: self._library.id_of(run.root) for run in found.runs}
        table = overview_table(found.runs)
        rows = [
            {"id": ids[run.root], "cells": cells, "problems": run.problems, "title": run.title}
            for run, cells in zip(found.runs, table.rows, strict=True)
        ]
        lines = self._piece(
            "runs", header=table.header, rows=rows, is_whole=found.is_whole, most=MOST_RUNS
        )
        title = self._piece("title", title="Runs", note=count_text(found.runs))
        return make_view("Runs", {"title": title, "runs": lines})

    def run(self, run_id: str) -> View:
        """Everything about one. Raises UnknownRun."""
        record = self._record(run_id)
        if isinstance(record, str):
            return self._unreadable(record)
        return self._once(("run", run_id), record, lambda: self._run_view(record))

    def comparison(self, run_ids: Sequence[str]) -> View:
        """Several, against the first. Raises UnknownRun."""
        if not 2 <= len(set(run_ids)) == len(run_ids) <= MOST_COMPARED:
            text = f"Choose two to {MOST_COMPARED} runs in the list."
            return make_view("Compare", {"title": self._piece("title", title="Compare", note=text)})
        records = [self._record(run_id) for run_id in run_ids]
        readable = [record for record in records if isinstance(record, RunRecord)]
        if len(readable) < len(records):
            return self._unreadable(next(r for r in records if isinstance(r, str)))
        return self._once(
            ("compare", *run_ids), readable, lambda: self._comparison_view(run_ids, readable)
        )

    def _record(self, run_id: str) -> RunRecord | str:
        """Or why it cannot be read."""
        try:
            record = self._library.record(run_id)
        except LlamafarmError as error:
            return error.summary
        except OSError as error:
            return f"{error.filename or run_id}: {error.strerror or error}"
        if record is None:
            raise UnknownRun(run_id)
        return record

    def _once(self, key: tuple[str, ...], made_of: object, make: Callable[[], View]) -> View:
        """The view that was made of the very same records before, or a new one."""
        with self._lock:
            before = self._kept.pop(key, None)
            view = before[1] if before and _same(before[0], made_of) else make()
            self._kept[key] = (made_of, view)
            # A browser looks at few pages at a time.
            while len(self._kept) > _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            return view

    def _run_view(self, record: RunRecord) -> View:
        content, charts = content_of(record), charts_of(record.events)
        made = run_parts(self._pages, content, charts)
        # A section that is empty now may be filled while the run goes on.
        sections = {key: made.get(key, "") for key in SECTION_KEYS}
        return make_view(
            f"{content.title}: {content.status}",
            {**{key: made[key] for key in _AROUND_CURVES}, **sections},
            charts,
        )

    def _comparison_view(self, run_ids: Sequence[str], records: Sequence[RunRecord]) -> View:
        names = [self._library.name_of(record.root) for record in records]
        runs = [named_run(name, record) for name, record in zip(names, records, strict=True)]
        comparison = compare_runs(runs)
        charts = charts_of_runs({run.name: run.record.events for run in runs})
        links = [
            {"name": name, "id": run_id, "order": [run_id, *(i for i in run_ids if i != run_id)]}
            for name, run_id in zip(names, run_ids, strict=True)
        ]
        pieces: Any = self._pages.get_template("parts.html.jinja").make_module(
            {"elements": element_ids(charts), "pictures": {}}
        )
        parts = {
            "title": self._piece("compared", links=links),
            "large_drawing": pieces.large_drawing(charts),
            "small_drawings": pieces.small_drawings(charts),
            "comparison": self._piece(
                "comparison",
                measures=measures_table(comparison),
                by_row=row_by_row_table(comparison),
                not_comparable=not_comparable(comparison),
                differences=difference_tables(comparison),
                warnings=comparison.warnings,
            ),
        }
        return make_view(f"{' / '.join(names)}", parts, charts)

    def _unreadable(self, why: str) -> View:
        return make_view(
            "Unreadable", {"title": self._piece("title", title="Unreadable", note=why)}
        )

    def _piece(self, name: str, **values: object) -> str:
        pieces: Any = self._pages.get_template("pieces.html.jinja").module
        text: str = getattr(pieces, name)(**values)
        return text


def _same(before: object, now: object) -> bool:
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))
    return before is now


def message(view: View, before: View | None) -> str:
    """What turns the page of `before` (None: not known) into that of `view`, as JSON; empty where
    they are the same.
    """
    if before and before.version == view.version:
        return ""
    known = before.parts if before else {}
    sent: dict[str, Any] = {
        "title": view.title,
        "parts": {key: html for key, html in view.parts.items() if known.get(key) != html},
    }
    if not view.charts:
        return json.dumps(sent)
    if before is not None and before.shape == view.shape:
        columns = view.columns.items()
        sent["steps"] = steps_of(view.charts)
        sent["columns"] = {key: made for key, made in columns if before.columns[key] != made}
    else:
        plots = draw(view.charts)
        sent["plots"] = {"documents": plots.documents, "items": plots.items}
    return json.dumps(sent)
