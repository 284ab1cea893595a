"""The `python.callable` provider: a function, method, class or generator, sync or async, in a module or a file."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import model_validator

from gepa_atlas.connectors.answers import Clock, FieldPath, OpaqueParams, attempt, deadline, field, plain
from gepa_atlas.connectors.loading import load_callable
from gepa_atlas.connectors.placement import demo_rows, guidance_text, no_place_for, prompt_text
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.connectors.runners import Here, Runner, Workers
from gepa_atlas.errors import AgentCrashed, CallError, ConfigError, Garbled, said
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, Task, digest

_VERSION = 1
_ARGUMENTS = ("prompt", "question", "context", "guidance", "demos", "settings")


class CallableParams(OpaqueParams):
    """The callable gets those of prompt, question, context, guidance, demos and settings that it declares, by keyword.

    One that declares a single parameter of another name gets the whole prompt there (`process_input: raw`), or a dict holding it
    under `input_key` (`dict_wrapper`). `prompt` is everything in one text, unless `guidance: field` keeps the guidance out of it.
    """

    callable: str  # `module:function` or `path/to/file.py:function`
    worker: Literal["thread", "process"] = "thread"  # process: heavy code is imported and run in worker processes, not in this one
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
    def __init__(self, runner: Runner, takes: tuple[str, ...], source_digest: str, params: CallableParams) -> None:
        self._runner = runner
        self._takes = takes
        self._params = params
        self._who = f"the agent {params.callable}"
        shown = params.answering("worker")
        self._identity = "python:" + digest({"version": _VERSION, "source": source_digest, "params": shown}, 16)
        self._endpoint = params.endpoint_at(f"python:{params.callable}")

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def preview(self, task: Task) -> dict[str, Any]:
        args, kwargs = self._arguments(task)
        return {"callable": self._params.callable, "arguments": [*args] if args else kwargs}

    async def run(self, task: Task) -> Attempt:
        """Raises CallError. A thread whose deadline passed runs on, and counts as busy, until the function returns; a worker is ended."""
        clock = Clock()
        args, kwargs = self._arguments(task)
        async with deadline(self._params.timeout, self._who):
            try:
                result = await self._runner.run(args, kwargs)
            except CallError:
                raise
            except (Exception, SystemExit) as error:  # user code
                raise AgentCrashed(f"{self._who} raised {said(error)}") from error
        return attempt(self._text(result), clock.usage(self._params), self._who, self._params.max_bytes)

    def _arguments(self, task: Task) -> tuple[tuple[Any, ...], dict[str, Any]]:
        p = self._params
        settings = dict(task.guidance.settings)
        if "settings" not in self._takes and (refused := no_place_for(settings, (), f"{self._who}, which declares no `settings`,")):
            raise refused
        demos_apart = "demos" in self._takes
        prompt = prompt_text(task, p, demos_apart=demos_apart)
        if not self._takes:
            return ({p.input_key: prompt} if p.process_input == "dict_wrapper" else prompt,), {}
        given: dict[str, Any] = {
            "prompt": prompt,
            "question": task.question.text,
            "context": task.question.context,
            "guidance": guidance_text(task.guidance, p, demos_apart=demos_apart),
            "demos": demo_rows(task.guidance.demos),
            "settings": settings,
        }
        return (), {name: given[name] for name in self._takes}

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
            return field(plain(result), p.response_field, self._who)
        raise Garbled(f"{self._who} returned a {type(result).__name__}, not text; set response_field to the path of the answer in it")


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    p, base_dir, where = load(CallableParams, params, surroundings.where), surroundings.base_dir, f"{surroundings.where}.callable"
    if p.worker == "process":
        workers = Workers(p.callable, base_dir, where, p.max_concurrency)
        takes, source = workers.ask(_described, p, surroundings.where)
        return CallableAgent(workers, takes, source, p)
    loaded = load_callable(p.callable, base_dir, where)
    runner = Here(loaded.call, p.max_concurrency, f"agent {p.callable}")
    return CallableAgent(runner, _declared(loaded.call, p, surroundings.where), loaded.source_digest, p)


def _described(call: Callable[..., Any], source_digest: str, params: CallableParams, where: str) -> tuple[tuple[str, ...], str]:
    return _declared(call, params, where), source_digest


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
