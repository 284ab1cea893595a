"""What a sink is told: four facts, in order, without secrets; and the figures that go with a decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gepa_atlas.types import Decision, Lesson, Role, Usage

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunBegan:
    run_id: str
    name: str
    resumed: bool
    settings: Mapping[str, str | int | float]  # flat: student, judges, limits
    at: int  # nanoseconds since 1970


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call that was answered, or failed for good. `slot` is None before the first one."""

    role: Role
    endpoint: str
    slot: int | None
    attempts: int
    usage: Usage
    problem: str  # kind and reason of a failure, else empty
    began: int
    ended: int
    slot_began: int


@dataclass(frozen=True, slots=True)
class SlotDecided:
    """A slot, with the rewards of its lessons and the figures of the run after it."""

    decision: Decision
    rewards: tuple[tuple[float | None, float | None], ...]  # before, after
    figures: Figures
    began: int
    at: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """`result` is finished, or stopped: it ended early and can be resumed. Without a held-out test there are no figures of one."""

    result: str
    ruling: str
    reason: str
    figures: Figures
    at: int


Fact = RunBegan | CallEnded | SlotDecided | RunEnded


class Sink(Protocol):
    """Who is told. In a thread of its own; may raise whatever it likes: then it is told nothing more."""

    def take(self, fact: Fact) -> None: ...

    def close(self) -> None:
        """The last call; what was taken is to be safe after it."""
        ...


@dataclass
class Tally:
    """Figures of the run so far, over all lessons that were told, of the search and of the held-out test alike."""

    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    lessons: int = 0
    trouble: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0  # of answering
    answers: int = 0

    def lesson(self, lesson: Lesson) -> None:
        self.lessons += 1
        if lesson.before.value is not None and lesson.after.value is not None:
            self.before.append(lesson.before.value)
            self.after.append(lesson.after.value)

    def figures(self, spent: Mapping[Role, Usage]) -> dict[str, float]:
        """What is not known is left out."""
        found: dict[str, float] = {"calls_failed": self.trouble["failed"], "calls_retried": self.trouble["retried"]}
        scored = len(self.before)
        if self.lessons:
            found["coverage"] = scored / self.lessons
        if scored:
            found["reward_before"], found["reward_after"] = sum(self.before) / scored, sum(self.after) / scored
            found["delta"] = found["reward_after"] - found["reward_before"]
            found["non_degradation_rate"] = sum(a >= b for a, b in zip(self.after, self.before, strict=True)) / scored
        if self.answers:
            found["latency_seconds"] = self.seconds / self.answers
        for role, usage in spent.items():
            known = {"calls": usage.calls, "tokens": usage.tokens, "dollars": usage.dollars}
            found |= {f"{what}_{role}": value for what, value in known.items() if value is not None}
        return found


def rewards(lessons: Sequence[Lesson]) -> tuple[tuple[float | None, float | None], ...]:
    return tuple((lesson.before.value, lesson.after.value) for lesson in lessons)
