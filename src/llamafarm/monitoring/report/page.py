"""The report as one web page: everything is inside, and the browser is told to load nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamafarm.errors import count_of
from llamafarm.monitoring.report.charts import Chart
from llamafarm.monitoring.report.content import Content
from llamafarm.monitoring.report.plots import draw, element_ids, library

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent
_SECTIONS = (
    ("findings", "Findings", lambda it: True),
    ("results", "Base, best and last", lambda it: it.results),
    ("samples", "Samples", lambda it: it.samples),
    ("data", "Data", lambda it: it.data),
    ("decisions", "Decisions", lambda it: it.settings or it.decisions),
    ("forecast", "Forecast and fact", lambda it: it.forecast),
    ("use", "Use and deploy", lambda it: it.usage),
    ("versions", "Versions", lambda it: it.versions or it.strategy_yaml),
)
SECTION_KEYS = tuple(key for key, _, _ in _SECTIONS)
"""Their names, in order."""


def render_page(
    content: Content, charts: Sequence[Chart], pictures: Mapping[str, bytes] | None = None
) -> str:
    """HTML. pictures: PNG by the chart's key, for paper and for browsers without scripts.

    Scripts run by their hash only, and nothing may be loaded: what is not escaped by mistake still
    does nothing.
    """
    plots = draw(charts) if charts else None
    code = library() if plots else ""
    script = own_file("page.js")
    pages = page_environment()
    values: dict[str, Any] = {
        "it": content,
        "parts": run_parts(pages, content, charts, pictures),
        "sections": sections_of(content),
        "policy": _policy([code, script] if plots else []),
        "style": _safe(own_file("page.css")),
        "data": _safe(plots.data if plots else ""),
        "library": _safe(code),
        "script": _safe(script),
    }
    return pages.get_template("page.html.jinja").render(values)


def page_environment(*directories: Path) -> Environment:
    """Where templates are found: those of the report, and those in further directories. What is put
    into them is escaped, and has to be there.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader([_HERE, *directories]), autoescape=True, undefined=StrictUndefined
    )
    pages.globals["count_of"] = count_of
    return pages


def run_parts(
    pages: Environment,
    content: Content,
    charts: Sequence[Chart],
    pictures: Mapping[str, bytes] | None = None,
) -> dict[str, str]:
    """The parts of a page about a run, as HTML by their names: those around the curves, then the
    sections that there is something in.
    """
    pieces: Any = pages.get_template("parts.html.jinja").make_module(
        {
            "elements": element_ids(charts),
            "pictures": {key: _base64(data) for key, data in (pictures or {}).items()},
        }
    )
    sections = sections_of(content)
    return {
        "head": pieces.head(content),
        "large_drawing": pieces.large_drawing(charts),
        "navigation": pieces.navigation(sections),
        "small_drawings": pieces.small_drawings(charts),
        "unread": pieces.unread(content),
        **{key: getattr(pieces, key)(content) for key, _ in sections},
    }


def sections_of(content: Content) -> list[tuple[str, str]]:
    """Id and title of the sections that there is something in, in order."""
    return [(key, title) for key, title, there in _SECTIONS if there(content)]


def own_file(name: str) -> str:
    """A script or a style of the page."""
    return (_HERE / name).read_text(encoding="utf-8")


def _safe(text: str) -> str:
    """Text of this program, not of a run."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704  # see above: no text of a run


def _policy(scripts: Sequence[str]) -> str:
    """BokehJS puts its styles into the page itself, and its icons into them as data."""
    hashes = " ".join(f"'sha256-{_base64(hashlib.sha256(s.encode()).digest())}'" for s in scripts)
    allowed = f"script-src {hashes}; " if hashes else ""
    return (
        f"default-src 'none'; {allowed}style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
