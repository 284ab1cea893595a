"""Every implementation of a port sits its exam. A new one is a class of a few lines here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from gepa_atlas.errors import ServerFault
from gepa_atlas.ports import Agent, Brief, Case, ChatModel, ChatRequest, Judge, Proposer
from gepa_atlas.propose.registry import build_proposers
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.rim.panel import build_panel
from gepa_atlas.settings import load
from gepa_atlas.testing.conformance import (
    AgentConformance,
    ChatModelConformance,
    JudgeConformance,
    ProposerConformance,
)
from gepa_atlas.testing.scripted import ScriptedAgent, ScriptedJudge, ScriptedModel, ScriptedProposer
from gepa_atlas.testing.toyworld import toy_agent, toy_model
from gepa_atlas.types import Attempt, Candidate, Draft, Failure, JudgeScore, Task


def heard(task: Task) -> str:
    return f"{task.guidance.text}\n{task.question.text}"


def read(request: ChatRequest) -> str:
    return "\n".join(m.content for m in request.messages)


# -- our doubles ------------------------------------------------------------------------------------------------------


class TestToyAgent(AgentConformance):
    def make(self) -> Agent:
        return toy_agent({"world": {"seed": 3}})

    def make_failing(self) -> Agent:
        return toy_agent({"faults": {"rate": 1.0}})


class TestScriptedAgent(AgentConformance):
    def make(self) -> Agent:
        return ScriptedAgent(lambda task: "Paris")

    def make_echo(self) -> Agent:
        return ScriptedAgent(heard)

    def make_failing(self) -> Agent:
        return ScriptedAgent([ServerFault("scripted: 500")])


class TestToyModel(ChatModelConformance):
    stops = False

    def make(self) -> ChatModel:
        return toy_model({})

    def make_failing(self) -> ChatModel:
        return toy_model({"faults": {"rate": 1.0}})


class TestScriptedModel(ChatModelConformance):
    stops = False

    def make(self) -> ChatModel:
        return ScriptedModel(lambda request: "Paris")

    def make_echo(self) -> ChatModel:
        return ScriptedModel(read)

    def make_failing(self) -> ChatModel:
        return ScriptedModel([ServerFault("scripted: 500")])


class TestScriptedJudge(JudgeConformance):
    def make(self) -> Judge:
        return ScriptedJudge(lambda case: float(case.output == case.example.answer))

    def make_failing(self) -> Judge:
        return ScriptedJudge([Failure("server_fault", "scripted: 500")])


class TestScriptedProposer(ProposerConformance):
    def make(self) -> Proposer:
        return ScriptedProposer(lambda brief: brief.parents[0].child("scripted", texts={"guidance": f"{brief.rng.random()}"}))


# -- the exams find what they are for ---------------------------------------------------------------------------------


class Careless:
    """An agent with a defect of choice."""

    endpoint = ScriptedAgent([]).endpoint

    def __init__(self, answer: Callable[[Task], str], identity: str = "careless") -> None:
        self.identity = identity
        self._answer = answer

    async def run(self, task: Task) -> Attempt:
        return Attempt(self._answer(task))


@pytest.mark.parametrize(
    ("defect", "test"),
    [
        ({"make_failing": Careless(lambda t: "Error: 500")}, "test_a_failure_is_raised_and_never_an_answer"),
        (
            {"make_echo": Careless(lambda t: re.sub(r"\{\w*\}", "", heard(t)))},
            "test_hostile_questions_and_guidance_arrive_unchanged",
        ),
        ({"make_echo": Careless(lambda t: "mark-000-end")}, "test_concurrent_tasks_get_their_own_answers"),
        ({"make": Careless(lambda t: "x", "key=sk-aaaaaaaaaaaaaaaaaaaaaa")}, "test_identity_is_stable_and_free_of_secrets"),
        ({"make": Careless(lambda t: str(object.__hash__(t)) + str(id(object())))}, "test_it_answers_with_and_without_guidance"),
    ],
)
def test_the_exam_of_agents_fails_what_is_wrong(defect: dict[str, Agent], test: str) -> None:
    exam = type("Exam", (AgentConformance,), {name: (lambda self, made=made: made) for name, made in defect.items()})()
    with pytest.raises(AssertionError):
        getattr(exam, test)()


def test_the_exam_of_judges_finds_one_that_believes_what_it_reads() -> None:
    class Exam(JudgeConformance):
        def make(self) -> Judge:
            return ScriptedJudge(lambda case: float("4" in case.output or "score" in case.output))

    with pytest.raises(AssertionError, match="is scored"):
        Exam().test_any_output_is_scored_or_unscored_with_a_reason()


@pytest.mark.parametrize("test", ["test_lineage_and_origin_are_named", "test_drafts_obey_the_contracts"])
def test_the_exam_of_proposers_finds_a_broken_contract(test: str) -> None:
    def forget(brief: Brief) -> Draft:
        return Draft(Candidate.of({"other": "text"}), "new")

    class Exam(ProposerConformance):
        def make(self) -> Proposer:
            return ScriptedProposer(forget)

    with pytest.raises(AssertionError):
        getattr(Exam(), test)()


# -- operators --------------------------------------------------------------------------------------------------------


class Operator(ProposerConformance):
    name = ""

    def make(self) -> Proposer:
        return build_proposers([self.name])[self.name]


class TestDemos(Operator):
    name = "demos"


class TestEdit(Operator):
    name = "edit"


class TestAblate(Operator):
    name = "ablate"


class TestMerge(Operator):
    name = "merge"


class TestRestart(Operator):
    name = "restart"


class TestRecombine(Operator):
    name = "recombine"
    finds_something = False  # optuna's model needs more history than one brief holds


def reflected(request: ChatRequest) -> str:
    """A reflection model's answer to whatever was asked: clusters, edits or whole texts."""
    line = "Cite what belongs to each word that is named."
    return json.dumps(
        {
            "clusters": [{"cause": "no rule is known", "lessons": [1, 2, 3], "remedy": "state the rules"}],
            "diagnosis": "no rule is known",
            "edits": [{"component": "guidance", "op": "add", "item": None, "text": line}],
            "texts": {"guidance": f"Read the ticket and reply.\n{line}"},
        }
    )


