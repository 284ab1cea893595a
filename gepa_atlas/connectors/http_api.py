"""The `http.api` provider: an agent behind an HTTP endpoint. One attempt a call; retries belong to `gepa_atlas.calls`."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin
from weakref import WeakKeyDictionary

from gepa_atlas import wire
from gepa_atlas.addresses import host_of, public_only
from gepa_atlas.connectors.answers import Clock, attempt, deadline, field
from gepa_atlas.connectors.http_params import SECRET, SESSION, HttpParams, StreamParams
from gepa_atlas.connectors.placement import demo_rows, encoded, no_place_for
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.connectors.sse import EventStream
from gepa_atlas.connectors.templates import demos_apart, filled, lists_of, strings_in, values_of
from gepa_atlas.errors import BadRequest, EmptyAnswer, Garbled, ServerFault
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.secrets import remember, scrub_json
from gepa_atlas.settings import load
from gepa_atlas.texts import fill
from gepa_atlas.types import Attempt, Json, Scalar, Task, digest

if TYPE_CHECKING:
    import httpx

_VERSION = 2
_HOPS = 5
_ACCEPT = {"json": "application/json", "text": "text/plain, */*;q=0.1", "sse": "text/event-stream"}


class HttpAgent:
    def __init__(self, params: HttpParams, where: str) -> None:
        self._params = params
        given = params.headers | {name: "${" + variable + "}" for name, variable in params.headers_env.items()}
        self._headers = wire.reveal_headers(given, f"{where}.headers")
        for name, value in self._headers.items():
            if SECRET.search(name):
                remember(value.split()[-1] if value.split() else value)
        self._who = wire.place(params.endpoint)
        strings = strings_in([params.request_template, params.query])
        plain_fields = params.request_template is None and params.method != "GET" and params.guidance == "field"
        self._demos_apart = plain_fields or demos_apart(strings)
        self._shared = params.reset is not None and not any(SESSION in text for text in (params.endpoint, *strings))
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
        self._identity = "http:" + digest({"version": _VERSION, "params": params.answering()}, 16)
        self._endpoint = params.endpoint_at(host_of(params.endpoint))

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def run(self, task: Task) -> Attempt:
        """Raises CallError."""
        p = self._params
        clock = Clock()
        values = self._values(task)
        self._url(values)
        self._content(self._body(task, values))  # what cannot be sent is found before anything is
        async with deadline(p.timeout, self._who), self._turn():
            client = await wire.client()
            if p.reset is not None:
                values["session"] = await self._fresh_session(client)
            request = self._request(client, p.method, self._url(values), self._body(task, values))
            pieces = _Pieces(p.stream, p.response_field, self._who) if p.response_format == "sse" else None
            raw = await self._sent(client, request, pieces)
        return attempt(self._text(raw) if pieces is None else pieces.text(), clock.usage(p), self._who, p.max_bytes)

    def preview(self, task: Task) -> dict[str, Any]:
        """The request as JSON: headers by name, the body in full."""
        values = self._values(task)
        body = self._body(task, values)
        names = sorted({*self._headers, "Accept", *(["Content-Type"] if body is not None else [])})
        shown: dict[str, Any] = {"method": self._params.method, "url": str(self._url(values)), "headers": names, "body": body}
        if self._params.reset is not None:
            shown = {"first": {"method": self._params.reset.method, "url": self._params.reset.endpoint}, **shown}
        return {name: scrub_json(value) for name, value in shown.items()}

    # -- the request -----------------------------------------------------------------------------------------------------

    def _values(self, task: Task) -> dict[str, str]:
        return values_of(task, self._params, demos_apart=self._demos_apart)

    def _body(self, task: Task, values: Mapping[str, str]) -> Json:
        """The JSON body for this task; None where there is none. Raises BadRequest for a setting that has no field."""
        p = self._params
        settings = dict(task.guidance.settings)
        if refused := no_place_for(settings, tuple(p.settings_fields), "the agent (settings_fields)"):
            raise refused
        if p.request_template is not None:
            body = filled(p.request_template, values, lists_of(task, p, system=p.system_prompt))
        elif p.method == "GET":
            body = {}
        else:
            body = {p.prompt_field: values["prompt"]}
            if p.guidance == "field":
                body |= {p.guidance_field: task.guidance.text, p.demos_field: demo_rows(task.guidance.demos)}
        for name, value in settings.items():
            _put(body, p.settings_fields[name].split("."), value)
        return body or None

    def _url(self, values: Mapping[str, str]) -> httpx.URL:
        import httpx

        p = self._params
        query = {name: fill(value, values) for name, value in p.query.items()}
        for name, value in query.items():
            encoded(value, f"query.{name}")
        session = {"session": quote(values["session"], safe="")} if "session" in values else {}
        try:
            return httpx.URL(fill(p.endpoint, session)).copy_merge_params(query)
        except httpx.InvalidURL as error:
            raise BadRequest(f"the address for this question is not valid ({error}); send long texts in a body") from None

    def _request(self, client: httpx.AsyncClient, method: str, url: httpx.URL | str, body: Json) -> httpx.Request:
        headers = {"Accept": _ACCEPT[self._params.response_format]} | self._headers
        if body is not None:
            headers = {"Content-Type": "application/json"} | headers
        return client.build_request(method, url, headers=headers, content=self._content(body))

    def _content(self, body: Json) -> bytes | None:
        return None if body is None else encoded(json.dumps(body, ensure_ascii=False, allow_nan=False), "the request")

    # -- sending it ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Where all calls share one conversation, one at a time."""
        if not self._shared:
            yield
            return
        async with self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            yield

    async def _fresh_session(self, client: httpx.AsyncClient) -> str:
        reset = self._params.reset
        assert reset is not None
        session = uuid.uuid4().hex
        url, body = fill(reset.endpoint, {"session": session}), filled(reset.body, {"session": session}, {})
        raw = await self._sent(client, self._request(client, reset.method, url, body), reading=False)
        if reset.session_field is None:
            return session
        given = field(wire.json_body(raw, wire.place(url)), reset.session_field, wire.place(url))
        if not given:
            raise Garbled(f"{wire.place(url)} named no session at {reset.session_field!r} (reset.session_field)")
        return given

    async def _sent(
        self, client: httpx.AsyncClient, request: httpx.Request, pieces: _Pieces | None = None, *, reading: bool = True
    ) -> bytes:
        """The body of the answer, after the redirects that the configuration allows."""
        p = self._params
        kind = {"text": p.content_type.lower(), "sse": "text/event-stream", "json": None}[p.response_format] if reading else None
        for _ in range(_HOPS + 1):
            checked = await public_only(request, self._who) if p.private_addresses == "refuse" else request
            try:
                enough = pieces.stream.feed if pieces is not None else None
                return await wire.send(client, checked, max_bytes=p.max_bytes, content_type=kind, enough=enough, redirects=True)
            except wire.Redirected as redirect:
                request = self._followed(client, request, redirect)
        raise BadRequest(f"{self._who} redirects more than {_HOPS} times")

    def _followed(self, client: httpx.AsyncClient, request: httpx.Request, redirect: wire.Redirected) -> httpx.Request:
        target = urljoin(str(request.url), redirect.location)
        if self._params.redirects == "refuse" or host_of(target) != host_of(str(request.url)):
            raise redirect.refusal from None
        if redirect.status not in (307, 308) and request.method not in ("GET", "DELETE"):
            raise BadRequest(f"{redirect}: a {redirect.status} would turn this {request.method} into a request without a body") from None
        return client.build_request(request.method, target, headers=request.headers, content=request.content)

    def _text(self, raw: bytes) -> str | None:
        if self._params.response_format == "json":
            return field(wire.json_body(raw, self._who), self._params.response_field, self._who) if raw.strip() else None
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise Garbled(f"{self._who} sent bytes that are not UTF-8") from None


