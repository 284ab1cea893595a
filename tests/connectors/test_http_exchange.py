"""http.api beyond one request: streams of events, services that remember, redirects and addresses that are not public."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.connectors.sse import EventStream
from gepa_atlas.errors import BadRequest, CallError, CallTimeout, ConfigError, EmptyAnswer, Garbled, NotFound, ServerFault, TooLarge
from gepa_atlas.ports import Agent, Previews
from gepa_atlas.types import Attempt, Task
from tests.connectors.faults import HOSTILE, Asked, Server, no_model, task


def agent(endpoint: str, **params: Any) -> Agent:
    spec = AgentSpec(provider="http.api", params={"endpoint": endpoint, "timeout": 10.0, **params})
    return build_agent(spec, build_model=no_model)


def run(built: Agent, asked: Task | None = None) -> Attempt:
    return asyncio.run(built.run(asked or task()))


# -- streams ----------------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"


def streams(server: Server, *parts: bytes, then_hang: bool = False) -> None:
    def stream(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(HEAD)
        for part in parts:
            sock.sendall(part)
        if then_hang:
            server.over.wait(30)

    server.answer = stream


def event(data: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def delta(text: str) -> bytes:
    return event({"choices": [{"delta": {"content": text}}]})


CHAT = {"response_format": "sse", "response_field": "choices.0.delta.content", "stream": {"end": "[DONE]"}}


def test_the_pieces_of_a_stream_are_the_answer_and_the_end_is_not_waited_for(server: Server) -> None:
    pieces = [event({"choices": [{"delta": {"role": "assistant"}}]}), delta("Pa"), b": ping\n\n", delta("ris"), event({"choices": []})]
    streams(server, *pieces, b"data: [DONE]\n\n", then_hang=True)
    assert run(agent(server.url, **CHAT)).output == "Paris"
    assert server.asked[0].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_text_survives_a_stream(name: str, server: Server) -> None:
    text = HOSTILE[name]
    cut = [text[i : i + 5_000] for i in range(0, len(text), 5_000)] if len(text) > 100 else list(text)
    streams(server, *(delta(piece) for piece in cut), b"data: [DONE]\n\n")
    assert run(agent(server.url, **CHAT)).output == text


def test_named_events_of_plain_text(server: Server) -> None:
    streams(server, b"event: token\ndata: two\ndata: lines\n\n", b"event: usage\ndata: 7\n\n", b"event: done\ndata: .\n\n")
    params = {"response_format": "sse", "stream": {"event": "token", "data": "text", "end": "done"}}
    assert run(agent(server.url, **params)).output == "two\nlines"


@pytest.mark.parametrize(
    ("parts", "kind", "says"),
    [
        ([delta("Pa")], Garbled, "half an answer"),
        ([b"data: [DONE]\n\n"], EmptyAnswer, "without any piece"),
        ([event({"text": "Paris"}), b"data: [DONE]\n\n"], Garbled, "'choices'"),
        ([delta("Pa"), b"event: error\ndata: out of memory\n\n"], ServerFault, "out of memory"),
        ([delta("Pa"), event({"error": {"message": "out of memory"}}), b"data: [DONE]\n\n"], ServerFault, "out of memory"),
        ([delta("Pa"), b'data: {"choices": [{"delta": {"con\n\n', b"data: [DONE]\n\n"], Garbled, "not JSON"),
        ([b"data: \xff\xfe\n\n"], Garbled, "UTF-8"),
        ([b"data: " + b"x" * 3_000_000], TooLarge, "max_bytes"),
    ],
)
def test_what_is_no_whole_answer(parts: list[bytes], kind: type[CallError], says: str, server: Server) -> None:
    streams(server, *parts)
    with pytest.raises(CallError, match=says) as caught:
        run(agent(server.url, **CHAT))
    assert type(caught.value) is kind


@pytest.mark.parametrize("cut", [b'data: {"choi', b"data: x\n", b"\xe2\x82"])
def test_a_stream_that_ends_inside_an_event_is_half_an_answer_even_where_no_end_is_configured(cut: bytes, server: Server) -> None:
    streams(server, delta("Pa"), cut)
    with pytest.raises(Garbled, match="inside an event"):
        run(agent(server.url, **CHAT | {"stream": {}}))
    streams(server, delta("Pa"), delta("ris"), b"data: [DONE]\n\n\n")
    assert run(agent(server.url, **CHAT | {"stream": {}})).output == "Paris"


def test_a_stream_that_stalls_ends_at_the_deadline(server: Server) -> None:
    streams(server, delta("Pa"), then_hang=True)
    with pytest.raises(CallTimeout):
        run(agent(server.url, **CHAT | {"timeout": 0.3}))


def test_a_page_is_no_stream(server: Server) -> None:
    server.says("<html>", kind="text/html")
    with pytest.raises(Garbled, match="text/html"):
        run(agent(server.url, **CHAT))


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    raw = "\ufeffdata: a\r\ndata: ü🙂\r\n\r\n:c\revent: x\rdata:b\r\rdata: c\n\nid: 7\n\ndata: never whole".encode()
    got: list[tuple[str, str]] = []
    stream = EventStream(lambda name, data: bool(got.append((name, data))), "who")
    for i in range(0, len(raw), size):
        assert not stream.feed(raw[i : i + size])
    assert got == [("message", "a\nü🙂"), ("x", "b"), ("message", "c")]


# -- where the answer is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("$.output[?@.type == 'message'].content[0].text", "Paris\nRome"),
        ("$..tokens", "7"),
        ("$.output[-1].type", "message"),
        ("output.1.content.0.text", "Paris"),
        ("dotted.name", "x"),
    ],
)
def test_an_answer_is_found_by_dotted_path_or_jsonpath(path: str, text: str, server: Server) -> None:
    messages = [{"type": "message", "content": [{"text": city}]} for city in ("Paris", "Rome")]
    server.says({"output": [{"type": "reasoning"}, *messages], "usage": {"tokens": 7}, "dotted.name": "x"})
    assert run(agent(server.url, response_field=path)).output == text


def test_a_jsonpath_that_finds_nothing_or_cannot_be_read(server: Server) -> None:
    server.says({"a": None})
    with pytest.raises(Garbled, match=r"nothing in an object with the keys 'a'"):
        run(agent(server.url, response_field="$.b"))
    with pytest.raises(EmptyAnswer):
        run(agent(server.url, response_field="$.a"))
    with pytest.raises(ConfigError, match="response_field: not a JSONPath"):
        agent(server.url, response_field="$[")


# -- services that remember -------------------------------------------------------------------------------------------


class Rememberer:
    """A service with conversations: it answers with everything it was told since the last reset of that conversation."""

    def __init__(self, server: Server) -> None:
        self.told: dict[str, list[str]] = {}
        self.lines: list[str] = []
        server.answer = self.answer

    def answer(self, asked: Asked, sock: socket.socket) -> None:
        method, path, _ = asked.line.split()
        self.lines.append(f"{method} {path}")
        if path == "/sessions":
            self.told["s1"] = []
            body = {"session": {"id": "s1"}}
        elif path.startswith("/reset/"):
            self.told[path.removeprefix("/reset/")] = []
            body = {}
        elif path == "/broken":
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        else:
            said = self.told.setdefault(asked.json.get("session", "one"), [])
            said.append(asked.json["prompt"])
            body = {"response": " | ".join(said)}
        raw = json.dumps(body).encode()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(raw) + raw)


def test_each_run_of_a_stateful_agent_starts_afresh(server: Server) -> None:
    service = Rememberer(server)
    base = server.url.removesuffix("/agent")
    forgetful = agent(server.url)
    assert [run(forgetful, task(q)).output for q in ("a", "b")] == ["a", "a | b"], "without reset the second answer depends on the first"
    built = agent(server.url, reset={"endpoint": base + "/reset/one", "method": "DELETE"}, max_concurrency=1)

    async def at_once() -> list[str | None]:
        return [a.output for a in await asyncio.gather(*(built.run(task(f"q{i}")) for i in range(6)))]

    assert sorted(map(str, asyncio.run(at_once()))) == [f"q{i}" for i in range(6)]
    assert service.lines[2:] == ["DELETE /reset/one", "POST /agent"] * 6


def test_a_session_of_its_own_for_each_run(server: Server) -> None:
    service = Rememberer(server)
    base = server.url.removesuffix("/agent")
    template = {"prompt": "{prompt}", "session": "{session}"}
    built = agent(server.url, request_template=template, reset={"endpoint": base + "/reset/{session}", "body": {"id": "{session}"}})

    async def at_once() -> list[str | None]:
        return [a.output for a in await asyncio.gather(*(built.run(task(f"q{i}")) for i in range(6)))]

    assert asyncio.run(at_once()) == [f"q{i}" for i in range(6)]
    assert len(service.told) == 6
    given = agent(server.url, request_template=template, reset={"endpoint": base + "/sessions", "session_field": "session.id"})
    assert [run(given, task(q)).output for q in ("a", "b")] == ["a", "b"]


def test_a_session_that_the_service_names_is_one_piece_of_the_address(server: Server) -> None:
    def answer(asked: Asked, sock: socket.socket) -> None:
        raw = json.dumps({"id": "../x?y=1#z", "response": asked.line.split()[1]}).encode()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(raw) + raw)

    server.answer = answer
    reset = {"endpoint": server.url, "session_field": "id"}
    assert run(agent(server.url + "/{session}/ask", reset=reset)).output == "/agent/..%2Fx%3Fy%3D1%23z/ask"


def test_a_reset_that_fails_is_a_failed_call_and_nothing_is_asked(server: Server) -> None:
    service = Rememberer(server)
    base = server.url.removesuffix("/agent")
    with pytest.raises(NotFound, match="/broken"):
        run(agent(server.url, reset={"endpoint": base + "/broken"}, max_concurrency=1))
    assert service.lines == ["POST /broken"]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"reset": {"endpoint": "http://127.0.0.1:1/r"}}, "max_concurrency: 1"),
        ({"reset": {"endpoint": "http://127.0.0.2:1/r"}, "max_concurrency": 1}, "on the host of endpoint"),
        ({"request_template": {"p": "{prompt}", "s": "{session}"}}, "configure reset"),
        ({"request_template": {"p": "{prompt}"}, "prompt_field": "q"}, "prompt_field is not read; remove"),
        ({"stream": {"ending": "x"}}, "did you mean 'end'"),
    ],
)
def test_wrong_params_are_one_line(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        agent("http://127.0.0.1:1/", **params)


# -- redirects and addresses ------------------------------------------------------------------------------------------


def redirecting(server: Server, status: str, location: str) -> None:
    def answer(asked: Asked, sock: socket.socket) -> None:
        if asked.line.split()[1] == "/agent":
            sock.sendall(f"HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        raw = json.dumps({"response": asked.json["prompt"] + " " + asked.headers.get("x-api-key", "")}).encode()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(raw) + raw)

    server.answer = answer


def test_a_redirect_is_followed_on_the_same_host_only_and_only_when_told_to(server: Server) -> None:
    redirecting(server, "307 Temporary Redirect", "/moved")
    key = {"headers": {"X-Api-Key": "k"}}
    assert run(agent(server.url, redirects="same_host", **key), task("hello")).output == "hello k"
    with pytest.raises(BadRequest, match="configure that address itself"):
        run(agent(server.url, **key))
    for elsewhere in (
        f"http://127.0.0.2:{server.port}/moved",
        "http://127.0.0.1:1/",
        f"https://127.0.0.1:{server.port}/x",
        "//evil.invalid/",
    ):
        redirecting(server, "308 Permanent Redirect", elsewhere)
        with pytest.raises(BadRequest, match="redirects to"):
            run(agent(server.url, redirects="same_host", **key))
    redirecting(server, "302 Found", "/moved")
    with pytest.raises(BadRequest, match="without a body"):
        run(agent(server.url, redirects="same_host", **key))
    before = len(server.asked)
    redirecting(server, "307 Temporary Redirect", "/agent")
    with pytest.raises(BadRequest, match="more than 5 times"):
        run(agent(server.url, redirects="same_host", **key))
    assert len(server.asked) - before == 6  # five were followed


ALSO_PRIVATE = ["169.254.169.254", "10.1.2.3", "0.0.0.0", "192.0.0.8", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", *ALSO_PRIVATE])
def test_a_private_address_is_refused_before_a_connection(host: str, server: Server) -> None:
    with pytest.raises(BadRequest, match="not public"):
        run(agent(f"http://{host}:{server.port}/agent", private_addresses="refuse"))
    assert server.asked == []


def test_the_address_that_was_checked_is_the_one_connected_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose address changes after the check: the second look-up never happens."""
    asked: list[str] = []

    async def look_up(self: Any, host: str, port: int, **more: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    server.says({"response": "4"})
    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", look_up)
    monkeypatch.setattr("gepa_atlas.addresses._public", lambda address: True)
    assert run(agent(f"http://agent.example:{server.port}/agent", private_addresses="refuse")).output == "4"
    assert asked.count("agent.example") == 1
    assert server.asked[0].headers["host"] == f"agent.example:{server.port}"


# -- check ------------------------------------------------------------------------------------------------------------


def test_the_request_that_would_be_sent_is_the_one_that_is(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "correct-horse-battery")
    server.says({"response": "4"})
    built = agent(server.url, headers={"Authorization": "Bearer ${MY_KEY}"}, query={"v": "1"}, guidance="suffix")
    asked = task("2 + 2?", "Be brief.")
    assert isinstance(built, Previews)
    shown = built.preview(asked)
    assert server.asked == [] and "correct-horse" not in json.dumps(shown)
    run(built, asked)
    assert shown["body"] == server.asked[0].json == {"prompt": "2 + 2?\n\nBe brief."}
    assert shown["url"].endswith(server.asked[0].line.split()[1]) and shown["headers"] == ["Accept", "Authorization", "Content-Type"]


def test_hosts_share_limits_whatever_the_path_and_the_spelling() -> None:
    names = {agent(url).endpoint.name for url in ("http://h.example/a", "http://H.example:80/b?c=1")}
    assert names == {"http:h.example:80"}
