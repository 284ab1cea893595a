"""Statistics of an evaluation. A task, not a sample, is what a claim generalises over: samples are averaged first, tasks are resampled.

The interval of a mean is Gaffke's: a Bayesian bootstrap over the tasks and one more, unseen, that has the worst (for the upper end: the
best) value there is. It is Clopper and Pearson's for outcomes of 0 and 1 and does not claim certainty from thirty equal values. Its
one-sided error was at most .03 in 300 evaluations of each of 57 kinds, for .025 nominal, where percentile and BCa bootstraps let through
66 % of the evaluations in which rare large losses outweigh many small gains (`python -m benchmarks.gate`; docs/registry.md).
Source: Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable"; see
Phan, Thomas and Learned-Miller 2021 (ICML) for the bound that is proven and never better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from gepa_atlas.evolve.rng import rng
from gepa_atlas.evolve.stats import wilson
from gepa_atlas.rim.figures import calibration_error
from gepa_atlas.ship.cells import Evaluation, Read, Row

RIGHT = 0.5  # a reward from here on is a right answer, where confidence is held against it
_CHUNK = 4_000_000  # random numbers drawn at once


@dataclass(frozen=True)
class Draws:
    """How intervals are made: two-sided level 1 - alpha, `resamples` of the tasks, from a seed."""

    alpha: float = 0.05
    resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """A figure over `n` tasks with its interval; all None where nothing was measured."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


NOTHING = Estimate(None, None, None, 0)