class _Pieces:
    """The answer in a stream of events, put together as they come."""

    def __init__(self, params: StreamParams, path: str, who: str) -> None:
        self._params = params
        self._path = path
        self._who = who
        self._parts: list[str] = []
        self._missing: Garbled | None = None
        self.stream = EventStream(self._on_event, who)

    def text(self) -> str:
        """Raises Garbled when the end that was configured did not come, EmptyAnswer when nothing came."""
        if self._params.end is not None and not self.stream.over:
            raise Garbled(f"{self._who} sent a stream that ends without {self._params.end!r} (stream.end): half an answer")
        if not self.stream.over and self.stream.broken:
            raise Garbled(f"{self._who} sent a stream that ends inside an event, without the blank line after it: half an answer")
        if not self._parts and self._missing is not None:
            raise self._missing
        if not self._parts:
            raise EmptyAnswer(f"{self._who} sent a stream without any piece of an answer")
        return "".join(self._parts)

    def _on_event(self, name: str, data: str) -> bool:
        if self._params.end is not None and self._params.end in (name, data):
            return True
        if name == "error":
            raise ServerFault(f"{self._who} broke off with an error event: {wire.line(data)}")
        if self._params.event is not None and name != self._params.event:
            return False
        if self._params.data == "text":
            self._parts.append(data)
            return False
        piece = self._piece(data)
        if piece is not None:
            self._parts.append(piece)
        return False

    def _piece(self, data: str) -> str | None:
        """The piece of an answer in this event. Raises Garbled for half a document and ServerFault for one that tells of an error."""
        try:
            document = wire.json_body(data.encode("utf-8", "surrogatepass"), self._who)
        except Garbled as error:
            if data.lstrip().startswith("{"):
                raise
            self._missing = error  # a word such as [DONE]
            return None
        try:
            return field(document, self._path, self._who)
        except Garbled as error:  # an event about something else; worth a word if no event has the field
            if isinstance(document, dict) and document.get("error"):
                raise ServerFault(f"{self._who} broke off with an error: {wire.line(json.dumps(document['error']))}") from None
            self._missing = error
            return None


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    return HttpAgent(load(HttpParams, params, surroundings.where), surroundings.where)


def _put(body: Any, path: list[str], value: Scalar) -> None:
    for key in path[:-1]:
        body[key] = dict(body.get(key) or {})
        body = body[key]
    body[path[-1]] = value
