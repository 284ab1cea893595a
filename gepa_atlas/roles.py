"""Agents and models behind the door for paid calls: each call gets its key, its worst case and its role, and the answer back as a noun."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

from gepa_atlas.errors import ContractError
from gepa_atlas.lanes import Attempting, Reply
from gepa_atlas.ports import Agent, ChatModel, ChatRequest, Completion, Composed, Endpoint
from gepa_atlas.types import Attempt, Component, Role, Task, canonical


class Door(Protocol):
    async def make(self, *, role: Role, key: str, endpoint: Endpoint, worst_tokens: int, attempt: Attempting) -> dict[str, Any]: ...


def _key(role: Role, identity: str, request: str, sample: int) -> str:
    """The digest of {identity, request, role, sample}; the request is given as canonical JSON."""
    whole = f'{{"identity":{canonical(identity)},"request":{request},"role":"{role}","sample":{sample}}}'
    return hashlib.sha256(whole.encode()).hexdigest()


@dataclass(frozen=True)
class Student:
    inner: Agent
    door: Door
    identity: str
    endpoint: Endpoint

    async def run(self, task: Task) -> Attempt:
        request = canonical(task.to_json())
        key = _key("student", self.identity, request, task.sample)

        async def attempt() -> Reply:
            answer = await self.inner.run(task)
            if answer.error is not None:
                raise ContractError(f"agent {self.identity}: run() returned a failed attempt; it must raise a CallError")
            return answer.to_json(), answer.usage

        worst = len(request) // 2 + 1024
        body = await self.door.make(role="student", key=key, endpoint=self.endpoint, worst_tokens=worst, attempt=attempt)
        return Attempt.from_json(body)


@dataclass(frozen=True)
class ComposedStudent(Student):
    def components(self) -> tuple[Component, ...]:
        return self._composed.components()

    def texts(self) -> dict[str, str]:
        return self._composed.texts()

    @property
    def _composed(self) -> Composed:
        assert isinstance(self.inner, Composed)
        return self.inner


@dataclass(frozen=True)
class ChatBehind:
    inner: ChatModel
    role: Role
    door: Door
    identity: str
    endpoint: Endpoint

    async def complete(self, request: ChatRequest) -> Completion:
        key = _key(self.role, self.identity, canonical(request.to_json()), request.sample)

        async def attempt() -> Reply:
            answer = await self.inner.complete(request)
            return answer.to_json(), answer.usage

        chars = len(request.prompt or "") + sum(len(m.content) for m in request.messages)
        worst = chars // 2 + request.max_tokens
        body = await self.door.make(role=self.role, key=key, endpoint=self.endpoint, worst_tokens=worst, attempt=attempt)
        return Completion.from_json(body)
