"""The `python.callable` provider: a function, method, class or generator, sync or async, in a module or a file."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from pydantic import model_validator

from gepa_atlas.connectors.answers import Clock, FieldPath, OpaqueParams, attempt, deadline, field
from gepa_atlas.connectors.loading import load_callable
from gepa_atlas.connectors.placement import demo_rows, guidance_text, no_place_for, prompt_text
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.errors import AgentCrashed, CallError, ConfigError, Garbled
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.settings import load
from gepa_atlas.threads import DaemonThreads
from gepa_atlas.types import Attempt, Task, digest

_VERSION = 1
_ARGUMENTS = ("prompt", "question", "context", "guidance", "demos", "settings")


class CallableParams(OpaqueParams):
    """The callable gets those of prompt, question, context, guidance, demos and settings that it declares, by keyword.

    One that declares a single parameter of another name gets the whole prompt there (`process_input: raw`), or a dict holding it
    under `input_key` (`dict_wrapper`). `prompt` is everything in one text, unless `guidance: field` keeps the guidance out of it.
    """

    callable: str  # `module:function` or `path/to/file.py:function`
    process_input: Literal["raw", "dict_wrapper"] = "raw"
    input_key: str = "input"
    process_response: Literal["raw", "json"] = "raw"  # json: the returned text is a JSON document, and response_field is in it
    response_field: FieldPath | None = None  # in a returned dict

    @model_validator(mode="after")
    def _consistent(self) -> CallableParams:
        if self.guidance in ("system", "turns"):
            raise ValueError("guidance: a callable has no chat; use prefix, suffix or field (with an argument named guidance)")
        if self.process_response == "json" and self.response_field is None:
            raise ValueError("process_response: json needs response_field, the path of the answer in the document")
        return self


class CallableAgent:
    def __init__(self, call: Callable[..., Any], source_digest: str, params: CallableParams, where: str) -> None:
        self._call = call
        self._params = params
        self._who = f"the agent {params.callable}"
        self._takes = _declared(call, params, where)
        self._threads = DaemonThreads(params.max_concurrency, f"agent {params.callable}")
        self._awaits = inspect.iscoroutinefunction(_code(call)) or inspect.isasyncgenfunction(_code(call))
        self._identity = "python:" + digest({"version": _VERSION, "source": source_digest, "params": params.answering()}, 16)
        self._endpoint = params.endpoint_at(f"python:{params.callable}")

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def run(self, task: Task) -> Attempt:
        """Raises CallError. A thread whose deadline passed runs on, and counts as busy, until the user's function returns."""
        clock = Clock()
        call = self._bound(task)
        async with deadline(self._params.timeout, self._who):
            try:
                if self._awaits:
                    result = await _awaited(call())
                else:
                    result = await self._threads.run(partial(_joined, call))
                    if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
                        result = await _awaited(result)
            except CallError:
                raise
            except asyncio.CancelledError:
                own = asyncio.current_task()
                if own is None or own.cancelling():
                    raise
                raise AgentCrashed(f"{self._who} raised CancelledError") from None
            except (Exception, SystemExit) as error:  # user code
                raise AgentCrashed(f"{self._who} raised {type(error).__name__}: {error}") from error
        return attempt(self._text(result), clock.usage(self._params), self._who, self._params.max_bytes)

    def _bound(self, task: Task) -> Callable[[], Any]:
        p = self._params
        settings = dict(task.guidance.settings)
        if "settings" not in self._takes and (refused := no_place_for(settings, (), f"{self._who}, which declares no `settings`,")):
            raise refused
        demos_apart = "demos" in self._takes
        prompt = prompt_text(task, p, demos_apart=demos_apart)
        if not self._takes:
            return partial(self._call, {p.input_key: prompt} if p.process_input == "dict_wrapper" else prompt)
        given: dict[str, Any] = {
            "prompt": prompt,
            "question": task.question.text,
            "context": task.question.context,
            "guidance": guidance_text(task.guidance, p, demos_apart=demos_apart),
            "demos": demo_rows(task.guidance.demos),
            "settings": settings,
        }
        return partial(self._call, **{name: given[name] for name in self._takes})

    def _text(self, result: Any) -> str | None:
        p = self._params
        if p.process_response == "json" and isinstance(result, str):
            try:
                result = json.loads(result)
            except ValueError:
                raise Garbled(f"{self._who} returned text that is not JSON (process_response: json)") from None
        if result is None or (isinstance(result, str) and p.process_response == "raw"):
            return result
        if p.response_field is not None:
            return field(result, p.response_field, self._who)
        raise Garbled(f"{self._who} returned a {type(result).__name__}, not text; set response_field to the path of the answer in it")


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    checked = load(CallableParams, params, surroundings.where)
    loaded = load_callable(checked.callable, surroundings.base_dir, f"{surroundings.where}.callable")
    return CallableAgent(loaded.call, loaded.source_digest, checked, surroundings.where)


def _declared(call: Callable[..., Any], params: CallableParams, where: str) -> tuple[str, ...]:
    """Names of the arguments to pass; empty for a callable of one text. ConfigError when the guidance would not reach it."""
    where = f"{where}.callable: {params.callable!r}"
    parameters = inspect.signature(call).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return _ARGUMENTS
    names = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name in _ARGUMENTS)
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in names
    ]
    if not names and len(needed) <= 1 and parameters:
        if params.guidance == "field":
            raise ConfigError(f"{where} takes one text, so `guidance: field` would not reach it; use prefix or suffix")
        return ()
    if needed or not names:
        raise ConfigError(f"{where} must take some of {', '.join(_ARGUMENTS)}" + (f"; it also needs {', '.join(needed)}" if needed else ""))
    if "guidance" not in names and ("prompt" not in names or params.guidance == "field"):
        raise ConfigError(f"{where} takes {', '.join(names)}, so the guidance would not reach it; declare `guidance` or `prompt`")
    if {"guidance", "prompt"} <= set(names) and params.guidance != "field":
        raise ConfigError(f"{where} takes prompt and guidance, so guidance would come twice; set `guidance: field` or drop one of them")
    return names


def _code(call: Callable[..., Any]) -> Any:
    """What tells whether a call is awaited: the function itself, or the `__call__` of an object."""
    return call if inspect.isfunction(call) or inspect.ismethod(call) or inspect.isbuiltin(call) else type(call).__call__


def _joined(call: Callable[[], Any]) -> Any:
    result = call()
    return _join(list(result)) if isinstance(result, Iterator) else result


async def _awaited(result: Any) -> Any:
    if isinstance(result, AsyncIterator):
        return _join([part async for part in result])
    return await result


def _join(parts: list[Any]) -> str:
    for part in parts:
        if not isinstance(part, str):
            raise Garbled(f"the agent yielded a {type(part).__name__}; a generator yields pieces of text")
    return "".join(parts)
