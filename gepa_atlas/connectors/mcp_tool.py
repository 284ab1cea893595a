"""The `mcp` provider: an agent that is a tool of an MCP server, started for each call or reached over HTTP."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self, TextIO

from pydantic import Field, field_validator, model_validator

from gepa_atlas import wire
from gepa_atlas.addresses import host_of
from gepa_atlas.connectors.answers import Clock, FieldPath, OpaqueParams, attempt, check_size, deadline, field
from gepa_atlas.connectors.placement import encoded, no_place_for
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.connectors.templates import check_reach, demos_apart, filled, lists_of, strings_in, values_of
from gepa_atlas.errors import AgentCrashed, BadRequest, CallError, CallTimeout, ConfigError, Garbled, MissingExtra, Unreachable
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.settings import load
from gepa_atlas.types import Attempt, Json, Task, digest

_VERSION = 1


class ToolParams(OpaqueParams):
    """Either `argv` starts the server and speaks to it over stdin and stdout, or `url` is where it listens (streamable HTTP)."""

    argv: tuple[str, ...] = ()  # "{python}" as an item is the Python interpreter that runs gepa-atlas
    env: tuple[str, ...] = ()  # names of variables to pass on, beside the few that MCP passes
    cwd: str = "."  # from the directory of the configuration
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)  # with url; values may hold ${ENV}
    tool: str = Field(min_length=1)
    arguments: dict[str, Any] = Field(default_factory=lambda: {"prompt": "{prompt}"})  # with the placeholders of a request template
    system_prompt: str = ""
    response_field: FieldPath | None = None  # in the structured content; without it the answer is the text of the result

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is not None:
            if not url.startswith(("http://", "https://")):
                raise ValueError("url must start with http:// or https://")
            wire.check_address(url)
        return url

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if bool(self.argv) == (self.url is not None):
            raise ValueError("give either argv, to start the server, or url, to reach one")
        if self.headers and self.url is None:
            raise ValueError("headers are for a server at a url; for a command name variables in env")
        check_reach(strings_in(self.arguments), self.guidance, "arguments")
        return self


class ToolAgent:
    def __init__(self, params: ToolParams, base_dir: Path, where: str) -> None:
        self._params = params
        self._where = where
        self._cwd = (base_dir / params.cwd).resolve()
        if not self._cwd.is_dir():
            raise ConfigError(f"{where}.cwd: {str(self._cwd)!r} is not a directory")
        wire.reveal_headers(params.headers, f"{where}.headers")
        server = wire.place(params.url) if params.url is not None else " ".join(params.argv)
        self._who = f"the tool {params.tool!r} of {server}"
        self._demos_apart = demos_apart(strings_in(params.arguments))
        shown = params.answering("headers") | {"headers": sorted(params.headers)}
        self._identity = "mcp:" + digest({"version": _VERSION, "params": shown}, 16)
        self._endpoint = params.endpoint_at(host_of(params.url) if params.url is not None else "mcp:" + digest(params.argv, 8))

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def preview(self, task: Task) -> dict[str, Any]:
        p = self._params
        server = {"url": wire.place(p.url)} if p.url is not None else {"argv": list(p.argv)}
        return {**server, "tool": p.tool, "arguments": self._arguments(task)}

    async def run(self, task: Task) -> Attempt:
        """Raises CallError. A server that was started for the call has ended with it."""
        p = self._params
        clock = Clock()
        arguments = self._arguments(task)
        async with deadline(p.timeout, self._who):
            with TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
                try:
                    async with self._connected(complaints) as client:
                        result = await client.call_tool(p.tool, arguments)
                except (Exception, BaseExceptionGroup) as error:  # the border to the package, which groups what its tasks raise
                    raise self._error(error, _last_line(complaints)) from error
        return attempt(self._text(result), clock.usage(p), self._who, p.max_bytes)

    def _arguments(self, task: Task) -> Json:
        p = self._params
        if refused := no_place_for(dict(task.guidance.settings), (), self._who):
            raise refused
        made: Json = filled(p.arguments, values_of(task, p, demos_apart=self._demos_apart), lists_of(task, p, system=p.system_prompt))
        encoded(json.dumps(made, ensure_ascii=False), "the request")
        return made

    @asynccontextmanager
    async def _connected(self, complaints: TextIO) -> AsyncIterator[Any]:
        """A session with the server; what a started one writes to stderr goes to `complaints`."""
        import httpx2
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client

        p = self._params
        if p.url is None:
            program, *rest = (sys.executable if item == "{python}" else item for item in p.argv)
            passed = {name: os.environ[name] for name in p.env if name in os.environ}
            started = StdioServerParameters(command=program, args=rest, env=passed, cwd=self._cwd)
            async with Client(stdio_client(started, errlog=complaints)) as client:
                yield client
            return
        headers = wire.reveal_headers(p.headers, f"{self._where}.headers")
        loopback = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}
        async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(p.timeout, connect=10.0), mounts=loopback) as http:
            transport = streamable_http_client(p.url, http_client=http, max_sse_event_size=p.max_bytes)
            async with Client(transport) as client:
                yield client

    def _text(self, result: Any) -> str | None:
        p = self._params
        texts = [block.text for block in result.content if block.type == "text"]
        said = "\n".join(texts)
        check_size(said, self._who, p.max_bytes)
        if result.is_error:
            raise AgentCrashed(f"{self._who} failed: {wire.line(said) or 'without a word'}")
        if p.response_field is None:
            return said
        if result.structured_content is None:
            raise Garbled(f"{self._who} answered without structured content, where response_field looks; leave response_field out")
        return field(result.structured_content, p.response_field, self._who)

    def _error(self, error: BaseException, complaint: str) -> BaseException:
        import httpx2
        from mcp.shared.exceptions import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        inner = list(_leaves(error))
        for one in inner:
            if isinstance(one, CallError):
                return one
            if isinstance(one, httpx2.HTTPStatusError):
                return wire.status_error(one.response.status_code, one.response.headers, b"", self._who)
            if isinstance(one, MCPError) and one.code == REQUEST_TIMEOUT:
                return CallTimeout(f"{self._who} did not answer in time: {wire.line(str(one))}")
            if isinstance(one, MCPError) and one.code != CONNECTION_CLOSED:
                return BadRequest(f"{self._who} was refused: {wire.line(str(one))}")
        if any(isinstance(one, MCPError | OSError | httpx2.HTTPError) for one in inner):
            why = "; ".join([*(f"{type(one).__name__}: {wire.line(str(one))}" for one in inner), *([complaint] if complaint else [])])
            return Unreachable(f"no answer from {self._who}: {why}")
        return AgentCrashed(f"{self._who}: {type(inner[0]).__name__}: {wire.line(str(inner[0]))}")


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    if importlib.util.find_spec("mcp") is None:
        raise MissingExtra("provider 'mcp'", "mcp")
    return ToolAgent(load(ToolParams, params, surroundings.where), surroundings.base_dir, surroundings.where)


def _last_line(complaints: TextIO) -> str:
    complaints.seek(0)
    lines = [line for line in complaints if line.strip()]
    return wire.line(lines[-1]) if lines else ""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
