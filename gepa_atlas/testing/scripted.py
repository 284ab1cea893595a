"""Scripted ports: they answer from a list or from a function of the request, and keep every request they got.

An entry of a script, or what its function returns, is the answer, a short form of it (a text, a number), or an exception, which
is raised. A list that has run out raises ContractError: a test asked for more than it scripted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from gepa_atlas.errors import ContractError
from gepa_atlas.ports import Brief, Case, ChatRequest, Completion, Endpoint
from gepa_atlas.types import Attempt, Candidate, Draft, Failure, JudgeScore, Task, Usage

R = TypeVar("R")
A = TypeVar("A")


class Script(Generic[R, A]):
    """Answers requests of type R with A, in the order they arrive."""

    def __init__(self, answers: Sequence[A | Exception] | Callable[[R], A | Exception], latency: float) -> None:
        self.requests: list[R] = []
        self._function = answers if callable(answers) else None
        self._rest: Iterator[A | Exception] = iter(()) if callable(answers) else iter(answers)
        self._latency = latency

    async def play(self, request: R) -> A:
        self.requests.append(request)
        number = len(self.requests)
        await asyncio.sleep(self._latency)
        if self._function is not None:
            answer = self._function(request)
        else:
            found = next(self._rest, None)
            if found is None:
                raise ContractError(f"the script has {number - 1} answers and this is request {number}: {request!r:.200}")
            answer = found
        if isinstance(answer, Exception):
            raise answer
        return answer


class ScriptedModel:
    """A ChatModel. `answers`: texts, Completions or exceptions, in a list or from a function of the ChatRequest."""

    def __init__(
        self,
        answers: Sequence[str | Completion | Exception] | Callable[[ChatRequest], str | Completion | Exception],
        *,
        identity: str = "scripted:model",
        latency: float = 0.0,
        max_concurrency: int = 16,
    ) -> None:
        self.identity = identity
        self.endpoint = Endpoint(identity, max_concurrency)
        self._script: Script[ChatRequest, str | Completion] = Script(answers, latency)

    @property
    def requests(self) -> list[ChatRequest]:
        return self._script.requests

    async def complete(self, request: ChatRequest) -> Completion:
        answer = await self._script.play(request)
        if isinstance(answer, Completion):
            return answer
        sent = request.prompt if request.prompt is not None else " ".join(m.content for m in request.messages)
        return Completion(answer, Usage(len(sent.split()), len(answer.split()), 0.0, self._script._latency, 1))


class ScriptedAgent:
    """An Agent. `answers`: texts, Attempts or exceptions, in a list or from a function of the Task."""

    def __init__(
        self,
        answers: Sequence[str | Attempt | Exception] | Callable[[Task], str | Attempt | Exception],
        *,
        identity: str = "scripted:agent",
        latency: float = 0.0,
        max_concurrency: int = 16,
    ) -> None:
        self.identity = identity
        self.endpoint = Endpoint(identity, max_concurrency)
        self._script: Script[Task, str | Attempt] = Script(answers, latency)

    @property
    def requests(self) -> list[Task]:
        return self._script.requests

    async def run(self, task: Task) -> Attempt:
        answer = await self._script.play(task)
        if isinstance(answer, Attempt):
            return answer
        return Attempt(answer, Usage(len(task.question.text.split()), len(answer.split()), 0.0, self._script._latency, 1))


class ScriptedJudge:
    """A Judge. `scores`: numbers in [0, 1], Failures (unscored), JudgeScores or exceptions, in a list or from a function of the Case."""

    def __init__(
        self,
        scores: Sequence[float | Failure | JudgeScore | Exception] | Callable[[Case], float | Failure | JudgeScore | Exception],
        *,
        name: str = "scripted",
        needs_answer: bool = False,
    ) -> None:
        self.name = name
        self.identity = f"scripted:judge:{name}"
        self.needs_answer = needs_answer
        self._script: Script[Case, float | Failure | JudgeScore] = Script(scores, 0.0)

    @property
    def requests(self) -> list[Case]:
        return self._script.requests

    async def judge(self, case: Case) -> JudgeScore:
        answer = await self._script.play(case)
        if isinstance(answer, JudgeScore):
            return answer
        if isinstance(answer, Failure):
            return JudgeScore(self.name, None, missing=answer)
        return JudgeScore(self.name, float(answer))


class ScriptedProposer:
    """A Proposer. `drafts`: Candidates, Drafts, or texts (a Draft without a candidate, and why), in a list or from a function."""

    def __init__(
        self,
        drafts: Sequence[Candidate | Draft | str] | Callable[[Brief], Candidate | Draft | str],
        *,
        name: str = "scripted",
    ) -> None:
        self.name = name
        self._script: Script[Brief, Candidate | Draft | str] = Script(drafts, 0.0)

    @property
    def requests(self) -> list[Brief]:
        return self._script.requests

    async def propose(self, brief: Brief) -> Draft:
        answer = await self._script.play(brief)
        if isinstance(answer, Draft):
            return answer
        if isinstance(answer, str):
            return Draft(None, answer)
        return Draft(answer, "scripted")
