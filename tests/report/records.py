"""Finished runs made by hand, as small as they can be and still say everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gepa_atlas.report.record import Member, RunRecord
from gepa_atlas.types import Candidate, Decision, Demo, Ruling, Scorecard, SlotKind, Status, Usage, Verdict

SEED = Candidate.of({"guidance": "Answer."})
DEMO = Demo("toy-0001", "Ticket 1?", "mumeb")
CHILD = SEED.child("edit", texts={"guidance": "Answer with {braces}, “quotes” and 🎓."})
WINNER = CHILD.child("demos", demos=(DEMO,))


def card(candidate: Candidate, after: float | None, scored: int = 40, planned: int = 40, harm: float = 0.0) -> Scorecard:
    if after is None:
        return Scorecard(candidate.id, planned, 0, None, None, None, None, None, None)
    return Scorecard(candidate.id, planned, scored, after - 0.1, after - 0.2, min(1.0, after), after, 0.1, harm, 12.5)


SHIP = Verdict(Ruling.SHIP, ("paired gain +0.800",), card(SEED, 0.1), card(WINNER, 0.9, 39, harm=0.025), 0.8, 0.65, 0.89, 39)
WORSE = replace(SHIP, ruling=Ruling.DO_NOT_SHIP, winner=card(WINNER, 0.08), gain=-0.02, gain_low=-0.1, gain_high=0.06, pairs=40)
UNSURE = replace(SHIP, ruling=Ruling.INCONCLUSIVE, winner=card(WINNER, 0.15), gain=0.05, gain_low=-0.05, gain_high=0.2, pairs=40)
NO_TEST = Verdict(Ruling.INCONCLUSIVE, ("there is no test split",), None, None)
SEED_WON = Verdict(
    Ruling.DO_NOT_SHIP, ("no candidate was better than the seed on the val split",), card(SEED, 0.1), card(SEED, 0.1), 0.0, 0.0, 0.0, 40
)


def record(verdict: Verdict = SHIP, **changes: Any) -> RunRecord:
    full = RunRecord(
        run_id="run-1",
        name="toyworld",
        seed=SEED,
        challenger=WINNER,
        verdict=verdict,
        population=(
            Member(SEED, card(SEED, 0.12, 24, 24), "the seed"),
            Member(CHILD, card(CHILD, 0.5, 6, 24), "added a line"),
            Member(WINNER, card(WINNER, 0.95, 24, 24), "added a demonstration"),
        ),
        frontier=(CHILD.id, WINNER.id),
        decisions=(Decision(1, SlotKind.CHILD, "edit", CHILD.id, Status.NEW, "kept", 6),),
        spend={"student": Usage(1200, 60, 0.001234, 9.5, 150), "reflection": Usage(None, None, None, 3.0, 2)},
        rollouts=150,
        rollout_limit=150,
        stop_reason="the budget of 150 rollouts is spent",
        splits={"train": 36, "val": 24, "test": 40},
        fingerprints={"student": "toyworld:abc", "data": "def"},
        digest="0123",
        notes=("only 40 test examples",),
        protocol="playbook",
    )
    return replace(full, **changes)


ALL = {"ship": SHIP, "worse": WORSE, "unsure": UNSURE, "no test": NO_TEST}
