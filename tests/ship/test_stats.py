"""Figures of an evaluation: by task, paired, seeded, and honest about what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.ship import stats
from gepa_atlas.ship.cells import Row, evaluation
from gepa_atlas.ship.stats import Draws, calibration, figures, mean, paired, ratio, two_by_two
from tests.ship.world import GAIN, effects, rows_of

QUICK = Draws(0.05, 300)
UNIT = st.floats(-1, 1, allow_nan=False)


@given(st.lists(UNIT, min_size=1, max_size=30), st.integers(0, 3))
@settings(max_examples=50)
def test_an_interval_is_around_its_mean_within_reach_and_repeatable(values: list[float], seed: int) -> None:
    found = mean(values, Draws(0.05, 300, seed))
    assert found.value is not None and found.low is not None and found.high is not None
    assert -1 <= found.low <= found.value + 0.02 and found.value - 0.02 <= found.high <= 1
    assert mean(values, Draws(0.05, 300, seed)) == found


@given(st.lists(UNIT, min_size=2, max_size=20), st.floats(0, 0.5))
@settings(max_examples=30)
def test_better_values_never_lower_the_bounds(values: list[float], more: float) -> None:
    low, high = mean(values, QUICK), mean([min(1.0, v + more) for v in values], QUICK)
    assert low.low is not None and high.low is not None and low.high is not None and high.high is not None
    assert high.low >= low.low - 1e-9 and high.high >= low.high - 1e-9


def test_samples_are_averaged_before_tasks_are_counted() -> None:
    """A task with many samples is one task: a claim does not grow with repeats of the same few."""
    few = evaluation(rows_of("a", np.tile([[0.0, 1.0]], (4, 50))) + rows_of("b", np.zeros((4, 100))))
    found = paired(few.rewards("a"), few.rewards("b"), QUICK)
    assert (found.n, found.value) == (4, 0.5) and found.low is not None and found.low < 0.1


def test_only_tasks_that_both_were_scored_on_are_compared() -> None:
    a, b = np.array([1.0, np.nan, 1.0]), np.array([0.0, 0.0, np.nan])
    found = evaluation(rows_of("a", a) + rows_of("b", b))
    assert paired(found.rewards("a"), found.rewards("b"), QUICK).n == 1
    assert paired({}, {}, QUICK) == stats.NOTHING


def test_the_two_by_two_adds_up() -> None:
    cells = {"base+seed": 0.2, "base+evolved": 0.3, "adapter+seed": 0.4, "adapter+evolved": 0.8}
    found = two_by_two(effects(cells, 50, noise=0.0), QUICK)
    assert found is not None
    assert found["prompt_effect"]["value"] == pytest.approx(0.25)
    assert found["weight_effect"]["value"] == pytest.approx(0.35)
    assert found["interaction"]["value"] == pytest.approx(0.3)
    assert two_by_two(effects({"base+seed": 0.2}, 5), QUICK) is None


def test_calibration_knows_the_overconfident() -> None:
    rows = [Row(cell="a", task_id=f"t{n}", reward=float(n % 2), confidence=0.9) for n in range(100)]
    found = calibration(rows)
    assert found is not None
    assert (found["n"], found["accuracy"]) == (100, 0.5)
    assert found["ece"] == pytest.approx(0.4) and found["brier"] == pytest.approx(0.5 * 0.81 + 0.5 * 0.01)
    assert calibration([Row(cell="a", task_id="t", reward=1.0)]) is None


def test_a_ratio_of_tokens_is_of_the_means() -> None:
    found = ratio({"a": 10.0, "b": 30.0}, {"a": 20.0, "b": 20.0, "c": 9.0}, QUICK)
    assert (found.value, found.n) == (1.0, 2)
    assert ratio({"a": 1.0}, {"a": 0.0}, QUICK) == stats.NOTHING


def test_coverage_and_reasons_are_in_the_figures() -> None:
    rows = rows_of("student", np.full(10, 0.5)) + rows_of("a", np.array([1.0] * 8 + [np.nan] * 2), refused=None)
    refused = rows_of("a", np.full(4, np.nan), kind="underspecified", refused=True)
    found = figures(evaluation(rows + refused), 0.02, QUICK)["cells"]["a"]
    assert found["coverage"] == 0.8 and found["unscored"] == {"rate_limited": 2}
    assert found["delta"]["value"] == pytest.approx(0.5) and found["delta"]["n"] == 8
    assert found["refused_underspecified"] == 1.0
    assert found["tokens"] == 50


def test_figures_of_every_cell_are_there() -> None:
    found = figures(effects(GAIN, 20), 0.02, QUICK)
    assert set(found["cells"]) == set(GAIN) and found["tasks"] == 20 and found["level"] == 0.95
