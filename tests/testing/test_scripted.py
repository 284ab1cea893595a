"""Scripted ports answer what they were told to and keep what they were asked."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gepa_atlas.errors import ContractError, RateLimited
from gepa_atlas.ports import Brief, Case, ChatRequest, Completion
from gepa_atlas.testing.scripted import ScriptedAgent, ScriptedJudge, ScriptedModel, ScriptedProposer
from gepa_atlas.types import Attempt, Candidate, Example, Failure, JudgeScore, Message, Question, Task

ASK = ChatRequest((Message("user", "how many"),))
TASK = Task(Question("q", "how many"))
CASE = Case(Example("q", "how many", ("2",)), "2")
BRIEF = Brief((Candidate.of({"guidance": "x"}),), (), (), (), np.random.default_rng(0))


def test_a_list_is_played_in_order_raises_what_is_an_error_and_says_when_it_runs_out() -> None:
    async def story() -> None:
        model = ScriptedModel(["one", RateLimited("slow down"), Completion("three", finish="length")])
        assert (await model.complete(ASK)).text == "one"
        with pytest.raises(RateLimited):
            await model.complete(ASK)
        assert (await model.complete(ASK)).finish == "length"
        with pytest.raises(ContractError, match="3 answers and this is request 4"):
            await model.complete(ASK)
        assert model.requests == [ASK] * 4

    asyncio.run(story())


def test_a_function_sees_the_request() -> None:
    async def story() -> None:
        agent = ScriptedAgent(lambda task: task.question.text.upper())
        answered = await agent.run(TASK)
        assert answered.output == "HOW MANY"
        assert answered.usage.tokens == 4
        assert agent.requests == [TASK]
        made = Attempt("as is")
        assert await ScriptedAgent([made]).run(TASK) is made

    asyncio.run(story())


def test_a_judge_gives_numbers_failures_and_scores() -> None:
    async def story() -> None:
        judge = ScriptedJudge([0.5, Failure("garbled", "no number"), JudgeScore("other", 1.0)], name="strict")
        assert (await judge.judge(CASE)).value == 0.5
        assert (await judge.judge(CASE)).missing == Failure("garbled", "no number")
        assert (await judge.judge(CASE)).judge == "other"
        assert judge.requests == [CASE] * 3

    asyncio.run(story())


def test_a_proposer_gives_candidates_and_reasons() -> None:
    async def story() -> None:
        child = BRIEF.parents[0].child("scripted", texts={"guidance": "y"})
        proposer = ScriptedProposer([child, "no idea"])
        assert (await proposer.propose(BRIEF)).candidate == child
        assert (await proposer.propose(BRIEF)).note == "no idea"

    asyncio.run(story())


def test_latency_lets_calls_overlap() -> None:
    async def story() -> list[str]:
        agent = ScriptedAgent(lambda task: f"{task.sample}", latency=0.01)
        return [a.output or "" for a in await asyncio.gather(*(agent.run(Task(TASK.question, sample=i)) for i in range(3)))]

    assert asyncio.run(story()) == ["0", "1", "2"]
