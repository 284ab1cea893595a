"""The connectors sit the exam of agents with real functions, processes and a real server on loopback."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.ports import Agent, ChatModel
from gepa_atlas.testing.conformance import AgentConformance
from gepa_atlas.testing.scripted import ScriptedModel
from gepa_atlas.testing.toyworld import toy_model

FUNCTIONS = """
import time

def echo(prompt):
    return prompt

async def answer(prompt):
    return "Paris"

def fail(prompt):
    raise RuntimeError("the database is down")

def hang(prompt):
    time.sleep(2)
    return "too late"
"""
COMMANDS = {
    "echo.py": "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())",
    "fail.py": "import sys; print('partial answer'); print('the database is down', file=sys.stderr); sys.exit(3)",
    "hang.py": "import time; time.sleep(60)",
}


def no_model(spec: Any) -> ChatModel:
    raise AssertionError("this agent asks for no model")


class Files:
    """A directory with the agents' code, for as long as a class is tested."""

    place: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def setup_class(cls) -> None:
        cls.place = tempfile.TemporaryDirectory()
        (Path(cls.place.name) / "functions.py").write_text(FUNCTIONS)
        for name, code in COMMANDS.items():
            (Path(cls.place.name) / name).write_text(code)

    @classmethod
    def teardown_class(cls) -> None:
        cls.place.cleanup()

    def agent(self, provider: str, **params: Any) -> Agent:
        return build_agent(AgentSpec(provider=provider, params=params), build_model=no_model, base_dir=Path(self.place.name))


class TestCallable(Files, AgentConformance):
    def make(self) -> Agent:
        return self.agent("python.callable", callable="functions.py:answer")

    def make_echo(self) -> Agent:
        return self.agent("python.callable", callable="functions.py:echo")

    def make_failing(self) -> Agent:
        return self.agent("python.callable", callable="functions.py:fail")

    def make_silent(self) -> Agent:
        return self.agent("python.callable", callable="functions.py:hang", timeout=0.2)


class TestCommand(Files, AgentConformance):
    def make(self) -> Agent:
        return self.make_echo()

    def make_echo(self) -> Agent:
        return self.agent("cli.command", argv=[sys.executable, "echo.py"])

    def make_failing(self) -> Agent:
        return self.agent("cli.command", argv=[sys.executable, "fail.py"])

    def make_silent(self) -> Agent:
        return self.agent("cli.command", argv=[sys.executable, "hang.py"], timeout=0.5)


class Service(BaseHTTPRequestHandler):
    """/echo sends the prompt back, /fail says so in a page of text, /hang waits until the server stops."""

    over = threading.Event()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/hang":
            self.over.wait(30)
            return
        ok = self.path == "/echo"
        answer = json.dumps({"response": body["prompt"]} if ok else {"response": "Internal error, please call us"}).encode()
        self.send_response(200 if ok else 500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


class TestHttp(Files, AgentConformance):
    secrets = ("hunter2-hunter2",)
    server: ClassVar[ThreadingHTTPServer]

    @classmethod
    def setup_class(cls) -> None:
        super().setup_class()
        Service.over.clear()
        cls.server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=cls.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @classmethod
    def teardown_class(cls) -> None:
        Service.over.set()
        cls.server.shutdown()
        cls.server.server_close()
        super().teardown_class()

    def at(self, path: str, **params: Any) -> Agent:
        headers = {"X-Api-Key": self.secrets[0]}
        return self.agent("http.api", endpoint=f"http://127.0.0.1:{self.server.server_port}{path}", headers=headers, **params)

    def make(self) -> Agent:
        return self.make_echo()

    def make_echo(self) -> Agent:
        return self.at("/echo")

    def make_failing(self) -> Agent:
        return self.at("/fail")

    def make_silent(self) -> Agent:
        return self.at("/hang", timeout=0.5)


class TestChat(AgentConformance):
    def chat(self, model: ChatModel) -> Agent:
        return build_agent(AgentSpec(provider="chat", params={"model": "scripted"}), build_model=lambda spec: model)

    def make(self) -> Agent:
        return self.chat(ScriptedModel(lambda request: "Paris"))

    def make_echo(self) -> Agent:
        return self.chat(ScriptedModel(lambda request: "\n".join(m.content for m in request.messages)))

    def make_failing(self) -> Agent:
        return self.chat(toy_model({"faults": {"rate": 1.0}}))


class TestToyProvider(AgentConformance):
    def make(self) -> Agent:
        return build_agent(AgentSpec(provider="toyworld", params={"world": {"seed": 3}}), build_model=no_model)
