"""Any ChatModel behind the OpenAI protocol on loopback, so that agents in other processes and languages can reach it.

Serves POST /v1/chat/completions, /v1/completions and /v1/responses, and GET /v1/models. Not a gateway: no key, no stream, 127.0.0.1
only.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from gepa_atlas.errors import (
    AuthRefused,
    BadRequest,
    CallError,
    CallTimeout,
    Garbled,
    NotFound,
    RateLimited,
)
from gepa_atlas.llm.serve_responses import parse_responses, render_response
from gepa_atlas.ports import ChatModel, ChatRequest, Completion
from gepa_atlas.types import Message, canonical

_MAX_BODY = 4 * 1024 * 1024
_NAME = "local"
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


@contextmanager
def serving(model: ChatModel, *, port: int = 0, handler: type[Handler] | None = None) -> Iterator[str]:
    """Serve `model` until the block ends; yields the base URL, such as http://127.0.0.1:43210/v1. `handler` may know further paths."""
    loop = asyncio.new_event_loop()
    runner = threading.Thread(target=loop.run_forever, name="serve-model", daemon=True)
    runner.start()
    server = _Server(("127.0.0.1", port), handler or Handler)
    server.model, server.loop = model, loop
    listener = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="serve-http", daemon=True)
    listener.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        runner.join(10)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False
    model: ChatModel
    loop: asyncio.AbstractEventLoop


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET", {})

    def do_DELETE(self) -> None:
        self._answer("DELETE", {})

    def do_POST(self) -> None:
        size = self.headers.get("content-length", "")
        if not size.isdigit() or int(size) > _MAX_BODY:
            self.close_connection = True
            return self._fail(413, f"a request needs a content-length of at most {_MAX_BODY}")
        raw = self.rfile.read(int(size))
        try:
            body = json.loads(raw) if raw else {}
        except ValueError as error:
            return self._fail(400, f"cannot read the request: {error}")
        self._answer("POST", body)

    def _answer(self, method: str, body: dict[str, Any]) -> None:
        try:
            answer = self.answer(method, self.path, body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self._fail(400, f"cannot read the request: {type(error).__name__}: {error}")
        except CancelledError:
            self.close_connection = True  # the serving block has ended
            return
        except CallError as error:
            return self._fail(_status(error), str(error))
        self._reply(200, answer)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises NotFound for a path that is not served, BadRequest for a body, CallError of the model."""
        name = str(body.get("model", _NAME))
        if (method, path) == ("POST", "/v1/responses"):
            return render_response(self.ask(parse_responses(body)), body)
        if method == "POST" and path in ("/v1/chat/completions", "/v1/completions"):
            request = parse_request(body, chat := path == "/v1/chat/completions")
            return render(self.ask(request), request, chat, name)
        if (method, path.rstrip("/")) == ("GET", "/v1/models"):
            return {"object": "list", "data": [{"id": _NAME, "object": "model", "created": 0, "owned_by": "gepa_atlas"}]}
        raise NotFound(f"no such path: {path}")

    def ask(self, request: ChatRequest) -> Completion:
        return asyncio.run_coroutine_threadsafe(_answer(self.server.model, request), self.server.loop).result()

    def _fail(self, status: int, message: str) -> None:
        kind = "invalid_request_error" if status < 500 else "server_error"
        self._reply(status, {"error": {"message": message, "type": kind, "param": None, "code": None}})

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except ConnectionError:
            self.close_connection = True  # the client is gone; there is nobody to tell


async def _answer(model: ChatModel, request: ChatRequest) -> Completion:
    try:
        async with asyncio.timeout(model.endpoint.timeout):
            return await model.complete(request)
    except TimeoutError:
        raise CallTimeout(f"no answer within {model.endpoint.timeout:g} seconds") from None


def parse_request(body: dict[str, Any], chat: bool) -> ChatRequest:
    """The request of an OpenAI body. BadRequest for what is not served, rather than an answer to another question."""
    if body.get("stream") or body.get("n", 1) not in (None, 1):
        raise BadRequest("`stream` and `n` above 1 are not served")
    stop = body.get("stop") or []
    schema = None
    if (wanted := body.get("response_format")) is not None and wanted["type"] != "text":
        schema = canonical(wanted["json_schema"]["schema"] if wanted["type"] == "json_schema" else {"type": "object"})
    prompt = None if chat else body["prompt"]
    if not chat and not isinstance(prompt, str):
        raise BadRequest("`prompt` must be one string")
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 512
    asked = body.get("top_logprobs") if chat else body.get("logprobs")
    return ChatRequest(
        messages=tuple(_message(m) for m in body["messages"]) if chat else (),
        prompt=prompt,
        max_tokens=int(limit),
        temperature=float(body.get("temperature") or 0.0),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=int(body.get("seed") or 0),
        json_schema=schema,
        top_logprobs=int(asked or 0),
    )


def _message(row: dict[str, Any]) -> Message:
    content = row["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    if row["role"] not in _ROLES or not isinstance(content, str):
        raise BadRequest(f"a message of role {row['role']!r} is not served")
    return Message(_ROLES[row["role"]], content)


def render(completion: Completion, request: ChatRequest, chat: bool, name: str) -> dict[str, Any]:
    """The OpenAI response; log-probabilities are those of the first token, all that a ChatModel reports."""
    usage = completion.usage
    choice: dict[str, Any] = {"index": 0, "finish_reason": completion.finish, "logprobs": None}
    top = completion.logprobs if request.top_logprobs else ()
    if chat:
        choice["message"] = {"role": "assistant", "content": completion.text}
        if top:
            rows = [{"token": t, "logprob": p, "bytes": list(t.encode("utf-8", "replace"))} for t, p in top]
            choice["logprobs"] = {"content": [rows[0] | {"top_logprobs": rows}]}
    else:
        choice["text"] = completion.text
        if top:
            choice["logprobs"] = {"tokens": [top[0][0]], "token_logprobs": [top[0][1]], "top_logprobs": [dict(top)]}
    return {
        "id": "local",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": name,
        "choices": [choice],
        "usage": {
            "prompt_tokens": usage.input_tokens or 0,
            "completion_tokens": usage.output_tokens or 0,
            "total_tokens": usage.tokens or 0,
        },
    }


def _status(error: CallError) -> int:
    known = {BadRequest: 400, AuthRefused: 401, NotFound: 404, CallTimeout: 504, RateLimited: 429, Garbled: 502}
    return next((status for kind, status in known.items() if isinstance(error, kind)), 500)
