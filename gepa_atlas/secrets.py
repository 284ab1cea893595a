"""Secrets are named, never stored. A value is read from the environment at the last moment and scrubbed from all that is written."""

from __future__ import annotations

import base64
import functools
import os
import re
from typing import Any
from urllib.parse import quote

from gepa_atlas.errors import ConfigError
from gepa_atlas.types import canonical

MASK = "[redacted]"
_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)
_SHAPES = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{30,})"
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{12,}")
_MARK = re.compile(r"sk-|AKIA|gh[pousr]_|xox[abprs]-|AIza|(?i:bearer)")  # without one of these neither of the above can match
_known: set[str] = set()


def reveal(env_name: str, needed_by: str) -> str:
    """The value of an environment variable that holds a secret; from now on it is scrubbed from everything written."""
    value = os.environ.get(env_name)
    if not value:
        raise ConfigError(
            f"{needed_by} reads its key from the environment variable {env_name}, which is not set: export it or put it in .env"
        )
    remember(value)
    return value


def remember(value: str) -> None:
    """Scrub this value, and its URL-encoded and base64 forms, from everything written."""
    if len(value) >= 6:
        _known.update({value, quote(value, safe=""), base64.b64encode(value.encode()).decode()})


def watch_environment() -> None:
    """Remember the value of every variable whose name looks like a secret's."""
    for name, value in os.environ.items():
        if is_secret_name(name) and len(value) >= 8:
            remember(value)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name probably holds a secret."""
    return bool(_NAME.search(name))


def looks_secret(text: str) -> bool:
    """Whether `text` contains a well-known shape of key (OpenAI, AWS, GitHub, Slack, Google)."""
    return bool(_SHAPES.search(text))


def scrub(text: str) -> str:
    """`text` without any secret known by value or by shape. The one sanitiser: every writer calls it."""
    if any(value in text for value in _known):
        for value in sorted(_known, key=len, reverse=True):
            text = text.replace(value, MASK)
    return text if _MARK.search(text) is None else _BEARER.sub(r"\1" + MASK, _SHAPES.sub(MASK, text))


def scrub_document(value: Any) -> str:
    """`canonical(scrub_json(value))`; one look at the whole text when there is nothing to scrub. ValueError for a number not finite."""
    text = canonical(value)
    return text if surely_clean(text) else canonical(scrub_json(value))


def surely_clean(document: str) -> bool:
    """Whether one look at a document in ASCII JSON says that no string of it holds a secret; False where `scrub_json` has to look."""
    return _MARK.search(document) is None and not any(_escaped(known) in document for known in _known)


@functools.cache
def _escaped(text: str) -> str:
    return canonical(text)[1:-1]


def scrub_json(value: Any) -> Any:
    """`scrub` on every string inside a JSON value, keys included."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(k): scrub_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [scrub_json(v) for v in value]
    return value
