"""What every request has to pass, and every answer carries."""

from __future__ import annotations

import hmac
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "HEAD")
_USUAL_PORT = 80
# BokehJS puts its styles into the page itself, and its icons into them as data.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets a request through that comes to this machine's own name, only reads, and has the token.

    The Host header keeps pages of other origins out whose name was pointed at this machine (DNS
    rebinding); the token keeps out everybody else. token: the first part of every path;
    on_defect: takes what nobody expected.
    """

    def __init__(
        self, app: ASGIApp, *, token: str, port: int, on_defect: Callable[[Exception], None]
    ) -> None:
        self._app = app
        self._token = token.encode()
        names = ("127.0.0.1", "localhost")
        self._hosts = {f"{name}:{port}".encode() for name in names}
        # A browser leaves out the port that http has anyway.
        self._hosts |= {name.encode() for name in names if port == _USUAL_PORT}
        self._on_defect = on_defect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        answer = self._refusal(scope) or self._app
        try:
            await answer({**scope, "root_path": f"/{self._token.decode()}"}, receive, send_guarded)
        except (ClientDisconnect, ConnectionError):
            return
        except Exception as error:
            self._on_defect(error)
            if not started:
                text = "a defect of llamafarm: the terminal says more"
                await PlainTextResponse(text, 500)(scope, receive, send_guarded)

    def _refusal(self, scope: MutableMapping[str, Any]) -> ASGIApp | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            text = "only 127.0.0.1 and localhost are answered, with the port that was printed"
            return PlainTextResponse(text, 403)
        if scope["method"] not in _METHODS:
            text = "the dashboard only reads"
            return PlainTextResponse(text, 405, {"Allow": ", ".join(_METHODS)})
        given = scope["path"].split("/")[1:2]
        if not given or not hmac.compare_digest(given[0].encode("utf-8", "replace"), self._token):
            text = "open the address that `llamafarm dashboard` printed, with its token"
            return PlainTextResponse(text, 403)
        return None
