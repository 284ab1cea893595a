"""The keys of the `http.api` provider, and what they must have in common for a request to carry all that it should."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gepa_atlas import wire
from gepa_atlas.addresses import host_of
from gepa_atlas.connectors.answers import FieldPath, OpaqueParams
from gepa_atlas.connectors.templates import check_reach, strings_in
from gepa_atlas.secrets import remember
from gepa_atlas.settings import Settings

SECRET = re.compile(r"auth|key|token|secret|passw|cookie|credential|signature", re.IGNORECASE)
SESSION = "{session}"


class StreamParams(Settings):
    """With `response_format: sse`: which events carry the answer, and which one ends it."""

    event: str | None = None  # events of this name only; none: every event
    data: Literal["json", "text"] = "json"  # json: response_field is looked up in each event, and one without it adds nothing
    end: str | None = None  # name or data of the event that ends an answer ("[DONE]"); a stream without it is half an answer


class ResetParams(Settings):
    """A call made before each request, for services that remember: on the same host, with the same headers.

    "{session}" in it and in the request is an id of our own for each run, or with `session_field` the one the service answers.
    """

    endpoint: str
    method: Literal["POST", "PUT", "PATCH", "GET", "DELETE"] = "POST"
    body: dict[str, Any] | None = None
    session_field: FieldPath | None = None


class HttpParams(OpaqueParams):
    """Without `request_template` the body is {prompt_field: prompt}, and with `guidance: field` also the guidance and the demos.

    Placeholders inside the strings of `request_template`, at any depth, and `query`: {prompt} {question} {context} {guidance} and,
    with `reset`, {session}; a string that is exactly "{demos}" or "{messages}" (the whole request as chat turns) becomes a list.
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
    response_format: Literal["json", "text", "sse"] = "json"
    response_field: FieldPath = "response"  # dotted path (numbers are list indexes) or JSONPath ($...)
    stream: StreamParams = StreamParams()
    reset: ResetParams | None = None
    redirects: Literal["refuse", "same_host"] = "refuse"
    private_addresses: Literal["allow", "refuse"] = "allow"  # refuse: the host must be at public addresses only
    content_type: str = "text/plain"  # of an answer with response_format: text; with json the body itself decides

    def answering(self, *also_without: str) -> dict[str, Any]:
        """Values that look like keys stay out: a renewed key is the same agent."""
        shown = super().answering("headers_env", "private_addresses", *also_without)
        for group in ("headers", "query"):
            shown[group] = {name: "" if SECRET.search(name) else value for name, value in shown[group].items()}
        return shown | {"headers_env": sorted(self.headers_env)}

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

    @model_validator(mode="after")
    def _one_conversation(self) -> HttpParams:
        own = SESSION in self.endpoint or any(SESSION in text for text in strings_in([self.request_template, self.query]))
        if self.reset is None:
            if own:
                raise ValueError('"{session}" is an id that `reset` makes for each run; configure reset, or write the id itself')
            return self
        if host_of(self.reset.endpoint) != host_of(self.endpoint):
            raise ValueError("reset.endpoint must be on the host of endpoint, since it is sent the same headers")
        if not own and self.max_concurrency != 1:
            raise ValueError('reset without "{session}" in the request clears one conversation for all: set max_concurrency: 1')
        return self

    @field_validator("headers", "headers_env")
    @classmethod
    def _not_the_framing(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in ("content-length", "transfer-encoding"):
                raise ValueError(f"{name} follows from each body and cannot be set; remove it")
        return headers

    @model_validator(mode="after")
    def _each_key_is_read(self) -> HttpParams:
        for name in ("prompt_field", "guidance_field", "demos_field"):
            if self.request_template is not None and name in self.model_fields_set:
                raise ValueError(f"request_template is the whole body, so {name} is not read; remove one of them")
        return self

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
        strings = strings_in([self.request_template, self.query])
        if self.request_template is not None or self.method == "GET" or self.guidance in ("system", "turns"):
            check_reach(strings, self.guidance, "request_template (query, for GET)")
        return self
