"""What opaque agents (a service, a command, a function) have in common: limits, deadlines, and reading an answer out of a reply."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import Field

from gepa_atlas.connectors.placement import Placement
from gepa_atlas.endpoints import EndpointLimits
from gepa_atlas.errors import CallTimeout, EmptyAnswer, Garbled
from gepa_atlas.types import Attempt, Usage


class OpaqueParams(Placement, EndpointLimits):
    """Keys of every agent that we only see from outside."""

    max_concurrency: int = Field(8, ge=1)
    dollars_per_call: float | None = Field(None, ge=0)  # None: unknown, and then no dollar limit can be kept

    def answering(self, *also_without: str) -> dict[str, Any]:
        return super().answering("dollars_per_call", *also_without)


class Clock:
    """Seconds since it was made: the wall clock of one call."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def usage(self, params: OpaqueParams) -> Usage:
        """One call of an agent that does not tell its tokens: unknown, not zero."""
        return Usage(None, None, params.dollars_per_call, time.monotonic() - self._start, 1)


@asynccontextmanager
async def deadline(seconds: float, who: str) -> AsyncIterator[None]:
    """CallTimeout when the block takes longer; a TimeoutError raised inside for another reason passes unchanged."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise CallTimeout(f"{who} did not answer within {seconds:g} seconds (timeout)") from None


def attempt(text: str | None, usage: Usage, who: str) -> Attempt:
    """An attempt of this output; EmptyAnswer when there is nothing in it."""
    if text is None or not text.strip():
        raise EmptyAnswer(f"{who} answered nothing")
    return Attempt(text, usage)


def field(value: Any, path: str, who: str) -> str | None:
    """The text at a dotted path (`choices.0.message.content`) of a JSON value. Numbers and JSON documents come as their JSON text,
    null as None. A key that itself contains dots is found too. Garbled when the path is not there."""
    here = value
    rest = path
    while rest:
        key, rest = _next_key(here, rest)
        if isinstance(here, dict) and key in here:
            here = here[key]
        elif isinstance(here, list) and key.lstrip("-").isdigit() and -len(here) <= int(key) < len(here):
            here = here[int(key)]
        else:
            raise Garbled(f"{who} answered without the field {path!r}: {_shape(here)} has no {key!r} (response_field)")
    if here is None or isinstance(here, str):
        return here
    return json.dumps(here, ensure_ascii=False)


def _next_key(here: Any, rest: str) -> tuple[str, str]:
    if isinstance(here, dict) and rest in here:
        return rest, ""
    key, _, rest = rest.partition(".")
    return key, rest


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        names = ", ".join(repr(str(name)) for name in list(value)[:8])
        return f"an object with the keys {names or '(none)'}"
    return f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
