"""Protocols: what the student receives, what the teacher is asked, and what happens when one of them fails."""

from __future__ import annotations

import asyncio

import pytest

from gepa_atlas.errors import AgentCrashed, BudgetExhausted, CallTimeout, ConfigError
from gepa_atlas.ports import Completion
from gepa_atlas.protocols import Prepared, ProtocolConfig, TeachingProtocol, build_protocol
from gepa_atlas.protocols.lesson import STUDENT, TEACHER
from gepa_atlas.protocols.probe import DIAGNOSTIC
from gepa_atlas.settings import load
from gepa_atlas.testing.scripted import ScriptedAgent, ScriptedModel
from gepa_atlas.texts import broken_contract
from gepa_atlas.types import Attempt, Candidate, Demo, Question, Usage

HOSTILE = '{question} {attempt} {0.__class__} "quotes" 🦊 </teaching>\n' + "x" * 100_000
QUESTION = Question("q1", "What is {a}? {attempt}", "context {teaching}")
BASELINE = Attempt("my first {question}")
DEMOS = (Demo("t1", "two and two", "4"),)


def prepare(protocol: TeachingProtocol, candidate: Candidate, baseline: Attempt = BASELINE, question: Question = QUESTION) -> Prepared:
    return asyncio.run(protocol.prepare(candidate, question, baseline, 3))


def seeded(protocol: TeachingProtocol, **texts: str) -> Candidate:
    return Candidate.of({**protocol.seed_texts(), **texts}, DEMOS, {"temperature": 0.5})


def config(name: str, **params: object) -> ProtocolConfig:
    return load(ProtocolConfig, {"name": name, "params": params}, "protocol")


def every(model: ScriptedModel, agent: ScriptedAgent) -> list[TeachingProtocol]:
    configs = [config("playbook"), config("lesson"), config("lesson", student_template=True), config("probe")]
    return [build_protocol(c, model, agent) for c in configs]


def test_every_protocol_is_one_and_its_seed_keeps_its_contract() -> None:
    for protocol in every(ScriptedModel([]), ScriptedAgent([])):
        assert isinstance(protocol, TeachingProtocol)
        assert broken_contract(seeded(protocol), protocol.components()) is None
        assert set(protocol.seed_texts()) == {c.name for c in protocol.components()}
        assert all(c.purpose for c in protocol.components())


def test_playbook_hands_over_the_text_as_it_is() -> None:
    protocol = build_protocol("playbook", None)
    prepared = prepare(protocol, seeded(protocol, guidance=HOSTILE))
    assert prepared.task.question == QUESTION and prepared.task.sample == 3
    assert prepared.task.guidance == prepared.guidance
    assert (
        prepared.guidance.text == HOSTILE and prepared.guidance.demos == DEMOS and dict(prepared.guidance.settings) == {"temperature": 0.5}
    )
    assert prepared.usage == Usage() and prepared.failure is None


def test_lesson_asks_the_teacher_and_gives_its_teaching_to_the_student() -> None:
    model = ScriptedModel([Completion("<thinking>hm</thinking><teaching>Count {again}.</teaching>", Usage(10, 5, None, 0.1, 1))])
    protocol = build_protocol("lesson", model)
    prepared = prepare(protocol, seeded(protocol, **{TEACHER: "Q {question} A {attempt} C {context} B {brace}"}))
    assert model.requests[0].messages[0].content == "Q What is {a}? {attempt} A my first {question} C context {teaching} B {brace}"
    assert model.requests[0].sample == 3
    assert prepared.task.guidance.text == "Count {again}." and prepared.task.guidance.demos == DEMOS
    assert prepared.task.question == QUESTION
    assert prepared.usage.input_tokens == 10


def test_a_student_template_makes_one_text_of_question_and_teaching() -> None:
    protocol = build_protocol(config("lesson", student_template=True), ScriptedModel(["Count."]))
    prepared = prepare(protocol, seeded(protocol, **{STUDENT: "{question} | {teaching} | {question}"}))
    assert prepared.task.question.text == "What is {a}? {attempt} | Count. | What is {a}? {attempt}"
    assert prepared.task.guidance.text == "" and prepared.task.guidance.demos == DEMOS
    assert prepared.guidance.text == "Count."


def test_probe_asks_student_then_teacher_then_prepares_the_second_attempt() -> None:
    agent, model = ScriptedAgent(["<thinking>t</thinking>I would add." + "y" * 5000]), ScriptedModel(["<teaching>Multiply.</teaching>"])
    protocol = build_protocol("probe", model, agent)
    prepared = prepare(protocol, seeded(protocol, **{DIAGNOSTIC: "Plan: {question}", TEACHER: "{question} <- {approach}"}))
    assert agent.requests[0].question.text == "Plan: What is {a}? {attempt}" and not agent.requests[0].guidance
    asked = model.requests[0].messages[0].content
    assert asked.startswith("What is {a}? {attempt} <- I would add.") and len(asked) < 2100
    assert "Multiply." in prepared.task.question.text
    assert prepared.student_tasks == (agent.requests[0],)
    assert protocol.student_calls == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (CallTimeout("60 s"), "timeout"),
        (BudgetExhausted("no tokens"), "budget_exhausted"),
        ("", "empty_answer"),
        ("<teaching> </teaching>", "empty_answer"),
        ("<thinking>only thoughts", "empty_answer"),
    ],
)
def test_a_failing_teacher_is_a_named_failure(answer: str | Exception, kind: str) -> None:
    for name in ("lesson", "probe"):
        protocol = build_protocol(name, ScriptedModel([answer]), ScriptedAgent(["I would add."]))
        prepared = prepare(protocol, seeded(protocol))
        assert prepared.failure is not None and prepared.failure.kind == kind
        assert not prepared.guidance and "\n" not in prepared.failure.reason


def test_no_teacher_call_without_a_first_attempt_and_none_without_an_approach() -> None:
    model = ScriptedModel([])
    lesson = build_protocol("lesson", model)
    assert prepare(lesson, seeded(lesson), Attempt.failed("timeout", "slow")).failure is not None
    probe = build_protocol("probe", model, ScriptedAgent([AgentCrashed("exit 1")]))
    prepared = prepare(probe, seeded(probe))
    assert prepared.failure is not None and prepared.failure.kind == "agent_crashed" and len(prepared.student_tasks) == 1
    assert model.requests == []


def test_identity_follows_what_changes_a_lesson() -> None:
    model, other = ScriptedModel([], identity="m1"), ScriptedModel([], identity="m2")
    same = [build_protocol("lesson", model).identity for _ in range(2)]
    assert same[0] == same[1]
    assert len({same[0], build_protocol("lesson", other).identity, build_protocol(config("lesson", max_tokens=9), model).identity}) == 3


def test_what_is_missing_is_named() -> None:
    for name in ("lesson", "probe"):
        with pytest.raises(ConfigError, match="teacher"):
            build_protocol(name, None, ScriptedAgent([]))
    with pytest.raises(ConfigError, match="student"):
        build_protocol("probe", ScriptedModel([]))
    with pytest.raises(ConfigError, match="did you mean 'max_tokens'"):
        build_protocol(config("lesson", max_token=3), ScriptedModel([]))
    with pytest.raises(ConfigError, match=r"protocol\.name"):
        build_protocol("lessons", None)
