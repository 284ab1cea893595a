"""The wire against real sockets on loopback: every status, every way to break, and no key in any message."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import time
from collections.abc import Awaitable, Callable

import pytest

from gepa_atlas import wire
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

SECRET = "sk-verysecretverysecret123"

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes = b"{}", headers: str = "", length: int | None = None) -> Handler:
    async def handler(writer: asyncio.StreamWriter) -> None:
        size = len(body) if length is None else length
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {size}\r\nconnection: close\r\n{headers}\r\n".encode() + body)
        await writer.drain()

    return handler


def fetch(handler: Handler, *, max_bytes: int = 10_000, timeout: float = 20.0, query: str = f"?key={SECRET}") -> bytes:
    async def go() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                await handler(writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = await wire.client()
            request = client.build_request("GET", f"http://127.0.0.1:{port}/v1{query}", headers={"authorization": f"Bearer {SECRET}"})
            return await wire.send(client, request, max_bytes=max_bytes, timeout=timeout)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, BadRequest),
        (400, BadRequest),
        (401, AuthRefused),
        (403, AuthRefused),
        (404, NotFound),
        (408, CallTimeout),
        (413, BadRequest),
        (429, RateLimited),
        (500, ServerFault),
        (503, ServerFault),
    ],
)
def test_a_status_becomes_its_error_and_shows_no_key(status: int, error: type[CallError]) -> None:
    with pytest.raises(error) as caught:
        fetch(answer(status, b'{"error": {"message": "bad key %s"}}' % SECRET.encode()))
    assert type(caught.value) is error
    assert str(status) in str(caught.value) and (status == 301 or "bad key" in str(caught.value))
    assert SECRET not in str(caught.value) and "?" not in str(caught.value)


def test_an_answer_is_returned_whole_and_the_client_survives_a_new_loop() -> None:
    assert fetch(answer(200, b"x" * 10_000)) == b"x" * 10_000
    assert fetch(answer(200, b'{"a": 1}')) == b'{"a": 1}'


def test_the_cap_holds_for_announced_dripped_and_compressed_bodies() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()

    with pytest.raises(TooLarge, match="announced"):
        fetch(answer(200, b"x" * 10_001))
    with pytest.raises(TooLarge, match="more than 10000"):
        fetch(endless)
    with pytest.raises(TooLarge, match="more than 10000"):
        fetch(answer(200, gzip.compress(b"x" * 5_000_000)[:9_999], "content-encoding: gzip\r\n"))


def test_a_dripping_server_ends_at_the_deadline() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    with pytest.raises(CallTimeout, match=r"0\.2 seconds"):
        fetch(drip, timeout=0.2)


def test_broken_connections_are_unreachable() -> None:
    async def nothing(writer: asyncio.StreamWriter) -> None:
        pass

    with pytest.raises(Unreachable):
        fetch(nothing)
    with pytest.raises(Unreachable):
        fetch(answer(200, b"half", length=100))
    with pytest.raises(Garbled):
        fetch(answer(200, b"not gzip at all", "content-encoding: gzip\r\n"))


def test_nobody_listens() -> None:
    async def go(url: str) -> None:
        client = await wire.client()
        await wire.send(client, client.build_request("GET", url, headers={"x-key": SECRET}))

    with pytest.raises(Unreachable) as caught:
        asyncio.run(go(f"http://user:{SECRET}@127.0.0.1:1/v1?key={SECRET}"))
    assert SECRET not in str(caught.value) and "127.0.0.1:1/v1" in str(caught.value)
    with pytest.raises(BadRequest, match="not an http"):
        asyncio.run(go("ftp://127.0.0.1/x"))


def test_retry_after_in_seconds_milliseconds_and_dates() -> None:
    with pytest.raises(RateLimited) as caught:
        fetch(answer(429, b"slow down", "retry-after: 7\r\n"))
    assert caught.value.retry_after == 7
    with pytest.raises(RateLimited) as caught:
        fetch(answer(503, b"", "retry-after: 2\r\n"))
    assert caught.value.retry_after == 2
    assert wire.retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < (wire.retry_after({"retry-after": date}) or 0) <= 30
    assert wire.retry_after({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 0
    assert wire.retry_after({"retry-after": "-3"}) == 0
    for unreadable in ("soon", "nan", "inf", ""):
        assert wire.retry_after({"retry-after": unreadable}) is None


def test_an_exhausted_quota_is_permanent() -> None:
    with pytest.raises(AuthRefused):
        fetch(answer(429, b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'))


def test_json_body() -> None:
    assert wire.json_body(b'{"a": [1]}', "here") == {"a": [1]}
    for raw in (b'{"a": [1', b"", b"\xff\xfe", b"<html>", b"[" * 100_000):
        with pytest.raises(Garbled, match="here"):
            wire.json_body(raw, "here")


def test_header_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    assert wire.reveal_headers({"Authorization": "Bearer ${MY_KEY}"}, "agent") == {"Authorization": f"Bearer {SECRET}"}
    monkeypatch.setenv("MY_KEY", "two\nlines")
    with pytest.raises(ConfigError, match="printable"):
        wire.reveal_headers({"Authorization": "${MY_KEY}"}, "agent")
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY"):
        wire.reveal_headers({"Authorization": "${MY_KEY}"}, "agent")


def test_cookies_are_not_kept() -> None:
    seen: list[bytes] = []

    async def go() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            await answer(200, headers="set-cookie: who=me\r\n")(writer)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            client = await wire.client()
            for _ in range(2):
                await wire.send(client, client.build_request("GET", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))

    asyncio.run(go())
    assert len(seen) == 2 and b"who=me" not in seen[1]
