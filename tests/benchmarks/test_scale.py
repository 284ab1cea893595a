"""The cost model finds what was planted, and one real run has every figure."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scale.ahead import LIMITS, ahead
from benchmarks.scale.measure import Taken, apart
from benchmarks.scale.model import figures, fit, load_of


def planted(draw: np.random.Generator, rollouts: int, noise: float = 0.02) -> Taken:
    """A run whose costs are known, each off by some per cent."""
    slots, candidates = int(rollouts * draw.uniform(0.1, 0.4)), int(rollouts * draw.uniform(0.05, 0.25))
    prompt, known, weights = float(draw.integers(200, 500)), 0.6 * candidates, 256 * (1 - np.exp(-candidates / 100))
    engine = slots * (4e-4 + 8e-6 * weights + 1e-6 * known)
    rest = 0.05 + 4e-4 * rollouts + 2e-7 * rollouts * prompt + 3e-4 * slots
    exact = {
        "engine": engine, "seconds": rest + engine, "report": 0.2 + 1e-4 * rollouts, "memory": 90 + 0.01 * rollouts,
        "run_db": 900.0 * rollouts + 1000 * slots, "written": 2000.0 * rollouts + 3000 * slots, "traces": rollouts * (900 + 1.5 * prompt),
        "page": 2e6 + 20.0 * rollouts,
    }  # fmt: skip
    measured = {name: value * (1 + noise * draw.uniform(-1, 1)) for name, value in exact.items()}
    return Taken(400, rollouts, slots, candidates, prompt, known, weights, **measured)


def test_a_fit_to_small_runs_predicts_a_large_one() -> None:
    draw = np.random.default_rng(0)
    small = [planted(draw, n) for n in (500, 1000, 2000) for _ in range(6)]
    model, large = fit(small, small), planted(draw, 40_000, noise=0.0)
    predicted, measured = model.predict(load_of(large)), figures(large)
    assert {name: predicted[name] / measured[name] for name in measured} == pytest.approx(dict.fromkeys(measured, 1.0), abs=0.2)
    assert all(weight >= 0 for weights in model.weights.values() for weight in weights)


def test_what_breaks_first_is_named() -> None:
    draw = np.random.default_rng(1)
    small = [planted(draw, n) for n in (500, 1000, 2000) for _ in range(3)]
    rows = ahead(fit(small, small))
    assert rows[0]["breaks"] == "nothing" and rows[-1]["breaks"].startswith("memory GB") and rows[-1]["rollouts"] == 10_000_000
    assert all((name in row["breaks"]) == (row[name] > limit) for row in rows for name, limit in LIMITS.items())


def test_a_real_run_has_every_figure() -> None:
    taken = apart(100, 60)
    assert 40 <= taken.rollouts <= 60 and taken.slots > 0 and 0 < taken.engine < taken.seconds
    assert taken.written > taken.run_db > 1000 and taken.traces > 1000 and taken.page > 10_000
