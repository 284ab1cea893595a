"""The port of a teaching protocol: what happens between the first attempt and the second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gepa_atlas.types import Attempt, Candidate, Component, Failure, Guidance, Question, Task, Usage

# Masks what gives the gold answer away in a text for the student; the second argument is what the student has seen anyway. A protocol
# is handed this function and never the answer.
Withhold = Callable[[str, tuple[str, ...]], str]


def keep(text: str, seen: tuple[str, ...]) -> str:
    return text


@dataclass(frozen=True, slots=True)
class Prepared:
    """A second attempt, ready to run: what the student receives, the guidance in it, and what the teacher took.
    `student_tasks` are the rollouts that preparing it took already.

    With `failure` the task must not be run: the teaching did not come about, and the lesson is unscored for that reason.
    """

    task: Task
    guidance: Guidance
    usage: Usage = Usage()
    failure: Failure | None = None
    student_tasks: tuple[Task, ...] = ()  # student runs beside the second attempt (a probe), so that rollouts are counted exactly
    support: str = ""  # how much help the teacher thought was needed: light, medium or heavy; empty where nobody says


@runtime_checkable
class TeachingProtocol(Protocol):
    """Makes the second attempt's task from a candidate. It sees the public question only, never a gold answer."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """Everything that can change a lesson under this protocol: options and the teacher's identity. No secret."""
        ...

    @property
    def student_calls(self) -> int:
        """Rollouts that one second attempt takes at most, the attempt itself included."""
        ...

    def components(self) -> tuple[Component, ...]:
        """The texts a candidate must have."""
        ...

    def seed_texts(self) -> Mapping[str, str]:
        """A first text for each component, for users who bring none."""
        ...

    def baseline(self, question: Question) -> Task:
        """What the student receives before any teaching. Must not depend on a candidate: it is run and judged once."""
        ...

    def answer(self, output: str) -> str:
        """The part of an output that judges see, the same on both sides of a delta."""
        ...

    async def prepare(
        self, candidate: Candidate, question: Question, baseline: Attempt, sample: int, withhold: Withhold = keep
    ) -> Prepared:
        """Raises nothing for what a teacher did or for an empty budget; outage and drain signals pass through."""
        ...


def untaught(
    question: Question, sample: int, failure: Failure, usage: Usage | None = None, student_tasks: tuple[Task, ...] = ()
) -> Prepared:
    """A preparation that came to nothing, with the reason."""
    return Prepared(Task(question, Guidance(), sample), Guidance(), usage or Usage(), failure, student_tasks)
