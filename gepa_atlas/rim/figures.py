"""The figures of a judge: strict and tie-credited accuracy, area under the curve, calibration error, bootstrap intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gepa_atlas.evolve.rng import rng
from gepa_atlas.rim.bank import Array

_TIE = 1e-9  # scores closer than this are equal


def strict(score: Array) -> NDArray[np.bool_]:
    """(N, A), the best response first: did it alone get the highest score? A tie at the top is wrong."""
    return np.asarray(score[:, 0] > score[:, 1:].max(axis=1) + _TIE)


def tie_credit(score: Array) -> Array:
    """As `strict`, but a tie at the top earns one over the number of those tied."""
    top = score >= score.max(axis=1, keepdims=True) - _TIE
    return np.asarray(top[:, 0] / top.sum(axis=1))


def margin(score: Array) -> Array:
    """Gap between the two highest scores."""
    ordered = np.sort(score, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def area(signal: Array, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of `signal` for `positive`, ties counted half; NaN when one class is empty."""
    p, n = int(positive.sum()), int((~positive).sum())
    if not p or not n:
        return float("nan")
    _, place, count = np.unique(signal, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[positive].sum() - p * (p + 1) / 2) / (p * n))


def calibration_error(confidence: Array, right: Array, bins: int = 10) -> float:
    """Expected calibration error over bins of equal width: the mean gap between confidence and accuracy, weighted by bin size."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(sum(abs((right - confidence)[place == b].sum()) for b in range(bins)) / len(confidence))


def interval(by_row: Array, rounds: int = 2000, purpose: str = "bootstrap") -> tuple[float, float]:
    """95 % percentile interval of the mean over rows, resampling rows."""
    draw = rng(0, len(by_row), purpose).integers(0, len(by_row), (rounds, len(by_row)))
    low, high = np.percentile(by_row[draw].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
