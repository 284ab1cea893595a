"""The HTTP client that agents of the OpenAI Agents SDK are given, and what goes wrong in a run as a CallError.

The SDK reads whatever a server sends, of any size and type; here an answer is capped, and one that is not the JSON of its API is refused
before the SDK makes something of it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

from gepa_atlas import wire
from gepa_atlas.errors import AgentCrashed, BadRequest, CallError, CallTimeout, EmptyAnswer, Garbled, TooLarge, Unreachable
from gepa_atlas.openai_server import OpenAIServer
from gepa_atlas.secrets import reveal

_HOLDS = {"responses": "output", "completions": "choices"}  # last step of the path: what every answer of that API has


def open_client(server: OpenAIServer, where: str) -> Any:
    """An AsyncOpenAI for the running loop: no retries, one deadline for all that a run asks, answers checked as they come."""
    import httpx2
    import openai

    logging.getLogger("openai.agents").setLevel(logging.CRITICAL)  # a failed run is reported once, by the error it raises

    async def check(response: httpx2.Response) -> None:
        if response.is_success:
            response.stream = checked_body(response, wire.place(str(response.request.url)), server.max_bytes)

    key = reveal(server.api_key_env, f"{where}.api_key_env") if server.api_key_env is not None else "none"
    headers = {"accept-encoding": "identity"} | wire.reveal_headers(server.headers, f"{where}.headers")
    client = httpx2.AsyncClient(
        timeout=httpx2.Timeout(None, connect=10.0),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        event_hooks={"response": [check]},
        verify=_certificates(),
        mounts={"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None},
    )
    return openai.AsyncOpenAI(base_url=server.base_url, api_key=key, max_retries=0, default_headers=headers, http_client=client)


@cache
def _certificates() -> Any:
    """Loaded once: it takes 50 ms, and several clients are opened."""
    import httpx2

    return httpx2.create_ssl_context()


def checked_body(response: Any, place: str, max_bytes: int) -> Any:
    """The body's stream, which ends in a CallError when it is too large or not an answer of its API."""
    import httpx2

    inner = response.stream
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted = _HOLDS.get(str(response.request.url).rsplit("/", 1)[-1])

    class Checked(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            if kind and kind != "application/json":
                raise Garbled(f"{place} sent {kind[:80]}; expected application/json")
            parts: list[bytes] = []
            size = 0
            async for part in inner:
                size += len(part)
                if size > max_bytes:
                    raise TooLarge(f"{place} sent more than {max_bytes} bytes (max_bytes)")
                parts.append(part)
            answer = wire.json_body(b"".join(parts), place)
            if wanted is not None and not (isinstance(answer, dict) and isinstance(answer.get(wanted), list)):
                raise Garbled(f"{place} sent a document without the list {wanted!r} that its API promises")
            for part in parts:
                yield part

        async def aclose(self) -> None:
            await inner.aclose()

    return Checked()


def sdk_error(error: Exception, who: str) -> CallError:
    """What an exception out of a run stands for."""
    import agents
    import openai

    found = next((cause for cause in _chain(error) if isinstance(cause, CallError)), None)
    if found is not None:
        return found
    said = f"{who}: {type(error).__name__}: {wire.line(str(error))}"
    if isinstance(error, openai.APITimeoutError | agents.exceptions.ModelTimeoutError):
        return CallTimeout(said)
    if isinstance(error, openai.APIStatusError):
        response = error.response
        return wire.status_error(error.status_code, response.headers, response.content, wire.place(str(response.request.url)))
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        place = wire.place(str(error.request.url))
        return Unreachable(f"no complete answer from {place}: {type(cause).__name__}: {wire.line(str(cause))}")
    if isinstance(error, openai.APIResponseValidationError):
        return Garbled(said)
    if isinstance(error, agents.MaxTurnsExceeded):
        return AgentCrashed(f"{who} did not come to an end: {wire.line(str(error))} (max_turns)")
    if isinstance(error, agents.ModelBehaviorError) and "max_output_tokens" in str(error):
        return EmptyAnswer(f"{who} was cut at its token limit; raise max_tokens")
    if isinstance(error, agents.exceptions.ModelRefusalError):
        return EmptyAnswer(f"{who}: the model refused: {wire.line(str(error))}")
    if isinstance(error, agents.InputGuardrailTripwireTriggered | agents.OutputGuardrailTripwireTriggered):
        return EmptyAnswer(f"{who} was stopped by its guardrail: {wire.line(str(error))}")
    if isinstance(error, agents.UserError):
        return BadRequest(said)
    return AgentCrashed(said)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
