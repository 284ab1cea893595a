"""Fronts, intervals, budgets: small pure things, checked against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gepa_atlas.budget import Budget
from gepa_atlas.errors import BudgetExhausted, ContractError
from gepa_atlas.evolve.archive import Archive, non_dominated
from gepa_atlas.evolve.gain import gain
from gepa_atlas.evolve.rng import rng
from gepa_atlas.evolve.stats import newcombe_paired, paired_interval, wilson
from gepa_atlas.types import Candidate

points = arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.integers(0, 3).map(float))


@given(points)
def test_the_non_dominated_set_is_the_definition(table: np.ndarray) -> None:
    def dominated(i: int) -> bool:
        return any((table[j] >= table[i]).all() and (table[j] > table[i]).any() for j in range(len(table)))

    assert non_dominated(table).tolist() == [not dominated(i) for i in range(len(table))]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8), st.sampled_from([0.0, 0.5, 1.0])), max_size=40))
def test_the_matrix_holds_the_mean_of_every_cell(cells: list[tuple[int, int, float]]) -> None:
    """Six val columns and three of train; the parent of each entry is the one before it."""
    archive = Archive([f"v{j}" for j in range(6)], [f"v{j}" for j in range(6, 9)])
    entries = [archive.add(Candidate.of({"guidance": "0"}), 0)]
    for i in range(1, 5):
        entries.append(archive.add(entries[-1].candidate.child("test", texts={"guidance": str(i)}), 0))
    seen: dict[tuple[int, int], list[float]] = {}
    for i, j, value in cells:
        archive.record(entries[i], f"v{j}", value)
        seen.setdefault((i, j), []).append(value)
    mean = {cell: float(np.mean(v)) for cell, v in seen.items()}
    found = archive.cells(range(5))
    assert dict(zip(zip(found.rows, found.columns, strict=True), found.gains, strict=True)) == pytest.approx(mean)
    for row, column, times, parent, theirs in zip(found.rows, found.columns, found.times, found.parents, found.theirs, strict=True):
        assert times == len(seen[row, column])
        assert (parent, theirs) == ((row - 1, pytest.approx(mean[row - 1, column])) if (row - 1, column) in mean else (-1, 0.0))
    assert all(e.cells == len({j for i, j in seen if i == e.index and j < 6}) for e in entries)
    assert sum(e.n for e in entries) == len(cells)


@given(st.integers(1, 50), st.lists(st.tuples(st.integers(0, 12), st.floats(0, 1)), max_size=30))
def test_a_budget_is_reserved_first_and_never_passed(limit: int, slots: list[tuple[int, float]]) -> None:
    budget = Budget(limit)
    for n, (cost, share) in enumerate(slots):
        if not budget.affords(cost):
            with pytest.raises(BudgetExhausted):
                budget.reserve(n, cost)
            continue
        budget.reserve(n, cost)
        assert budget.spent + budget.reserved <= limit
        if share < 0.7:
            used = round(cost * share)
            assert budget.settle(n, used) == cost - used
    assert budget.spent <= limit


def test_spending_more_than_was_reserved_is_a_defect() -> None:
    budget = Budget(10)
    budget.reserve(0, 3)
    with pytest.raises(ContractError):
        budget.settle(0, 4)


@pytest.mark.parametrize(("p", "q", "n"), [(0.5, 0.5, 20), (0.9, 0.6, 40), (1.0, 0.0, 30), (0.2, 0.15, 100)])
def test_paired_intervals_hold_what_they_promise(p: float, q: float, n: int) -> None:
    """Coverage of the 95 % interval over 400 draws is at least 92 %."""
    random = rng(0, "coverage", n, str(p), str(q))
    hits = 0
    for _ in range(400):
        low, high = newcombe_paired((random.random(n) < p).astype(float), (random.random(n) < q).astype(float))
        hits += low <= p - q <= high
    assert hits >= 368


@given(arrays(float, st.integers(2, 30), elements=st.floats(0, 1)))
def test_no_interval_claims_certainty(values: np.ndarray) -> None:
    low, high = paired_interval(values, values) or (0.0, 0.0)
    assert low < 0 < high
    assert wilson(0, 0) == (0.0, 1.0)


def test_addresses_are_independent_and_stable() -> None:
    assert rng(1, 2, "plan").random() == rng(1, 2, "plan").random()
    assert rng(1, 2, "plan").random() != rng(1, 3, "plan").random()


def test_unknown_gain_names_the_known_ones() -> None:
    with pytest.raises(Exception, match="delta"):
        gain("dleta", {})
