"""The `openai.sdk` provider: an agent of the OpenAI Agents SDK, run in this process.

The agent is one of yours, by import path, or is built from the configuration. Its models are asked at `base_url`, over the Responses or
the chat API; the SDK's own retries and its tracing, which would report to OpenAI, are off.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from weakref import WeakKeyDictionary

from pydantic import Field, model_validator

from gepa_atlas.connectors.answers import FieldPath, attempt, deadline, field, plain
from gepa_atlas.connectors.loading import load_made, load_object
from gepa_atlas.connectors.openai_sdk_client import open_client, sdk_error
from gepa_atlas.connectors.placement import Placement, chat_turns, join, no_place_for
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.errors import MissingExtra
from gepa_atlas.loops import at_loop_end
from gepa_atlas.openai_server import OpenAIServer
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.settings import Settings, load
from gepa_atlas.types import Attempt, Task, Usage, canonical, digest

_VERSION = 1
_POOLS = 8
_CONFIGS = 64


class AgentParams(Settings):
    """An agent built from configuration."""

    name: str = "agent"
    instructions: str = ""
    model: str | None = None
    tools: tuple[str, ...] = ()  # functions, or tools of the SDK: `module:name` or `path/to/file.py:name`
    handoffs: tuple[AgentParams, ...] = ()
    handoff_description: str | None = None


class SdkParams(Placement, OpenAIServer):
    """`guidance: system` gives the first agent instructions in place of its own, or with `replace_system: false` after them; agents it
    hands over to keep theirs."""

    agent: str | AgentParams
    model: str | None = None  # for every agent that names none of its own
    api: Literal["responses", "chat"] = "responses"
    guidance: Literal["prefix", "suffix", "system", "field", "turns"] = "system"
    replace_system: bool = True
    turn_reply: str = "Understood."
    max_turns: int = Field(10, ge=1)
    max_tokens: int | None = Field(None, ge=1)  # of one answer of a model
    temperature: float | None = Field(None, ge=0)
    response_field: FieldPath | None = None  # in a structured output

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.guidance == "field":
            raise ValueError("guidance: an agent of the SDK has no fields; use system, prefix, suffix or turns")
        return self


class _Client:
    """An AsyncOpenAI, and the RunConfigs that use it: making one looks at every type hint of the SDK's class, some 2 ms each time."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._configs: dict[str, Any] = {}

    def config(self, settings: Mapping[str, Any], p: SdkParams) -> Any:
        from agents import ModelSettings, OpenAIProvider, RunConfig

        name = canonical(settings)
        if name not in self._configs:
            if len(self._configs) >= _CONFIGS:
                self._configs.clear()
            provider = OpenAIProvider(openai_client=self.inner, use_responses=p.api == "responses")
            self._configs[name] = RunConfig(
                model=p.model, model_provider=provider, model_settings=ModelSettings(store=False, **settings), tracing_disabled=True
            )  # store and tracing would keep what was asked at OpenAI
        return self._configs[name]


