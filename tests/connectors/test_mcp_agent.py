"""The mcp provider with a real server, over stdin and stdout and over HTTP."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import AgentCrashed, BadRequest, CallTimeout, ConfigError, EmptyAnswer, Garbled, MissingExtra, TooLarge, Unreachable
from gepa_atlas.ports import Agent, Previews
from gepa_atlas.testing.conformance import AgentConformance
from gepa_atlas.types import Attempt, Task
from tests.connectors.faults import no_model, task

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, str(HERE / "mcp_server.py"), str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()
            process.wait(20)


def agent(tool: str, url: str | None = None, **params: Any) -> Agent:
    server: dict[str, Any] = {"url": url} if url is not None else {"argv": ["{python}", "mcp_server.py"]}
    given = {**server, "tool": tool, "timeout": 30.0, **params}
    return build_agent(AgentSpec(provider="mcp", params=given), build_model=no_model, base_dir=HERE)


def run(built: Agent, asked: Task | None = None) -> Attempt:
    return asyncio.run(built.run(asked or task()))


class TestOverHttp(AgentConformance):
    @pytest.fixture(autouse=True)
    def _server(self, url: str) -> None:
        self._url = url

    def make(self) -> Agent:
        return agent("echo", self._url)

    def make_echo(self) -> Agent:
        return agent("echo", self._url)

    def make_failing(self) -> Agent:
        return agent("fail", self._url)

    def make_silent(self) -> Agent:
        return agent("hang", self._url, timeout=0.5)


def test_a_server_started_for_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hidden")
    monkeypatch.setenv("WANTED", "yes")
    arguments = {"question": "{question}", "guidance": "{guidance}", "demos": "{demos}"}
    built = agent("parts", guidance="field", arguments=arguments, response_field="answer.text")
    asked = task("2?", "Better.", demos=(("1?", "1"),))
    assert run(built, asked).output == "2?|Better.|[{'question': '1?', 'answer': '1'}]"
    assert isinstance(built, Previews)
    assert built.preview(asked)["arguments"] == {"question": "2?", "guidance": "Better.", "demos": [{"question": "1?", "answer": "1"}]}
    shown = str(run(agent("environment", env=["WANTED"])).output).split()
    assert "WANTED" in shown and "SOME_API_KEY" not in shown


def test_a_server_that_crashes_half_way_or_is_not_there() -> None:
    with pytest.raises(Unreachable):
        run(agent("crash"))
    with pytest.raises(Unreachable):
        run(agent("echo", argv=["/nowhere/server"]))
    with pytest.raises(Unreachable):
        run(agent("echo", "http://127.0.0.1:1/mcp"))


def test_what_fails_and_why(url: str) -> None:
    for tool, kind, says in (
        ("fail", AgentCrashed, "the database is down"),
        ("flood", TooLarge, "max_bytes"),
        ("nothing", EmptyAnswer, "answered nothing"),
        ("no_such_tool", (AgentCrashed, BadRequest), "no_such_tool"),
    ):
        with pytest.raises(kind, match=says) as caught:  # type: ignore[call-overload]
            run(agent(tool, url))
        assert "\n" not in str(caught.value)
    with pytest.raises(CallTimeout):
        run(agent("hang", url, timeout=0.5))
    with pytest.raises(Garbled, match="'other'"):
        run(agent("echo", url, response_field="other"))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"argv": ["x"], "url": "http://x/mcp"}, "either argv"),
        ({"argv": ["x"], "headers": {"A": "b"}}, "headers are for a server at a url"),
        ({"arguments": {"text": "fixed"}}, '"{prompt}" or "{question}"'),
        ({"argumnts": {}}, "did you mean 'arguments'"),
    ],
)
def test_wrong_params_are_one_line(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        agent("echo", **params)


def test_without_the_package_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"gepa-atlas\[mcp\]"):
        agent("echo")
