"""The Responses API in front of a ChatModel, as `gepa_atlas.llm.serve` speaks it: text in, text out, one response for each request."""

from __future__ import annotations

import time
from typing import Any, Literal

from gepa_atlas.errors import BadRequest
from gepa_atlas.ports import ChatRequest, Completion
from gepa_atlas.types import Message, canonical, digest

_READ = {"model", "input", "instructions", "max_output_tokens", "temperature", "text"}
_HARMLESS = {"store", "metadata", "user", "include", "truncation", "parallel_tool_calls", "prompt_cache_key", "safety_identifier"}
_DEFAULTS = {"stream": False, "background": False, "tools": [], "tool_choice": "auto", "reasoning": None, "previous_response_id": None}
_TEXTS = ("input_text", "output_text")
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def parse_responses(body: dict[str, Any]) -> ChatRequest:
    """The request of a body. BadRequest for what is not served, rather than an answer to another question."""
    for name, value in body.items():
        if name not in _READ | _HARMLESS and not (name in _DEFAULTS and value in (None, _DEFAULTS[name])):
            raise BadRequest(f"`{name}` is not served with this value")
    given = body["input"]
    turns = [Message("user", given)] if isinstance(given, str) else [_turn(item) for item in given]
    head = [Message("system", body["instructions"])] if body.get("instructions") else []
    form = (body.get("text") or {}).get("format") or {"type": "text"}
    schema = None if form["type"] == "text" else canonical(form["schema"] if form["type"] == "json_schema" else {"type": "object"})
    return ChatRequest(
        messages=(*head, *turns),
        max_tokens=int(body.get("max_output_tokens") or 512),
        temperature=float(body.get("temperature") or 0.0),
        json_schema=schema,
    )


def _turn(item: dict[str, Any]) -> Message:
    if item.get("type", "message") != "message" or item["role"] not in _ROLES:
        raise BadRequest(f"an input item of type {item.get('type')!r} and role {item.get('role')!r} is not served")
    content = item["content"]
    if not isinstance(content, str):
        if any(part["type"] not in _TEXTS for part in content):
            raise BadRequest("only text is served")
        content = "".join(part["text"] for part in content)
    return Message(_ROLES[item["role"]], content)


def render_response(completion: Completion, body: dict[str, Any]) -> dict[str, Any]:
    """The response; one that has no text has no message in it, as OpenAI's reasoning models do."""
    usage, cut = completion.usage, completion.finish == "length"
    key = digest([canonical(body), completion.text], 16)
    part = {"type": "output_text", "text": completion.text, "annotations": [], "logprobs": []}
    status = "incomplete" if cut else "completed"
    message = {"id": f"msg_{key}", "type": "message", "role": "assistant", "status": status, "content": [part]}
    return {
        "id": f"resp_{key}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "model": str(body["model"]),
        "output": [message] if completion.text else [],
        "parallel_tool_calls": True,
        "temperature": body.get("temperature"),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "max_output_tokens": body.get("max_output_tokens"),
        "previous_response_id": None,
        "usage": {
            "input_tokens": usage.input_tokens or 0,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.output_tokens or 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.tokens or 0,
        },
    }
