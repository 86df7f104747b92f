"""The addresses of the dashboard, and what each answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from llamafarm.monitoring.report.page import own_file
from llamafarm.monitoring.report.plots import library as bokeh_library
from llamafarm.web.guard import Guard
from llamafarm.web.library import RunLibrary
from llamafarm.web.stream import Streams
from llamafarm.web.views import UnknownRun, View, Views

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_HERE = Path(__file__).parent
_STATIC: Mapping[str, tuple[str, Callable[[], str]]] = {
    "page.css": ("text/css", lambda: own_file("page.css")),
    "dashboard.css": ("text/css", lambda: (_HERE / "dashboard.css").read_text("utf-8")),
    "page.js": ("text/javascript", lambda: own_file("page.js")),
    "live.js": ("text/javascript", lambda: (_HERE / "live.js").read_text("utf-8")),
    "bokeh.js": ("text/javascript", bokeh_library),
}
MakeView = Callable[[Request, Views], View]

_VIEWS: Mapping[str, MakeView] = {
    "": lambda request, views: views.runs(),
    "run/{id}": lambda request, views: views.run(request.path_params["id"]),
    "compare": lambda request, views: views.comparison(request.query_params.getlist("run")),
}


def make_app(
    directory: Path,
    *,
    token: str,
    port: int,
    streams: Streams,
    on_defect: Callable[[Exception], None],
) -> ASGIApp:
    """The dashboard of a directory. on_defect: takes an error that nobody expected."""
    root = f"/{token}/"
    views = Views(RunLibrary(directory), root)

    async def static(request: Request) -> Response:
        found = _STATIC.get(request.path_params["name"])
        if found is None:
            return _not_found()
        kind, read = found
        return Response(await run_in_threadpool(_read_once, read), media_type=kind)

    routes = [Route("/static/{name}", static)]
    for path, make_view in _VIEWS.items():
        routes.append(Route(f"/{path}", _page(views, root, make_view)))
        routes.append(Route(f"/events/{path}", _events(views, streams, make_view)))
    # Not a whole application: that would answer a defect itself.
    router = Router(routes, redirect_slashes=False)
    return Guard(router, token=token, port=port, on_defect=on_defect)


@functools.cache
def _read_once(read: Callable[[], str]) -> bytes:
    return read().encode()


def _page(views: Views, root: str, make_view: MakeView) -> Callable[[Request], object]:
    def make(request: Request) -> bytes:
        view = make_view(request, views)
        path = request.url.path.removeprefix(root)
        query = f"?{request.url.query}" if request.url.query else ""
        page = views.page(view, f"{root}events/{path}{query}")
        # A name on a disk need not be UTF-8.
        return page.encode("utf-8", "replace")

    async def page(request: Request) -> Response:
        try:
            return Response(await run_in_threadpool(make, request), media_type="text/html")
        except UnknownRun:
            return _not_found()

    return page


def _events(views: Views, streams: Streams, make_view: MakeView) -> Callable[[Request], object]:
    async def events(request: Request) -> Response:
        kind = "text/event-stream"
        if request.method == "HEAD":
            return Response(media_type=kind)
        if streams.is_full:
            return PlainTextResponse("too many pages are open", 503)
        seen = request.headers.get("last-event-id") or request.query_params.get("seen", "")
        make = functools.partial(make_view, request, views)
        try:
            await run_in_threadpool(make)
        except UnknownRun:
            return _not_found()
        return StreamingResponse(streams.events(make, seen), media_type=kind)

    return events


def _not_found() -> Response:
    return PlainTextResponse(
        "there is no such page; the list of runs is at the address that was printed", 404
    )
