"""What is believed of each candidate: what its items are worth, where they matter, and what is peculiar to itself. One Gaussian.

Relative to the seed, candidate c has items x_ci in {-1, 0, 1} (dropped, as in the seed, added). On example e it shows

    y_ce = m + sum_i x_ci (g_i + v_i s_ie) + d_c + a_e + r_ce,

where g_i is what item i is worth anywhere, v_i what it is worth beyond that where it is about the example (s_ie: they share a telling
word), d_c what the combination does that its items do not explain, and a_e how easy the example is. Candidates that share an item
share its evidence, whichever lineage it came by.

Part of r repeats the parent's: r_ce = rho r_pe + noise. rho is learnt in the run: near 1 when rollouts are deterministic (then a child
differs from its parent on few examples, and pairing is worth most), near 0 when they are noise (then pairing would double the
variance). So one estimator serves both regimes: a cell whose parent is known there enters as y_ce - rho y_pe, with everything above
taken at that difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gepa_atlas.evolve.archive import Archive, Cells, Entry
from gepa_atlas.evolve.gaussian import Floats, Gaussian, Ints
from gepa_atlas.evolve.items import Catalogue

# Prior standard deviations, in units of reward; the same for every task.
LEVEL_SD = 0.5  # of the seed
ITEM_SD = 0.05  # of what an item is worth anywhere
ABOUT_SD = 0.12  # of what it is worth beyond that where it is about the example
OWN_SD = 0.04  # of what a combination does that its items do not explain
SEED_ITEM = 0.5 * ITEM_SD  # an item of the seed is there for a reason: its prior mean
_EASE = 2.0  # cells' worth of shrinkage of an example's effect
_WINDOW = 128  # entries whose cells are reasoned about: the active ones, and the latest
_WORK = 4e6  # multiplications that one tell may cost on average: all cells are taken anew as often as that allows
_PSEUDO = np.array([10 * 0.2, 5 * 0.2, 10 * 0.2, 10.0])  # ten cells of residual variance 0.2 with rho 0.5


@dataclass(frozen=True)
class Draw:
    """One sample of the posterior, or its mean: worth of every item over the val examples (NaN: forgotten), level of every entry."""

    worth: Floats
    level: Floats


class Belief:
    """The joint posterior of items and entries, and the moments it rests on.

    Cells are folded in as they are told; once in a while all of them are taken anew, with example effects, residual variance and rho
    as they are believed then.
    """

    def __init__(self, archive: Archive, questions: Mapping[str, str], whole: AbstractSet[str] = frozenset()) -> None:
        self.archive = archive
        self.catalogue = Catalogue([questions.get(example, "") for example in archive.columns], archive.n_val, whole)
        self._x = np.zeros((16, 64))  # entries x items, relative to the seed
        self._moments = _PSEUDO.copy()  # sums of parent's squares, products, squares, and cells, of residuals
        self._judge_sum, self._judged = 0.0, 0  # variance that judging alone gives a cell, where the judges know their noise
        self._effects = np.zeros(len(archive.columns))
        self._weights = Gaussian()
        self._general: dict[int, int] = {}  # item -> its weight anywhere
        self._about: dict[int, int] = {}  # item -> its weight where it is about the example
        self._own: dict[int, int] = {}  # entry -> its own weight
        self._since, self._due = 0, 1
        self._level = self._weights.append(0.0, LEVEL_SD**2)

    # -- moments ------------------------------------------------------------------------------------------------------

    def judged(self, uncertainty: float | None) -> None:
        """The standard error of a reward that was taken in; None where a judge does not know its own."""
        if uncertainty is not None:
            self._judge_sum += uncertainty**2
            self._judged += 1

    @property
    def judge_var(self) -> float:
        """Mean variance that judging alone gives a cell: 0 for programs, measured for calibrated or repeated model judges."""
        return self._judge_sum / self._judged if self._judged else 0.0

    @property
    def rho(self) -> float:
        """What a judge's draw adds is never shared with the parent, so measured judge noise is a ceiling on it from the first cell on."""
        ceiling = 1.0 - self.judge_var / self.residual_var if self._judge_sum else 0.97
        return float(max(0.0, min(0.97, ceiling, self._moments[1] / self._moments[0])))

    @property
    def residual_var(self) -> float:
        """Variance of one cell around what is believed of it."""
        return float(max(self._moments[2] / self._moments[3], 1e-4))

    @property
    def cell_var(self) -> float:
        """Variance of one cell as evidence on a candidate, after the control variate."""
        return max(self.residual_var * (1 - self.rho**2), self.judge_var, 1e-4)

    @property
    def step_var(self) -> float:
        """Variance of what a child of one new item is worth over its parent, before anything is seen of it."""
        return ITEM_SD**2 + (0.2 * ABOUT_SD) ** 2 + OWN_SD**2

    # -- learning -----------------------------------------------------------------------------------------------------

    def enter(self, entry: Entry) -> None:
        """A new entry: its items and its prior."""
        i, row = entry.index, self.catalogue.enter(entry.candidate)
        if i >= len(self._x):
            self._x = np.vstack([self._x, np.zeros_like(self._x)])
        while len(self.catalogue) > self._x.shape[1]:
            self._x = np.hstack([self._x, np.zeros_like(self._x)])
        self._x[i, list(row)] = 1.0
        self._x[i, list(self.catalogue.rows[0])] -= 1.0
        self._admit([entry.index])
        if entry.parent is not None:
            parent = self.archive.entries[entry.parent]
            entry.mean, entry.var = parent.mean, parent.var + self.step_var

    def learn(self, entry: Entry, columns: Ints) -> None:
        """Take newly measured columns of an entry in."""
        self._since += 1
        if self._since >= self._due or entry.index not in self._own:
            self._renew()
        else:
            self._fold(self.archive.cells([entry.index], columns))
        self._read_off()

    def draw(self, random: np.random.Generator) -> Draw:
        return self._drawn(self._weights.sample(random))

    def expected(self) -> Draw:
        """The posterior means, in the shape of a draw."""
        return self._drawn(self._weights.mean)

    def _renew(self) -> None:
        """All cells of the window anew."""
        self._since = 0
        window = self._window()
        self._weights = Gaussian()
        self._level = self._weights.append(0.0, LEVEL_SD**2)
        self._general, self._about, self._own = {}, {}, {}
        self._admit(window)
        cells = self.archive.cells(window)
        self._fold(cells)
        if len(cells.rows):
            self._remember(cells)
        size = len(self._weights.mean)
        self._due = max(8, int((len(cells.rows) * size**2 + size**3) / _WORK))

    def _window(self) -> list[int]:
        """Active entries, those they descend from, and the latest, in order."""
        entries = self.archive.entries
        chosen = {0} | {e.index for e in entries if e.active and e.n}
        chosen |= {e.parent for e in entries if e.index in chosen and e.parent is not None}
        for e in reversed(entries):
            if len(chosen) >= _WINDOW:
                break
            if e.n:
                chosen.add(e.index)
        return sorted(chosen)

    def _admit(self, entries: list[int]) -> None:
        """Weights for these entries and for items that have none yet."""
        seed = set(self.catalogue.rows[0])
        for entry in entries:
            self._own.setdefault(entry, self._weights.append(0.0, OWN_SD**2))
            for item in map(int, np.flatnonzero(self._x[entry])):
                if item not in self._general:
                    self._general[item] = self._weights.append(SEED_ITEM if item in seed else 0.0, ITEM_SD**2)
                    if self.catalogue.share[item] > 0:
                        self._about[item] = self._weights.append(0.0, ABOUT_SD**2)

    def _fold(self, cells: Cells) -> None:
        """Condition on these cells."""
        pull = np.where(cells.parents >= 0, self.rho, 0.0)
        known = np.array([p in self._own for p in cells.parents], dtype=bool)
        pull = np.where(known, pull, 0.0)
        phi = self._features(cells.rows, cells.columns)
        if pull.any():
            phi -= pull[:, None] * self._features(np.where(known, cells.parents, cells.rows), cells.columns)
        seen = cells.gains - pull * cells.theirs - (1 - pull) * self._effects[cells.columns]
        noise = np.maximum(self.residual_var * (1 - pull**2), max(self.judge_var, 1e-4)) / cells.times
        self._weights.condition(phi, seen, noise)

    def _features(self, rows: Ints, columns: Ints) -> Floats:
        """What each weight adds to these cells: cells x weights."""
        return self._table(rows, lambda items: self.catalogue.matches()[np.ix_(items, columns)].T)

    def _levels(self, rows: Ints) -> Floats:
        """What each weight adds to the level of these entries over the val examples: entries x weights."""
        return self._table(rows, lambda items: self.catalogue.share[items])

    def _table(self, rows: Ints, about: Callable[[Ints], npt.NDArray[Any]]) -> Floats:
        """A row for each of these entries; `about(items)` is how far each item is about what the row stands for."""
        table = np.zeros((len(rows), len(self._weights.mean)))
        table[:, self._level] = 1.0
        items, at = _pairs(self._general)
        table[:, at] = self._x[np.ix_(rows, items)]
        items, at = _pairs(self._about)
        table[:, at] = self._x[np.ix_(rows, items)] * about(items)
        for k, row in enumerate(rows):
            table[k, self._own[int(row)]] = 1.0
        return table

    def _read_off(self) -> None:
        """Posterior mean and variance of the entries that can still matter."""
        rows = np.array([e.index for e in self.archive.entries if e.index in self._own], dtype=np.int64)
        mean, var = self._weights.of(self._levels(rows))
        for row, m, v in zip(rows, mean, var, strict=True):
            entry = self.archive.entries[row]
            entry.mean, entry.var = float(m), float(v)

    def _drawn(self, weights: Floats) -> Draw:
        worth = np.full(len(self.catalogue), np.nan)
        items, at = _pairs(self._general)
        worth[items] = weights[at]
        items, at = _pairs(self._about)
        worth[items] += self.catalogue.share[items] * weights[at]
        level = np.array([e.mean for e in self.archive.entries])
        rows = np.array(sorted(self._own), dtype=np.int64)
        level[rows] = self._levels(rows) @ weights
        return Draw(worth, level)

    def _remember(self, cells: Cells) -> None:
        """Example effects, residual variance and rho, given what is believed of the items now."""
        said = self._features(cells.rows, cells.columns) @ self._weights.mean
        seen = np.bincount(cells.columns, weights=cells.times, minlength=len(self._effects))
        left = np.bincount(cells.columns, weights=cells.times * (cells.gains - said), minlength=len(self._effects))
        known = seen > 0
        self._effects = (left - float((left[known] / seen[known]).mean()) * seen) / (seen + _EASE)
        r = cells.gains - said - self._effects[cells.columns]
        pair = np.array([p in self._own for p in cells.parents], dtype=bool)
        columns = cells.columns[pair]
        theirs = cells.theirs[pair] - self._features(cells.parents[pair], columns) @ self._weights.mean - self._effects[columns]
        self._moments = _PSEUDO + np.array([(theirs**2).sum(), (theirs * r[pair]).sum(), (r**2).sum(), float(len(r))])


def _pairs(table: dict[int, int]) -> tuple[Ints, Ints]:
    return np.fromiter(table.keys(), np.int64, len(table)), np.fromiter(table.values(), np.int64, len(table))
