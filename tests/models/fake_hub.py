"""A Hugging Face Hub on the loopback interface, with the few answers that a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40


@dataclass
class FakeHub:
    """repositories: id → file name → content; gated: ids that refuse; requests: paths that were
    asked for.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer = field(init=False)

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def downloaded(self) -> set[str]:
        """Names of the files whose content was fetched."""
        gets = (path for path in self.requests if path.startswith("GET "))
        return {path.split(f"/resolve/{COMMIT}/")[1] for path in gets if "/resolve/" in path}

    def answer(self, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{request.command} {path}")
        status, headers, body = self._answer(path)
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if with_body:
            request.wfile.write(body)

    def _answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        repository = next((name for name in self.repositories if f"/{name}" in path), None)
        if repository is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if repository in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        if "/revision/" in path and path.rsplit("/", 1)[-1] not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = self.repositories[repository]
        if "/tree/" in path:
            entries = [self._entry(name, content) for name, content in files.items()]
            return 200, {"Content-Type": "application/json"}, json.dumps(entries).encode()
        if "/resolve/" in path:
            content = files[path.split(f"/resolve/{COMMIT}/", 1)[1]]
            etag = hashlib.sha256(content).hexdigest()
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, content
        info = {
            "id": repository,
            "sha": COMMIT,
            "siblings": [{"rfilename": name} for name in files],
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()

    @staticmethod
    def _entry(name: str, content: bytes) -> dict[str, Any]:
        return {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }
