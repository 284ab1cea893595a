"""The web server of the live page: on 127.0.0.1 only, read-only, behind a token, with no foreign text in any markup.

    GET /                       the list of runs          GET /api/runs                   the same as JSON
    GET /runs/NAME              a run as it goes on       GET /api/runs/NAME              state and decisions as JSON
    GET /runs/NAME/report       its report.html           GET /api/runs/NAME/events       the same as server-sent events
    GET /api/events             the list as server-sent events

The token comes once in the address (?token=...), is then a cookie of this port, or is sent as `Authorization: Bearer`. Pages are the
same for every run: what a run says is fetched as JSON and becomes text. A report is shown in a sandbox, so that one from a stranger's run
directory can neither read the other runs nor reach the network.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from gepa_atlas.errors import AtlasError, ConfigError, MissingExtra
from gepa_atlas.report.html import asset as report_asset
from gepa_atlas.secrets import scrub
from gepa_atlas.ui.shelf import Shelf
from gepa_atlas.ui.watched import Watched

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
_EVERY = 0.5  # seconds between two looks
_ALIVE = 10.0  # seconds of silence after which the browser is told that the server is still there
_FETCHED = 500  # decisions of one event
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REPORT = (
    "sandbox allow-scripts allow-downloads; connect-src 'none'; frame-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
_ASSETS = {"ui.css": "text/css", "ui.js": "text/javascript", "report.css": "text/css"}


def open_port(port: int) -> socket.socket:
    """A socket on loopback; 0 is any free port. Raises ConfigError when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)  # whoever comes before the server is up waits
    except OSError as error:
        listener.close()
        raise ConfigError(f"--port {port}: {error.strerror or error}; choose another one, or 0 for any that is free") from None
    return listener


