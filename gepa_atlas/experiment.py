"""What a run is made of, what it finds, and who watches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gepa_atlas.budget import Limits
from gepa_atlas.calls import Calls
from gepa_atlas.data import Dataset
from gepa_atlas.evolve.engine import Evolution, Plan
from gepa_atlas.ports import Agent, Proposer
from gepa_atlas.protocols.base import TeachingProtocol
from gepa_atlas.rim.panel import Panel
from gepa_atlas.store.log import Event
from gepa_atlas.types import Candidate, Component, Decision, Lesson, Outcome, Proposal, Role, Usage, Verdict


@dataclass(frozen=True)
class Experiment:
    """Everything a run is made of. Ports are already wrapped by `calls`, so that each paid call is recorded once."""

    name: str
    plan: Plan
    seeds: tuple[Candidate, ...]
    components: tuple[Component, ...]
    dataset: Dataset
    student: Agent
    panel: Panel
    protocol: TeachingProtocol
    proposers: dict[str, Proposer]
    calls: Calls
    manifest: dict[str, str]
    config: dict[str, Any]
    gain: Callable[[Lesson], float | None] = lambda lesson: lesson.delta
    guard: Callable[[Candidate], str | None] = lambda candidate: None
    limits: Limits = Limits()
    error_share: float = 0.5


@dataclass(frozen=True)
class Result:
    """What a finished search found. `lessons` are in the order they were told; `evolution` holds archive and decisions."""

    experiment: Experiment
    directory: Path
    evolution: Evolution
    verdict: Verdict
    winner: Candidate  # what to use: the search's winner when the verdict is ship, otherwise the seed
    stop_reason: str
    lessons: tuple[Lesson, ...]
    spend: dict[Role, Usage]
    rollouts: int
    digest: str
    judging: dict[str, Usage] = field(default_factory=dict)  # what the answers of each model judge had cost
    run_id: str = ""
    began: float = 0.0  # Unix seconds
    events: tuple[Event, ...] = ()  # everything that was told, as it is on record


class Observer(Protocol):
    """Who watches a run. Called from the loop, in order; must not block."""

    def started(self, experiment: Experiment, directory: Path, resumed: bool) -> None: ...

    def seed_measured(self, lessons: Sequence[Lesson]) -> None:
        """The first look at the seed prompt: what there is to gain."""
        ...

    def taught(self, outcome: Outcome, proposal: Proposal) -> None:
        """A slot is on record, with its draft and every lesson; in the order of slots, before `decided`. A resume says it all again."""
        ...

    def decided(self, decision: Decision, evolution: Evolution) -> None: ...

    def finished(self, result: Result) -> None: ...


class Silent:
    def started(self, experiment: Experiment, directory: Path, resumed: bool) -> None:
        pass

    def seed_measured(self, lessons: Sequence[Lesson]) -> None:
        pass

    def taught(self, outcome: Outcome, proposal: Proposal) -> None:
        pass

    def decided(self, decision: Decision, evolution: Evolution) -> None:
        pass

    def finished(self, result: Result) -> None:
        pass
