"""How a model is asked for JSON: by a schema, as any JSON object, or in words alone, whatever its server takes.

`structured: auto` asks by schema; a server that refuses that is asked for a JSON object, and one that refuses this too gets no
`response_format` (the prompts say what to answer in any case, and replies are repaired where they are read). What a server refused
is remembered for the life of the model object, and costs one refused request.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from gepa_atlas.errors import BadRequest

Structured = Literal["auto", "json_schema", "json_object", "none"]

_LADDER: tuple[Structured, ...] = ("json_schema", "json_object", "none")
_REFUSAL = ("response_format", "response format", "json_schema", "json schema", "json_object", "json mode", "structured output")

T = TypeVar("T")


class Formats:
    """The rung of the ladder that one model's server is on."""

    def __init__(self, structured: Structured) -> None:
        self._climbs = structured == "auto"
        self._rung = 0 if self._climbs else _LADDER.index(structured)

    async def ask(self, schema: str | None, send: Callable[[dict[str, Any] | None], Awaitable[T]]) -> T:
        """`send` with the `response_format` for this schema, and again one rung down while the server refuses the format itself."""
        while True:
            rung = self._rung
            try:
                return await send(self.form(schema))
            except BadRequest as refused:
                last = schema is None or not self._climbs or _LADDER[rung] == "none"
                if last or not any(word in str(refused).lower() for word in _REFUSAL):
                    raise
                self._rung = max(self._rung, rung + 1)  # others may have found out meanwhile

    def form(self, schema: str | None) -> dict[str, Any] | None:
        """The `response_format` of the next request for this schema."""
        kind = _LADDER[self._rung]
        if schema is None or kind == "none":
            return None
        if kind == "json_object":
            return {"type": "json_object"}
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(schema), "strict": True}}