class SdkAgent:
    def __init__(self, params: SdkParams, base_dir: Path, where: str) -> None:
        self._params = params
        self._where = where
        self._agent, sources = _loaded(params.agent, base_dir, f"{where}.agent")
        self._who = f"the agent {self._agent.name!r}"
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Client]] = WeakKeyDictionary()
        self._turn = itertools.count()
        shown = params.answering("api_key_env", "price", "max_bytes", "headers")
        self._identity = "openai.sdk:" + digest({"version": _VERSION, "params": shown, "sources": sources}, 16)
        self._endpoint = params.endpoint()

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def preview(self, task: Task) -> dict[str, Any]:
        taught, turns = self._taught(task)
        own = taught.instructions if isinstance(taught.instructions, str | None) else "(made by a function of the agent)"
        names = {"agent": taught.name, "tools": [tool.name for tool in taught.tools], "handoffs": [h.name for h in taught.handoffs]}
        return {**names, "at": self._params.place, "instructions": own, "input": turns}

    async def run(self, task: Task) -> Attempt:
        """Raises CallError."""
        from agents import Runner

        p = self._params
        began = time.monotonic()
        taught, turns = self._taught(task)
        config = await self._configured(task)
        async with deadline(p.timeout, self._who):
            try:
                result = await Runner.run(taught, turns, run_config=config, max_turns=p.max_turns)
            except Exception as error:  # the border to the SDK and to the user's tools
                raise sdk_error(error, self._who) from error
        counted = result.context_wrapper.usage
        usage = Usage(counted.input_tokens, counted.output_tokens, None, time.monotonic() - began, max(1, counted.requests))
        priced = Usage(usage.input_tokens, usage.output_tokens, p.price.of(usage) if p.price else None, usage.seconds, usage.calls)
        return attempt(self._text(result.final_output), priced, self._who, p.max_bytes)

    def _taught(self, task: Task) -> tuple[Any, list[Any]]:
        """The agent with the guidance in its instructions, and the input."""
        p = self._params
        turns = chat_turns(task, p, reply=p.turn_reply)
        told = "\n\n".join(turn.content for turn in turns if turn.role == "system")
        own = self._agent.instructions
        if told and not p.replace_system:
            told = join([own or "", told], p) if isinstance(own, str | None) else _after(own, told, p)
        agent = self._agent.clone(instructions=told) if told else self._agent
        return agent, [turn.to_json() for turn in turns if turn.role != "system"]

    async def _configured(self, task: Task) -> Any:
        p = self._params
        settings = dict(task.guidance.settings)
        if refused := no_place_for(settings, ("temperature", "max_tokens"), self._who):
            raise refused
        return (await self._client()).config({"temperature": p.temperature, "max_tokens": p.max_tokens} | settings, p)

    async def _client(self) -> _Client:
        """One of a few in turn: a pool compares every connection with every other at each request."""
        clients = self._clients.setdefault(asyncio.get_running_loop(), [])
        if len(clients) < _POOLS:
            clients.append(_Client(open_client(self._params, self._where)))
            await at_loop_end((self, len(clients)), clients[-1].inner.close)
            return clients[-1]
        return clients[next(self._turn) % _POOLS]

    def _text(self, output: Any) -> str | None:
        path = self._params.response_field
        if isinstance(output, str | None):
            return field(json.loads(output), path, self._who) if path is not None and output else output
        document = plain(output)
        return field(document, path, self._who) if path is not None else json.dumps(document, ensure_ascii=False)


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    if importlib.util.find_spec("agents") is None:
        raise MissingExtra("provider 'openai.sdk'", "agents")
    checked = load(SdkParams, params, surroundings.where)
    checked.check_secrets(surroundings.where)
    return SdkAgent(checked, surroundings.base_dir, surroundings.where)


def _loaded(given: str | AgentParams, base_dir: Path, where: str) -> tuple[Any, list[str]]:
    """The agent, and digests of the code it comes from."""
    from agents import Agent as OfTheSdk
    from agents import Tool, function_tool

    if isinstance(given, str):
        made, source = load_made(given, OfTheSdk, base_dir, where)
        return made, [source]
    tools, sources = [], []
    for number, reference in enumerate(given.tools):
        found, source = load_object(reference, base_dir, f"{where}.tools.{number}")
        tools.append(function_tool(found) if inspect.isfunction(found) or inspect.ismethod(found) else found)
        sources.append(source)
    handoffs = []
    for number, inner in enumerate(given.handoffs):
        made, more = _loaded(inner, base_dir, f"{where}.handoffs.{number}")
        handoffs.append(made)
        sources += more
    known: list[Tool] = tools
    agent: Any = OfTheSdk(
        name=given.name,
        instructions=given.instructions or None,
        model=given.model,
        tools=known,
        handoffs=handoffs,
        handoff_description=given.handoff_description,
    )
    return agent, sources


def _after(own: Any, told: str, how: Placement) -> Any:
    """Instructions that a function of the agent makes, followed by the guidance."""

    async def instructions(context: Any, agent: Any) -> str:
        made = own(context, agent)
        made = await made if inspect.isawaitable(made) else made
        return join([made or "", told], how)

    return instructions
