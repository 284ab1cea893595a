"""HTTP for whoever calls a server: one attempt, a byte cap, a wall-clock deadline, typed errors, and no key in any message.

Errors raised by `send` (see errors.py for the tree):

status   408 CallTimeout · 425, 429 and 503 with Retry-After RateLimited · other 5xx ServerFault · 401, 403 AuthRefused · 404 NotFound
         · 3xx and other 4xx BadRequest · an exhausted quota, whatever its status, AuthRefused (waiting does not refill it)
network  no connection, DNS, TLS, broken half-way: Unreachable · deadline: CallTimeout · undecodable content encoding: Garbled
size     more than `max_bytes` after decompression: TooLarge
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import itertools
import json
import math
import re
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from gepa_atlas.errors import (
    AuthRefused,
    BadRequest,
    CallError,
    CallTimeout,
    ConfigError,
    Garbled,
    NotFound,
    RateLimited,
    ServerFault,
    TooLarge,
    Unreachable,
)
from gepa_atlas.secrets import reveal, scrub

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 8 * 1024 * 1024
_SHOWN_BYTES = 4096  # of an error body
_CONNECT_SECONDS = 10.0
_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_POOLS = 8  # httpcore's pool compares every connection with every other at each request: eight small ones cost a tenth of one large


class Redirected(Exception):
    """The answer was a redirect; `refusal` is what it means to whoever does not follow it."""

    def __init__(self, status: int, location: str, refusal: CallError) -> None:
        super().__init__(str(refusal))
        self.status = status
        self.location = location
        self.refusal = refusal


_Pools = list[tuple[AsyncGenerator["httpx.AsyncClient", None], "httpx.AsyncClient"]]
_held: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pools] = WeakKeyDictionary()
_turn = itertools.count()


async def client() -> httpx.AsyncClient:
    """An HTTP client of the running event loop: no redirects, no cookies, no proxy for loopback, no limit on connections.

    One of a few in turn, shared because a pool per caller costs handshakes; closed by the loop itself when it shuts its async
    generators down, so that nobody has to carry a `close`.
    """
    loop = asyncio.get_running_loop()
    pools = _held.setdefault(loop, [])
    if len(pools) < _POOLS:
        opened = _open_client()
        pools.append((opened, await anext(opened)))
        return pools[-1][1]
    return pools[next(_turn) % _POOLS][1]


async def _open_client() -> AsyncGenerator[httpx.AsyncClient, None]:
    import httpx

    async with httpx.AsyncClient(
        verify=_tls(),
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        mounts={"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None},
    ) as opened:
        yield opened


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all clients: reading the certificates takes longer than a request."""
    import httpx

    return httpx.create_ssl_context()


async def send(
    client: httpx.AsyncClient,
    request: httpx.Request,
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float | None = None,
    content_type: str | None = None,
    enough: Callable[[bytes], bool] | None = None,
    redirects: bool = False,
) -> bytes:
    """The body of a 2xx answer. `timeout` is wall clock for the whole exchange, in seconds: a dripping server ends with it too.
    With `content_type` an answer that says it is of another type (a login page, an image) is Garbled. `enough` sees each part as it
    comes and ends the reading by saying True: a stream may stay open after its last word. A redirect is BadRequest, or with `redirects`
    raises Redirected, for the caller to follow."""
    import httpx

    where = place(str(request.url))
    try:
        async with asyncio.timeout(timeout):
            response = await client.send(request, stream=True)
            try:
                if response.is_success:
                    said = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                    if content_type is not None and said and said != content_type:
                        raise Garbled(f"{where} sent {said[:80]}; expected {content_type} (content_type)")
                    return await _read(response, max_bytes, where, enough)
                body = await _read_some(response)
                error = status_error(response.status_code, response.headers, body, where)
                if redirects and response.has_redirect_location:
                    raise Redirected(response.status_code, response.headers["location"], error)
                raise error
            finally:
                await response.aclose()
    except TimeoutError:
        raise CallTimeout(f"{where} did not finish answering within {timeout or 0:g} seconds") from None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise network_error(error, where) from None


async def _read(response: httpx.Response, max_bytes: int, where: str, enough: Callable[[bytes], bool] | None) -> bytes:
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise TooLarge(f"{where} announced {announced} bytes; the limit is {max_bytes} (max_bytes)")
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > max_bytes:
            raise TooLarge(f"{where} sent more than {max_bytes} bytes (max_bytes)")
        parts.append(part)
        if enough is not None and enough(part):
            break
    return b"".join(parts)


