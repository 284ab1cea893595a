"""Has an operation changed lately? The last `window` points against those before them, with the false alarms of many tests controlled.

A point is one example of one run, or one session. Of a run the agent alone is watched (`before`) and what could not be scored: what it got
with guidance changes because a search changes the guidance. Of sessions it is their `reward`. The baseline never holds a point of the
window. The test is Mann-Whitney's, two-sided with ties and continuity corrected; Benjamini-Hochberg at 5 % over all operations and figures
that could be tested.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gepa_atlas.evolve.rng import rng

ENOUGH = 10  # points on either side
ERROR_RATE = 0.05
FIGURES = ("before", "reward", "unscored")
_EXACT = 12  # up to so many values every pattern of signs is tried
_FLIPS = 20_000


@dataclass(frozen=True)
class Point:
    """One example of one run, or one session. None: unscored, or not watched; `unscored` is the share without a reward."""

    operation: str
    at: float
    before: float | None
    reward: float | None
    unscored: float


@dataclass(frozen=True)
class Drift:
    """One figure of one operation. `p` is None where there were not enough points; `alarm` only after correction."""

    operation: str
    figure: str
    window: int
    baseline: int
    now: float | None
    was: float | None
    p: float | None
    alarm: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def points(rows: Iterable[dict[str, Any]]) -> list[Point]:
    """Points in the order of time, from rows, newest first, with operation, kind, run_id, example_id, id, before, after, created. Rows of
    one file or run often share a moment: among those, what came in last is the newest."""
    cells: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    found: list[Point] = []
    for row in reversed(list(rows)):
        if row["kind"] == "session":
            found.append(Point(row["operation"], row["created"], None, row["after"], float(row["after"] is None)))
        else:
            cells[row["operation"], row["run_id"], row["example_id"]].append(row)
    for (operation, _, _), cell in cells.items():
        known = [row["before"] for row in cell if row["before"] is not None]
        before = float(np.mean(known)) if known else None
        unscored = float(np.mean([row["after"] is None for row in cell]))
        found.append(Point(operation, min(row["created"] for row in cell), before, None, unscored))
    return sorted(found, key=lambda point: point.at)


def watch(found: Sequence[Point], window: int) -> list[Drift]:
    """Every operation and figure; alarms hold after correction over all of them."""
    series: dict[tuple[str, str], list[float]] = {}
    for point in found:
        for figure, value in zip(FIGURES, (point.before, point.reward, point.unscored), strict=True):
            values = series.setdefault((point.operation, figure), [])
            if value is not None:
                values.append(value)
    tested: list[Drift] = []
    for (operation, figure), values in sorted(series.items()):
        now, was = np.array(values[-window:]), np.array(values[:-window])
        enough = len(now) >= ENOUGH and len(was) >= ENOUGH
        tested.append(
            Drift(
                operation,
                figure,
                len(now),
                len(was),
                float(now.mean()) if len(now) else None,
                float(was.mean()) if len(was) else None,
                mann_whitney(now, was) if enough else None,
                False,
            )
        )
    known = [at for at, drift in enumerate(tested) if drift.p is not None]
    alarms = benjamini_hochberg([tested[at].p or 0.0 for at in known], ERROR_RATE)
    raised = {at for at, alarm in zip(known, alarms, strict=True) if alarm}
    return [Drift(**{**asdict(drift), "alarm": at in raised}) for at, drift in enumerate(tested)]


def mann_whitney(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Two-sided p that a and b are draws of one distribution, by the normal approximation; 1 where all values are equal."""
    pooled = np.concatenate([a, b])
    _, inverse, counts = np.unique(pooled, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    n, m, total = len(a), len(b), len(pooled)
    u = ranks[:n].sum() - n * (n + 1) / 2
    ties = float((counts.astype(float) ** 3 - counts).sum())
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def sign_flip(values: npt.NDArray[np.float64]) -> float:
    """Two-sided p that values are symmetric around 0: how often random signs give so large a sum. Exact for few values."""
    if not values.any():
        return 1.0
    known = np.abs(values[values != 0])
    seen = abs(values.sum())
    if len(known) <= _EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(known))))
        return float((np.abs(signs @ known) >= seen - 1e-12).mean())
    signs = rng(0, "sign flip", len(known)).choice((-1.0, 1.0), size=(_FLIPS, len(known)))
    return float((1 + (np.abs(signs @ known) >= seen - 1e-12).sum()) / (_FLIPS + 1))


def benjamini_hochberg(p: Sequence[float], rate: float) -> list[bool]:
    """Which hypotheses to reject so that at most `rate` of the rejected are expected to be true."""
    order = sorted(range(len(p)), key=lambda at: p[at])
    passing = [rank for rank, at in enumerate(order, 1) if p[at] <= rate * rank / len(p)]
    rejected = set(order[: max(passing, default=0)])
    return [at in rejected for at in range(len(p))]
