"""The served model, held to the types of the official openai package: requests and answers that do not fit them are an error.

The package's request types are generated from OpenAI's published schema, and so are its answers: what passes here is what its servers
take and its clients read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gepa_atlas.errors import BadRequest
from gepa_atlas.llm.serve import serving
from gepa_atlas.ports import ChatModel
from gepa_atlas.testing.assistants import handler


def _types(path: str) -> tuple[Any, TypeAdapter[Any], Any]:
    """Request type of a path, its checker, and its answer type."""
    return _known(re.sub(r"/thread_[0-9a-f]+/", "/ID/", path))


@functools.cache
def _known(path: str) -> tuple[Any, TypeAdapter[Any], Any]:
    from openai.types import Completion, beta, chat, completion_create_params, responses
    from openai.types.beta import thread_create_params, threads
    from openai.types.beta.threads import run_create_params
    from openai.types.chat import completion_create_params as chat_params
    from openai.types.responses import response_create_params

    known = {
        "/v1/responses": (response_create_params.ResponseCreateParamsNonStreaming, responses.Response),
        "/v1/chat/completions": (chat_params.CompletionCreateParamsNonStreaming, chat.ChatCompletion),
        "/v1/completions": (completion_create_params.CompletionCreateParamsNonStreaming, Completion),
        "/v1/threads": (thread_create_params.ThreadCreateParams, beta.Thread),
        "/v1/threads/ID/runs": (run_create_params.RunCreateParamsNonStreaming, threads.Run),
    }
    wanted, answers = known[path]
    # Held for good: pydantic checks an Iterable when it is read, and an adapter that is gone by then takes its definitions along.
    return wanted, TypeAdapter(wanted), answers


def fits(path: str, body: Any) -> None:
    """BadRequest when this body is not what the published schema says."""
    wanted, checker, _ = _types(path)
    known = {name for kind in wanted.__mro__ for name in getattr(kind, "__annotations__", {})} | set(wanted.__annotations__)
    if extra := body.keys() - known:
        raise BadRequest(f"unknown parameter: {sorted(extra)[0]!r}")
    try:
        _exhaust(checker.validate_python(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadRequest(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _exhaust(value: Any) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _exhaust(inner)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for inner in value:
            _exhaust(inner)


@contextmanager
def strictly_serving(model: ChatModel, asked: list[tuple[str, Any]] | None = None, polls: int = 2) -> Iterator[str]:
    """Chat, completions, responses and assistants of `model` at a base URL; `asked` gets path and body of every POST."""

    class Strict(handler(polls)):  # type: ignore[misc]
        def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
            if method == "POST":
                if asked is not None:
                    asked.append((path, body))
                fits(path, body)
            told = super().answer(method, path, body)
            if method == "POST":
                _types(path)[2].model_validate(told)
            return dict(told)

    with serving(model, handler=Strict) as url:
        yield url
