"""The dashboard without a network: its application, asked as a browser would ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from llamafarm.web.app import make_app
from llamafarm.web.stream import Streams
from tests.monitoring.report.records import full_record
from tests.monitoring.run_directories import write_rows, write_whole_run

TOKEN = "T0ken-of-tests"
PORT = 8765


@dataclass
class Served:
    """An application with its client. defects: what nobody expected."""

    client: TestClient
    streams: Streams
    defects: list[Exception] = field(default_factory=list)

    def page(self, path: str = "") -> str:
        """The text of a page that is there."""
        answer = self.client.get(f"/{TOKEN}/{path}")
        assert answer.status_code == 200, answer.text
        return answer.text


Serve = Callable[[Path], Served]


@pytest.fixture
def serve() -> Serve:
    def serving(directory: Path) -> Served:
        streams = Streams()
        defects: list[Exception] = []
        app = make_app(directory, token=TOKEN, port=PORT, streams=streams, on_defect=defects.append)
        client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}", follow_redirects=False)
        return Served(client, streams, defects)

    return serving


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs that ended, one of them in a directory of its own."""
    directory = tmp_path / "runs"
    for name in ("first", "more/second"):
        root = write_whole_run(directory / name, full_record(directory / name))
        write_rows(root, 8, [1.839] * 10)
    return directory
