"""A run as its ledger tells it: slots, candidates and results read from the recorded events, without replaying anything.

This serves what must work on a run whose agent or data are not at hand, and on one that is not finished: `compare`, `why`, the tree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from gepa_atlas.evolve.stats import paired_gain
from gepa_atlas.store.log import Event
from gepa_atlas.store.view import RunView
from gepa_atlas.types import Candidate, Decision, SlotKind, Status


class Told(NamedTuple):
    """One taught cell: rewards before and after, None where they are not known, and then why."""

    candidate: str
    example: str
    sample: int
    before: float | None
    after: float | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class Slot:
    """One told slot: what was planned, what was drafted, what came of it, what was decided."""

    n: int
    parents: tuple[str, ...]
    read: tuple[str, ...]  # ids of the train examples whose lessons the operator read
    gate: tuple[str, ...]  # ids of the examples that were to be taught
    note: str  # of the draft
    candidate: Candidate | None  # the child
    told: tuple[Told, ...]
    decision: Decision


@dataclass(frozen=True)
class Ledger:
    """The told slots of a run in order; `finish` is what the end said, None before it."""

    directory: Path
    run_id: str
    status: str
    manifest: Mapping[str, str]
    slots: tuple[Slot, ...]
    finish: Mapping[str, Any] | None
    calls: Mapping[str, Any]  # what was charged, see Index.calls

    @classmethod
    def read(cls, directory: Path) -> Ledger:
        """Raises ConfigError when there is no run, RunDamaged when its checks fail."""
        with RunView.read(directory) as run:
            events = run.events()
            ends = [event.payload for event in events if event.kind == "finish"]
            return cls(directory, run.run_id, run.status, run.manifest, slots_of(events), ends[-1] if ends else None, run.calls())

    def candidates(self) -> dict[str, Candidate]:
        """Every child that was drafted, by id. The seed is not among them: it comes from the configuration."""
        known = {slot.candidate.id: slot.candidate for slot in self.slots if slot.candidate is not None}
        if self.finish is not None:
            winner = Candidate.from_json(self.finish["winner"])
            known.setdefault(winner.id, winner)
        return known

    def maker(self, candidate: str) -> Slot | None:
        """The slot that brought a candidate into the population."""
        return next((s for s in self.slots if s.candidate is not None and s.candidate.id == candidate), None)

    @property
    def final(self) -> Slot | None:
        """The held-out test."""
        return next((s for s in reversed(self.slots) if s.decision.kind is SlotKind.FINAL), None)

    @cached_property
    def select(self) -> frozenset[str]:
        """Examples that candidates were measured on during the search; those that an operator only read are not among them."""
        return frozenset(e for slot in self.slots if slot.decision.kind is not SlotKind.FINAL for e in slot.gate)

    def scores(self, candidate: str, *, final: bool) -> dict[str, tuple[float, float]]:
        """Mean (before, after) by example over the scored samples, on the held-out test or on the search (select) split."""
        return self._scores(candidate, final, None if final else self.select)

    def read_scores(self, candidate: str, examples: Collection[str]) -> dict[str, tuple[float, float]]:
        """The same on train examples that an operator read."""
        return self._scores(candidate, False, examples)

    def _scores(self, candidate: str, final: bool, among: Collection[str] | None) -> dict[str, tuple[float, float]]:
        by_example: dict[str, dict[int, tuple[float, float]]] = {}
        for slot in self.slots:
            if final is not (slot.decision.kind is SlotKind.FINAL):
                continue
            for told in slot.told:
                if among is not None and told.example not in among:
                    continue
                if told.candidate == candidate and told.before is not None and told.after is not None:
                    by_example.setdefault(told.example, {})[told.sample] = (told.before, told.after)
        samples = {example: list(told.values()) for example, told in by_example.items()}
        return {e: (sum(b for b, _ in v) / len(v), sum(a for _, a in v) / len(v)) for e, v in samples.items()}


def slots_of(events: Iterable[Event]) -> tuple[Slot, ...]:
    """Slots of a run's events, idle ones left out."""
    return tuple(_slot(e.payload) for e in events if e.kind == "slot" and e.payload["decision"]["kind"] != SlotKind.IDLE.value)


@dataclass(frozen=True, slots=True)
class Difference:
    """`ours` minus `theirs`, paired by example, with a 95 % interval; None where there are too few pairs."""

    mean: float | None
    low: float | None
    high: float | None
    pairs: int
    fixed: tuple[str, ...]  # examples on which ours is better
    broken: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        figures = {"mean": self.mean, "low": self.low, "high": self.high}
        rounded = {name: None if value is None else round(value, 6) for name, value in figures.items()}
        return {**rounded, "level": 0.95, "pairs": self.pairs, "better": list(self.fixed), "worse": list(self.broken)}

    def text(self) -> str:
        if self.mean is None:
            return "no example in common"
        if self.low is None or self.high is None:
            return f"{self.mean:+.3f}, too few pairs for an interval ({self.pairs})"
        return f"{self.mean:+.3f}, 95 % interval [{self.low:+.3f}, {self.high:+.3f}], {self.pairs} pairs"


def difference(ours: Mapping[str, tuple[float, float]], theirs: Mapping[str, tuple[float, float]]) -> Difference:
    """Two tables of (before, after) by example, compared where they overlap."""
    mean, low, high, pairs = paired_gain(ours, theirs)
    steps = {e: (ours[e][1] - theirs[e][1]) - (ours[e][0] - theirs[e][0]) for e in sorted(ours.keys() & theirs.keys())}
    better, worse = (tuple(e for e, step in steps.items() if sign * step > 1e-9) for sign in (1, -1))
    return Difference(mean if pairs else None, low, high, pairs, better, worse)


def _slot(payload: Mapping[str, Any]) -> Slot:
    proposal, draft, decision = payload["proposal"], payload["draft"], payload["decision"]
    child = draft["candidate"] if draft else None
    return Slot(
        n=decision["n"],
        parents=tuple(proposal["parents"]),
        read=tuple(proposal["read"]),
        gate=tuple(example for example, _ in proposal["gate"]),
        note=draft["note"] if draft else "",
        candidate=Candidate.from_json(child) if child else None,
        told=tuple(Told(*row) for row in payload["results"]),
        decision=Decision(**{**decision, "kind": SlotKind(decision["kind"]), "status": Status(decision["status"])}),
    )
