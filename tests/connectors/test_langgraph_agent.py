"""The langgraph provider with real graphs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import AgentCrashed, BadRequest, ConfigError, Garbled, MissingExtra
from gepa_atlas.ports import Agent, Previews
from gepa_atlas.testing.conformance import AgentConformance
from gepa_atlas.types import Attempt, Task
from tests.connectors.faults import no_model, task

HERE = Path(__file__).parent


def agent(name: str, **params: Any) -> Agent:
    given = {"graph": f"graphs.py:{name}", "timeout": 20.0, **params}
    return build_agent(AgentSpec(provider="langgraph", params=given), build_model=no_model, base_dir=HERE)


def run(built: Agent, asked: Task | None = None) -> Attempt:
    return asyncio.run(built.run(asked or task()))


class TestGraph(AgentConformance):
    def make(self) -> Agent:
        return agent("echo")

    def make_echo(self) -> Agent:
        return agent("echo")

    def make_failing(self) -> Agent:
        return agent("broken")

    def make_silent(self) -> Agent:
        return agent("hanging", timeout=0.2)


@pytest.mark.local
def test_a_graph_on_the_embedded_model() -> None:
    shown = (("7 kilometres", "7 km"), ("31 metres", "31 m"), ("5 kilometres", "5 km"))
    attempt = run(agent("model"), task("12 kilometres", "You write measurements with the symbol of their unit.", demos=shown))
    assert attempt.output == "12 km" and attempt.usage.tokens


def test_guidance_demonstrations_and_fields() -> None:
    asked = task("2?", "Better.", demos=(("1?", "1"),))
    assert run(agent("echo", system_prompt="Base."), asked).output == "Better.\n1?\n1\n2?"
    assert run(agent("echo", system_prompt="Base.", guidance="suffix"), asked).output == "Base.\n1?\n1\n2?\n\nBetter."
    apart = {"guidance": "field", "input": {"question": "{question}", "hint": "<{guidance}>"}, "response_field": "answer"}
    built = agent("fields", **apart)
    assert run(built, task("2?", "Better.")).output == "2?|<Better.>"
    assert isinstance(built, Previews) and built.preview(task("2?", "Better."))["input"] == {"question": "2?", "hint": "<Better.>"}


def test_each_run_has_a_thread_of_its_own() -> None:
    built = agent("remembering")
    assert [run(built, task(q)).output for q in ("a", "b")] == ["a", "b"]


def test_what_fails_and_why() -> None:
    with pytest.raises(AgentCrashed, match="RuntimeError: the database is down"):
        run(agent("broken"))
    with pytest.raises(AgentCrashed, match="within 5 steps"):
        run(agent("forever", recursion_limit=5))
    with pytest.raises(Garbled, match="'answer'"):
        run(agent("echo", response_field="answer"))
    with pytest.raises(BadRequest, match="'heat'"):
        run(agent("echo"), task(heat=1))


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"graph": "graphs.py:ROLES"}, "must be a Pregel"),
        ({"graph": "graphs.py:nothing"}, "has no 'nothing'"),
        ({"input": {"question": "{question}"}}, '"{messages}"'),
    ],
)
def test_wrong_params_are_one_line(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        agent("echo", **params)


def test_without_the_package_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"gepa-atlas\[langgraph\]"):
        agent("echo")
