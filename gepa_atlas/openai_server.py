"""A server that speaks the OpenAI protocol, as every client of one configures and reaches it: address, key, price, one attempt."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from gepa_atlas import wire
from gepa_atlas.endpoints import EndpointLimits
from gepa_atlas.ports import Endpoint
from gepa_atlas.secrets import reveal
from gepa_atlas.settings import Settings
from gepa_atlas.types import Usage

BASE_URL_ENV = "OPENAI_BASE_URL"  # as in OpenAI's own clients: the address where the configuration names none


class Price(Settings):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def of(self, usage: Usage) -> float | None:
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        return (self.input * usage.input_tokens + self.output * usage.output_tokens) / 1e6


class OpenAIServer(EndpointLimits):
    """Keys of every provider of the OpenAI protocol. The key's variable is named, its value read when a request is sent."""

    base_url: str = Field(default_factory=lambda: os.environ.get(BASE_URL_ENV) or "https://api.openai.com/v1")
    api_key_env: str | None = None  # name of the variable that holds the key; none is sent without it
    headers: dict[str, str] = Field(default_factory=dict)  # values may hold ${ENV}
    price: Price | None = None  # without it the dollars of a call are unknown
    max_bytes: int = Field(default=wire.MAX_BYTES, ge=1)

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("base_url must start with http:// or https://")
        if "?" in value or "#" in value or "@" in value.split("/")[2]:
            raise ValueError("base_url must have no user, query or fragment; give keys by api_key_env or headers")
        wire.check_address(value)
        return value.rstrip("/")

    @property
    def place(self) -> str:
        """The address as messages and identities show it."""
        return wire.place(self.base_url)

    def endpoint(self) -> Endpoint:
        return self.endpoint_at(self.place)

    def check_secrets(self, where: str) -> None:
        """A secret that is not there is found before anything is spent. Raises ConfigError."""
        self._headers(where)

    async def call(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        where: str,
        *,
        method: Literal["POST", "GET", "DELETE"] = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The decoded answer to one request. Raises CallError."""
        client = await wire.client()
        content = None if body is None else json.dumps(body).encode()  # ASCII: a lone surrogate is the server's to refuse
        given = self._headers(where) | dict(headers or {})
        message = client.build_request(method, self.base_url + path, content=content, headers=given)
        raw = await wire.send(client, message, max_bytes=self.max_bytes, timeout=self.timeout)
        return wire.json_body(raw, wire.place(self.base_url + path))

    def shown(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request of `call` as `check` shows it: headers by name, the body in full."""
        names = sorted({"content-type", *(name.lower() for name in self.headers), *(["authorization"] if self.api_key_env else [])})
        return {"method": "POST", "url": wire.place(self.base_url + path), "headers": names, "body": dict(body)}

    def _headers(self, where: str) -> dict[str, str]:
        headers = {"content-type": "application/json"} | wire.reveal_headers(self.headers, f"{where}.headers")
        if self.api_key_env is not None:
            headers["authorization"] = f"Bearer {reveal(self.api_key_env, f'{where}.api_key_env')}"
        return headers
