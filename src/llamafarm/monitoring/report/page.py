"""The report as one web page: everything is inside, and the browser is told to load nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamafarm.errors import count_of
from llamafarm.monitoring.report.charts import Chart
from llamafarm.monitoring.report.content import Content
from llamafarm.monitoring.report.plots import Plots, draw

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


def render_page(
    content: Content, charts: Sequence[Chart], pictures: Mapping[str, bytes] | None = None
) -> str:
    """HTML. pictures: PNG by the chart's key, for paper and for browsers without scripts.

    Scripts run by their hash only, and nothing may be loaded: what is not escaped by mistake still
    does nothing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def safe(text: str) -> Markup:
        """Text of this program, not of a run."""
        return Markup(text)  # noqa: S704

    plots = draw(charts) if charts else Plots("", {}, "")
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined
    )
    values: dict[str, Any] = {
        "it": content,
        "count_of": count_of,
        "charts": charts,
        "elements": plots.elements,
        "pictures": {key: _base64(data) for key, data in (pictures or {}).items()},
        "sections": [(key, title) for key, title, there in _SECTIONS if there(content)],
        "chosen": [d for d in content.decisions if d.source != "default"],
        "defaults": [d for d in content.decisions if d.source == "default"],
        "policy": _policy([plots.library, script] if charts else []),
        "style": safe((_HERE / "page.css").read_text(encoding="utf-8")),
        "data": safe(plots.data),
        "library": safe(plots.library),
        "script": safe(script),
    }
    return environment.get_template("page.html.jinja").render(values)


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
