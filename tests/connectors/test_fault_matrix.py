"""Every provider that talks to a server, against every way a server can fail: a typed error each, one attempt each, never an answer."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import (
    AuthRefused,
    CallError,
    CallTimeout,
    EmptyAnswer,
    Garbled,
    NotFound,
    RateLimited,
    ServerFault,
    TooLarge,
    Unreachable,
)
from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import Agent
from tests.connectors.faults import Asked, Server, task

HERE = Path(__file__).parent
BIG = 50_000_000

pytestmark = [  # litellm's own warnings are not ours to fix
    pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
]


# -- the providers: how each is told where the server is, and what a good answer of the server is -----------------------


def _chat(text: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def _responses(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    whole = {"id": "r", "object": "response", "created_at": 0, "model": "m", "status": "completed", "output": [message]}
    return whole | {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}


def _run(text: str) -> dict[str, Any]:
    """Every answer of the Assistants API in one: a thread, a run that is complete, and a list of messages."""
    message = {"role": "assistant", "content": [{"type": "text", "text": {"value": text, "annotations": []}}]}
    return {"id": "t", "thread_id": "t", "status": "completed", "data": [message]}


PROVIDERS: dict[str, tuple[Callable[[str], dict[str, Any]], Callable[[str], Any]]] = {
    "http.api": (lambda url: {"endpoint": url}, lambda text: {"response": text}),
    "openai.chat": (lambda url: {"base_url": url, "model": "m"}, _chat),
    "openai.responses": (lambda url: {"base_url": url, "model": "m"}, _responses),
    "openai.assistant": (lambda url: {"base_url": url, "assistant_id": "a", "first_poll": 0.01}, _run),
    "openai.sdk": (lambda url: {"base_url": url, "model": "m", "agent": {"instructions": "x"}}, _responses),
    "openai.sdk over chat": (lambda url: {"base_url": url, "model": "m", "agent": {"instructions": "x"}, "api": "chat"}, _chat),
    "litellm": (lambda url: {"api_base": url, "model": "openai/m", "api_key_env": "A_KEY"}, _chat),
    "dspy.module": (
        lambda url: {"program": "programs.py:order", "lm": {"model": "openai/m", "api_base": url}},
        lambda text: _chat(f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]"),
    ),
}


def agent(provider: str, url: str, **params: Any) -> Agent:
    given = {**PROVIDERS[provider][0](url), "timeout": 20.0, **params}
    return build_agent(AgentSpec(provider=provider.split()[0], params=given), build_model=build_model, base_dir=HERE)


def good(provider: str, text: str) -> str:
    return json.dumps(PROVIDERS[provider][1](text))


def failure(provider: str, url: str, **params: Any) -> CallError:
    """The error of one run, which must be a CallError in one line."""
    with pytest.raises(CallError) as caught:
        asyncio.run(agent(provider, url, **params).run(task()))
    assert str(caught.value).strip() and "\n" not in str(caught.value)
    return caught.value


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "correct-horse-battery-staple")


every = pytest.mark.parametrize("provider", list(PROVIDERS))


# -- the faults -------------------------------------------------------------------------------------------------------


@every
def test_connection_refused(provider: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening
        assert type(failure(provider, f"http://127.0.0.1:{held.getsockname()[1]}/v1")) is Unreachable


@every
def test_dns_failure(provider: str) -> None:
    assert type(failure(provider, "http://agent.invalid/v1")) is Unreachable


@every
def test_tls_error(provider: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak_plainly() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=speak_plainly, daemon=True)
        thread.start()
        assert type(failure(provider, f"https://127.0.0.1:{listening.getsockname()[1]}/v1")) is Unreachable
        thread.join(5)


@every
@pytest.mark.parametrize(("status", "kind"), [("401 Unauthorized", AuthRefused), ("404 Not Found", NotFound), ("500 Oops", ServerFault)])
def test_a_refusal_and_a_fault(provider: str, status: str, kind: type[CallError], server: Server) -> None:
    server.says({"error": {"message": "no", "type": "x", "param": None, "code": None}}, status=status)
    assert type(failure(provider, server.url)) is kind
    assert len(server.asked) == 1, "an attempt is one request: retries are made and traced elsewhere"


@every
def test_500_and_then_success(provider: str, server: Server) -> None:
    built = agent(provider, server.url)
    server.says("oops", status="500 Oops", kind="text/plain")
    with pytest.raises(ServerFault):
        asyncio.run(built.run(task()))
    server.says(good(provider, "Paris"))
    assert asyncio.run(built.run(task())).output == "Paris"


@every
def test_429_with_and_without_retry_after(provider: str, server: Server) -> None:
    told = {"error": {"message": "slow down", "type": "x", "param": None, "code": None}}
    server.says(told, status="429 Too Many Requests", Retry_After="7")
    error = failure(provider, server.url)
    assert isinstance(error, RateLimited) and error.retry_after == 7.0
    server.says(told, status="429 Too Many Requests")
    error = failure(provider, server.url)
    assert isinstance(error, RateLimited) and error.retry_after is None
    assert len(server.asked) == 2


@every
def test_half_a_response_and_a_crash_in_the_middle(provider: str, server: Server) -> None:
    half = good(provider, "Paris")[:-9].encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    for broken in (
        head + b"Content-Length: %d\r\n\r\n" % (len(half) + 9) + half,  # announced more
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(half) + half + b"\r\n",  # no last chunk
        head[:30],  # in the head
        b"",
    ):
        server.answer = lambda asked, sock, broken=broken: sock.sendall(broken)  # type: ignore[misc]
        assert type(failure(provider, server.url)) is Unreachable
    server.says(half)  # whole by its length, half a document
    assert type(failure(provider, server.url)) is Garbled


@every
def test_wrong_content_type(provider: str, server: Server) -> None:
    server.says("<html>Please log in</html>", kind="text/html")
    assert type(failure(provider, server.url)) is Garbled
    server.says(b"\x89PNG\r\n\x1a\n\xff\xfe", kind="image/png")
    assert type(failure(provider, server.url)) is Garbled


@every
def test_invalid_utf8(provider: str, server: Server) -> None:
    server.says(good(provider, "caf_").encode().replace(b"caf_", b"caf\xe9"))
    assert type(failure(provider, server.url)) is Garbled


@every
def test_an_empty_answer(provider: str, server: Server) -> None:
    server.says(good(provider, ""))
    assert type(failure(provider, server.url)) is EmptyAnswer


@every
def test_fifty_megabytes(provider: str, server: Server) -> None:
    raw = good(provider, "x" * BIG).encode()

    def flood(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
        for at in range(0, len(raw), 1_000_000):
            sock.sendall(raw[at : at + 1_000_000])

    server.answer = flood
    assert type(failure(provider, server.url)) is TooLarge


@every
def test_a_hang_and_a_drip(provider: str, server: Server) -> None:
    server.hangs(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{")
    assert type(failure(provider, server.url, timeout=0.3)) is CallTimeout
