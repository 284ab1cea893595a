"""The `openai.assistant` provider: an assistant on a server that still speaks OpenAI's Assistants API.

OpenAI shut its own down on 2026-08-26. One run of the agent is a new thread, one run on it, and the messages of that run; the thread is
deleted when they have been read. A run that fails leaves its thread to the server.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from gepa_atlas import wire
from gepa_atlas.connectors.answers import attempt, deadline
from gepa_atlas.connectors.placement import Placement, chat_turns, no_place_for
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.errors import (
    AgentCrashed,
    BadRequest,
    CallError,
    CallTimeout,
    EmptyAnswer,
    Garbled,
    RateLimited,
    ServerFault,
)
from gepa_atlas.openai_server import OpenAIServer
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, StopReason, Task, Usage, digest

_VERSION = 1
_BETA = {"openai-beta": "assistants=v2"}
_LONGEST_POLL = 1.0  # seconds
_SETTINGS = {"temperature": "temperature", "max_tokens": "max_completion_tokens"}


class AssistantParams(Placement, OpenAIServer):
    """`guidance: system` gives the run instructions in place of the assistant's own, or with `replace_system: false` beside them."""

    base_url: str
    assistant_id: str = Field(min_length=1)
    model: str | None = None  # another model than the assistant's
    guidance: Literal["prefix", "suffix", "system", "field", "turns"] = "system"
    replace_system: bool = True
    turn_reply: str = "Understood."
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0)
    first_poll: float = Field(0.2, gt=0)  # seconds before the run is looked at; then longer and longer, to one second

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.guidance == "field":
            raise ValueError("guidance: an assistant has no fields; use system, prefix, suffix or turns")
        if urlsplit(self.base_url).hostname == "api.openai.com":
            raise ValueError(
                "OpenAI shut the Assistants API down on 2026-08-26; use provider: openai.responses, with params: "
                + json.dumps({"model": self.model or "the assistant's model", "system_prompt": "the assistant's instructions"})
            )
        return self


class AssistantAgent:
    def __init__(self, params: AssistantParams, where: str) -> None:
        self._params = params
        self._where = where
        self._who = f"the assistant {params.assistant_id} at {params.place}"
        shown = params.answering("api_key_env", "price", "max_bytes", "headers", "first_poll")
        self._identity = "openai.assistant:" + digest({"version": _VERSION, "params": shown}, 16)
        self._endpoint = params.endpoint()

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def advice(self) -> tuple[str, ...]:
        used = {"base_url": self._params.base_url, "model": self._params.model or "the assistant's model"}
        return (
            "openai.assistant: OpenAI shut the Assistants API down on 2026-08-26, and other servers are likely to follow; the same agent "
            f"on the Responses API is {json.dumps({'provider': 'openai.responses', 'params': used})}",
        )

    def preview(self, task: Task) -> dict[str, Any]:
        thread, run = self._request(task)
        return {"first": self._params.shown("/threads", thread), **self._params.shown("/threads/THREAD/runs", run)}

    async def run(self, task: Task) -> Attempt:
        """Raises CallError."""
        p = self._params
        began = time.monotonic()
        thread, asked = self._request(task)
        async with deadline(p.timeout, self._who):
            try:
                thread_id = (await self._call("/threads", thread))["id"]
                run = await self._ended(await self._call(f"/threads/{thread_id}/runs", asked), thread_id)
                self._check(run)
                text = await self._said(run, thread_id)
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                kind = type(error).__name__
                raise Garbled(f"{self._who} answered without what the Assistants API promises ({kind}: {error})") from None
            await self._deleted(thread_id)
        cut = run["status"] == "incomplete"
        if cut and not text.strip():
            raise EmptyAnswer(f"{self._who} was cut before any text: {(run.get('incomplete_details') or {}).get('reason')}")
        made = attempt(text, self._usage(run, time.monotonic() - began), self._who, p.max_bytes)
        return Attempt(made.output, made.usage, StopReason.LENGTH) if cut else made

    def _request(self, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
        """The bodies of the thread and of the run."""
        p = self._params
        settings = dict(task.guidance.settings)
        if refused := no_place_for(settings, tuple(_SETTINGS), "an assistant"):
            raise refused
        turns = chat_turns(task, p, reply=p.turn_reply)
        thread = {"messages": [turn.to_json() for turn in turns if turn.role != "system"]}
        body: dict[str, Any] = {"assistant_id": p.assistant_id}
        if taught := "\n\n".join(turn.content for turn in turns if turn.role == "system"):
            body["instructions" if p.replace_system else "additional_instructions"] = taught
        body |= {"model": p.model} if p.model is not None else {}
        given = {"temperature": p.temperature, "max_tokens": p.max_tokens} | settings
        return thread, body | {_SETTINGS[name]: value for name, value in given.items() if value is not None}

    async def _call(self, path: str, body: Mapping[str, Any] | None = None, method: Literal["GET", "POST", "DELETE"] = "POST") -> Any:
        return await self._params.call(path, body, self._where, method=method, headers=_BETA)

    async def _ended(self, run: Any, thread_id: str) -> Any:
        """The run when it has ended. Looking again is no second call: it costs nothing and changes nothing."""
        pause = self._params.first_poll
        while run["status"] in ("queued", "in_progress", "cancelling"):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL)
            run = await self._call(f"/threads/{thread_id}/runs/{run['id']}", method="GET")
        return run

    def _check(self, run: Any) -> None:
        """Raises the error that a run ended with."""
        status, error = run["status"], run.get("last_error")
        if status in ("completed", "incomplete"):
            return
        said = f"{self._who}: the run ended as {status!r}" + (f": {wire.line(error['message'])}" if error else "")
        if status == "requires_action":
            asked = run["required_action"]["submit_tool_outputs"]["tool_calls"][0]["function"]["name"]
            raise EmptyAnswer(f"{self._who} asks for the tool {asked!r} instead of answering; this provider runs none: use openai.sdk")
        if status == "expired":
            raise CallTimeout(said)
        kinds: dict[str, type[CallError]] = {"rate_limit_exceeded": RateLimited, "server_error": ServerFault, "invalid_prompt": BadRequest}
        raise kinds.get(error["code"] if error else "", AgentCrashed)(said)

    async def _said(self, run: Any, thread_id: str) -> str:
        path = f"/threads/{thread_id}/messages?run_id={run['id']}&order=asc&limit=100"
        listed = await self._call(path, method="GET")
        answers = [message for message in listed["data"] if message["role"] == "assistant"]
        return "\n".join(part["text"]["value"] for message in answers for part in message["content"] if part["type"] == "text")

    async def _deleted(self, thread: str) -> None:
        """Tidying up: an answer that is there is not lost to a server that cannot."""
        try:
            await self._call(f"/threads/{thread}", method="DELETE")
        except CallError:
            return

    def _usage(self, run: Any, seconds: float) -> Usage:
        counted = run.get("usage") or {}
        usage = Usage(counted.get("prompt_tokens"), counted.get("completion_tokens"), None, seconds, 1)
        price = self._params.price
        return Usage(usage.input_tokens, usage.output_tokens, price.of(usage) if price else None, seconds, 1)


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    checked = load(AssistantParams, params, surroundings.where)
    checked.check_secrets(surroundings.where)
    return AssistantAgent(checked, surroundings.where)
