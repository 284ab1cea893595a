"""Provider `openai.responses`: OpenAI's Responses API, reached with httpx. One attempt a call; every call stands alone.

Tools are passed through, for those that the server runs itself (web search, file search, MCP); a model that asks us to run one has
given no answer. `previous_response_id` and `conversation` are never sent, and nothing is stored at the server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator

from gepa_atlas import wire
from gepa_atlas.errors import BadRequest, CallError, EmptyAnswer, Garbled, RateLimited, ServerFault
from gepa_atlas.openai_server import OpenAIServer, Price
from gepa_atlas.ports import ChatRequest, Completion, Endpoint
from gepa_atlas.settings import load
from gepa_atlas.types import Usage, digest

_PATH = "/responses"
_OURS = ("stream", "background", "previous_response_id", "conversation", "store")


class ResponsesParams(OpenAIServer):
    model: str = Field(min_length=1)
    send: frozenset[Literal["temperature"]] = frozenset()  # reasoning models refuse a temperature; name it here for those that take one
    reasoning: dict[str, JsonValue] | None = None  # {effort: low}
    tools: tuple[dict[str, JsonValue], ...] = ()
    tool_choice: str | dict[str, JsonValue] | None = None
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)  # sent as it is

    @field_validator("extra_body")
    @classmethod
    def _stands_alone(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in _OURS:
            if name in value:
                raise ValueError(f"{name} is not for a run to set: each question is asked on its own and answered in one piece")
        return value


class ResponsesModel:
    """A ChatModel over POST /responses. The system message becomes `instructions`."""

    def __init__(self, params: ResponsesParams, where: str = "model.params") -> None:
        self._params = params
        self._where = where
        shown = params.answering("api_key_env", "price", "max_bytes", "headers") | {"headers": sorted(params.headers)}
        shown["send"] = sorted(params.send)
        self._identity = f"openai.responses/{params.model}@{params.place}#{digest(shown, 16)}"
        self._endpoint = params.endpoint()

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def complete(self, request: ChatRequest) -> Completion:
        p = self._params
        body = self._body(request)
        began = time.monotonic()
        answer = await p.call(_PATH, body, self._where)
        return read_response(answer, wire.place(p.base_url + _PATH), price=p.price, seconds=time.monotonic() - began)

    def preview_chat(self, request: ChatRequest) -> dict[str, Any]:
        return self._params.shown(_PATH, self._body(request))

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        p = self._params
        if request.prompt is not None:
            raise BadRequest("the Responses API has no plain completions; send the prompt as a chat")
        if request.stop or request.top_logprobs:
            raise BadRequest("the Responses API takes no stop sequences, and its log-probabilities are not read here; use openai.chat")
        if request.temperature and "temperature" not in p.send:
            raise BadRequest(f"temperature {request.temperature:g} would not be sent: add `send: [temperature]` if the model takes one")
        system = "\n\n".join(m.content for m in request.messages if m.role == "system")
        turns = [m.to_json() for m in request.messages if m.role != "system"]
        body: dict[str, Any] = {"model": p.model, "input": turns, "max_output_tokens": request.max_tokens, "store": False}
        body |= {"instructions": system} if system else {}
        body |= {"temperature": request.temperature} if "temperature" in p.send else {}
        body |= {"tools": list(p.tools)} if p.tools else {}
        body |= {"tool_choice": p.tool_choice} if p.tool_choice is not None else {}
        body |= {"reasoning": p.reasoning} if p.reasoning is not None else {}
        if request.json_schema is not None:
            schema = {"type": "json_schema", "name": "answer", "schema": json.loads(request.json_schema), "strict": True}
            body["text"] = {"format": schema}
        return body | p.extra_body


def build(params: Mapping[str, Any], where: str) -> ResponsesModel:
    checked = load(ResponsesParams, params, where)
    checked.check_secrets(where)
    return ResponsesModel(checked, where)


def read_response(answer: Any, where: str, *, price: Price | None, seconds: float) -> Completion:
    """The Completion in a decoded response. Garbled when it is not one; EmptyAnswer, with the reason, when there is no text in it."""
    try:
        status, error = answer["status"], answer.get("error")
        parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
        texts = [part["text"] for part in parts if part["type"] == "output_text"]
        usage = _usage(answer.get("usage") or {}, price, seconds)
        if error is not None:
            raise _failed(error["code"], f"{where}: the response failed: {error['code']}: {wire.line(error['message'])}")
        if status not in ("completed", "incomplete"):
            raise ServerFault(f"{where}: the response ended as {status!r}")
        if not texts:
            raise EmptyAnswer(f"{where}: {_why_no_text(answer, parts)}")
        return Completion("".join(texts), usage, "stop" if status == "completed" else "length")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise Garbled(f"{where} sent a response that lacks what the Responses API promises ({type(error).__name__}: {error})") from None


def _failed(code: str, said: str) -> CallError:
    return RateLimited(said) if code == "rate_limit_exceeded" else BadRequest(said) if code == "invalid_prompt" else ServerFault(said)


def _why_no_text(answer: Mapping[str, Any], parts: list[Any]) -> str:
    refusals = [part["refusal"] for part in parts if part["type"] == "refusal"]
    if refusals:
        return f"the model refused: {wire.line(refusals[0])}"
    why = (answer.get("incomplete_details") or {}).get("reason")
    if why == "max_output_tokens":
        counted = answer.get("usage") or {}
        thought = (counted.get("output_tokens_details") or {}).get("reasoning_tokens")
        spent = f"{counted.get('output_tokens', 'all its')} tokens" + (f", {thought} of them on reasoning," if thought else "")
        return f"the model spent {spent} and wrote no text; raise max_tokens or lower reasoning.effort"
    if why is not None:
        return f"the response was cut before any text: {why}"
    asked = [item["name"] for item in answer["output"] if item["type"] in ("function_call", "custom_tool_call")]
    if asked:
        return f"the model asks for the tool {asked[0]!r} instead of answering; this provider runs none: use openai.sdk for such an agent"
    kinds = ", ".join(item["type"] for item in answer["output"])
    return f"the model sent no text (its output holds: {kinds or 'nothing'})"


def _usage(reported: Mapping[str, Any], price: Price | None, seconds: float) -> Usage:
    counts = [None if reported.get(name) is None else int(reported[name]) for name in ("input_tokens", "output_tokens")]
    usage = Usage(counts[0], counts[1], None, seconds, 1)
    return Usage(counts[0], counts[1], price.of(usage) if price else None, seconds, 1)
