"""Provider `litellm`: any model that litellm knows, by its name `vendor/model`. The only module that imports litellm, on the first call.

litellm takes seconds to import and fetches a price map over the network unless told not to; its own retries stay off, because
retries are made in one place for all models (gepa_atlas.calls).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from pydantic import Field, JsonValue

from gepa_atlas import wire
from gepa_atlas.endpoints import EndpointLimits
from gepa_atlas.errors import BadRequest, CallError, CallTimeout, Garbled, MissingExtra, Permanent, TooLarge, Unreachable
from gepa_atlas.llm.openai_compatible import read_answer
from gepa_atlas.llm.structured import Formats, Structured
from gepa_atlas.loops import at_loop_end
from gepa_atlas.openai_server import Price
from gepa_atlas.ports import ChatRequest, Completion, Endpoint
from gepa_atlas.secrets import reveal, scrub
from gepa_atlas.settings import load
from gepa_atlas.types import Usage, digest


class LiteLLMParams(EndpointLimits):
    model: str = Field(min_length=1)  # litellm's name: openai/gpt-5-mini, anthropic/..., gemini/...
    api_base: str | None = None
    api_key_env: str | None = None  # without it litellm reads the variable its vendor is known for (OPENAI_API_KEY, ...)
    price: Price | None = None  # without it litellm's price map is asked; a model it does not know has unknown dollars
    drop_params: bool = True  # leave out parameters that the vendor does not take (seed, temperature of reasoning models)
    extra: dict[str, JsonValue] = Field(default_factory=dict)  # further keyword arguments of litellm.acompletion
    max_bytes: int = Field(default=wire.MAX_BYTES, ge=1)  # of an answer; litellm reads it whole, so this refuses and saves no memory
    structured: Structured = "auto"  # how litellm's response_format asks for JSON (gepa_atlas.llm.structured)


class LiteLLMModel:
    """A ChatModel over litellm."""

    def __init__(self, params: LiteLLMParams, where: str = "model.params") -> None:
        if importlib.util.find_spec("litellm") is None:
            raise MissingExtra(f"model {params.model!r}", "litellm")
        self._params = params
        self._where = where
        place = wire.place(params.api_base) if params.api_base else ""
        shown = {"drop_params": params.drop_params, "extra": params.extra, "structured": params.structured}
        self._identity = f"litellm/{params.model}@{place}#{digest(shown, 16)}"
        name = place or f"litellm:{params.model.split('/', 1)[0]}"
        self._endpoint = params.endpoint_at(name)
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
        litellm = await asyncio.to_thread(_load)
        await at_loop_end("litellm", _close)
        arguments = _arguments(request, p, form)
        if p.api_key_env is not None:
            arguments["api_key"] = reveal(p.api_key_env, f"{self._where}.api_key_env")
        call = litellm.acompletion if request.prompt is None else litellm.atext_completion
        began = time.monotonic()
        try:
            async with asyncio.timeout(p.timeout):
                with _unlogged(litellm):
                    response = await call(**arguments)
        except TimeoutError:
            raise CallTimeout(f"{p.model} did not finish answering within {p.timeout:g} seconds") from None
        except Exception as error:  # the border to litellm, which also raises exceptions of its vendors' packages
            raise call_error(error, p.model) from None
        seconds = time.monotonic() - began
        found = read_answer(response.model_dump(), p.model, chat=request.prompt is None, price=p.price, seconds=seconds)
        if len(found.text.encode("utf-8", "surrogatepass")) > p.max_bytes:
            raise TooLarge(f"{p.model} answered more than {p.max_bytes} bytes (max_bytes)")
        if p.price is not None:
            return found
        u = found.usage
        return Completion(found.text, Usage(u.input_tokens, u.output_tokens, _dollars(response), seconds, 1), found.finish, found.logprobs)

    def preview_chat(self, request: ChatRequest) -> dict[str, Any]:
        form = self._formats.form(request.json_schema)
        return {"call": "litellm.acompletion" if request.prompt is None else "litellm.atext_completion"} | _arguments(
            request, self._params, form
        )


def build(params: Mapping[str, Any], where: str) -> LiteLLMModel:
    checked = load(LiteLLMParams, params, where)
    if checked.api_key_env is not None:
        reveal(checked.api_key_env, f"{where}.api_key_env")  # a secret that is not there is found before anything is spent
    return LiteLLMModel(checked, where)


@functools.cache
def _load() -> Any:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else importing it fetches prices over the network
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


async def _close() -> None:
    """litellm keeps its connections past the loop they belong to."""
    litellm = _load()
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


def _arguments(request: ChatRequest, params: LiteLLMParams, form: dict[str, Any] | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": params.model,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "timeout": params.timeout,
        "num_retries": 0,
        "max_retries": 0,
        "drop_params": params.drop_params,
    }
    if params.api_base is not None:
        arguments["api_base"] = params.api_base
    if request.stop:
        arguments["stop"] = list(request.stop)
    if request.prompt is not None:
        if request.json_schema is not None:
            raise BadRequest("a completion request cannot ask for a JSON schema; send it as a chat")
        arguments |= {"prompt": request.prompt} | ({"logprobs": request.top_logprobs} if request.top_logprobs else {})
        return arguments | params.extra
    arguments["messages"] = [m.to_json() for m in request.messages]
    if request.top_logprobs:
        arguments |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if form is not None:
        arguments["response_format"] = form
    return arguments | params.extra


def _dollars(response: Any) -> float | None:
    """What litellm's price map said; a model it does not know, or knows at no price, is of unknown price."""
    cost = response._hidden_params.get("response_cost")  # documented by that name
    return float(cost) or None if cost is not None else None


