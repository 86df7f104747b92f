"""The server of the dashboard: this machine only, until Ctrl-C."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from llamafarm.errors import UserError
from llamafarm.web.app import make_app
from llamafarm.web.stream import Streams

HOST = "127.0.0.1"
_TOKEN_BYTES = 24
_MOST_CONNECTIONS = 100
_SHUTDOWN_SECONDS = 1


def serve(
    directory: Path,
    *,
    port: int,
    on_ready: Callable[[str], None],
    on_defect: Callable[[Exception], None],
) -> None:
    """Serve the runs of a directory until a signal ends it, which then takes its course. port 0:
    any that is free; on_ready: takes the address. Raises UserError where the port cannot be had.
    """
    with _listening(port) as listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        streams = Streams()
        app = make_app(directory, token=token, port=port, streams=streams, on_defect=on_defect)
        config = uvicorn.Config(
            app,
            # The same everywhere, whatever faster parts are installed.
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        on_ready(f"http://{HOST}:{port}/{token}/")
        _Server(config, streams).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends the streams first: they would be waited for."""

    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self._streams.end()
        await super().shutdown(sockets)


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # A port is free again as soon as the dashboard before has ended.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "it is in use" if in_use else getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"port {port} of {HOST} cannot be had: {why}",
            hint="choose another one with --port N, or leave --port out for any that is free",
        ) from error
    return listener
