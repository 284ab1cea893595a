"""RunRecord: everything the report needs of a finished run, and nothing else. Whoever ran the search fills it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gepa_atlas.errors import ContractError
from gepa_atlas.rim.audit import Watched
from gepa_atlas.types import Candidate, Decision, Role, Ruling, Scorecard, Split, Usage, Verdict


@dataclass(frozen=True, slots=True)
class Member:
    """A candidate of the population, what it got on the val split (None: never measured), and why it was made."""

    candidate: Candidate
    card: Scorecard | None = None
    note: str = ""


@dataclass(frozen=True)
class RunRecord:
    """A finished run. `challenger` is who was sent to the held-out test; `winner` is what to use: the challenger when the verdict
    is ship, otherwise the seed."""

    run_id: str
    name: str  # of the configuration
    seed: Candidate
    challenger: Candidate
    verdict: Verdict
    population: tuple[Member, ...]  # in order of arrival; holds the seed and the challenger
    frontier: tuple[str, ...]  # ids on the per-example Pareto front of the val split
    decisions: tuple[Decision, ...] = ()
    spend: Mapping[Role, Usage] = field(default_factory=dict)
    rollouts: int = 0
    rollout_limit: int | None = None
    stop_reason: str = ""
    splits: Mapping[Split, int] = field(default_factory=dict)  # number of examples
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # data, student, judges, models, config
    digest: str = ""  # of everything that was decided; free of clock and path
    notes: tuple[str, ...] = ()  # what cannot be claimed
    protocol: str = ""
    judging: Mapping[str, Usage] = field(default_factory=dict)  # what the answers of each model judge had cost
    watch: Watched | None = None  # where the configuration names a watching judge

    def __post_init__(self) -> None:
        known = {member.candidate.id for member in self.population}
        for what, identity in (("seed", self.seed.id), ("challenger", self.challenger.id), *(("front member", i) for i in self.frontier)):
            if identity not in known:
                raise ContractError(f"the {what} {identity!r} is not in the population of the record")

    @property
    def shipped(self) -> bool:
        return self.verdict.ruling is Ruling.SHIP and self.challenger.id != self.seed.id

    @property
    def winner(self) -> Candidate:
        return self.challenger if self.shipped else self.seed

    def member(self, candidate_id: str) -> Member:
        return next(m for m in self.population if m.candidate.id == candidate_id)

    def lineage(self, candidate: Candidate) -> Iterator[Member]:
        """The candidate, then its ancestors breadth first, each once, as far as they are in the population."""
        known = {m.candidate.id: m for m in self.population}
        waiting, seen = [candidate.id], set[str]()
        while waiting:
            identity = waiting.pop(0)
            if identity in known and identity not in seen:
                seen.add(identity)
                yield known[identity]
                waiting += known[identity].candidate.parents
