"""Two finished runs against each other: what each says to use, on the held-out examples that both have, paired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.report.ledger import Difference, Ledger, difference
from gepa_atlas.report.summary import spend_text
from gepa_atlas.types import Candidate, SlotKind, Usage

# Parts of the manifest that decide what a reward means; others (operators, seed, budget) are what is being compared.
_SCALE = {
    "rim": "the judges differ, so a reward does not mean the same in both",
    "data": "the data sets differ: examples are paired by id, and are taken to be the same",
    "agents.student": "the agents differ, so a difference is theirs as much as the prompts'",
    "protocol": "the protocols differ",
    "gain": "the gains that the searches went by differ",
}


@dataclass(frozen=True)
class Side:
    """A run as it stands in a comparison: what it says to use, and how that did on its own held-out test."""

    ledger: Ledger
    use: Candidate
    scores: Mapping[str, tuple[float, float]]
    shipped: bool

    @property
    def mean(self) -> float | None:
        return sum(after for _, after in self.scores.values()) / len(self.scores) if self.scores else None

    def to_json(self) -> dict[str, Any]:
        calls = self.ledger.calls
        return {
            "run": str(self.ledger.directory),
            "run_id": self.ledger.run_id,
            "candidate": self.use.id,
            "shipped": self.shipped,
            "test_examples": len(self.scores),
            "test_mean": None if self.mean is None else round(self.mean, 6),
            "characters": self.use.size(),
            "rollouts": calls["rollouts"],
            "usage": calls["usage"],
        }


@dataclass(frozen=True)
class Comparison:
    """`rewards`: B minus A in reward; `deltas`: in what guidance was worth over each run's own attempt without it."""

    a: Side
    b: Side
    rewards: Difference
    deltas: Difference
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "b_minus_a": self.rewards.to_json(),
            "b_minus_a_in_delta": {k: v for k, v in self.deltas.to_json().items() if k not in ("better", "worse")},
            "same_prompt": self.a.use.id == self.b.use.id,
            "warnings": list(self.warnings),
        }


def compare(a: Ledger, b: Ledger) -> Comparison:
    """Raises ConfigError for a run that is not finished or has no held-out result, or two without a held-out example in common."""
    one, other = _side(a), _side(b)
    shared = one.scores.keys() & other.scores.keys()
    if not shared:
        raise ConfigError(
            f"{a.directory} and {b.directory} have no scored held-out example in common, so nothing is paired; "
            "give both runs the same data and the same splits"
        )
    rewards = difference(*({e: (0.0, after) for e, (_, after) in side.scores.items()} for side in (other, one)))
    return Comparison(one, other, rewards, difference(other.scores, one.scores), tuple(_warnings(one, other)))


def lines(found: Comparison) -> Iterator[str]:
    """What a person reads."""
    yield f"{_word(found)}: B minus A {found.rewards.text()} (mean reward on the held-out examples both have)"
    for name, side in (("A", found.a), ("B", found.b)):
        what = "its evolved prompt" if side.shipped else "its seed prompt"
        mean = "unknown" if side.mean is None else f"{side.mean:.3f}"
        figures = f"{mean} on {len(side.scores)} held-out examples, {side.use.size()} characters"
        yield f"{name}: {side.ledger.directory}, {what} {side.use.id[:8]}, {figures}"
        yield f"   {side.ledger.calls['rollouts']} rollouts; " + "; ".join(
            f"{role}: {spend_text(Usage.from_json(usage))}" for role, usage in side.ledger.calls["usage"].items()
        )
    if found.deltas.mean != found.rewards.mean:
        yield f"In what guidance was worth: B minus A {found.deltas.text()}"
    for what, examples in (("better", found.rewards.fixed), ("worse", found.rewards.broken)):
        if examples:
            yield f"B is {what} on {len(examples)}: {', '.join(examples[:12])}{' ...' if len(examples) > 12 else ''}"
    for warning in found.warnings:
        yield f"Careful: {warning}"


def _word(found: Comparison) -> str:
    if found.a.use.id == found.b.use.id:
        return "Both say to use the same prompt"
    low, high = found.rewards.low, found.rewards.high
    if low is None or high is None:
        return "Too few pairs to tell them apart"
    return "B is better" if low > 0 else "A is better" if high < 0 else "Not told apart"


def _side(ledger: Ledger) -> Side:
    if ledger.finish is None:
        raise ConfigError(f"{ledger.directory}: the run is {ledger.status}, not finished; `gepa-atlas optimize` goes on with it")
    if ledger.final is None:
        raise ConfigError(
            f"{ledger.directory}: the run has no held-out result to compare; it had no test split, or no rollouts left for it"
        )
    use = Candidate.from_json(ledger.finish["winner"])
    return Side(ledger, use, ledger.scores(use.id, final=True), ledger.finish["verdict"]["ruling"] == "ship")


def _warnings(a: Side, b: Side) -> Iterator[str]:
    mine, theirs = a.ledger.manifest, b.ledger.manifest
    yield from (text for key, text in _SCALE.items() if mine.get(key) != theirs.get(key))
    for name, side, other in (("A", a, b), ("B", b, a)):
        searched = {e for s in side.ledger.slots if s.decision.kind is not SlotKind.FINAL for e in (*s.read, *s.gate)}
        leaked = len(searched & other.scores.keys())
        if leaked:
            yield f"{name} searched on {leaked} held-out examples of the other run; those are not compared"
