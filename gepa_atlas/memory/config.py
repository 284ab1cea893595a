"""Where the memory is and what is cut out of it before anything is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from gepa_atlas.secrets import MASK, scrub, surely_clean
from gepa_atlas.settings import Settings

DEFAULT_URL = "runs/memory.db"
VARIABLE = "GEPA_ATLAS_MEMORY"  # the address where none is given
_UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")  # neither UTF-8 nor PostgreSQL's text can hold these


class MemoryConfig(Settings):
    """`memory:` of a configuration. `on` is short for {}, a bare text for {url: ...}."""

    url: str = Field(default_factory=lambda: default_url())  # the path of an SQLite file, or postgresql://user:${PGPASSWORD}@host/database
    operation: str | None = None  # what the run's traces are filed under; default: the name of the configuration
    redact: tuple[str, ...] = ()  # regular expressions of what must not be kept, besides secrets

    @field_validator("redact")
    @classmethod
    def _patterns_compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            compiled(pattern)
        return value

    @model_validator(mode="after")
    def _operation_has_a_name(self) -> Self:
        if self.operation is not None and not self.operation.strip():
            raise ValueError("operation: is blank; name what the agent does, or leave it out")
        return self


def default_url() -> str:
    return os.environ.get(VARIABLE) or DEFAULT_URL


def memory_block(value: Any) -> Any:
    """`off` (which YAML reads as false) is None, `on` is the default store, a bare text is its address."""
    if value is False or value == "off":
        return None
    if value is True or value == "on":
        return {}
    return {"url": value} if isinstance(value, str) else value


def compiled(pattern: str) -> re.Pattern[str]:
    """ValueError in one line for what is no regular expression, or would cut out everything."""
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"redact: {pattern!r} is not a regular expression ({error})") from None
    if found.match(""):
        raise ValueError(f"redact: {pattern!r} matches the empty text, so it would match everywhere")
    return found


class Redactor:
    """The one sanitiser of the store: secrets by value and shape, then the configured patterns, in every string, keys included."""

    def __init__(self, patterns: tuple[str, ...] = ()) -> None:
        self.sources = patterns
        self._patterns = tuple(compiled(pattern) for pattern in patterns)

    def text(self, value: str) -> str:
        value = scrub(value)
        for pattern in self._patterns:
            value = pattern.sub(MASK, value)
        return value

    def document(self, value: Any) -> str:
        """`value` as ASCII JSON with its keys in order. ValueError for a number that is not finite."""
        text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        if not self._patterns and surely_clean(text):
            return text
        return json.dumps(self.json(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))

    def json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key): self.json(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(inner) for inner in value]
        return value


def writable(text: str) -> str:
    """`text` as any database can hold it. Whole lines are kept as ASCII JSON beside it, so nothing is lost."""
    return _UNWRITABLE.sub("\ufffd", text)
