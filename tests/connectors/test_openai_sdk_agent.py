"""The openai.sdk provider: agents of the OpenAI Agents SDK, run for real against servers on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import AgentCrashed, BadRequest, ConfigError, EmptyAnswer, MissingExtra, ServerFault
from gepa_atlas.llm.local import LocalModel
from gepa_atlas.ports import Agent, Previews
from gepa_atlas.testing.conformance import AgentConformance
from gepa_atlas.testing.scripted import ScriptedModel
from gepa_atlas.types import Attempt, Task
from tests.connectors.faults import Asked, Server, no_model, task
from tests.connectors.strict import fits, strictly_serving
from tests.llm.test_conformance import Echo

HERE = Path(__file__).parent
KEY = "correct-horse-battery-staple"


def agent(url: str, what: Any = "sdk_agents.py:geographer", **params: Any) -> Agent:
    given = {"agent": what, "model": "m", "base_url": url, "timeout": 20.0, **params}
    return build_agent(AgentSpec(provider="openai.sdk", params=given), build_model=no_model, base_dir=HERE)


def run(built: Agent, asked: Task | None = None) -> Attempt:
    return asyncio.run(built.run(asked or task()))


class Conformance(AgentConformance):
    api = "responses"
    secrets = (KEY,)

    @pytest.fixture(autouse=True)
    def _servers(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("A_KEY", KEY)
        with ExitStack() as stack:
            self._echo = stack.enter_context(strictly_serving(Echo()))
            failing = ScriptedModel(lambda request: ServerFault(f"lines\nand {KEY}"))
            self._failing = stack.enter_context(strictly_serving(failing))
            self._silent = stack.enter_context(strictly_serving(ScriptedModel(lambda request: "late", latency=30.0)))
            yield

    def at(self, url: str, **params: Any) -> Agent:
        return agent(url, api=self.api, api_key_env="A_KEY", **params)

    def make(self) -> Agent:
        return self.at(self._echo)

    def make_echo(self) -> Agent:
        return self.at(self._echo)

    def make_failing(self) -> Agent:
        return self.at(self._failing)

    def make_silent(self) -> Agent:
        return self.at(self._silent, timeout=0.3)


class TestOverResponses(Conformance):
    api = "responses"


class TestOverChat(Conformance):
    api = "chat"


@pytest.mark.local
@pytest.mark.parametrize("api", ["responses", "chat"])
def test_an_agent_on_the_embedded_model_answers_as_the_model_does(api: str, local_model: LocalModel) -> None:
    with strictly_serving(local_model) as url:
        shown = (("7 kilometres", "7 km"), ("31 metres", "31 m"), ("5 kilometres", "5 km"))
        asked = task("12 kilometres", "You write measurements with the symbol of their unit.", demos=shown)
        attempt = run(agent(url, api=api, max_tokens=40, temperature=0.0), asked)
    assert attempt.output == "12 km" and attempt.usage.calls == 1 and attempt.usage.tokens


@pytest.mark.parametrize(
    ("what", "more", "expected"),
    [
        ("sdk_agents.py:geographer", {}, "Better."),
        ("sdk_agents.py:geographer", {"replace_system": False}, "You know capitals.\n\nBetter."),
        ("sdk_agents.py:by_function", {"replace_system": False}, "I am by function.\n\nBetter."),
        ("sdk_agents.py:made", {"guidance": "suffix"}, "You were made."),
        ({"instructions": "Base."}, {"guidance": "turns"}, "Base."),
    ],
)
def test_guidance_stands_where_the_configuration_says_and_nothing_is_kept_at_the_server(
    what: Any, more: dict[str, Any], expected: str
) -> None:
    asked: list[tuple[str, Any]] = []
    with strictly_serving(Echo(), asked) as url:
        built = agent(url, what, **more)
        run(built, task("2?", "Better.", demos=(("1?", "1"),)))
    assert len(asked) == 1
    body = asked[0][1]
    assert body["instructions"] == expected and body["store"] is False and "previous_response_id" not in body
    question = "2?\n\nBetter." if more.get("guidance") == "suffix" else "2?"
    opening = [("user", "Better."), ("assistant", "Understood.")] if more.get("guidance") == "turns" else []
    turns = [(item["role"], item["content"]) for item in body["input"]]
    assert turns == [*opening, ("user", "1?"), ("assistant", "1"), ("user", question)]
    assert isinstance(built, Previews)
    shown = built.preview(task("2?", "Better.", demos=(("1?", "1"),)))
    assert [(t["role"], t["content"]) for t in shown["input"]] == turns
    assert shown["instructions"] in (expected, "(made by a function of the agent)")


# -- tools, hand-overs, structured output: a server that plays a model which uses them --------------------------------


def said(output: list[dict[str, Any]]) -> dict[str, Any]:
    usage = {
        "input_tokens": 3,
        "output_tokens": 2,
        "total_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    }
    usage["output_tokens_details"] = {"reasoning_tokens": 0}
    whole = {"id": "r", "object": "response", "created_at": 0, "model": "m", "status": "completed", "output": output, "usage": usage}
    whole |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    openai.types.responses.Response.model_validate(whole)
    return whole


def text(words: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": words, "annotations": []}
    return {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def plays(server: Server, *outputs: list[dict[str, Any]]) -> None:
    left = list(outputs)

    def answer(asked: Asked, sock: socket.socket) -> None:
        fits("/v1/responses", asked.json)
        raw = json.dumps(said(left.pop(0) if len(left) > 1 else left[0])).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode() + raw)

    server.answer = answer


def call(name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": "c",
        "type": "function_call",
        "name": name,
        "arguments": arguments,
        "call_id": f"call_{uuid.uuid4().hex}",
        "status": "completed",
    }


BUILT = {
    "name": "guide",
    "instructions": "Hand hard questions over.",
    "tools": ["sdk_agents.py:population"],
    "handoffs": [{"name": "expert", "instructions": "You know it all.", "handoff_description": "knows it all"}],
}


def test_tools_run_here_and_an_agent_hands_over(server: Server) -> None:
    plays(server, [call("population", '{"city": "Paris"}')], [call("transfer_to_expert", "{}")], [text("2.1 million")])
    attempt = run(agent(server.url, BUILT, price={"input": 1.0, "output": 1.0}), task("How many people live in Paris?", "Ask the expert."))
    assert attempt.output == "2.1 million"
    assert (attempt.usage.calls, attempt.usage.tokens, attempt.usage.dollars) == (3, 15, pytest.approx(15e-6))
    first, second, third = (asked.json for asked in server.asked)
    assert {tool["name"] for tool in first["tools"]} == {"population", "transfer_to_expert"}
    assert [item["output"] for item in second["input"] if item.get("type") == "function_call_output"] == ["2100000"]
    assert (first["instructions"], third["instructions"]) == ("Ask the expert.", "You know it all.")


def test_a_structured_output_and_a_field_in_it(server: Server) -> None:
    plays(server, [text('{"name": "Paris", "people": 2100000}')])
    assert json.loads(str(run(agent(server.url, "sdk_agents.py:structured")).output)) == {"name": "Paris", "people": 2100000}
    assert run(agent(server.url, "sdk_agents.py:structured", response_field="name")).output == "Paris"


def test_runs_without_an_answer(server: Server) -> None:
    plays(server, *([call("population", '{"city": "Paris"}')] for _ in range(3)))
    with pytest.raises(AgentCrashed, match="max_turns"):
        run(agent(server.url, BUILT, max_turns=2))
    assert len(server.asked) == 2
    plays(server, [call("no_such_tool", "{}")])
    with pytest.raises(AgentCrashed, match="no_such_tool"):
        run(agent(server.url, BUILT))
    plays(server, [text(" ")])
    with pytest.raises(EmptyAnswer):
        run(agent(server.url, BUILT))
    plays(server, [text("not json")])
    with pytest.raises(AgentCrashed, match="Invalid JSON"):
        run(agent(server.url, "sdk_agents.py:structured"))
    with pytest.raises(BadRequest, match="'top_p'"):
        run(agent(server.url), task(top_p=1))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"agent": "sdk_agents.py:not_an_agent"}, "is a str; it must be a Agent"),
        ({"agent": "sdk_agents.py:nobody"}, "has no 'nobody'"),
        ({"agent": {"instuctions": "x"}}, "instuctions"),
        ({"agent": {"tools": ["sdk_agents.py:nobody"]}}, r"agent\.tools\.0"),
        ({"guidance": "field"}, "has no fields"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
    ],
)
def test_wrong_params_are_one_line(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        agent("http://127.0.0.1:1/v1", params.pop("agent", "sdk_agents.py:geographer"), **params)
    assert "\n" not in str(caught.value)


def test_without_the_package_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"gepa-atlas\[agents\]"):
        agent("http://127.0.0.1:1/v1")
