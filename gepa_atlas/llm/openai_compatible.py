"""Providers `openai.chat` and `openai_compatible`: any server that speaks the OpenAI protocol, reached with httpx.

One attempt a call: retries are made in one place for all models (gepa_atlas.calls). Completions (`request.prompt`) go to
/completions, chats to /chat/completions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator

from gepa_atlas import wire
from gepa_atlas.errors import BadRequest, EmptyAnswer, Garbled
from gepa_atlas.ports import ChatRequest, Completion, Endpoint
from gepa_atlas.secrets import reveal
from gepa_atlas.settings import Settings, load
from gepa_atlas.types import Usage, digest


class Price(Settings):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def of(self, usage: Usage) -> float | None:
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        return (self.input * usage.input_tokens + self.output * usage.output_tokens) / 1e6


class OpenAIParams(Settings):
    model: str = Field(min_length=1)
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = None  # name of the variable that holds the key; none is sent without it
    headers: dict[str, str] = Field(default_factory=dict)  # values may hold ${ENV}
    price: Price | None = None  # without it the dollars of a call are unknown
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # OpenAI's reasoning models want the second
    send: frozenset[Literal["temperature", "seed"]] = frozenset({"temperature", "seed"})  # leave out what the server refuses
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)  # sent as it is, for fields of one server
    timeout: float = Field(default=60.0, gt=0)  # seconds
    max_concurrency: int = Field(default=16, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    max_bytes: int = Field(default=wire.MAX_BYTES, ge=1)

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("base_url must start with http:// or https://")
        if "?" in value or "#" in value or "@" in value.split("/")[2]:
            raise ValueError("base_url must have no user, query or fragment; give keys by api_key_env or headers")
        wire.check_address(value)
        return value.rstrip("/")


class OpenAIModel:
    """A ChatModel over HTTP."""

    def __init__(self, params: OpenAIParams, where: str = "model.params") -> None:
        self._params = params
        self._where = where
        shown = params.model_dump(mode="json", include={"model", "base_url", "max_tokens_field", "extra_body"})
        shown |= {"send": sorted(params.send), "headers": sorted(params.headers)}
        self._identity = f"openai.chat/{params.model}@{wire.place(params.base_url)}#{digest(shown, 16)}"
        self._endpoint = Endpoint(wire.place(params.base_url), params.max_concurrency, params.timeout, params.requests_per_minute)

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def complete(self, request: ChatRequest) -> Completion:
        p = self._params
        path, body = _request(request, p)
        client = await wire.client()
        address = p.base_url + path
        began = time.monotonic()
        message = client.build_request("POST", address, content=_encode(body), headers=self._headers())
        raw = await wire.send(client, message, max_bytes=p.max_bytes, timeout=p.timeout)
        answer = wire.json_body(raw, wire.place(address))
        return read_answer(answer, wire.place(address), chat=request.prompt is None, price=p.price, seconds=time.monotonic() - began)

    def _headers(self) -> dict[str, str]:
        p = self._params
        headers = {"content-type": "application/json"} | wire.reveal_headers(p.headers, f"{self._where}.headers")
        if p.api_key_env is not None:
            headers["authorization"] = f"Bearer {reveal(p.api_key_env, f'{self._where}.api_key_env')}"
        return headers


def build(params: Mapping[str, Any], where: str) -> OpenAIModel:
    checked = load(OpenAIParams, params, where)
    wire.reveal_headers(checked.headers, f"{where}.headers")  # a secret that is not there is found before anything is spent
    if checked.api_key_env is not None:
        reveal(checked.api_key_env, f"{where}.api_key_env")
    return OpenAIModel(checked, where)


def _encode(body: Mapping[str, Any]) -> bytes:
    """ASCII JSON: a lone surrogate from somebody's data is the server's to refuse, not a crash here."""
    return json.dumps(body).encode()


def _request(request: ChatRequest, params: OpenAIParams) -> tuple[str, dict[str, Any]]:
    """Path and body of one request."""
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
    if request.json_schema is not None:
        schema = {"name": "answer", "schema": json.loads(request.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
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
