"""Providers `openai.chat` and `openai_compatible`: any server that speaks the OpenAI protocol, reached with httpx.

One attempt a call: retries are made in one place for all models (gepa_atlas.calls). Completions (`request.prompt`) go to
/completions, chats to /chat/completions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue

from gepa_atlas import wire
from gepa_atlas.errors import BadRequest, EmptyAnswer, Garbled
from gepa_atlas.llm.structured import Formats, Structured
from gepa_atlas.openai_server import OpenAIServer, Price
from gepa_atlas.ports import ChatRequest, Completion, Endpoint
from gepa_atlas.settings import load
from gepa_atlas.types import Usage, digest


class OpenAIParams(OpenAIServer):
    model: str = Field(min_length=1)
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # OpenAI's reasoning models want the second
    send: frozenset[Literal["temperature", "seed"]] = frozenset({"temperature", "seed"})  # leave out what the server refuses
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)  # sent as it is, for fields of one server
    structured: Structured = "auto"  # how JSON is asked for (gepa_atlas.llm.structured)


class OpenAIModel:
    """A ChatModel over HTTP."""

    def __init__(self, params: OpenAIParams, where: str = "model.params") -> None:
        self._params = params
        self._where = where
        shown = params.model_dump(mode="json", include={"model", "base_url", "max_tokens_field", "extra_body"})
        shown |= {"send": sorted(params.send), "headers": sorted(params.headers), "structured": params.structured}
        self._identity = f"openai.chat/{params.model}@{params.place}#{digest(shown, 16)}"
        self._endpoint = params.endpoint()
        self._formats = Formats(params.structured)

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def complete(self, request: ChatRequest) -> Completion:
        return await self._formats.ask(request.json_schema, lambda form: self._send(request, form))

    async def _send(self, request: ChatRequest, form: dict[str, Any] | None) -> Completion:
        p = self._params
        path, body = _request(request, p, form)
        began = time.monotonic()
        answer = await p.call(path, body, self._where)
        seconds = time.monotonic() - began
        return read_answer(answer, wire.place(p.base_url + path), chat=request.prompt is None, price=p.price, seconds=seconds)

    def preview_chat(self, request: ChatRequest) -> dict[str, Any]:
        return self._params.shown(*_request(request, self._params, self._formats.form(request.json_schema)))


def build(params: Mapping[str, Any], where: str) -> OpenAIModel:
    checked = load(OpenAIParams, params, where)
    checked.check_secrets(where)
    return OpenAIModel(checked, where)


def _request(request: ChatRequest, params: OpenAIParams, form: dict[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Path and body of one request; `form` is its response_format."""
    body: dict[str, Any] = {"model": params.model, params.max_tokens_field: request.max_tokens}
    for name in sorted(params.send):
        body[name] = request.temperature if name == "temperature" else request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.prompt is not None:
        if request.json_schema is not None:
            raise BadRequest("a completion request cannot ask for a JSON schema; send it as a chat")
        body["prompt"] = request.prompt
        body |= {"logprobs": request.top_logprobs} if request.top_logprobs else {}
        return "/completions", body | params.extra_body
    body["messages"] = [m.to_json() for m in request.messages]
    if request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if form is not None:
        body["response_format"] = form
    return "/chat/completions", body | params.extra_body


def read_answer(answer: Any, where: str, *, chat: bool, price: Price | None, seconds: float) -> Completion:
    """The Completion in a decoded OpenAI response. Garbled when a field is missing or of the wrong type; EmptyAnswer without text."""
    try:
        choice = answer["choices"][0]
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        text = choice["message"]["content"] if chat else choice["text"]
        refusal = choice["message"].get("refusal") if chat else None
        pairs = _first_token(choice.get("logprobs"), chat)
        usage = _usage(answer.get("usage") or {}, price, seconds)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise Garbled(f"{where} sent a response that lacks what the OpenAI protocol promises ({type(error).__name__}: {error})") from None
    if text is None:
        said = "refused" if refusal else "stopped at the token limit before any text" if finish == "length" else "sent no text"
        raise EmptyAnswer(f"{where}: the model {said}")
    if not isinstance(text, str):
        raise Garbled(f"{where} sent {type(text).__name__} where text belongs")
    return Completion(text, usage, finish, pairs)


def _first_token(logprobs: Any, chat: bool) -> tuple[tuple[str, float], ...]:
    if not logprobs:
        return ()
    if chat:
        rows = logprobs["content"]
        return tuple((str(r["token"]), float(r["logprob"])) for r in rows[0]["top_logprobs"]) if rows else ()
    if "content" in logprobs:  # llama.cpp answers completions in the shape of chats
        return _first_token(logprobs, True)
    top = logprobs["top_logprobs"]
    return tuple((str(t), float(p)) for t, p in top[0].items()) if top else ()


def _usage(reported: Mapping[str, Any], price: Price | None, seconds: float) -> Usage:
    def count(name: str) -> int | None:
        value = reported.get(name)
        return None if value is None else int(value)

    usage = Usage(count("prompt_tokens"), count("completion_tokens"), None, seconds, 1)
    return Usage(usage.input_tokens, usage.output_tokens, price.of(usage) if price else None, seconds, 1)
