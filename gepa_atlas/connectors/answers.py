"""What opaque agents (a service, a command, a function) have in common: limits, deadlines, and reading an answer out of a reply."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from gepa_atlas.connectors.placement import Placement
from gepa_atlas.endpoints import EndpointLimits
from gepa_atlas.errors import CallTimeout, EmptyAnswer, Garbled, TooLarge, said
from gepa_atlas.types import Attempt, Usage


class OpaqueParams(Placement, EndpointLimits):
    """Keys of every agent that we only see from outside."""

    max_concurrency: int = Field(8, ge=1)
    dollars_per_call: float | None = Field(None, ge=0)  # None: unknown, and then no dollar limit can be kept
    max_bytes: int = Field(2_000_000, ge=1)  # of an answer

    def answering(self, *also_without: str) -> dict[str, Any]:
        return super().answering("dollars_per_call", "max_bytes", *also_without)


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


def attempt(text: str | None, usage: Usage, who: str, max_bytes: int) -> Attempt:
    """An attempt of this output; EmptyAnswer when there is nothing in it, TooLarge when there is too much."""
    if text is None or not text.strip():
        raise EmptyAnswer(f"{who} answered nothing")
    check_size(text, who, max_bytes)
    return Attempt(text, usage)


def check_size(text: str, who: str, max_bytes: int) -> None:
    if len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        raise TooLarge(f"{who} answered more than {max_bytes} bytes (max_bytes)")


def plain(value: Any) -> Any:
    """A value of user code as JSON: models of pydantic, dataclasses and what they hold; anything else as its text."""
    from pydantic_core import to_jsonable_python

    try:
        return to_jsonable_python(value, fallback=str)
    except (ValueError, RecursionError) as error:  # contains itself, bytes that are no text
        raise Garbled(f"a {type(value).__name__} was returned that cannot be written as JSON: {said(error)}") from None


def _readable(path: str) -> str:
    """The path as it is; ValueError when it is a JSONPath that cannot be read."""
    if path.startswith("$"):
        import jsonpath

        try:
            jsonpath.compile(path)
        except jsonpath.JSONPathError as error:
            raise ValueError(f"not a JSONPath: {str(error).splitlines()[0]}") from None
    return path


FieldPath = Annotated[str, AfterValidator(_readable)]
"""Where an answer is in a JSON document: a dotted path (`choices.0.message.content`), or a JSONPath, which begins with `$`."""


def field(value: Any, path: str, who: str) -> str | None:
    """The text at a FieldPath of a JSON value. Numbers and JSON documents come as their JSON text, null as None, several matches of a
    JSONPath a line each. A key that itself contains dots is found too. Garbled when the path is not there."""
    here = _matches(value, path, who) if path.startswith("$") else [_at(value, path, who)]
    try:
        texts = [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in here if part is not None]
    except RecursionError:
        raise Garbled(f"{who} answered with a document at {path!r} that is nested too deeply") from None
    return "\n".join(texts) if texts else None


def _matches(value: Any, path: str, who: str) -> list[Any]:
    import jsonpath

    try:
        found = jsonpath.findall(path, value)
    except jsonpath.JSONPathError as error:
        raise Garbled(f"{who} answered with something {path!r} cannot be looked up in: {str(error).splitlines()[0]}") from None
    if not found:
        raise Garbled(f"{who} answered without the field {path!r}: nothing in {_shape(value)} matches (response_field)")
    return found


def _at(value: Any, path: str, who: str) -> Any:
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
    return here


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
