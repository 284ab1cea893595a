"""The gate's error rates, by simulation where they are statistical and by arithmetic where they are exact.

The full table is `python -m benchmarks.gate`; here the cells that break a bootstrap, and a sample of the others.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.gate import WORLDS, bootstrap_low, draw
from gepa_atlas.evolve.rng import rng
from gepa_atlas.evolve.stats import wilson
from gepa_atlas.ship import stats
from gepa_atlas.ship.config import GateConfig
from gepa_atlas.ship.gate import ADAPTER, decide
from gepa_atlas.ship.stats import Draws
from tests.ship.world import EASY, GAIN, effects

ALPHA = 0.05
QUICK = Draws(ALPHA, 400)


def binomial_tail(n: int, k: int, p: float) -> float:
    """P(X >= k)."""
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k, n + 1)]
    return sum(math.exp(log + i * math.log(p) + (n - i) * math.log1p(-p)) for log, i in zip(logs, range(k, n + 1), strict=True))


def at_most(count: int, n: int, rate: float) -> bool:
    """Whether `count` of n is no evidence, at one in a thousand, that the rate is above `rate`."""
    return binomial_tail(n, count, rate) > 0.001 if count else True


@pytest.mark.parametrize(("noise", "shared", "n"), [("graded", 0.0, 80), ("bernoulli", 0.0, 20), ("bernoulli", 0.8, 40)])
@pytest.mark.parametrize("world", ["even", "mixed", "rare .05"])
def test_the_gate_rarely_passes_what_is_no_better(world: str, n: int, shared: float, noise: str) -> None:
    config = GateConfig(**{**EASY, "bootstrap": 300})
    rounds = 25
    passes = sum(
        decide(
            draw(world, noise, n, samples=2, shared=shared, effect=0.0, address=("test", world, noise, n, str(shared), at)),
            ADAPTER, config, adapter_problems=[], seed=at,
        ).verdict == "pass"
        for at in range(rounds)
    )  # fmt: skip
    assert at_most(passes, rounds, ALPHA / 2)


@pytest.mark.parametrize("n", [20, 40, 80])
@pytest.mark.parametrize("world", ["rare .02", "rare .05", "rare .1", "mixed"])
def test_the_interval_holds_where_bootstraps_do_not(world: str, n: int) -> None:
    """The interval alone, on many draws: its lower end is above the true mean, 0, in at most alpha / 2 of them, at this resolution."""
    rounds, above = 400, {"gate": 0, "bca": 0}
    for at in range(rounds):
        _, values = WORLDS[world](n, rng(0, "interval", world, n, at))
        low = stats.mean(list(values), QUICK).low
        above["gate"] += low is not None and low > 1e-12
        if world == "rare .02" and at < 100:
            above["bca"] += bootstrap_low(values, "bca", 200) > 1e-12
    assert at_most(above["gate"], rounds, ALPHA / 2)
    if world == "rare .02" and n == 20:
        assert above["bca"] > 30  # of 100: the loss is rarely in the sample, and a bootstrap knows nothing else


def test_a_true_gain_passes_and_a_seeded_regression_does_not() -> None:
    config = GateConfig(bootstrap=400)
    passed = [decide(effects(GAIN, 100, seed=seed, noise=0.1), ADAPTER, config, adapter_problems=[]).verdict for seed in range(10)]
    assert passed == ["pass"] * 10
    worse = GAIN | {"adapter+evolved": 0.45}
    refused = [decide(effects(worse, 100, seed=seed, noise=0.1), ADAPTER, config, adapter_problems=[]).verdict for seed in range(10)]
    assert "pass" not in refused


def test_the_wilson_bound_on_non_degradation_errs_as_said() -> None:
    """Exactly: with a true share of .95 the criterion (point .97, lower bound .95) passes in at most 2.6 % of evaluations of any size."""
    worst = 0.0
    for n in range(20, 600):
        k = next((k for k in range(math.ceil(0.97 * n), n + 1) if wilson(k, n)[0] >= 0.95), None)
        if k is not None:
            worst = max(worst, binomial_tail(n, k, 0.95))
            assert n >= 73  # fewer tasks cannot show it
    assert 0.02 < worst < 0.026


def test_the_interval_is_exact_for_outcomes_of_zero_and_one() -> None:
    """Gaffke's bound is Clopper and Pearson's there: the k-th beta quantile, within the noise of the resampling."""
    found = stats.mean([1.0] * 27 + [0.0] * 3, Draws(ALPHA, 40_000), (0.0, 1.0))
    assert found.low == pytest.approx(0.7347, abs=0.004) and found.high == pytest.approx(0.9789, abs=0.004)
    assert found.low is not None and binomial_tail(30, 27, found.low) == pytest.approx(ALPHA / 2, abs=0.004)


@pytest.mark.parametrize("seed", range(4))
def test_intervals_cover_on_both_sides(seed: int) -> None:
    """Two-sided coverage of a skewed bounded distribution with a known mean."""
    random, missed, rounds = np.random.default_rng(seed), 0, 150
    for at in range(rounds):
        values = 2 * random.beta(0.3, 1.2, 40) - 1  # mean -0.6
        found = stats.mean(list(values), Draws(ALPHA, 300, at))
        assert found.low is not None and found.high is not None
        missed += not found.low <= -0.6 <= found.high
    assert at_most(missed, rounds, ALPHA)
