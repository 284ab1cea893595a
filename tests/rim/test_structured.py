"""Judges over real servers: JSON is asked for as far as a server can, near-JSON is repaired, what cannot be read is asked once more."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.rim.reward import RIMReward
from tests.connectors.faults import Asked, misbehaving

GOOD = json.dumps({"principles": ["p"], "rationale": "so", "score": 0.75, "uncertainty": 0.1})
NEAR = "Here you are:\n```json\n{'principles': ['p'], 'rationale': 'so', 'score': 0.75, 'uncertainty': 0.1,}\n```"


@dataclass
class Vendor:
    """A model server that takes some forms of `response_format`; `replies` are given in turn, the last one for ever."""

    takes: tuple[str, ...] = ("json_schema", "json_object", "none")
    replies: list[str] = field(default_factory=lambda: [GOOD])
    url: str = ""
    forms: list[str] = field(default_factory=list)

    def answer(self, asked: Asked, sock: socket.socket) -> None:
        form = (asked.json.get("response_format") or {"type": "none"})["type"]
        self.forms.append(form)
        if form not in self.takes:
            body, status = (
                {"error": {"message": f"'response_format' of type '{form}' is not supported with this model."}},
                "400 Bad Request",
            )
        else:
            text = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            body, status = (
                {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [message], "usage": usage},
                "200 OK",
            )
        raw = json.dumps(body).encode()
        sock.sendall(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode() + raw
        )


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with misbehaving() as server:
        told = Vendor(url=f"http://127.0.0.1:{server.port}/v1")
        server.answer = told.answer
        yield told


def judging(vendor: Vendor, **params: Any) -> RIMReward:
    model = {"provider": "openai.chat", "params": {"model": "m", "base_url": vendor.url, **params}}
    return RIMReward(config={"judges": [{"type": "llm", "model": model}], "concurrency": 1})


LADDER = pytest.mark.parametrize(
    ("takes", "forms"),
    [
        (("json_schema", "json_object", "none"), ["json_schema", "json_schema"]),
        (("json_object", "none"), ["json_schema", "json_object", "json_object"]),
        (("none",), ["json_schema", "json_object", "none", "none"]),
    ],
)


@LADDER
def test_json_is_asked_for_as_far_as_the_server_can(vendor: Vendor, takes: tuple[str, ...], forms: list[str]) -> None:
    vendor.takes, vendor.replies = takes, [GOOD, NEAR]
    with judging(vendor) as rim:
        assert rim(["q", "q"], ["one", "two"]) == [0.75, 0.75]  # the second reply is near-JSON, and read without another call
    assert vendor.forms == forms  # what was refused once is not asked again


def test_a_reply_without_a_score_is_asked_once_more(vendor: Vendor) -> None:
    vendor.replies = ["I would say it is good.", GOOD]
    with judging(vendor) as rim:
        e = rim.evaluate("q", "one")
    assert e.score == 0.75 and len(vendor.forms) == 2 and e.extra["info"]["usage"]["llm"]["calls"] == 2
    vendor.replies = ["I would say it is good."]
    with judging(vendor) as rim:
        missing = rim.evaluate("q", "one").extra["info"]["missing"]
    assert missing["kind"] == "garbled" and len(vendor.forms) == 4


def test_the_form_can_be_fixed(vendor: Vendor) -> None:
    with judging(vendor, structured="json_object") as rim:
        assert rim.evaluate("q", "one").score == 0.75
    vendor.takes = ("none",)
    with judging(vendor, structured="json_schema") as rim:
        assert rim.evaluate("q", "one").extra["info"]["missing"]["kind"] == "bad_request"
    assert vendor.forms == ["json_object", "json_schema"]
    with pytest.raises(ConfigError, match="structured"):
        judging(vendor, structured="xml")


def test_another_refusal_is_not_taken_for_one_of_the_form(vendor: Vendor) -> None:
    def refuses(asked: Asked, sock: socket.socket) -> None:
        vendor.forms.append("asked")
        raw = b'{"error": {"message": "context length exceeded"}}'
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(raw) + raw)

    with misbehaving() as server:
        server.answer = refuses
        vendor.url = f"http://127.0.0.1:{server.port}/v1"
        with judging(vendor) as rim:
            assert rim.evaluate("q", "one").extra["info"]["missing"]["kind"] == "bad_request"
    assert vendor.forms == ["asked"]
