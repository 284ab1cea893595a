"""Protocols: what the student receives, what the teacher is asked, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
import re

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


# -- probe ------------------------------------------------------------------------------------------------------------


def probing(approach: str, taught: str, **params: object) -> tuple[TeachingProtocol, ScriptedAgent, ScriptedModel]:
    agent, model = ScriptedAgent([approach]), ScriptedModel([taught])
    return build_protocol(config("probe", **params), model, agent), agent, model


@pytest.mark.parametrize(
    ("said", "support", "limit"),
    [
        ("<support>Light</support>", "light", 10),
        ("<thinking>heavy?</thinking><support>medium support</support>", "medium", 20),
        ("<SUPPORT> heavy </SUPPORT>", "heavy", 30),
        ("<support>none of these</support>", "", 20),
        ("", "", 20),
    ],
)
def test_support_decides_how_much_teaching_reaches_the_student(said: str, support: str, limit: int) -> None:
    caps = {"light": 10, "medium": 20, "heavy": 30}
    protocol, _, _ = probing("I add.", f"{said}<teaching>{'word ' * 100}</teaching>", teaching_tokens=caps)
    prepared = prepare(protocol, seeded(protocol))
    assert prepared.support == support
    assert prepared.guidance.text.split() == ["word"] * limit


def test_teaching_that_names_its_support_inside_is_still_teaching() -> None:
    protocol, _, _ = probing("I add.", "<teaching>Carry. <support>light</support></teaching>")
    assert prepare(protocol, seeded(protocol)).guidance.text == "Carry."
    protocol, _, _ = probing("I add.", "<support>none</support> Just carry the one.")
    assert "Just carry the one." in prepare(protocol, seeded(protocol)).guidance.text


def test_the_gold_answer_in_a_teaching_is_masked_for_the_student() -> None:
    def withhold(text: str, seen: tuple[str, ...]) -> str:
        assert seen == ("I add 7.",)
        return text.replace("4711", "***")

    for leak, reaches in (("mask", "You get ***."), ("allow", "You get 4711.")):
        protocol, _, _ = probing("I add 7.", "<teaching>You get 4711.</teaching>", answer_leak=leak)
        prepared = asyncio.run(protocol.prepare(seeded(protocol), QUESTION, BASELINE, 0, withhold))
        assert prepared.guidance.text == reaches and reaches in prepared.task.question.text


def test_a_probe_is_judged_by_its_solution_on_both_sides() -> None:
    protocol, _, _ = probing("", "")
    asked = protocol.baseline(QUESTION).question
    assert asked.text.startswith(QUESTION.text) and "<solution>" in asked.text and asked.context == QUESTION.context
    assert protocol.answer("<thinking>5?</thinking>so <solution>4</solution>") == protocol.answer("4") == "4"
    lesson = build_protocol("lesson", ScriptedModel([]))
    assert lesson.baseline(QUESTION).question == QUESTION and lesson.answer("<solution>4") == "<solution>4"


def test_fixed_templates_are_used_and_not_evolved() -> None:
    fixed = {"student_baseline_template": "Solve: {question} ({context})", DIAGNOSTIC: "How? {question}"}
    protocol, agent, model = probing("I add.", "Carry.", fixed=fixed)
    assert {c.name for c in protocol.components()} == set(protocol.seed_texts()) == {TEACHER, STUDENT}
    prepare(protocol, Candidate.of(protocol.seed_texts()))
    assert agent.requests[0].question.text == "How? What is {a}? {attempt}"
    baseline = protocol.baseline(QUESTION).question
    assert baseline.text == "Solve: What is {a}? {attempt} (context {teaching})" and baseline.context == ""
    assert "I add." in model.requests[0].messages[0].content


@pytest.mark.parametrize(
    ("fixed", "says"),
    [
        ({"student_template": "{question}"}, "there is no template 'student_template'"),
        ({"student_baseline_template": "Solve it."}, "lacks its placeholder {question}"),
        ({DIAGNOSTIC: "{question}", TEACHER: "{question} {approach}", STUDENT: "{question} {teaching}"}, "nothing to evolve"),
    ],
)
def test_what_cannot_be_fixed_is_said(fixed: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        probing("", "", fixed=fixed)


def test_the_agent_is_told_the_cap_where_it_takes_one() -> None:
    protocol, agent, _ = probing("I add.", "Carry.", approach_setting="max_tokens", max_approach_tokens=33)
    prepare(protocol, seeded(protocol))
    assert dict(agent.requests[0].guidance.settings) == {"max_tokens": 33}
