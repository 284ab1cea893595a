"""Several processes write at once and some are killed: nothing lost, nothing double, nothing torn. `python -m benchmarks.memory writers` is
the same with 8 x 50,000."""

from __future__ import annotations

import pytest

from benchmarks.memory import queries, writers
from benchmarks.memory.lessons import trace
from gepa_atlas.memory.store import Memory


@pytest.mark.chaos
def test_writers_that_are_killed_lose_and_repeat_nothing(url: str) -> None:
    outcome = writers.write(url, processes=3, count=900, kills=3, seed=5, pause=1.0)
    assert outcome.kills == 3
    assert outcome.written == 3 * 810 + 90
    assert outcome.sound, outcome


def test_pages_stay_short_as_the_store_grows(url: str) -> None:
    """The full figure is the benchmark's, of a million lessons; here a page may not take longer with four times as many."""
    with Memory.open(url) as memory:
        memory.add(trace(f"r{n // 5000}", n) for n in range(1000))
        small = {row["question"]: row["median_ms"] for row in queries.measure(memory, 1000, 5)}
        memory.add(trace(f"r{n // 5000}", n) for n in range(1000, 4000))
        large = {row["question"]: row["median_ms"] for row in queries.measure(memory, 4000, 5)}
    assert small.keys() == large.keys()
    assert sum(large.values()) < 3 * sum(small.values()) + 20
