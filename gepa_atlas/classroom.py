"""teach(): one paired lesson. Baseline, guidance, second attempt, and the panel's word on both sides."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gepa_atlas.answers import withhold
from gepa_atlas.calls import BUDGET_EXHAUSTED
from gepa_atlas.errors import BudgetExhausted, CallError
from gepa_atlas.ports import Agent, Case
from gepa_atlas.protocols.base import TeachingProtocol, Withhold
from gepa_atlas.rim.panel import Panel
from gepa_atlas.types import Attempt, Candidate, Example, Guidance, Lesson, Reward, Task, digest


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a lesson: an attempt and what the panel says of it."""

    attempt: Attempt
    reward: Reward
    request: str


class Classroom:
    """Student, panel and protocol of a run. The baseline is run and judged once per example and shared by all candidates."""

    def __init__(self, student: Agent, panel: Panel, protocol: TeachingProtocol) -> None:
        self._student, self._panel, self._protocol = student, panel, protocol
        self._baselines: dict[str, asyncio.Task[Side]] = {}

    async def teach(self, candidate: Candidate, example: Example, sample: int = 0) -> Lesson:
        """A failed call or judge is a lesson without a delta, never an exception; outage and drain signals pass through."""
        before = await self.baseline(example)
        prepared = await self._protocol.prepare(candidate, example.public(), before.attempt, sample, secret(example))
        if prepared.failure is not None:
            attempt = Attempt.failed(prepared.failure.kind, prepared.failure.reason)
            after = Side(attempt, await self._judge(example, attempt, prepared.guidance), "")
        else:
            after = await self._side(example, prepared.task)
        was, now = await self._settled(example, before, after)
        extra = tuple(self._request(task) for task in prepared.student_tasks)
        return Lesson(
            example,
            candidate.id,
            sample,
            self._protocol.name,
            before.attempt,
            prepared.guidance,
            after.attempt,
            was,
            now,
            prepared.usage,
            tuple(dict.fromkeys(r for r in (before.request, *extra, after.request) if r)),
            prepared.support,
        )

    async def baseline(self, example: Example) -> Side:
        """The student without guidance, judged; shared while in flight. One waiter's cancellation does not end the others'.

        A failure is asked for once more by each who gets it, at no cost: the ledger must know whose decision rests on it.
        """
        bare = self._protocol.baseline(example.public())
        task = self._baselines.get(example.id)
        if task is not None:
            side = await asyncio.shield(task)
            return side if side.reward.value is not None else await self._side(example, bare)
        task = self._baselines[example.id] = asyncio.create_task(self._side(example, bare))
        return await asyncio.shield(task)

    async def _side(self, example: Example, task: Task) -> Side:
        try:
            attempt = await self._student.run(task)
        except CallError as error:
            attempt = Attempt.failed(error.kind, str(error))
        except BudgetExhausted as error:
            attempt = Attempt.failed(BUDGET_EXHAUSTED, str(error))
            return Side(attempt, await self._judge(example, attempt, task.guidance), "")  # never made, so no rollout
        return Side(attempt, await self._judge(example, attempt, task.guidance), self._request(task))

    async def _judge(self, example: Example, attempt: Attempt, guidance: Guidance) -> Reward:
        if attempt.error is not None:
            return Reward.none(attempt.error.kind, attempt.error.reason)
        assert attempt.output is not None
        return await self._panel.score(Case(example, self._protocol.answer(attempt.output), guidance))

    async def _settled(self, example: Example, before: Side, after: Side) -> tuple[Reward, Reward]:
        """The rewards of both sides; where they are in doubt, with the panel's second tier on both."""
        if before.attempt.output is None or after.attempt.output is None or self._panel.second is None:
            return before.reward, after.reward
        one, other = (Case(example, self._protocol.answer(output)) for output in (before.attempt.output, after.attempt.output))
        was, now, _ = await self._panel.escalate(one, other, before.reward, after.reward)
        return was, now

    @staticmethod
    def _request(task: Task) -> str:
        return digest(task.to_json(), 16)


def secret(example: Example) -> Withhold:
    """Masks the gold answer of this example in what a teacher wrote. The protocol gets the function, never the answer."""

    def mask(text: str, seen: tuple[str, ...]) -> str:
        return withhold(text, example.answers, (example.question, example.context, *seen))

    return mask