async def _read_some(response: httpx.Response) -> bytes:
    """The beginning of an error body; a body that cannot be read must not hide the status."""
    import httpx

    some = b""
    try:
        async for part in response.aiter_bytes():
            some += part
            if len(some) >= _SHOWN_BYTES:
                break
    except httpx.HTTPError:
        pass
    return some[:_SHOWN_BYTES]


def status_error(status: int, headers: Mapping[str, str], body: bytes, where: str) -> CallError:
    """The error a status other than 2xx stands for, with the server's own words in one line."""
    words = _words(body)
    said = f"{where} answered {status}" + (f": {words}" if words else "")
    if b"insufficient_quota" in body:
        return AuthRefused(said)
    if status == 408:
        return CallTimeout(said)
    wait = retry_after(headers)
    if status in (425, 429) or (status == 503 and wait is not None):
        return RateLimited(said, wait)
    if status >= 500:
        return ServerFault(said)
    if status in (401, 403):
        return AuthRefused(said)
    if status == 404:
        return NotFound(said)
    if 300 <= status < 400:
        target = place(headers.get("location", ""))
        return BadRequest(f"{where} answered {status}: it redirects to {target or 'nowhere'}; configure that address itself")
    return BadRequest(said)


def network_error(error: Exception, where: str) -> CallError:
    """What an httpx exception stands for. Its own words are shown only where they cannot hold a header or a query."""
    import httpx

    name = type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        return CallTimeout(f"{where} did not answer in time ({name})")
    if isinstance(error, httpx.UnsupportedProtocol):
        return BadRequest(f"{where} is not an http:// or https:// address")
    if isinstance(error, httpx.LocalProtocolError):
        return BadRequest(f"the request to {where} is not valid HTTP: check its headers for line breaks and control characters")
    if isinstance(error, httpx.DecodingError):
        return Garbled(f"{where} sent a body that its content-encoding does not describe")
    return Unreachable(f"no complete answer from {where}: {name}: {line(str(error))}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait that the server named in Retry-After (seconds or an HTTP date) or retry-after-ms; never negative."""
    millis = headers.get("retry-after-ms")
    if millis is not None and (number := _number(millis)) is not None:
        return number / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    if (number := _number(value)) is not None:
        return number
    try:
        moment = email.utils.parsedate_to_datetime(value.strip())
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def json_body(raw: bytes, where: str) -> Any:
    """The JSON document in `raw`; Garbled when it is none, or is not UTF-8."""
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise Garbled(f"{where} sent bytes that are not UTF-8") from None
    except (ValueError, RecursionError):
        shown = line(raw[:200].decode("utf-8", "replace"))
        raise Garbled(f"{where} sent something that is not JSON: {shown or '(nothing)'}") from None


def reveal_headers(headers: Mapping[str, str], needed_by: str) -> dict[str, str]:
    """Header values with every `${ENV}` read from the environment; the values read are scrubbed from all that is written."""
    shown: dict[str, str] = {}
    for name, value in headers.items():
        full = _ENV.sub(lambda found: reveal(found[1], needed_by), value)
        if not full.isascii() or not full.isprintable():
            raise ConfigError(f"{needed_by}: the value of header {name!r} must be printable ASCII without line breaks")
        shown[name] = full
    return shown


def check_address(url: str) -> None:
    """ValueError when no request can be sent to this address: a port, a host or a character that there is not."""
    parts = urlsplit(url)
    _ = parts.port  # ValueError for one beyond 65535, or that is no number
    if not url.isprintable() or any(c.isspace() for c in parts.netloc):
        raise ValueError("an address holds no spaces and no control characters")
    try:
        (parts.hostname or "").encode("idna")
    except UnicodeError:
        raise ValueError(f"{parts.hostname!r:.80} is not the name of a host") from None


def place(url: str) -> str:
    """The address without what may hold a secret: user, password, query, fragment."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(unreadable address)"
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return scrub((f"{parts.scheme}://{host}{port}" if host else "") + parts.path)


def _words(body: bytes) -> str:
    """The server's message, from {"error": {"message": ...}}, {"error": "..."}, {"message"|"detail": "..."} or plain text."""
    text = body.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return line(text)
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return line(found if isinstance(found, str) else json.dumps(found))


def line(text: str, limit: int = 300) -> str:
    flat = scrub(" ".join(text.split()))
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
