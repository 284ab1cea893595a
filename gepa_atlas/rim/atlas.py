"""ATLAS's own rule, for comparison, and for reading its configuration (reference/atlas.md 1.E).

Three samples of one small model, one per temperature; when their standard deviation passes `variance_threshold` (it was compared
with the deviation, whatever its name), or a sample reports more uncertainty than 0.3, or none can be read, a large model of the same
vendor decides alone; otherwise the sample with the lowest self-reported uncertainty is kept, not the mean. Then judges are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gepa_atlas.rim.bank import Array

SAMPLES = 3
THRESHOLD = 0.15
SELF_DOUBT = 0.3


@dataclass(frozen=True)
class Replayed:
    score: Array  # (N, A)
    spread: Array  # (N, A) deviation of the three samples, in [0, 1] units: the signal that escalates
    small: Array  # (N, A) what tier 1 alone would have said
    calls: NDArray[np.int64]  # (N, A)


def replay(small: Array, large: Array, start: int = 0, *, threshold: float = THRESHOLD, scale: float = 10.0) -> Replayed:
    """The rule on recorded draws (N, A, D) of two judges whose scores go up to `scale`.

    The bank holds no self-reported uncertainty, so the kept sample is the median one: it stands in for "the most confident".
    """
    draws = np.roll(small, -start, axis=2)[:, :, :SAMPLES] / scale
    arbiter = np.roll(large, -start, axis=2)[:, :, 0] / scale
    there = ~np.isnan(draws)
    count = there.sum(axis=2)
    filled = np.sort(draws, axis=2)  # NaN goes last
    middle = np.take_along_axis(filled, np.maximum((count - 1) // 2, 0)[..., None], axis=2)[..., 0]
    mean = np.where(there, draws, 0.0).sum(axis=2) / np.maximum(count, 1)
    spread = np.sqrt((np.where(there, draws - mean[..., None], 0.0) ** 2).sum(axis=2) / np.maximum(count, 1))
    escalated = (spread > threshold) | (count == 0)
    asked = ~np.isnan(small).all(axis=2) * SAMPLES + escalated * ~np.isnan(large).all(axis=2)
    score = np.where(escalated, arbiter, middle)
    # ATLAS scores an unreadable verdict 0.0
    return Replayed(np.nan_to_num(score), spread, np.nan_to_num(middle), np.asarray(asked, dtype=np.int64))
