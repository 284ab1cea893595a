"""The `http.api` provider: an agent behind an HTTP endpoint. One attempt a call; retries belong to `gepa_atlas.calls`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gepa_atlas import wire
from gepa_atlas.connectors.answers import Clock, OpaqueParams, attempt, deadline, field
from gepa_atlas.connectors.placement import chat_turns, demo_rows, encoded, guidance_text, no_place_for, prompt_text
from gepa_atlas.connectors.registry import Surroundings
from gepa_atlas.errors import BadRequest, Garbled
from gepa_atlas.ports import Agent, Endpoint
from gepa_atlas.secrets import remember
from gepa_atlas.settings import load
from gepa_atlas.texts import fill
from gepa_atlas.types import Attempt, Json, Scalar, Task, digest

_VERSION = 1
_SECRET = re.compile(r"auth|key|token|secret|passw|cookie|credential|signature", re.IGNORECASE)


class HttpParams(OpaqueParams):
    """Without `request_template` the body is {prompt_field: prompt}, and with `guidance: field` also the guidance and the demos.

    Placeholders inside the strings of `request_template` and `query`: {prompt} {question} {context} {guidance}; a string that is
    exactly "{demos}" or "{messages}" (the whole request as chat turns) becomes a list.
    """

    endpoint: str
    method: Literal["POST", "PUT", "PATCH", "GET"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict)  # values may hold ${ENV}
    headers_env: dict[str, str] = Field(default_factory=dict)  # header name: name of the variable with its value
    query: dict[str, str] = Field(default_factory=dict)
    request_template: dict[str, Any] | None = None
    prompt_field: str = "prompt"
    guidance_field: str = "guidance"
    demos_field: str = "demos"
    settings_fields: dict[str, str] = Field(default_factory=dict)  # setting of a candidate: dotted path in the body
    system_prompt: str = ""  # the first of {messages} while there is no guidance to replace it
    response_format: Literal["json", "text"] = "json"
    response_field: str = "response"  # dotted path; numbers are list indexes
    content_type: str = "text/plain"  # of an answer with response_format: text; with json the body itself decides
    max_bytes: int = Field(2_000_000, ge=1)

    @field_validator("endpoint")
    @classmethod
    def _an_address(cls, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the endpoint must be an http:// or https:// address")
        if parts.username or parts.password:
            remember(parts.password or "")
            raise ValueError("no user or password in an address; name a variable in headers_env instead")
        wire.check_address(endpoint)
        return endpoint

    @field_validator("headers", "headers_env")
    @classmethod
    def _not_the_framing(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in ("content-length", "transfer-encoding"):
                raise ValueError(f"{name} follows from each body and cannot be set; remove it")
        return headers

    @model_validator(mode="after")
    def _settings_fit(self) -> HttpParams:
        for name, path in self.settings_fields.items():
            here: Any = self.request_template
            for key in path.split(".")[:-1]:
                here = here.get(key) if isinstance(here, dict) else here
            if here is not None and not isinstance(here, dict):
                raise ValueError(f"settings_fields: {path!r} of {name!r} leads into a {type(here).__name__} of request_template")
        return self

    @model_validator(mode="after")
    def _reaches_the_agent(self) -> HttpParams:
        strings = _strings([self.request_template, self.query])
        holds = {name: any("{" + name + "}" in s for s in strings) for name in ("prompt", "question", "guidance", "demos", "messages")}
        if self.guidance in ("system", "turns") and "{messages}" not in strings:
            raise ValueError(f'guidance: {self.guidance} needs a request_template with the value "{{messages}}"')
        if "{messages}" in strings:
            if self.guidance == "field" and not holds["guidance"]:
                raise ValueError('guidance: field needs "{guidance}" in request_template')
            return self
        if self.request_template is None and self.method != "GET":
            return self
        if not (holds["prompt"] or holds["question"]):
            raise ValueError('request_template (query, for GET) must hold "{prompt}" or "{question}" in one of its strings')
        if not holds["guidance"] and (self.guidance == "field" or not holds["prompt"]):
            raise ValueError('the guidance would not reach the agent: put "{guidance}", or "{prompt}" with prefix or suffix, in a string')
        if holds["guidance"] and holds["prompt"] and self.guidance != "field":
            raise ValueError("{prompt} and {guidance} together send the guidance twice; set guidance: field")
        return self


class HttpAgent:
    def __init__(self, params: HttpParams, where: str) -> None:
        self._params = params
        given = params.headers | {name: "${" + variable + "}" for name, variable in params.headers_env.items()}
        self._headers = wire.reveal_headers(given, f"{where}.headers")
        for name, value in self._headers.items():
            if _SECRET.search(name):
                remember(value.split()[-1] if value.split() else value)
        self._who = wire.place(params.endpoint)
        strings = _strings([params.request_template, params.query])
        plain_fields = params.request_template is None and params.method != "GET" and params.guidance == "field"
        self._demos_apart = plain_fields or not {"{demos}", "{messages}"}.isdisjoint(strings)
        self._identity = "http:" + digest({"version": _VERSION, "params": _answering(params)}, 16)
        self._endpoint = params.endpoint_at(f"http:{urlsplit(params.endpoint).netloc.lower()}")

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def run(self, task: Task) -> Attempt:
        """Raises CallError."""
        import httpx

        p = self._params
        clock = Clock()
        body = self.body(task)
        try:
            url = httpx.URL(p.endpoint).copy_merge_params(self.query(task))
        except httpx.InvalidURL as error:
            raise BadRequest(f"the address for this question is not valid ({error}); send long texts in a body") from None
        headers = {"Accept": "application/json" if p.response_format == "json" else "text/plain, */*;q=0.1"} | self._headers
        content = None
        if body is not None:
            headers = {"Content-Type": "application/json"} | headers
            content = encoded(json.dumps(body, ensure_ascii=False, allow_nan=False), "the request")
        async with deadline(p.timeout, self._who):
            client = await wire.client()
            request = client.build_request(p.method, url, headers=headers, content=content)
            kind = p.content_type.lower() if p.response_format == "text" else None
            raw = await wire.send(client, request, max_bytes=p.max_bytes, content_type=kind)
        return attempt(self._text(raw), clock.usage(p), self._who)

    def body(self, task: Task) -> Json:
        """The JSON body for this task; None where there is none. Pure. Raises BadRequest for a setting that has no field."""
        p = self._params
        settings = dict(task.guidance.settings)
        if refused := no_place_for(settings, tuple(p.settings_fields), "the agent (settings_fields)"):
            raise refused
        if p.request_template is not None:
            body = _filled(p.request_template, self._values(task), self._lists(task))
        elif p.method == "GET":
            body = {}
        else:
            body = {p.prompt_field: self._values(task)["prompt"]}
            if p.guidance == "field":
                body |= {p.guidance_field: task.guidance.text, p.demos_field: demo_rows(task.guidance.demos)}
        for name, value in settings.items():
            _put(body, p.settings_fields[name].split("."), value)
        return body or None

    def query(self, task: Task) -> dict[str, str]:
        values = self._values(task)
        for name, value in self._params.query.items():
            encoded(fill(value, values), f"query.{name}")
        return {name: fill(value, values) for name, value in self._params.query.items()}

    def _values(self, task: Task) -> dict[str, str]:
        p = self._params
        return {
            "prompt": prompt_text(task, p, demos_apart=self._demos_apart),
            "question": task.question.text,
            "context": task.question.context,
            "guidance": guidance_text(task.guidance, p, demos_apart=self._demos_apart),
        }

    def _lists(self, task: Task) -> dict[str, list[Json]]:
        turns = chat_turns(task, self._params, system=self._params.system_prompt)
        return {"{demos}": [dict(row) for row in demo_rows(task.guidance.demos)], "{messages}": [dict(turn.to_json()) for turn in turns]}

    def _text(self, raw: bytes) -> str | None:
        if self._params.response_format == "json":
            return field(wire.json_body(raw, self._who), self._params.response_field, self._who) if raw.strip() else None
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise Garbled(f"{self._who} sent bytes that are not UTF-8") from None


def build(params: Mapping[str, Any], surroundings: Surroundings) -> Agent:
    return HttpAgent(load(HttpParams, params, surroundings.where), surroundings.where)


def _answering(params: HttpParams) -> dict[str, Any]:
    """The configuration that can change an answer. Values that look like keys stay out: a renewed key is the same agent."""
    shown = params.answering()
    for group in ("headers", "query"):
        shown[group] = {name: "" if _SECRET.search(name) else value for name, value in shown[group].items()}
    return shown | {"headers_env": sorted(params.headers_env), "max_bytes": None}


def _strings(value: Any) -> set[str]:
    """Every string value inside a JSON value."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {text for part in inner for text in _strings(part)}


def _filled(template: Any, values: Mapping[str, str], lists: Mapping[str, list[Json]]) -> Any:
    if isinstance(template, str):
        return lists[template] if template in lists else fill(template, values)
    if isinstance(template, dict):
        return {name: _filled(part, values, lists) for name, part in template.items()}
    if isinstance(template, list):
        return [_filled(part, values, lists) for part in template]
    return template


def _put(body: Any, path: list[str], value: Scalar) -> None:
    for key in path[:-1]:
        body[key] = dict(body.get(key) or {})
        body = body[key]
    body[path[-1]] = value
