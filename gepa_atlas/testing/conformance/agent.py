"""The exam of the Agent port."""

from __future__ import annotations

import asyncio
from unittest import SkipTest

from gepa_atlas.errors import CallError, CallTimeout
from gepa_atlas.ports import Agent
from gepa_atlas.testing.conformance.common import HOSTILE, check_endpoint, check_identity, given
from gepa_atlas.types import Attempt, Guidance, Question, Task, canonical


class AgentConformance:
    """The exam of an Agent."""

    deterministic = True  # the same task twice gives the same output
    secrets: tuple[str, ...] = ()  # values that the instance holds and must not show

    def make(self) -> Agent:
        raise NotImplementedError("return an agent that answers")

    def make_echo(self) -> Agent | None:
        """An instance wired so that what reaches the agent comes back as its output."""
        return None

    def make_failing(self) -> Agent | None:
        """An instance wired to something that is broken."""
        return None

    def make_silent(self) -> Agent | None:
        """An instance wired to something that never answers, with a short time-out."""
        return None

    def task(self) -> Task:
        return Task(Question("q-1", "What is the capital of France?"), Guidance("Answer with one word."))

    def test_it_is_an_agent(self) -> None:
        agent = self.make()
        assert isinstance(agent, Agent)
        check_endpoint(agent.endpoint, self.secrets)

    def test_identity_is_stable_and_free_of_secrets(self) -> None:
        check_identity(self.make().identity, self.make().identity, self.secrets)

    def test_it_answers_with_and_without_guidance(self) -> None:
        async def story() -> None:
            agent = self.make()
            for task in (self.task(), Task(self.task().question)):
                attempt = await agent.run(task)
                assert isinstance(attempt, Attempt) and isinstance(attempt.output, str) and attempt.error is None
                assert attempt.usage.seconds >= 0 and attempt.usage.calls >= 1, f"usage counts calls: {attempt.usage}"
                assert Attempt.from_json(attempt.to_json()).to_json() == attempt.to_json(), "an attempt survives the ledger"
                assert canonical(attempt.to_json())

        asyncio.run(story())

    def test_the_same_task_gets_the_same_output(self) -> None:
        if not self.deterministic:
            raise SkipTest("not promised")

        async def story() -> None:
            agent = self.make()
            assert (await agent.run(self.task())).output == (await agent.run(self.task())).output

        asyncio.run(story())

    def test_concurrent_tasks_get_their_own_answers(self) -> None:
        async def story() -> None:
            agent = given(self.make_echo(), "make_echo")
            marks = [f"mark-{i:03d}-end" for i in range(8)]
            attempts = await asyncio.gather(*(agent.run(Task(Question(m, m))) for m in marks))
            assert [m in (a.output or "") for m, a in zip(marks, attempts, strict=True)] == [True] * len(marks)

        asyncio.run(story())

    def test_hostile_questions_and_guidance_arrive_unchanged(self) -> None:
        async def story() -> None:
            agent = given(self.make_echo(), "make_echo")
            for text in HOSTILE:
                bare = await agent.run(Task(Question("q", text)))
                assert text in (bare.output or ""), f"the question arrived changed: {text[:60]!r} became {(bare.output or '')[:200]!r}"
                guided = await agent.run(Task(Question("q", "short"), Guidance(text)))
                assert text in (guided.output or ""), f"the guidance arrived changed: {text[:60]!r}"

        asyncio.run(story())

    def test_a_failure_is_raised_and_never_an_answer(self) -> None:
        async def story() -> None:
            agent = given(self.make_failing(), "make_failing")
            try:
                attempt = await agent.run(self.task())
            except CallError as error:
                assert str(error).strip() and "\n" not in str(error), f"an error is one clear line: {error}"
                assert not [s for s in self.secrets if s in str(error)], "the message contains a secret"
            else:
                raise AssertionError(f"a failing agent must raise CallError; it returned {attempt.output!r:.200}")

        asyncio.run(story())

    def test_silence_ends_in_a_timeout(self) -> None:
        async def story() -> None:
            agent = given(self.make_silent(), "make_silent")
            try:
                attempt = await asyncio.wait_for(agent.run(self.task()), 10 * agent.endpoint.timeout + 5)
            except CallTimeout:
                return
            raise AssertionError(f"a silent agent must raise CallTimeout; it returned {attempt.output!r:.200}")

        asyncio.run(story())
