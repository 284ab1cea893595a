"""Which cells to run next, by what is believed of every combination: a Gaussian process over the settings.

A figure is the worth of its combination, plus what its (suite, seed) is easier than others, plus luck. Combinations are alike as far as
their settings are; a number acts mostly by a trend. The combination with the highest upper bound is run on one more (suite, seed), so
that few cells are spent on the poor ones, and one lucky cell is no proof (GP-UCB: Srinivas et al. 2010, arXiv:0912.3995).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gepa_atlas.evolve.rng import rng
from gepa_atlas.sweep.config import OBJECTIVES, Setting, Sweep, Value

_OFFSET = 0.25  # variance of what a (suite, seed) is easier than others


@dataclass(frozen=True)
class _Belief:
    """A prior, chosen on simulated worlds (benchmarks/LOG.md). Variances are in units of (`wide` standard deviations of the figures)^2."""

    wide: float
    shared: float  # of a setting's variance: what two different values have in common
    trend: float  # of the rest, for numbers: a straight line from the lowest to the highest
    steep: float  # and what is not a line: how fast it changes
    luck: float  # of one cell
    bonus: float  # standard deviations that make the upper bound
    against: float = 0.0  # nats by which the evidence must be better than that of the other belief


_STRAIGHT = _Belief(wide=2.0, shared=0.85, trend=0.7, steep=0.5, luck=0.3, bonus=2.5)
_BENT = _Belief(wide=1.5, shared=0.5, trend=0.1, steep=2.0, luck=0.05, bonus=2.0, against=3.0)

Array = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass
class Seen:
    """What the sweep has of one combination. Cells are named as "suite/seed"."""

    figures: dict[str, float] = field(default_factory=dict)  # of the objective, by cell
    under_way: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    @property
    def begun(self) -> set[str]:
        """Cells that are run or being run."""
        return self.figures.keys() | self.under_way | self.failed


def named(params: Mapping[str, Value]) -> str:
    """A combination as a key."""
    return json.dumps(params, sort_keys=True)


def choose(sweep: Sweep, seen: Mapping[str, Seen], asked: int) -> tuple[dict[str, Value], list[str]] | None:
    """The combination to go on with and its cells to run next; None when the sweep needs or can pay no more.

    With `cells` it is one cell, and what is begun can always be finished; with `trials` it is a whole combination. `asked` is the address
    of the draw that decides between equals.
    """
    draw = rng(sweep.config.search.seed, "choose", asked)
    cells, combinations = [f"{suite}/{seed}" for suite, seed in sweep.instances], list(sweep.combinations())
    states = [seen.get(named(c), Seen()) for c in combinations]
    open_ = _open(sweep, states)
    if not open_.any():
        return None
    bound = _bounds(sweep, states, cells)
    ties = 1e-9 * np.abs(bound).max() * draw.random(len(bound))
    best = int(np.argmax(np.where(open_, bound + ties, -np.inf)))
    free = [c for c in cells if c not in states[best].figures]
    if sweep.config.search.cells is None:
        return combinations[best], free
    used = [sum(c in s.begun for s in states) for c in free]  # each (suite, seed) in its turn
    return combinations[best], [free[min(draw.permutation(len(free)), key=lambda k: used[k])]]


def _open(sweep: Sweep, states: Sequence[Seen]) -> Flags:
    """Of which combinations more may be run, and paid for to their end. One that is under way waits for its figure."""
    search, begun = sweep.config.search, np.array([len(s.begun) for s in states])
    rest = np.array([0 if s.failed or s.under_way else len(sweep.instances) for s in states]) - begun
    if search.cells is not None:
        left = search.cells - int(begun.sum())
    else:
        rest[begun > 0] = 0
        left = len(sweep.instances) * (sweep.planned() - int((begun > 0).sum()))
    found: Flags = (rest > 0) & (rest <= left)
    return found


def _bounds(sweep: Sweep, states: Sequence[Seen], cells: Sequence[str]) -> Array:
    """Upper bound of each combination's worth, in units of which only the order matters."""
    sign = 1.0 if OBJECTIVES[sweep.config.objectives[0]] else -1.0
    space = _Space(np.array(list(itertools.product(*map(_places, sweep.space)))), [_is_number(s) for s in sweep.space])
    done = [(i, k, sign * s.figures[c]) for i, s in enumerate(states) for k, c in enumerate(cells) if c in s.figures]
    if not done:
        return np.sqrt(space.alike(_STRAIGHT))
    at, figures = [(i, k) for i, k, _ in done], np.array([y for _, _, y in done], dtype=float)
    belief = max((_STRAIGHT, _BENT), key=lambda b: _posterior(space, b, at, figures).evidence - b.against)
    found = _posterior(space, belief, at, figures)
    waiting = [(i, k) for i, s in enumerate(states) for k, c in enumerate(cells) if c in s.begun and c not in s.figures]
    if waiting:  # as if they had met what is believed of them
        guess = found.mean[[i for i, _ in waiting]]
        found = _posterior(space, belief, at + waiting, np.concatenate([figures, guess]))
    return found.mean + belief.bonus * found.deviation


@dataclass(frozen=True)
class _Space:
    """Combinations as places: by row the combination, by column the setting. `numbers`: which settings are."""

    places: Array
    numbers: list[bool]

    def alike(self, belief: _Belief, which: Array | None = None) -> Array:
        """Prior covariance of the combinations `which` with all, by row; without them the variance of each. A product over settings."""
        found = np.ones(1)
        for column, number in zip(self.places.T, self.numbers, strict=True):
            a = column if which is None else column[which][:, None]
            line, near = belief.trend * a * column, (1.0 - belief.trend) * np.exp(-belief.steep * np.abs(a - column))
            found = found * (belief.shared + (1.0 - belief.shared) * (line + near if number else a == column))
        return found


@dataclass(frozen=True)
class _Posterior:
    mean: Array  # of each combination's worth
    deviation: Array
    evidence: float  # log density of the figures


def _posterior(space: _Space, belief: _Belief, at: Sequence[tuple[int, int]], figures: Array) -> _Posterior:
    """What is believed when the cells `at` (combination, instance) have these figures."""
    spread = float(figures.std())
    unit = belief.wide * spread if spread > 1e-9 * np.abs(figures).max() else 1.0  # all equal but for rounding
    which, instance = np.array(at).T
    prior = space.alike(belief, which)
    lower = np.linalg.cholesky(prior[:, which] + _OFFSET * (instance[:, None] == instance) + belief.luck * np.eye(len(at)))
    known, reach = np.linalg.solve(lower, (figures - figures.mean()) / unit), np.linalg.solve(lower, prior)
    variance = np.maximum(space.alike(belief) - (reach**2).sum(axis=0), 0.0)
    evidence = -0.5 * float(known @ known) - float(np.log(np.diag(lower)).sum()) - len(at) * math.log(unit)
    return _Posterior(figures.mean() + unit * (known @ reach), unit * np.sqrt(variance), evidence)


def _is_number(setting: Setting) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in setting.labels())


def _places(setting: Setting) -> list[float]:
    """Of numbers: from -1, the lowest, to 1, by rank, or by exponent in a log range. Of names: which one it is."""
    labels = setting.labels()
    if not _is_number(setting):
        return [float(i) for i in range(len(labels))]
    given = [float(v) for v in labels if v is not None]
    ranks = {v: float(i) for i, v in enumerate(sorted(given))}
    scale = [math.log(v) if setting.range and setting.range.log else ranks[v] for v in given]
    low, high = min(scale), max(scale)
    return [2.0 * (v - low) / (high - low) - 1.0 if high > low else 0.0 for v in scale]
