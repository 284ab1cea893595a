"""The four ports. Each is one method wide and comes with an exam in `gepa_atlas.testing.conformance`.

`Composed`, `Previews`, `Advises` and `PreviewsChat` are what an agent or a model may do besides.

An implementation raises `CallError` when a call fails: it never returns an error as an answer and never retries.
Retrying, limiting, recording and replaying happen in one place, `gepa_atlas.calls`, around every port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gepa_atlas.types import (
    Attempt,
    Candidate,
    Component,
    Demo,
    Draft,
    Example,
    Guidance,
    JudgeScore,
    Lesson,
    Message,
    Task,
    Usage,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where calls go, and how many at once: calls that share `name` share the limits."""

    name: str
    max_concurrency: int = 16
    timeout: float = 60.0  # seconds of wall clock for one attempt, however slowly bytes drip
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat, or with `prompt` a plain completion; exactly one of `messages` and `prompt` is given."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    json_schema: str | None = None  # canonical JSON; the model must answer with a JSON document of this schema
    top_logprobs: int = 0  # how many alternatives to report for the first generated token
    sample: int = 0  # numbers repeats of the same request; part of the call key, never sent

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {n: getattr(self, n) for n in ChatRequest.__dataclass_fields__}
        return row | {"messages": [m.to_json() for m in self.messages], "stop": list(self.stop)}


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered. `logprobs` maps the first token's alternatives to natural-log probabilities."""

    text: str
    usage: Usage = Usage()
    finish: str = "stop"  # "stop" or "length"
    logprobs: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "usage": self.usage.to_json(),
            "finish": self.finish,
            "logprobs": [list(p) for p in self.logprobs],
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Completion:
        pairs = tuple((str(t), float(p)) for t, p in row["logprobs"])
        return cls(row["text"], Usage.from_json(row["usage"]), row["finish"], pairs)


@runtime_checkable
class Previews(Protocol):
    """What an agent may also do: say what it would send for a task, without sending it. Secrets show as names."""

    def preview(self, task: Task) -> dict[str, Any]:
        """The exact request as a JSON value. Raises CallError where `run` would before it sends anything."""
        ...


@runtime_checkable
class Composed(Protocol):
    """An agent that is made of texts of its own, such as the instructions of each step: they are what is evolved, by name, and reach it as
    `Guidance.texts`. Without any it is the agent as it stands."""

    def components(self) -> tuple[Component, ...]: ...

    def texts(self) -> dict[str, str]:
        """What each component says today."""
        ...


@runtime_checkable
class Advises(Protocol):
    """An agent that has something to say before a run: an API that is going away, a limit of its own."""

    def advice(self) -> tuple[str, ...]: ...


@runtime_checkable
class PreviewsChat(Protocol):
    """The same of a model."""

    def preview_chat(self, request: ChatRequest) -> dict[str, Any]: ...


@runtime_checkable
class ChatModel(Protocol):
    """A language model. `identity` is everything that can change its answers (provider, base URL, model, parameters), no secret."""

    @property
    def identity(self) -> str: ...

    @property
    def endpoint(self) -> Endpoint: ...

    async def complete(self, request: ChatRequest) -> Completion:
        """Raises CallError. An empty text is an answer; a missing one is EmptyAnswer."""
        ...


@runtime_checkable
class Agent(Protocol):
    """The student: the agent in production, wrapped by a connector."""

    @property
    def identity(self) -> str: ...

    @property
    def endpoint(self) -> Endpoint: ...

    async def run(self, task: Task) -> Attempt:
        """Raises CallError. The returned attempt always has an output."""
        ...


@dataclass(frozen=True, slots=True)
class Case:
    """What judges see of one side of a lesson. Both sides of a delta have the same fields filled."""

    example: Example
    output: str
    guidance: Guidance = Guidance()
    inputs: tuple[tuple[str, str], ...] = ()  # further texts of this attempt by name: "plan", "trace", "baseline"


@runtime_checkable
class Judge(Protocol):
    """Scores one output. `needs_answer` judges are refused at load when examples have no gold."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def needs_answer(self) -> bool: ...

    async def judge(self, case: Case) -> JudgeScore:
        """Never raises for what a model did: a judge that cannot score returns a value of None with the reason."""
        ...


@dataclass(frozen=True, slots=True)
class Brief:
    """What a proposer knows: the archive as it stood when the slot was planned. Lessons are of the train split."""

    parents: tuple[Candidate, ...]
    lessons: tuple[Lesson, ...]  # of the first parent, on the examples it may read
    components: tuple[Component, ...]
    pool: tuple[Demo, ...]  # train demonstrations
    rng: np.random.Generator  # addressed by (seed, n, operator): the only randomness a proposer may use
    rejected: tuple[Candidate, ...] = ()
    mates: tuple[Candidate, ...] = ()


@runtime_checkable
class Proposer(Protocol):
    """One operator: reads a brief, returns a draft. `needs_model` operators join only when a reflection model is configured."""

    @property
    def name(self) -> str: ...

    async def propose(self, brief: Brief) -> Draft:
        """Raises nothing: an operator that has no idea, or whose model failed, returns a Draft without a candidate."""
        ...
