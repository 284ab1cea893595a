"""The dspy.module provider with real DSPy programs: their instructions are the texts that are evolved."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import dspy
import pytest

from gepa_atlas.cli import run as gepa_atlas
from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import AgentCrashed, AuthRefused, BadRequest, ConfigError, Garbled, MissingExtra, RateLimited, Unreachable
from gepa_atlas.llm.local import LocalModel
from gepa_atlas.llm.serve import serving
from gepa_atlas.ports import Agent, Composed, Previews
from gepa_atlas.testing.conformance import AgentConformance
from gepa_atlas.types import Attempt, Guidance, Question, Task
from tests.connectors.faults import Server, no_model, task

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SHOWN = tuple((f"Where is order {n}?", n) for n in ("VT-41007", "QX-42740", "HB-44473", "ZK-46206"))


def agent(program: str, **params: Any) -> Agent:
    given = {"program": f"programs.py:{program}", "timeout": 30.0, **params}
    return build_agent(AgentSpec(provider="dspy.module", params=given), build_model=no_model, base_dir=HERE)


def run(built: Agent, asked: Task | None = None) -> Attempt:
    return asyncio.run(built.run(asked or task()))


def at(url: str, **more: Any) -> dict[str, Any]:
    return {"lm": {"model": "openai/local", "api_base": url, "max_tokens": 30, **more}}


class TestProgram(AgentConformance):
    def make(self) -> Agent:
        return agent("Echo")

    def make_echo(self) -> Agent:
        return agent("Echo")

    def make_failing(self) -> Agent:
        return agent("Broken")

    def make_silent(self) -> Agent:
        return agent("Hanging", timeout=0.2)


def test_instructions_and_demonstrations_reach_the_predictor() -> None:
    built = agent("Echo")
    assert isinstance(built, Composed) and built.texts() == {"step": "Echo."}
    assert run(built).output == "Echo.\nWhat is 2 + 2?"
    shown = task("2?", demos=(("1?", "1"),)).guidance.demos
    taught = Task(Question("q", "2?"), Guidance("From a teacher.", shown, (), (("step", "Better."),)))
    assert run(built, taught).output == "Better.\n1?=1\nFrom a teacher.\n\n2?"
    assert run(built).output == "Echo.\nWhat is 2 + 2?", "a run changes a copy"
    assert isinstance(built, Previews) and built.preview(taught)["instructions"] == {"step": "Better."}


def test_each_step_of_a_program_is_a_text_of_its_own() -> None:
    inputs = {"question": "{question}", "hint": "<{guidance}>"}
    built = agent("TwoSteps", inputs=inputs, guidance="field", output="answer.text")
    assert isinstance(built, Composed)
    assert [c.name for c in built.components()] == ["plan", "act"] and built.texts() == {"plan": "Plan.", "act": "Act."}
    assert "plan -> answer" in built.components()[1].purpose
    assert run(built, Task(Question("q", "2?"), Guidance("Hint.", (), (), (("act", "Do."),)))).output == "Plan./Do./2?/<Hint.>"
    with pytest.raises(BadRequest, match="no predictor 'think'"):
        run(built, Task(Question("q", "2?"), Guidance("", (), (), (("think", "x"),))))


@pytest.mark.local
def test_a_program_on_the_embedded_model(local_model: LocalModel) -> None:
    with serving(local_model) as url:
        attempt = run(agent("order", **at(url, price={"input": 1.0, "output": 1.0})), task("Where is order MR-49672?", demos=SHOWN))
    assert attempt.output == "MR-49672"
    assert attempt.usage.tokens and attempt.usage.dollars == pytest.approx(attempt.usage.tokens / 1e6)


@pytest.mark.local
def test_a_search_evolves_the_programs_own_texts(local_model: LocalModel, tmp_path: Path) -> None:
    with serving(local_model) as url:
        config = {
            "agents": {
                "target": {
                    "provider": "dspy.module",
                    "params": {"program": str(HERE / "programs.py") + ":order", "unparsed": "answer", **at(url)},
                }
            },
            "data": {"path": str(ROOT / "configs" / "examples" / "data" / "orders.jsonl")},
            "rim": {"judges": ["exact"]},
            "operators": ["demos", "edit"],
            "max_metric_calls": 10,
            "minibatch": 2,
        }
        (tmp_path / "run.yaml").write_text(json.dumps(config))
        assert gepa_atlas(["optimize", str(tmp_path / "run.yaml"), "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    told = json.loads((tmp_path / "run" / "optimized_prompts.json").read_text())
    assert list(told["best_candidate"]) == ["self"] and told["best_candidate"]["self"]


def test_a_saved_state_is_loaded_and_is_part_of_the_identity(tmp_path: Path) -> None:
    program = dspy.Predict(dspy.Signature("question -> answer", "Saved."))
    program.save(tmp_path / "state.json")
    built = agent("order", state=str(tmp_path / "state.json"))
    assert isinstance(built, Composed) and built.texts() == {"self": "Saved."}
    with pytest.raises(ConfigError, match=r"must be a \.json file"):
        agent("order", state="missing.json")


@pytest.mark.parametrize(
    ("status", "kind"),
    [("401 Unauthorized", AuthRefused), ("429 Too Many Requests", RateLimited), ("400 Bad Request", BadRequest)],
)
def test_what_the_model_refuses_is_its_error_after_one_attempt(status: str, kind: type[Exception], server: Server) -> None:
    server.says({"error": {"message": "no", "type": "x", "param": None, "code": None}}, status=status)
    with pytest.raises(kind):
        run(agent("order", **at(server.url)))
    assert len(server.asked) == 1


def test_a_text_that_is_not_in_dspys_form_is_one_call_and_a_failure(server: Server) -> None:
    said = {"role": "assistant", "content": "no form at all"}
    whole = {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": said}],
    }
    server.says(whole | {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
    with pytest.raises(AgentCrashed, match="AdapterParseError"):
        run(agent("order", **at(server.url)))
    assert run(agent("order", unparsed="answer", **at(server.url))).output == "no form at all"
    assert len(server.asked) == 2, "DSPy's second try, as JSON, is a call that no trace shows"


def test_what_fails_and_why() -> None:
    with pytest.raises(AgentCrashed, match="RuntimeError: the database is down"):
        run(agent("Broken"))
    with pytest.raises(Unreachable):
        run(agent("order", **at("http://127.0.0.1:1/v1")))
    with pytest.raises(Garbled, match="'other'"):
        run(agent("Echo", output="other"))
    with pytest.raises(BadRequest, match="'heat'"):
        run(agent("Echo"), task(heat=1))
    with pytest.raises(BadRequest, match="configure lm"):
        run(agent("order"))


@pytest.mark.parametrize(
    ("program", "params", "says"),
    [
        ("Empty", {}, "no predictor"),
        ("SHOWN", {}, "has no 'SHOWN'"),
        ("Echo", {"guidance": "system"}, "a program has no chat"),
        ("Echo", {"inputs": {"question": "fixed"}}, '"{prompt}" or "{question}"'),
        ("order", {"lm": {"model": "m", "api_base": "x"}}, "api_base must start with"),
        ("order", {"lm": {"model": "m", "api_key_env": "NOT_SET_ANYWHERE"}}, "NOT_SET_ANYWHERE"),
    ],
)
def test_wrong_params_are_one_line(program: str, params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        agent(program, **params)


def test_without_the_package_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"gepa-atlas\[dspy\]"):
        agent("Echo")
