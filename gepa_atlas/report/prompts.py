"""optimized_prompts.json: ATLAS's six keys, always filled, and beside them the evidence a sceptic asks for.

`best_candidate` is what to use: the search's winner when the verdict is ship, else the seed. `best_score` and `initial_score` are
mean rewards of that candidate and of the seed, on the test split when it was scored, else on val; `score_split` says which ("none"
when nothing was scored: then both are null and `notes` says why). `improvement` is their difference, 0 when the seed is returned.
`improvement_percentage` is relative to the seed's score; where that is 0 there is no such ratio, and the improvement is given in
points (hundredths of reward). `improvement_percentage_of` says which: "initial_score" or "points".
The paired figures of winner against seed are under `test.gain`; they may differ from `improvement` in the last digits where an
example was scored for one side only. Schema: docs/optimized_prompts.schema.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gepa_atlas.report.record import Member, RunRecord
from gepa_atlas.report.summary import sentence
from gepa_atlas.store.exports import write_json
from gepa_atlas.types import Candidate, Scorecard

SCHEMA_VERSION = 1
ATLAS_KEYS = ("best_candidate", "best_score", "initial_score", "improvement", "improvement_percentage", "pareto_frontier")


def optimized_prompts(record: RunRecord) -> dict[str, Any]:
    """The document, ready for JSON. Figures are rounded to six places; nothing in it depends on a clock or a path."""
    verdict = record.verdict
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": record.run_id,
        "name": record.name,
        "best_candidate": dict(record.winner.texts),
        **_scores(record),
        "pareto_frontier": [_member(m, record) for m in _frontier(record)],
        "best_candidate_id": record.winner.id,
        "demonstrations": [d.to_json() for d in record.winner.demos],
        "settings": dict(record.winner.settings),
        "verdict": {"ruling": verdict.ruling.value, "sentence": sentence(record), "reasons": list(verdict.reasons)},
        "test": {
            "examples": record.splits.get("test", 0),
            "seed_mean": _round(verdict.seed.after if verdict.seed else None),
            "winner_mean": _round(verdict.winner.after if verdict.winner else None),
            "gain": {
                "mean": _round(verdict.gain),
                "low": _round(verdict.gain_low),
                "high": _round(verdict.gain_high),
                "level": 0.95,
                "pairs": verdict.pairs,
                "judge_error": _round(verdict.judge_error),
            },
            "winner_id": record.challenger.id,
            "seed": _card(verdict.seed),
            "winner": _card(verdict.winner),
        },
        "coverage": _round(verdict.winner.coverage if verdict.winner else None),
        "harm_rate": _round(verdict.winner.harm_rate if verdict.winner else None),
        "challenger": _content(record.challenger),
        "seed_candidate": _content(record.seed),
        "lineage": [_ancestor(m) for m in record.lineage(record.winner)],
        "spend": {role: usage.to_json() | {"dollars": _round(usage.dollars)} for role, usage in sorted(record.spend.items())},
        "spend_by_judge": {name: usage.to_json() | {"dollars": _round(usage.dollars)} for name, usage in sorted(record.judging.items())},
        "rollouts": {"spent": record.rollouts, "limit": record.rollout_limit},
        "stop_reason": record.stop_reason,
        "splits": {split: record.splits.get(split, 0) for split in ("train", "val", "test")},
        "protocol": record.protocol,
        "watch": record.watch.to_json() if record.watch else None,
        "fingerprints": dict(sorted(record.fingerprints.items())),
        "digest": record.digest,
        "notes": list(record.notes),
    }


def write_optimized_prompts(record: RunRecord, path: Path) -> dict[str, Any]:
    """Write the document whole or not at all, without secrets; returns it. ConfigError or StoreFull when the path refuses."""
    document = optimized_prompts(record)
    write_json(path, document)
    return document


def scored(record: RunRecord) -> tuple[Literal["test", "val", "none"], Scorecard | None, Scorecard | None]:
    """(split, card of the seed, card of the winner) that the scores are taken from."""
    verdict = record.verdict
    tested = verdict.winner if record.shipped else verdict.seed
    if verdict.seed and tested and verdict.seed.after is not None and tested.after is not None:
        return "test", verdict.seed, tested
    seed, winner = record.member(record.seed.id).card, record.member(record.winner.id).card
    if seed and winner and seed.after is not None and winner.after is not None:
        return "val", seed, winner
    return "none", None, None


def _scores(record: RunRecord) -> dict[str, Any]:
    split, seed, winner = scored(record)
    initial, best = (seed.after if seed else None), (winner.after if winner else None)
    improvement = 0.0 if initial is None or best is None else best - initial
    relative = initial is not None and initial > 0.0
    percentage = 100.0 * improvement / initial if initial and relative else 100.0 * improvement
    return {
        "best_score": _round(best),
        "initial_score": _round(initial),
        "improvement": _round(improvement),
        "improvement_percentage": _round(percentage),
        "improvement_percentage_of": "initial_score" if relative else "points",
        "score_split": split,
    }


def _frontier(record: RunRecord) -> list[Member]:
    """The front of the val split; when nothing was measured there is none, and the candidate to use stands for it."""
    members = [record.member(identity) for identity in record.frontier or (record.winner.id,)]

    def standing(member: Member) -> tuple[float, int]:
        after = member.card.after if member.card else None
        return (-after if after is not None else 1.0, member.candidate.size())

    return sorted(members, key=standing)


def _content(candidate: Candidate) -> dict[str, Any]:
    return {
        "id": candidate.id,
        "candidate": dict(candidate.texts),
        "demonstrations": [d.to_json() for d in candidate.demos],
        "settings": dict(candidate.settings),
    }


def _member(member: Member, record: RunRecord) -> dict[str, Any]:
    card = member.card
    return _content(member.candidate) | {
        "origin": member.candidate.origin,
        "parents": list(member.candidate.parents),
        "is_seed": member.candidate.id == record.seed.id,
        "is_best": member.candidate.id == record.winner.id,
        "val_score": _round(card.after if card else None),
        "val_delta": _round(card.delta if card else None),
        "val_examples": card.scored if card else 0,
        "characters": member.candidate.size(),
    }


def _ancestor(member: Member) -> dict[str, Any]:
    candidate = member.candidate
    return {"id": candidate.id, "origin": candidate.origin, "parents": list(candidate.parents), "note": member.note}


def _card(card: Scorecard | None) -> dict[str, Any] | None:
    return {k: _round(v) if isinstance(v, float) else v for k, v in card.to_json().items()} if card else None


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6) + 0.0  # no -0.0
