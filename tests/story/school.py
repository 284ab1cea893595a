"""A school on loopback: a student behind an HTTP endpoint, a teacher and a reflection model behind the OpenAI protocol. All of them keep
what they were sent, byte for byte, so that a test can say what reached whom."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[dict[str, Any]], str]


@dataclass
class School:
    """What each of the three says to a request body, and what each was sent. headers: of every request."""

    student: Say = lambda body: "4"
    teacher: Say = lambda body: "<teaching>Think.</teaching>"
    reflection: Say = lambda body: "{}"
    address: str = ""
    sent: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"student": [], "teacher": [], "reflection": []})
    headers: list[dict[str, str]] = field(default_factory=list)
    refuse: bytes | None = None  # the body of a 401 for everybody
    fault: Callable[[dict[str, Any]], int | None] = lambda body: None  # the status of a failure, 0 for a connection that breaks

    def raw(self, who: str) -> str:
        """Everything one of them was sent, as JSON text with every character as it is."""
        return "\n".join(json.dumps(body, ensure_ascii=False) for body in self.sent[who])

    def asked(self, who: str) -> list[str]:
        """The last user turn of each request to a model."""
        return [str(body["messages"][-1]["content"]) for body in self.sent[who]]

    def model(self, who: str, **params: Any) -> dict[str, Any]:
        return {"provider": "openai.chat", "params": {"model": who, "base_url": f"{self.address}/{who}", **params}}

    def agent(self, **params: Any) -> dict[str, Any]:
        return {"provider": "http.api", "params": {"endpoint": f"{self.address}/student", **params}}

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        who = path.strip("/").split("/")[0]
        self.sent[who].append(body)
        if who == "student":
            return {"response": self.student(body)}
        text = {"teacher": self.teacher, "reflection": self.reflection}[who](body)
        message = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return {"choices": [message], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}


@contextmanager
def opened(school: School) -> Iterator[School]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            school.headers.append(dict(self.headers.items()))
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            fault = school.fault(body)
            if fault == 0:
                raise ConnectionError("down")
            if fault is not None:
                status, answer = fault, b"{}"
            elif school.refuse is not None:
                status, answer = 401, school.refuse
            else:
                status, answer = 200, json.dumps(school.answer(self.path, body)).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that was killed

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        school.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield school
        finally:
            server.shutdown()
            thread.join()
