"""Who may train: pending and quarantined traces never, approved and golden ones may. Golden is earned before the judges of the run.

pending ── approve ──> approved ── promote (the judges agree, an act of its own) ──> golden
   └───── quarantine ──────┴──────────── quarantine, or back to pending ──────────────┘
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gepa_atlas.errors import ConfigError
from gepa_atlas.memory import schema as s
from gepa_atlas.memory.rows import State
from gepa_atlas.memory.store import Memory
from gepa_atlas.rim.panel import Delta
from gepa_atlas.types import Example

REVIEW: dict[str, tuple[State, ...]] = {
    "pending": ("approved", "quarantined"),
    "approved": ("pending", "quarantined"),
    "quarantined": ("pending", "approved"),
    "golden": ("pending", "approved", "quarantined"),
}
_PROMOTE: dict[str, tuple[State, ...]] = {"pending": (), "approved": ("golden",), "quarantined": (), "golden": ()}
Judge = Callable[[Example, str, str], Awaitable[Delta]]
"""(example, output before, output after) -> what the run's judges say of the two."""


@dataclass(frozen=True)
class Promotion:
    """What the judges said of one lesson that was put before them again."""

    id: str
    golden: bool
    reason: str
    delta: float | None = None


def review(memory: Memory, ids: Sequence[str], state: State, note: str = "") -> list[str]:
    """Move traces to a state by hand, all or none; those that moved. ConfigError for an unknown id, and for golden."""
    if state == "golden":
        raise ConfigError("golden is earned before the judges: approve the lesson, then `gepa-atlas traces promote ID`")
    return memory.set_state(ids, state, REVIEW, note)


def run_of(memory: Memory, id_: str) -> dict[str, Any]:
    """The run of a lesson that may be promoted. ConfigError says why there is none."""
    t, r = s.traces.c, s.runs.c
    found = list(memory.rows(sa.select(t.kind, t.state, t.run_id).where(t.id == id_)))
    if not found:
        raise ConfigError(f"{id_}: there is no such trace; `gepa-atlas traces list` shows those there are")
    if found[0]["kind"] == "session":
        raise ConfigError(f"{id_}: is a session, which has no baseline and no run whose judges could compare it; it can be approved")
    if found[0]["state"] != "approved":
        raise ConfigError(
            f"{id_}: is {found[0]['state']}; only an approved lesson can be promoted: `gepa-atlas traces review {id_} approved`"
        )
    runs = list(memory.rows(sa.select(s.runs).where(r.run_id == found[0]["run_id"])))
    if not runs:
        raise ConfigError(f"{id_}: its run is not in this memory, so its judges are unknown; `gepa-atlas traces import RUN` adds it")
    return {**runs[0], "config": json.loads(runs[0]["config"])}


async def promote(memory: Memory, id_: str, judge: Judge, judges: str, note: str = "") -> Promotion:
    """Put one approved lesson before the judges again; golden when they still see a gain. `judges` is the panel's identity, kept as
    evidence. A judge that cannot score leaves the lesson as it is."""
    line = json.loads(next(iter(memory.rows(sa.select(s.traces.c.body).where(s.traces.c.id == id_))))["body"])
    before, after = line["baseline"]["output"], line["second"]["output"]
    if before is None or after is None:
        return Promotion(id_, False, "one of its attempts failed: there is nothing to judge")
    delta = await judge(_example(line["example"]), before, after)
    if delta.value is None:
        return Promotion(id_, False, f"the judges could not score it ({delta.missing.reason if delta.missing else 'no reason given'})")
    low = delta.value - 1.96 * (delta.error or 0.0)
    if low <= 0.0:
        doubt = "no gain" if delta.value <= 0 else f"a gain of {delta.value:+.3f} within their noise ({delta.error:.3f})"
        return Promotion(id_, False, f"the judges see {doubt}", delta.value)
    evidence = {
        "judges": judges, "before": delta.before.to_json(), "after": delta.after.to_json(), "delta": delta.value, "error": delta.error,
        "was": line["delta"],
    }  # fmt: skip
    memory.set_state([id_], "golden", _PROMOTE, note, evidence)
    return Promotion(id_, True, f"the judges see a gain of {delta.value:+.3f}", delta.value)


def _example(row: dict[str, Any]) -> Example:
    return Example(
        row["id"],
        row["question"],
        tuple(row.get("answers", ())),
        row.get("context", ""),
        row.get("split", "train"),
        tuple(row.get("tags", ())),
        row.get("spec", ""),
    )
