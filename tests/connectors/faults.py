"""A server on loopback that misbehaves on request, tasks, and texts that break careless programs."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gepa_atlas.types import Demo, Guidance, Question, Task

HOSTILE = {
    "shell": "\"; touch {marker}; $(id) `id` '{x}' | & > /dev/null",
    "braces": "{question} {prompt} {guidance} {demos} {messages} {0} {} {{x}} {x.__class__} {x!r:>99} ${HOME} %s %(a)s",
    "lines": "one\ntwo\r\nthree\rfour\n\n\tfive\u2028six\\n",
    "emoji": "naïve 🙂 👩‍👩‍👧 \u202eabc שלום ﷽ z\u0301",
    "quotes": "'\"`´„“\\'\\\"</script><!-- ]]> -- --version",
    "long": "0123456789 äöü {x}\n" * 5_000,
}


def task(
    question: str = "What is 2 + 2?", text: str = "", *, context: str = "", demos: tuple[tuple[str, str], ...] = (), **settings: Any
) -> Task:
    shown = tuple(Demo(f"d{i}", q, a) for i, (q, a) in enumerate(demos))
    return Task(Question("q1", question, context), Guidance(text, shown, tuple(settings.items())))


@dataclass
class Asked:
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body.decode("utf-8"))


@dataclass
class Server:
    """`answer` gets the request and the socket, and writes whatever bytes it likes."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    answer: Callable[[Asked, socket.socket], None] = lambda asked, sock: None
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/agent"

    def says(self, body: bytes | str | dict[str, Any], status: str = "200 OK", kind: str = "application/json", **headers: str) -> None:
        raw = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\n{more}Connection: close\r\n\r\n"
        self.answer = lambda asked, sock: sock.sendall(head.encode() + raw)

    def hangs(self, first: bytes = b"") -> None:
        def hang(asked: Asked, sock: socket.socket) -> None:
            sock.sendall(first)
            self.over.wait(30)

        self.answer = hang


@contextlib.contextmanager
def misbehaving() -> Iterator[Server]:
    told = Server()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline().decode("latin-1").strip()
            headers: dict[str, str] = {}
            while (raw := self.rfile.readline().decode("latin-1").strip()) != "":
                name, _, value = raw.partition(":")
                headers[name.lower()] = value.strip()
            asked = Asked(line, headers, self.rfile.read(int(headers.get("content-length", "0"))))
            told.asked.append(asked)
            with contextlib.suppress(OSError):  # the client went away: what several tests are about
                told.answer(asked, self.request)

    class Threads(socketserver.ThreadingMixIn, socketserver.TCPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Threads(("127.0.0.1", 0), Handler) as listening:
        told.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        told.over.set()
        listening.shutdown()
        thread.join()


def no_model(spec: Any) -> Any:
    raise AssertionError("this provider needs no model")