def _unlogged(litellm: Any) -> AbstractContextManager[None]:
    """Without litellm's log of each call, a fifth of its processor time, where nobody has asked to be told of calls."""
    if litellm.callbacks or litellm.success_callback or litellm.failure_callback:
        return contextlib.nullcontext()
    return _sub_call()()


@functools.cache
def _sub_call() -> Callable[[], AbstractContextManager[None]]:
    """How litellm makes calls that the call around them reports."""
    try:
        inner: Callable[[], AbstractContextManager[None]] = importlib.import_module("litellm._internal_context").internal_sub_call
    except (ImportError, AttributeError):  # another version of litellm
        return contextlib.nullcontext
    return inner


def call_error(error: Exception, model: str) -> CallError:
    """The CallError for what litellm raised. Its class is not always that of the status (403 is an APIError), so the status decides."""
    import httpx
    import openai

    raised, causes = _load().exceptions, tuple(_causes(error))
    if isinstance(error, raised.Timeout):
        return CallTimeout(f"{model} did not answer in time: {_said(error)}")
    if isinstance(error, raised.APIConnectionError) or any(isinstance(e, OSError | openai.APIConnectionError) for e in causes):
        return Unreachable(f"no complete answer from {model}: {_said(error)}")
    if isinstance(error, raised.InternalServerError) and not any(
        isinstance(e, openai.APIStatusError | httpx.HTTPStatusError) for e in causes
    ):
        return Garbled(f"{model}: {_said(error)}")  # no server said 500: it is litellm's word for an answer that it cannot read
    if isinstance(error, raised.JSONSchemaValidationError | raised.APIResponseValidationError):
        return Garbled(f"{model}: {_said(error)}")
    given = vars(error)
    status, headers, body = given.get("status_code"), given.get("litellm_response_headers"), given.get("body")
    if not isinstance(status, int):
        return Permanent(f"{model}: {_said(error)}")
    words = json.dumps({"error": body}) if isinstance(body, dict) else json.dumps({"error": _said(error)})
    return wire.status_error(status, headers or {}, words.encode(), model)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(scrub(str(error)).split())[:300]}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
