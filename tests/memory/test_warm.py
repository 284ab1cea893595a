"""What a new run is given: tasks are told apart by their texts, and nothing held out comes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.memory import rows
from gepa_atlas.memory.ingest import run_row, verdict_row
from gepa_atlas.memory.store import Memory
from gepa_atlas.memory.warm import cosine, shares, similar, warm_start
from gepa_atlas.types import Candidate, Demo, Example

from .lines import lesson_line
from .test_skills import ALL, HURTS, NULL, PAYS, candidate, lessons

PARCELS = [f"Where is parcel {n}? It was sent to {town} last week." for n, town in enumerate(["Bonn", "Kiel", "Ulm", "Jena", "Graz"] * 8)]
SUMS = [f"How much is {n} plus {n * 3 + 1}?" for n in range(40)]
REVIEWS = [f"Label the mood of this review: the {a} was {b}." for a in ("food", "room", "staff", "view") for b in ("fine", "bad", "slow")]


def remember(memory: Memory, operation: str, questions: list[str], winner: Candidate | None = None, ruling: str = "ship") -> str:
    run_id = f"run of {operation}"
    lines = [lesson_line(f"{operation}-{n}", question=q, split="train" if n % 2 else "test") for n, q in enumerate(questions)]
    memory.add([rows.lesson(line, run_id, operation, float(n)) for n, line in enumerate(lines)])
    verdict: dict[str, Any] = {"ruling": ruling, "gain": 0.2, "gain_low": 0.1, "gain_high": 0.3, "pairs": 10}
    run = run_row(run_id, operation, {"source": f"{operation}.yaml"}, "finished", 1.0, "j")
    memory.put_run(run, verdict_row(run_id, verdict, (winner or candidate(PAYS)).to_json()))
    return run_id


def examples(questions: list[str], start: int = 0) -> list[Example]:
    return [Example(f"x{start + n}", q, ("a",), split="test" if n % 2 else "train") for n, q in enumerate(questions)]


def test_tasks_are_told_apart_by_their_texts(tmp_path: Path) -> None:
    with Memory.open(f"{tmp_path}/m.db") as memory:
        for name, asked in (("parcels", PARCELS[:20]), ("sums", SUMS[:20]), ("reviews", REVIEWS)):
            remember(memory, name, asked)
        assert [name for name, _ in similar(memory, PARCELS[20:])] == ["parcels"]
        assert [name for name, _ in similar(memory, SUMS[20:])] == ["sums"]
        assert similar(memory, ["Translate into French: good morning", "Translate into French: see you"]) == []
        assert similar(memory, []) == []


def test_likeness_is_a_cosine() -> None:
    a, b = shares(PARCELS), shares(SUMS)
    assert cosine(a, a) == pytest.approx(1.0) and 0.0 <= cosine(a, b) < 0.5 and cosine(a, {}) == 0.0


def test_seeds_come_from_runs_that_shipped(tmp_path: Path) -> None:
    with Memory.open(f"{tmp_path}/m.db") as memory:
        kept = remember(memory, "parcels", PARCELS[:20])
        lost = remember(memory, "other parcels", PARCELS[:20], candidate(HURTS), "do not ship")
        found = warm_start(memory, examples(PARCELS[20:]), None)
        assert found.seeds == (candidate(PAYS),) and found.runs == (kept,)
        assert warm_start(memory, examples(PARCELS[20:]), lost).seeds == ()
        named, unlike = (warm_start(memory, examples(new), kept) for new in (PARCELS[20:], SUMS[20:]))
        assert named.similarity > 0.5 > unlike.similarity and named.seeds == unlike.seeds, "a run that is named may be unlike, and says so"
        with pytest.raises(ConfigError, match="not in this memory"):
            warm_start(memory, examples(PARCELS[20:]), "nobody")


def test_demonstrations_come_along_only_from_the_train_split(tmp_path: Path) -> None:
    new = examples(PARCELS[:4])
    demos = tuple(Demo(x.id, x.question, "a") for x in new)
    with Memory.open(f"{tmp_path}/m.db") as memory:
        run_id = remember(
            memory, "parcels", PARCELS[:20], Candidate.of({"guidance": "Answer."}, (*demos, Demo("x0", "another question", "a")))
        )
        (seed,) = warm_start(memory, new, run_id).seeds
    assert seed.demos == (demos[0], demos[2]), "what is in the test split here, or asks something else under that id, stays out"


def test_it_says_which_held_out_examples_are_not_fresh(tmp_path: Path) -> None:
    with Memory.open(f"{tmp_path}/m.db") as memory:
        run_id = remember(memory, "parcels", PARCELS[:20])
        found = warm_start(memory, examples([*PARCELS[:10], *PARCELS[30:]]), run_id)
    assert (found.asked, found.searched) == (5, 5)


def test_items_come_with_what_they_were_worth(tmp_path: Path) -> None:
    from gepa_atlas.memory.skills import evidence_of

    with Memory.open(f"{tmp_path}/m.db") as memory:
        run_id = remember(memory, "shop", PARCELS[:20])
        for seed in range(3):
            memory.put_evidence(f"r{seed}", *evidence_of(f"r{seed}", "shop", ALL, lessons(seed, f"r{seed}")))
        found = warm_start(memory, examples(PARCELS[20:]), run_id)
    assert [item["text"] for item in found.items] == [PAYS] and found.items[0]["worth"] > 0
    assert found.harmful == (HURTS,) and NULL not in found.harmful
