"""The OpenAI-compatible provider against real servers: the served embedded model, served scripts, and servers that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from gepa_atlas.errors import AuthRefused, BadRequest, CallTimeout, ConfigError, EmptyAnswer, Garbled, RateLimited, ServerFault, TooLarge
from gepa_atlas.llm.local import LocalModel
from gepa_atlas.llm.openai_compatible import OpenAIModel, OpenAIParams, Price
from gepa_atlas.llm.registry import build_model
from gepa_atlas.llm.serve import serving
from gepa_atlas.ports import ChatModel, ChatRequest, Completion, Endpoint
from gepa_atlas.types import Message, Usage

KEY = "sk-" + "k" * 20


@contextmanager
def replying(status: int, body: Any, headers: dict[str, str] | None = None) -> Iterator[tuple[str, list[tuple[str, dict[str, Any], Any]]]]:
    """A server with one reply for everything; yields its base URL and what it was sent."""
    seen: list[tuple[str, dict[str, Any], Any]] = []
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append((self.path, sent, dict(self.headers.items())))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
        finally:
            server.shutdown()
            thread.join()


def ok(content: Any = "fine", **choice: Any) -> dict[str, Any]:
    row = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"} | choice
    return {"choices": [row], "usage": {"prompt_tokens": 1000, "completion_tokens": 500}}


def ask(base_url: str, request: ChatRequest | None = None, **params: Any) -> Completion:
    model = OpenAIModel(OpenAIParams(model="m", base_url=base_url, **params))
    return asyncio.run(model.complete(request or ChatRequest((Message("user", "hi {x} é😀"),))))


def test_what_is_sent_and_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("A_TEAM", "red")
    schema = '{"type":"object"}'
    request = ChatRequest((Message("user", "hi {x} é😀"),), max_tokens=7, stop=("a",), seed=3, json_schema=schema, top_logprobs=2)
    with replying(200, ok()) as (url, seen):
        found = ask(url, request, api_key_env="A_KEY", headers={"x-team": "${A_TEAM}"}, price=Price(input=2, output=8))
    path, body, headers = seen[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}" and headers["x-team"] == "red"
    assert body["messages"] == [{"role": "user", "content": "hi {x} é😀"}]
    assert (body["max_tokens"], body["stop"], body["seed"], body["temperature"]) == (7, ["a"], 3, 0.0)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert found.text == "fine" and found.usage.tokens == 1500 and found.usage.dollars == pytest.approx(0.006)


def test_dollars_are_unknown_without_a_price_and_tokens_without_a_report() -> None:
    with replying(200, {"choices": [{"message": {"content": "x"}}]}) as (url, _):
        usage = ask(url).usage
    assert (usage.input_tokens, usage.output_tokens, usage.dollars, usage.calls) == (None, None, None, 1)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (429, {"error": {"message": "slow"}}, RateLimited),
        (500, b"oops", ServerFault),
        (401, {"error": {"message": f"bad key {KEY}"}}, AuthRefused),
        (400, {"error": {"message": "too long"}}, BadRequest),
        (200, b"<html>", Garbled),
        (200, b'{"choices": [', Garbled),
        (200, {"choices": []}, Garbled),
        (200, {"error": "x"}, Garbled),
        (200, [], Garbled),
        (200, ok(7), Garbled),
        (200, ok(None), EmptyAnswer),
        (200, ok(None, finish_reason="length"), EmptyAnswer),
        (200, b"x" * 5000, TooLarge),
    ],
)
def test_a_bad_reply_is_its_error_after_one_attempt(
    status: int, body: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    with replying(status, body) as (url, seen), pytest.raises(error) as caught:
        ask(url, api_key_env="A_KEY", max_bytes=4000)
    assert type(caught.value) is error and len(seen) == 1 and KEY not in str(caught.value)


class Slow:
    identity = "slow"
    endpoint = Endpoint("slow")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def complete(self, request: ChatRequest) -> Completion:
        await asyncio.sleep(self.seconds)
        return Completion("late", Usage(1, 1, 0.0, 0.0, 1))


def test_the_deadline_of_a_call() -> None:
    with serving(Slow(30)) as url, pytest.raises(CallTimeout):
        ask(url, timeout=0.2)


def test_params_are_checked() -> None:
    for bad, words in (
        ({"model": "m", "base_url": "localhost:80"}, "http://"),
        ({"model": "m", "base_url": "http://h/v1?key=1"}, "query"),
        ({"model": "m", "base_ur": "x"}, "did you mean 'base_url'"),
        ({}, "model"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_model({"provider": "openai.chat", "params": bad})
    assert (
        "127.0.0.1:1/v1"
        in build_model({"provider": "openai_compatible", "params": {"model": "m", "base_url": "http://127.0.0.1:1/v1/"}}).identity
    )


def test_an_unset_key_is_named() -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        ask("http://127.0.0.1:1/v1", api_key_env="NO_SUCH_KEY")


@pytest.mark.local
def test_the_served_embedded_model_answers_as_it_does_in_process(local_model: LocalModel) -> None:
    chat = ChatRequest((Message("system", "Answer briefly."), Message("user", "Name a colour.")), max_tokens=5, top_logprobs=3)
    text = ChatRequest(prompt="Red, green,", max_tokens=5, top_logprobs=3)
    schema = ChatRequest(
        chat.messages, max_tokens=40, json_schema='{"type":"object","properties":{"a":{"type":"boolean"}},"required":["a"]}'
    )

    async def all_of(model: ChatModel) -> list[Completion]:
        return list(await asyncio.gather(*(model.complete(r) for r in (chat, text, schema))))

    with serving(local_model) as url:
        remote = asyncio.run(all_of(OpenAIModel(OpenAIParams(model="local", base_url=url))))
        with pytest.raises(BadRequest, match="context"):
            ask(url, ChatRequest(prompt="x " * 10_000))
    here = asyncio.run(all_of(local_model))
    for ours, theirs in zip(here, remote, strict=True):
        assert (ours.text, ours.logprobs, ours.finish) == (theirs.text, theirs.logprobs, theirs.finish)
        assert (ours.usage.input_tokens, ours.usage.output_tokens) == (theirs.usage.input_tokens, theirs.usage.output_tokens)
