"""Paired statistics of benchmarks: bootstrap over worlds (or tasks), always paired within one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 4000


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % percentile-bootstrap interval."""

    value: float
    low: float
    high: float


def _draws(n: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))


def mean_interval(values: Floats, seed: int = 0) -> Interval:
    """Mean of (n,) and its interval; one value has an interval of width zero."""
    means = values[_draws(len(values), seed)].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def ratio_interval(ours: Floats, theirs: Floats, seed: int = 0, floor: float = 0.005) -> Interval | None:
    """Ratio of means, worlds resampled in pairs. None where the denominator's mean is not clearly positive (below `floor`)."""
    if len(ours) != len(theirs):
        raise ValueError(f"paired values differ in number: {len(ours)} and {len(theirs)}")
    if float(theirs.mean()) < floor:
        return None
    draws = _draws(len(ours), seed)
    ratios = ours[draws].mean(1) / np.maximum(theirs[draws].mean(1), floor)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(float(ours.mean() / theirs.mean()), float(low), float(high))


def reach(curve: Floats, marks: Floats, target: float) -> float | None:
    """Calls at which a mean anytime curve first reaches `target`, linear between marks; None when it never does.

    `curve` and `marks` have shape (checkpoints,); at zero calls the gain is zero.
    """
    if target <= 0:
        return 0.0
    xs, ys = np.concatenate([[0.0], marks]), np.concatenate([[0.0], curve])
    for i in range(1, len(xs)):
        if ys[i] >= target:
            rise = ys[i] - ys[i - 1]
            return float(xs[i] if rise <= 0 else xs[i - 1] + (xs[i] - xs[i - 1]) * (target - ys[i - 1]) / rise)
    return None