class ModelOperator(ProposerConformance):
    name = ""

    def make(self) -> Proposer:
        return build_proposers([self.name], model=ScriptedModel(reflected))[self.name]

    def make_failing(self) -> Proposer:
        broken = ScriptedModel(lambda request: ServerFault("scripted: 500"))
        return build_proposers([self.name], model=broken)[self.name]


class TestReflect(ModelOperator):
    name = "reflect"


class TestDiagnose(ModelOperator):
    name = "diagnose"


class TestRevise(ModelOperator):
    name = "revise"


# -- judges -----------------------------------------------------------------------------------------------------------


def no_model(spec: Any) -> ChatModel:
    raise AssertionError("a program judge asks for no model")


class Seated:
    """A judge as a run asks it: through the panel, which keeps it silent when an input that it needs is missing."""

    def __init__(self, entry: Any, model: Callable[[Any], ChatModel] = no_model) -> None:
        self._panel = build_panel(load(RimConfig, {"judges": [entry]}, "rim"), model=model)
        self.name = self._panel.seats[0].judge.name
        self.identity = self._panel.identity
        self.needs_answer = self._panel.needs_answer

    async def judge(self, case: Case) -> JudgeScore:
        reward = await self._panel.score(case)
        return JudgeScore(self.name, reward.value, reward.rationale, reward.uncertainty, reward.missing)


class TestExact(JudgeConformance):
    def make(self) -> Judge:
        return Seated("exact")


class TestNumber(JudgeConformance):
    robust = False  # a text whose last number is right is right, whatever stands before it

    def make(self) -> Judge:
        return Seated("number")


class TestContains(JudgeConformance):
    robust = False  # it asks for no more than a mention

    def make(self) -> Judge:
        return Seated("contains")


class TestChoice(JudgeConformance):
    def make(self) -> Judge:
        return Seated({"type": "choice", "labels": ["3", "4", "5"]})


class TestRegex(JudgeConformance):
    def make(self) -> Judge:
        return Seated({"type": "regex", "pattern": r"^4$"})


class TestJsonSchema(JudgeConformance):
    def make(self) -> Judge:
        return Seated({"type": "json_schema", "json_schema": {"const": 4}})


class TestLlmJudge(JudgeConformance):
    """Around a scripted model that reads the output out of its fence and grades it rightly."""

    def make(self) -> Judge:
        return Seated("llm", lambda spec: ScriptedModel(graded))

    def make_failing(self) -> Judge:
        return Seated("llm", lambda spec: ScriptedModel(lambda request: ServerFault("scripted: 500")))


class TestTalkativeLlmJudge(JudgeConformance):
    """Around a model that does not answer in the form it was asked for: there is a reason and never a number."""

    def make(self) -> Judge:
        return Seated("llm", lambda spec: ScriptedModel(graded))

    def make_failing(self) -> Judge:
        return Seated("llm", lambda spec: ScriptedModel(lambda request: "I would say it is fine"))


def graded(request: ChatRequest) -> str:
    shown = request.messages[-1].content
    data = json.loads(shown[shown.index("{") : shown.rindex("}") + 1])
    right = data["answer"] == data["reference_answer"]
    return json.dumps({"principles": ["is it right?"], "rationale": "read it", "score": float(right), "uncertainty": 0.1})