def serve(directory: Path, listener: socket.socket, token: str | None) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises MissingExtra."""
    app = build_app(Shelf(directory), listener.getsockname()[1], token, lambda: server.should_exit)
    import uvicorn  # build_app has said what to do where it is missing

    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=2, server_header=False)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])


def build_app(shelf: Shelf, port: int, token: str | None, ending: Callable[[], bool]) -> Starlette:
    """The application. `token` None: whoever reaches the port may read. `ending`: streams are to close. Raises MissingExtra."""
    try:
        import uvicorn  # noqa: F401  (one extra brings both)
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.routing import Route
    except ImportError:
        raise MissingExtra("the live page", "ui") from None

    pages = _Pages(shelf, ending)
    routes = [
        Route("/", pages.index),
        Route("/runs/{name}", pages.run),
        Route("/runs/{name}/report", pages.report),
        Route("/assets/{name}", pages.asset),
        Route("/api/runs", pages.api_runs),
        Route("/api/events", pages.api_events),
        Route("/api/runs/{name}", pages.api_run),
        Route("/api/runs/{name}/events", pages.api_run_events),
    ]
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)]
    guards += [Middleware(Guard, token=token, cookie=f"gepa_atlas_{port}")] if token is not None else []
    return Starlette(routes=routes, middleware=guards)


class Guard:
    """Nothing is answered without the token."""

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        self.app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # there is no websocket here, and no lifespan
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse, RedirectResponse

        request = Request(scope)
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._is(request.query_params.get("token", "")):
            answer: Response = RedirectResponse("/" + request.url.path.lstrip("/"), 303, headers=_HEADERS)  # never to another host
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        elif self._is(request.cookies.get(self._cookie, "")) or self._is(bearer):
            return await self.app(scope, receive, send)
        else:
            said = "This page needs its token: open the address that `gepa-atlas ui` has printed.\n"
            answer = PlainTextResponse(said, 401, headers={**_HEADERS, "content-security-policy": _PAGE})
        await answer(scope, receive, send)

    def _is(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


class _Pages:
    """What is answered. Reading the disk is done in threads."""

    def __init__(self, shelf: Shelf, ending: Callable[[], bool]) -> None:
        self._shelf, self._ending = shelf, ending

    async def index(self, request: Request) -> Response:
        return _answer(_asset("index.html"), "text/html")

    async def run(self, request: Request) -> Response:
        if self._find(request) is None:
            return _answer(_asset("missing.html"), "text/html", 404)
        return _answer(_asset("run.html"), "text/html")

    async def report(self, request: Request) -> Response:
        run = self._find(request)
        page = run.directory / "report.html" if run is not None else None
        if page is None or not page.is_file():
            return _answer(_asset("missing.html"), "text/html", 404)
        return _answer(await asyncio.to_thread(page.read_bytes), "text/html", policy=_REPORT)

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            return _answer("not found\n", "text/plain", 404)
        return _answer(report_asset(name) if name == "report.css" else _asset(name), _ASSETS[name])

    async def api_runs(self, request: Request) -> Response:
        return _answer(json.dumps(await asyncio.to_thread(self._shelf.rows)), "application/json")

    async def api_run(self, request: Request) -> Response:
        run = self._find(request)
        if run is None:
            return _answer('{"error": "there is no such run"}', "application/json", 404)
        try:
            await asyncio.to_thread(run.look)
        except AtlasError as error:
            return _answer(json.dumps({"error": scrub(str(error))}), "application/json", 409)
        return _answer(json.dumps({"state": run.state(), "decisions": run.decisions()}), "application/json")

    async def api_events(self, request: Request) -> Response:
        async def lists() -> AsyncIterator[str | None]:
            before = ""
            while True:
                now = json.dumps(await asyncio.to_thread(self._shelf.rows))
                yield _event("runs", now) if now != before else None
                before = now

        return self._stream(lists())

    async def api_run_events(self, request: Request) -> Response:
        run = self._find(request)
        if run is None:
            return _answer("there is no such run\n", "text/plain", 404)
        last = request.headers.get("last-event-id", "")
        return self._stream(_follow(run, int(last) if last.isascii() and last.isdigit() else 0))

    def _find(self, request: Request) -> Watched | None:
        return self._shelf.find(request.path_params["name"])

    def _stream(self, events: AsyncIterator[str | None]) -> Response:
        from starlette.responses import StreamingResponse

        return StreamingResponse(self._paced(events), headers=_HEADERS, media_type="text/event-stream")

    async def _paced(self, events: AsyncIterator[str | None]) -> AsyncIterator[str]:
        """Looks from time to time, until the server ends or the browser goes away."""
        heard = time.monotonic()
        async for event in events:
            if event is not None or time.monotonic() - heard > _ALIVE:
                heard = time.monotonic()
                yield event if event is not None else ": still here\n\n"
            if self._ending():
                return
            await asyncio.sleep(_EVERY)


async def _follow(run: Watched, shown: int) -> AsyncIterator[str | None]:
    """New decisions and where the run stands, when that has changed. A browser that comes again says how many decisions it has."""
    before, run_id = "", ""
    while True:
        try:
            await asyncio.to_thread(run.look)
        except (AtlasError, OSError) as error:
            problem = _event("problem", json.dumps({"reason": scrub(str(error))}))
            yield problem if problem != before else None
            before = problem
            continue
        state = run.state()
        if run_id not in ("", state["run_id"]) or shown > state["told"]:
            shown = 0
        run_id = state["run_id"]
        fresh = run.decisions(shown)[:_FETCHED]
        shown += len(fresh)
        now = json.dumps({"state": state})
        yield (
            _event("run", json.dumps({"state": state, "decisions": fresh, "first": shown - len(fresh)}), shown)
            if fresh or now != before
            else None
        )
        before = now


def _event(kind: str, data: str, number: int | None = None) -> str:
    """One server-sent event. JSON has no line break of its own."""
    return (f"id: {number}\n" if number is not None else "") + f"event: {kind}\ndata: {data}\n\n"


def _asset(name: str) -> str:
    return (resources.files("gepa_atlas.ui") / "assets" / name).read_text("utf-8")


def _answer(body: str | bytes, kind: str, status: int = 200, policy: str = _PAGE) -> Response:
    from starlette.responses import Response

    return Response(body, status, {**_HEADERS, "content-security-policy": policy}, f"{kind}; charset=utf-8")
