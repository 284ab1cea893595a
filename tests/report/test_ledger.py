"""why and compare on ledgers made by hand: what was read, what it fixed and broke, what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.report.compare import compare
from gepa_atlas.report.compare import lines as compared_lines
from gepa_atlas.report.ledger import Ledger, slots_of
from gepa_atlas.report.why import lines, why
from gepa_atlas.store.log import Event
from gepa_atlas.types import Candidate, SlotKind

SEED = Candidate.of({"guidance": "Answer."})
CHILD = SEED.child("reflect", texts={"guidance": "Answer in capitals."})
VAL, TEST = ("v1", "v2", "v3"), ("x1", "x2", "x3", "x4")


def slot(n: int, kind: str, who: list[Candidate], told: list[list[Any]], **more: Any) -> Event:
    child = more.get("child")
    proposal = {
        "parents": [c.id for c in who],
        "read": more.get("read", []),
        "gate": [[e, 0] for e in dict.fromkeys(row[1] for row in told)],
    }
    draft = {"note": "capitals were asked for", "candidate": child.to_json()} if child else None
    decision = {"n": n, "kind": kind, "operator": more.get("operator", kind), "candidate_id": (child or who[-1]).id}
    decision |= {"status": "new" if child else "not added", "reason": more.get("reason", "kept"), "rollouts": len(told)}
    return Event(2 * n + 1, "slot", {"proposal": proposal, "draft": draft, "results": told, "decision": decision})


def row(candidate: Candidate, example: str, after: float | None, before: float | None = 0.0) -> list[Any]:
    return [candidate.id, example, 0, before, after, None if after is not None else "timeout"]


EVENTS = [
    slot(0, "measure", [SEED], [row(SEED, "v1", 0.0), row(SEED, "v2", 1.0), row(SEED, "v3", None)], operator="seed"),
    slot(
        1,
        "child",
        [SEED],
        [
            row(SEED, "t1", 0.0),
            row(SEED, "t2", 1.0),
            row(SEED, "t3", 0.5),
            row(CHILD, "v1", 1.0),
            row(CHILD, "v2", 0.0),
            row(CHILD, "v3", 1.0),
        ],
        operator="reflect",
        read=["t1", "t2", "t3"],
        child=CHILD,
    ),
    slot(2, "final", [SEED, CHILD], [row(c, e, float(c is CHILD)) for c in (SEED, CHILD) for e in TEST], operator="final"),
]
CALLS = {"rollouts": 20, "by_role": {}, "unsettled": 0, "attempts": {}, "usage": {}}
FINISH = {"winner": CHILD.to_json(), "verdict": {"ruling": "ship"}, "stop_reason": "budget"}
LEDGER = Ledger(Path("runs/a"), "a", "finished", {"rim": "1", "data": "2"}, slots_of(EVENTS), FINISH, CALLS)


def test_why_names_the_failures_that_were_read(tmp_path: Path) -> None:
    lesson = {"candidate": SEED.id, "example": {"id": "t1", "question": "Spell a"}, "second": {"output": "a"}}
    (tmp_path / "traces.jsonl").write_text(json.dumps(lesson) + '\n{"candidate": "cut sho', encoding="utf-8")
    found = why(LEDGER, (SEED,), CHILD.id[:6], tmp_path / "traces.jsonl")
    assert list(found.failures) == ["t1", "t3"]  # worst first; t2 was right
    assert found.to_json()["motivated_by"][0] == {"example": "t1", "before": 0.0, "after": 0.0, "question": "Spell a", "answer": "a"}
    text = "\n".join(lines(found))
    assert "Motivated by 2 failures among 3 train examples" in text and "'Spell a' -> 'a'" in text


def test_why_counts_only_what_both_were_scored_on() -> None:
    found = why(LEDGER, (SEED,), CHILD.id)
    assert (found.against_parent.pairs, found.against_parent.mean) == (2, 0.0)  # v3 failed for the parent
    assert (found.against_parent.fixed, found.against_parent.broken) == (("v1",), ("v2",))
    assert found.test is not None and (found.test.pairs, found.test.mean) == (4, 1.0)
    assert found.test.low is not None and found.test.low > 0
    assert [s.decision.kind for s in found.history] == [SlotKind.FINAL]


def test_why_of_the_seed_is_its_text() -> None:
    text = "\n".join(lines(why(LEDGER, (SEED,), SEED.id)))
    assert "the prompt it started from" in text and "Answer." in text
    assert "compared with nothing" in text and "not sent there" not in text, "the seed is on the held-out test beside every winner"


def test_why_works_before_the_end() -> None:
    running = replace(LEDGER, status="running", slots=LEDGER.slots[:2], finish=None)
    assert "it was not sent there" in "\n".join(lines(why(running, (SEED,), CHILD.id)))
    with pytest.raises(ConfigError, match="not finished"):
        compare(running, LEDGER)


def test_compare_says_where_a_reward_means_something_else() -> None:
    searched = slot(1, "measure", [SEED], [row(SEED, "x1", 1.0), row(SEED, "x2", 1.0)])
    final = slot(2, "final", [SEED, CHILD], [row(c, e, 1.0) for c in (SEED, CHILD) for e in ("x3", "x4", "y1")], operator="final")
    other = Ledger(Path("runs/b"), "b", "finished", {"rim": "9", "data": "2"}, slots_of([searched, final]), FINISH, CALLS)
    found = compare(LEDGER, other)
    assert found.rewards.pairs == 2 and found.rewards.mean == 0.0
    assert len(found.warnings) == 2 and "judges differ" in found.warnings[0]
    assert "B searched on 2 held-out examples of the other run" in found.warnings[1]
    assert any(line.startswith("Careful: the judges differ") for line in compared_lines(found))
    apart = replace(other, slots=slots_of([slot(2, "final", [CHILD], [row(CHILD, "z", 1.0)], operator="final")]))
    with pytest.raises(ConfigError, match="no scored held-out example in common"):
        compare(LEDGER, apart)


def test_a_student_that_differs_is_compared_by_reward_and_by_delta() -> None:
    better = slot(2, "final", [SEED, CHILD], [row(c, e, 1.0, 0.5) for c in (SEED, CHILD) for e in TEST], operator="final")
    found = compare(LEDGER, replace(LEDGER, slots=slots_of([EVENTS[0], EVENTS[1], better])))
    assert found.rewards.mean == 0.0 and found.deltas.mean == -0.5
    assert any("In what guidance was worth: B minus A -0.500" in line for line in compared_lines(found))
