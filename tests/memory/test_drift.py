"""The drift watch: quiet without a change, loud with one, and its baseline never holds the window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.memory import drift, query, rows
from gepa_atlas.memory.drift import Point
from gepa_atlas.memory.store import Memory

from .lines import session_line


def series(seed: int, operation: str, n: int, change: float = 0.0, window: int = 50) -> list[Point]:
    draw = np.random.default_rng(seed)
    values = draw.random(n) < np.where(np.arange(n) >= n - window, 0.7 + change, 0.7)
    return [Point(operation, float(at), float(v), None, 0.0) for at, v in enumerate(values)]


def test_false_alarms_stay_at_the_rate() -> None:
    """Of 40 memories with 20 quiet operations each, about one in twenty may raise any alarm."""
    loud = 0
    for seed in range(40):
        found = drift.watch([p for op in range(20) for p in series(1000 * seed + op, f"op{op}", 200)], 50)
        loud += any(one.alarm for one in found)
    assert loud <= 6


def test_a_change_is_found_in_its_operation_only() -> None:
    hits = wrong = 0
    for seed in range(20):
        quiet = [p for op in range(10) for p in series(1000 * seed + op, f"op{op}", 200)]
        found = drift.watch([*quiet, *series(seed, "changed", 300, -0.4)], 50)
        hits += any(one.alarm for one in found if one.operation == "changed")
        wrong += any(one.alarm for one in found if one.operation != "changed")
    assert hits >= 19 and wrong <= 4


@pytest.mark.parametrize(("n", "tested"), [(59, False), (60, True), (9, False)])
def test_it_takes_ten_points_besides_the_window(n: int, tested: bool) -> None:
    (found,) = (one for one in drift.watch(series(1, "op", n), 50) if one.figure == "before")
    assert (found.p is not None) == tested
    assert found.window == min(n, 50) and found.baseline == max(0, n - 50), "no point is on both sides"


def test_the_baseline_does_not_know_the_window() -> None:
    """Were the window in its own baseline, a change of everything would hide itself."""
    before, after = series(1, "op", 200), [Point("op", 1000.0 + n, 0.0, None, 0.0) for n in range(50)]
    (found,) = (one for one in drift.watch([*before, *after], 50) if one.figure == "before")
    assert found.was is not None and abs(found.was - np.mean([p.before for p in before])) < 1e-12 and found.now == 0.0 and found.alarm


def test_a_point_is_an_example_of_a_run_or_a_session() -> None:
    row = {"operation": "op", "kind": "lesson", "run_id": "r", "example_id": "e", "id": "1", "before": 0.0, "after": 1.0, "created": 1.0}
    lines = [row, {**row, "id": "2", "after": None, "created": 2.0}, {**row, "run_id": "s", "created": 3.0}]
    lines += [{**row, "kind": "session", "id": str(n), "after": 0.5, "before": None, "created": 4.0 + n} for n in range(2)]
    found = drift.points(lines)
    assert [(p.before, p.reward, p.unscored) for p in found] == [(0.0, None, 0.5), (0.0, None, 0.0), (None, 0.5, 0.0), (None, 0.5, 0.0)]


def test_what_came_in_last_is_now(tmp_path: Path) -> None:
    """Sessions of one file often share a moment."""
    lines = [session_line(task=f"q{n}", score=0.9 if n < 40 else 0.2, learning_key="op") for n in range(80)]
    with Memory.open(str(tmp_path / "m.db")) as memory:
        memory.add([rows.session(line, "op", 7.0, n) for n, line in enumerate(lines)])
        (found,) = [one for one in drift.watch(drift.points(query.newest(memory, "op")), 40) if one.figure == "reward"]
    assert found.alarm and (found.was, found.now) == pytest.approx((0.9, 0.2))


def test_mann_whitney_agrees_with_a_permutation_test() -> None:
    draw = np.random.default_rng(3)
    for _ in range(8):
        a, b = draw.integers(0, 4, 15).astype(float), draw.integers(0, 4, 25).astype(float) + draw.choice([0.0, 1.0])
        pooled = np.concatenate([a, b])
        ranks = np.array([np.mean(np.flatnonzero(np.sort(pooled) == v)) + 1 for v in pooled])
        seen = abs(ranks[:15].sum() - 15 * 41 / 2)
        exact = np.mean([abs(draw.permutation(ranks)[:15].sum() - 15 * 41 / 2) >= seen - 1e-9 for _ in range(4000)])
        assert abs(drift.mann_whitney(a, b) - exact) < 0.03


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=14))
def test_p_values_are_probabilities(values: list[float]) -> None:
    v = np.array(values)
    assert 0.0 < drift.sign_flip(v) <= 1.0
    assert drift.sign_flip(v) == pytest.approx(drift.sign_flip(-v))
    assert 0.0 <= drift.mann_whitney(v, v[::-1]) <= 1.0


def test_benjamini_hochberg() -> None:
    assert drift.benjamini_hochberg([0.01, 0.04, 0.03, 0.5], 0.05) == [True, False, False, False]
    assert drift.benjamini_hochberg([0.01, 0.02, 0.03, 0.04], 0.05) == [True, True, True, True]
    assert drift.benjamini_hochberg([], 0.05) == []
