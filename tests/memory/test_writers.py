"""Several processes write at once and some are killed: nothing lost, nothing double, nothing torn. `python -m benchmarks.memory writers` is
the same with 8 x 50,000."""

from __future__ import annotations

import pytest

from benchmarks.memory import queries, writers
from benchmarks.memory.lessons import trace
from gepa_atlas.memory.store import Memory


@pytest.mark.chaos
def test_writers_that_are_killed_lose_and_repeat_nothing(url: str) -> None:
    outcome = writers.write(url, processes=3, count=900, kills=3, seed=5)
    assert outcome.kills == 3
    assert outcome.written == 3 * 810 + 90
    assert outcome.sound, outcome


def test_pages_are_short(url: str) -> None:
    """The figure is the benchmark's, of a million lessons; that pages are read off indices, test_store.py says."""
    with Memory.open(url) as memory:
        memory.add(trace(f"r{n // 5000}", n) for n in range(3000))
        found = {row["question"]: row["median_ms"] for row in queries.measure(memory, 3000, 3)}
    assert len(found) == 17
    assert max(found.values()) < 500, found  # ten times what a million may take: this machine may be busy