def mean(values: Sequence[float], draws: Draws, reach: tuple[float, float] = (-1.0, 1.0)) -> Estimate:
    """The mean of one value a task, each within `reach`, and its interval."""
    n = len(values)
    if n == 0:
        return NOTHING
    low_end, high_end = reach
    seen = np.asarray(values, float)
    random = rng(draws.seed, "gate", n)
    lows, highs = [], []
    left = draws.resamples
    while left:
        rounds = min(left, max(1, _CHUNK // (n + 1)))
        weights = random.exponential(size=(rounds, n + 1))
        weights /= weights.sum(axis=1, keepdims=True)
        known = weights[:, :n] @ seen
        lows.append(known + weights[:, n] * low_end)
        highs.append(known + weights[:, n] * high_end)
        left -= rounds
    low = float(np.quantile(np.concatenate(lows), draws.alpha / 2))
    high = float(np.quantile(np.concatenate(highs), 1 - draws.alpha / 2))
    return Estimate(float(seen.mean()), max(low, low_end), min(high, high_end), n)


def paired(a: Mapping[str, float], b: Mapping[str, float], draws: Draws) -> Estimate:
    """Mean of a - b over the tasks that both have; values in [0, 1]."""
    return mean([a[task] - b[task] for task in sorted(a.keys() & b.keys())], draws)


def share(hits: int, n: int, draws: Draws) -> Estimate:
    """A share of tasks with its Wilson interval."""
    if n == 0:
        return NOTHING
    low, high = wilson(hits, n, NormalDist().inv_cdf(1 - draws.alpha / 2))
    return Estimate(hits / n, low, high, n)


def ratio(a: Mapping[str, float], b: Mapping[str, float], draws: Draws) -> Estimate:
    """Ratio of the means of a and b (tokens, seconds) over shared tasks; percentile bootstrap over them, as there is no largest token."""
    shared = sorted(a.keys() & b.keys())
    top, bottom = np.array([a[task] for task in shared]), np.array([b[task] for task in shared])
    n = len(shared)
    if n == 0 or not bottom.sum():
        return NOTHING
    random = rng(draws.seed, "ratio", n)
    found = []
    for _ in range(-(-draws.resamples * n // _CHUNK)):
        rounds = min(draws.resamples, max(1, _CHUNK // n))
        picked = random.integers(0, n, size=(rounds, n))
        below = bottom[picked].sum(axis=1)
        found.append((top[picked].sum(axis=1) / np.where(below > 0, below, np.nan))[below > 0])
    low, high = np.quantile(np.concatenate(found), [draws.alpha / 2, 1 - draws.alpha / 2])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high), n)


def non_degradation(deltas: Mapping[str, float], tolerance: float, draws: Draws) -> Estimate:
    """Share of tasks whose delta is no loss beyond `tolerance`."""
    return share(sum(delta >= -tolerance - 1e-12 for delta in deltas.values()), len(deltas), draws)


def two_by_two(found: Evaluation, draws: Draws) -> dict[str, Any] | None:
    """What the prompt, the weights and both together are worth, over tasks with all four cells; None where a cell was not run.

    Main effects are means over the levels of the other factor. The interaction is what the evolved prompt adds to the adapter beyond
    what it adds to the base, in [-2, 2].
    """
    cells = {name: found.rewards(name) for name in ("base+seed", "base+evolved", "adapter+seed", "adapter+evolved")}
    shared = sorted(set.intersection(*(set(cell) for cell in cells.values())))
    if not shared:
        return None
    bs, be, as_, ae = (np.array([cell[task] for task in shared]) for cell in cells.values())
    return {
        "n": len(shared),
        "means": {name: float(np.mean([cell[task] for task in shared])) for name, cell in cells.items()},
        "prompt_effect": mean(list((be + ae - bs - as_) / 2), draws).to_json(),
        "weight_effect": mean(list((as_ + ae - bs - be) / 2), draws).to_json(),
        "interaction": mean(list(ae - as_ - be + bs), draws, (-2.0, 2.0)).to_json(),
    }


def calibration(rows: Sequence[Row], bins: int = 10) -> dict[str, Any] | None:
    """Stated confidence against being right: expected calibration error and Brier score; None where no confidence was stated."""
    stated = [(row.confidence, float(row.reward >= RIGHT)) for row in rows if row.confidence is not None and row.reward is not None]
    if not stated:
        return None
    confidence, right = np.array([c for c, _ in stated], float), np.array([r for _, r in stated])
    return {
        "n": len(stated),
        "accuracy": float(right.mean()),
        "confidence": float(confidence.mean()),
        "ece": calibration_error(confidence, right, bins),
        "brier": float(((confidence - right) ** 2).mean()),
    }


def _bit(value: bool | None) -> float | None:
    return None if value is None else float(value)


READS: dict[str, Read] = {
    "format_valid": lambda row: _bit(row.format_valid),
    "refused": lambda row: _bit(row.refused),
    "tokens": lambda row: row.tokens,
    "seconds": lambda row: row.seconds,
    "holdout_reward": lambda row: row.holdout_reward,
}


def _plain(values: Mapping[str, float]) -> float | None:
    return float(np.mean(list(values.values()))) if values else None


def cell_figures(found: Evaluation, cell: str, tolerance: float, draws: Draws) -> dict[str, Any]:
    """Everything that one cell's rows of kind task say. Means are over tasks."""
    rows = found.of(cell)
    deltas = found.deltas(cell) if cell != "student" else {}
    missing, planned, reasons = found.unscored([cell])
    return {
        "tasks": len({row.task_id for row in rows}),
        "rows": len(rows),
        "coverage": 1 - missing / planned if planned else 0.0,
        "unscored": reasons,
        "reward": mean(list(found.rewards(cell).values()), draws, (0.0, 1.0)).to_json(),
        "delta": mean(list(deltas.values()), draws).to_json() if deltas else None,
        "non_degradation": non_degradation(deltas, tolerance, draws).to_json() if deltas else None,
        "holdout_reward": _plain(found.means(cell, READS["holdout_reward"])),
        "format_valid": _plain(found.means(cell, READS["format_valid"])),
        "refused_underspecified": _plain(found.means(cell, READS["refused"], "underspecified")),
        "regression": _plain(found.rewards(cell, "regression")),
        "calibration": calibration(rows),
        "tokens": _plain(found.means(cell, READS["tokens"])),
        "seconds": _plain(found.means(cell, READS["seconds"])),
    }


def figures(found: Evaluation, tolerance: float, draws: Draws) -> dict[str, Any]:
    """The whole evaluation as one document (`eval_2x2.json` of a bundle)."""
    every = sorted({row.cell for row in found.rows})
    return {
        "level": 1 - draws.alpha,
        "tasks": len(found.tasks()),
        "cells": {cell: cell_figures(found, cell, tolerance, draws) for cell in every},
        "two_by_two": two_by_two(found, draws),
    }
