"""What is believed of each candidate: what its items are worth, where they matter, and what is peculiar to itself. One Gaussian.

Relative to the seed, candidate c has items x_ci in {-1, 0, 1} (dropped, as in the seed, added). On example e it shows

    y_ce = m + sum_i x_ci (g_i + v_i s_ie) + d_c + a_e + r_ce,

where g_i is what item i is worth anywhere, v_i what it is worth beyond that where it is about the example (s_ie: they share a telling
word that few other items have), d_c what the combination does that its items do not explain, and a_e how easy the example is. Candidates
that share an item share its evidence, whichever lineage it came by. Items that the seed does not have were proposed by somebody: what
such an idea is worth on average, g and v alike, is learnt too, so that where ideas do harm the next one is doubted, and where they help
it is tried; and so are the standard deviations of g, v and a. Demonstrations are another kind of item: what counts is that any are shown,
an item of its own; one more or less changes little; and in another order they are another prompt, so d_c is larger there. What judges
say of failures is evidence on the lines it names: see `complaints.py`.

Part of r repeats the parent's: r_ce = rho r_pe + noise. rho is learnt in the run: near 1 when rollouts are deterministic (then a child
differs from its parent on few examples, and pairing is worth most), near 0 when they are noise (then pairing would double the
variance). So one estimator serves both regimes: a cell whose parent is known there enters as y_ce - rho y_pe, with everything above
taken at that difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gepa_atlas.evolve.archive import Archive, Cells, Entry, chance_above_zero
from gepa_atlas.evolve.complaints import Complaints
from gepa_atlas.evolve.gaussian import Floats, Gaussian, Ints
from gepa_atlas.evolve.items import DEMO, SHOWN, Catalogue

# Prior standard deviations, in units of reward; the same for every task.
LEVEL_SD = 0.5  # of the seed
ITEM_SD = 0.05  # of what an item is worth anywhere; learnt in the run
ABOUT_SD = 0.12  # of what it is worth beyond that where it is about the example; learnt in the run
EASE_SD = 0.25  # of how easy an example is; learnt in the run
OWN_SD = 0.04  # of what a combination does that its items do not explain
SHOWN_SD = 0.3  # of what it is worth to show demonstrations, whichever they are
DEMO_SD = 0.02  # of what one of them is worth beyond that
OWN_SHOWN_SD = 0.1  # of what a combination with demonstrations does: in another order the same ones are another prompt
SEED_ITEM = 0.5 * ITEM_SD  # an item of the seed is there for a reason: its prior mean
IDEA_SD = 0.02  # of what items that the seed does not have are worth on average, anywhere
IDEA_ABOUT_SD = 0.06  # and beyond that where they are about the example
_KNOWN_SD = {SHOWN[0]: SHOWN_SD, DEMO: DEMO_SD}  # kinds of item whose deviation is not learnt
_LIKE, _LIKE_EASE = 20.0, 10.0  # items and examples that the learnt deviations start with
HEED = 2.0  # a complaint less on average is worth so much: many a failure has none, or a general one
HEED_SD = 0.02  # or so much more or less, at least
_WEIGHTS = 224  # weights that entries are taken in for: the active ones first, then the latest
_WORK = 3e6  # multiplications that one tell may cost on average: all cells are taken anew as often as that allows
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
        self._effects_var = np.full(len(archive.columns), EASE_SD**2)
        self._ease_var, self._item_sd, self._about_sd = EASE_SD**2, ITEM_SD, ABOUT_SD
        self.complaints = Complaints(self.catalogue)
        self._told: list[tuple[int, Ints]] = []  # entries and columns that are not yet taken in
        self._since, self._due = 0, 1
        self._worth = np.full(64, -1)  # of each item: its weight anywhere, or -1
        self._own = np.full(16, -1)  # of each entry: its own weight, or -1
        self._own_sd = np.zeros(16)  # of each entry: the deviation of that
        self._in = np.zeros(16, dtype=bool)  # of each entry: whether it is reasoned about
        self._start()

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

    @property
    def size(self) -> int:
        """Weights that the Gaussian is over."""
        return len(self._weights)

    # -- learning -----------------------------------------------------------------------------------------------------

    def enter(self, entry: Entry) -> None:
        """A new entry: its items and its prior."""
        i, row = entry.index, self.catalogue.enter(entry.candidate)
        while i >= len(self._x):
            self._x = np.pad(self._x, ((0, len(self._x)), (0, 0)))
            self._own, self._in = np.append(self._own, np.full_like(self._own, -1)), np.append(self._in, np.zeros_like(self._in))
            self._own_sd = np.append(self._own_sd, np.zeros_like(self._own_sd))
        while len(self.catalogue) > self._x.shape[1]:
            self._x = np.pad(self._x, ((0, 0), (0, self._x.shape[1])))
            self._worth = np.append(self._worth, np.full_like(self._worth, -1))
        self._own_sd[i] = OWN_SHOWN_SD if entry.candidate.demos else OWN_SD
        self._x[i, list(row)] = 1.0
        self._x[i, list(self.catalogue.rows[0])] -= 1.0
        self._admit([i], [i])
        if entry.parent is not None:
            parent = self.archive.entries[entry.parent]
            entry.mean, entry.var = parent.mean, parent.var + self.step_var

    def learn(self, entry: Entry, columns: Ints) -> None:
        """Newly measured columns of an entry."""
        self._told.append((entry.index, columns))

    def settle(self) -> None:
        """Take in what was learnt: afterwards the entries that can still matter have their posterior mean and variance."""
        if not self._told:
            return
        touched, columns = [index for index, _ in self._told], [at for _, at in self._told]
        self._told = []
        self._since += 1
        if self._since >= self._due or not self._in[touched].all():
            self._renew()
        else:
            self._fold(self.archive.cells(touched, columns))
        self._read_off(touched)

    def draw(self, random: np.random.Generator) -> Draw:
        self.settle()
        return self._drawn(self._weights.sample(random))

    def chance(self, entry: Entry, other: Entry, unseen: float = 0.0) -> float:
        """Probability that an entry is truly better than another one, which counts as known where it was never measured.

        What both share, the level of all and how easy the examples were, is in no doubt between them. `unseen`: the variance that examples
        add to the difference which are not those of the val split.
        """
        self.settle()
        pair = [entry, other] if other.n else [entry]
        if self._in[[e.index for e in pair]].all():
            rows, table = self._levels()
            of = table[np.searchsorted(rows, [e.index for e in pair])]
            var = float(self._weights.var(of[:1] - of[1:] if other.n else of)[0])
        else:
            var = sum(e.var for e in pair)
        return chance_above_zero(entry.mean - other.mean, math.sqrt(var + unseen))

    def expected(self) -> Draw:
        """The posterior means, in the shape of a draw."""
        self.settle()
        return self._drawn(self._weights.mean)

    def _renew(self) -> None:
        """All cells of the window anew."""
        self._since = 0
        self.catalogue.find_again()
        window, live = self._window()
        self._start()
        self._admit(window, live)
        cells = self.archive.cells(window)
        if len(cells.rows):
            self._fold_all(cells)
            self._remember(cells)
            self._hear()
            self._rescale()
        size = len(self._weights)
        self._due = max(1, int((len(cells.rows) * size**2 + size**3) / _WORK))

    def _window(self) -> tuple[list[int], list[int]]:
        """Entries to reason about, in order: the active ones, their parents, and the latest; and those of them with a weight of their own.

        Of the others the items are what matters: what is peculiar to them is noise.
        """
        entries = self.archive.entries
        live = [0, *(e.index for e in entries[1:] if e.active and e.n)]
        chosen = {*live, *(p for i in live if (p := entries[i].parent) is not None)}
        items = {item for i in chosen for item in self._items(i)}
        for e in reversed(entries):
            if e.n and e.index not in chosen:
                items |= self._items(e.index)
                if len(live) + 2 * len(items) > _WEIGHTS:
                    break
                chosen.add(e.index)
        return sorted(chosen), live

    def _items(self, entry: int) -> set[int]:
        """Items in which the entry differs from the seed."""
        return set(self.catalogue.rows[entry]) ^ set(self.catalogue.rows[0])

    # -- weights ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Nothing but the prior, over the level and what an idea is worth."""
        self._weights = Gaussian()
        self._item = np.full(64, -1)  # of each weight: the item whose worth it is, or -1
        self._about = np.zeros(64, dtype=bool)  # of each weight: whether it is what the item is worth where it is about the example
        self._new = np.zeros(64, dtype=bool)  # of each weight: whether it is of an item that the seed does not have
        self._prior = np.zeros(64)  # of each weight: its mean before anything was seen
        self._worth[:], self._own[:], self._in[:] = -1, -1, False
        self._level = self._weight(0.0, LEVEL_SD)
        self._idea, self._idea_about = self._weight(0.0, IDEA_SD), self._weight(0.0, IDEA_ABOUT_SD)

    def _weight(self, mean: float, sd: float, item: int = -1, about: bool = False) -> int:
        at = self._weights.append(mean, sd**2)
        if at == len(self._item):
            self._item, self._about, self._new = np.tile(self._item, 2), np.tile(self._about, 2), np.tile(self._new, 2)
            self._prior = np.tile(self._prior, 2)
        self._prior[at] = mean
        self._item[at], self._about[at], self._new[at] = item, about, item >= 0 and item not in self.catalogue.rows[0]
        self._lift: tuple[Ints, Floats] | None = None
        return at

    def _admit(self, entries: list[int], live: list[int]) -> None:
        """Reason about these entries from now on: weights for items that have none yet, and for the live ones one of their own."""
        seed = set(self.catalogue.rows[0])
        self._in[entries], self._lift = True, None
        for entry in live:
            if self._own[entry] < 0:
                self._own[entry] = self._weight(0.0, self._own_sd[entry])
        for entry in entries:
            for item in sorted(self._items(entry)):
                if self._worth[item] < 0:
                    sd = _KNOWN_SD.get(self.catalogue.items[item][0], self._item_sd)
                    self._worth[item] = self._weight(SEED_ITEM if item in seed else 0.0, sd, item)
                    if self.catalogue.share[item] > 0:
                        self._weight(0.0, self._about_sd, item, about=True)

    def _fold(self, cells: Cells) -> None:
        """Condition on these cells, with how easy examples are as it was believed when all cells were taken anew."""
        phi, seen, noise, part = self._views(cells)
        ease, doubt = self._effects[cells.columns], self._effects_var[cells.columns]
        self._weights.condition(phi, seen - part * ease, noise + part**2 * doubt)

    def _fold_all(self, cells: Cells) -> None:
        """Condition on all cells, and learn how easy the examples are."""
        phi, seen, noise, part = self._views(cells)
        known, group = np.unique(cells.columns, return_inverse=True)
        self._effects[:], self._effects_var[:] = 0.0, self._ease_var
        mean, var = self._weights.condition_in_groups(phi, seen, noise, group, part, self._ease_var)
        self._effects[known], self._effects_var[known] = mean, var
        self._ease_var = (float((mean**2 + var).sum()) + _LIKE_EASE * EASE_SD**2) / (len(known) + _LIKE_EASE)

    def _views(self, cells: Cells) -> tuple[Floats, Floats, Floats, Floats]:
        """Cells as views of the weights: features, what was seen, its noise, and how much of the example's ease is in it."""
        known = self._paired(cells)
        pull = np.where(known, self.rho, 0.0)
        phi = self._features(cells.rows, cells.columns)
        if known.any():
            phi[known] -= self.rho * self._features(cells.parents[known], cells.columns[known])
        noise = np.maximum(self.residual_var * (1 - pull**2), max(self.judge_var, 1e-4)) / cells.times
        history = self._own[cells.rows] < 0
        if history.any():
            noise += self._own_sd[cells.rows] ** 2 * np.bincount(cells.rows)[cells.rows] * history
        return phi, cells.gains - pull * cells.theirs, noise, 1 - pull

    def _paired(self, cells: Cells) -> npt.NDArray[np.bool_]:
        """Of which cells the parent is known on the same example, and reasoned about."""
        return np.asarray((cells.parents >= 0) & self._in[cells.parents])

    def _features(self, rows: Ints, columns: Ints) -> Floats:
        """What each weight adds to these cells: cells x weights."""
        distinct, at = np.unique(rows, return_inverse=True)
        return self._scaled(self._table(distinct)[at], lambda items: self.catalogue.matches()[np.ix_(items, columns)].T)

    def _levels(self) -> tuple[Ints, Floats]:
        """The entries that are reasoned about, and what each weight adds to their level over the val examples: entries x weights."""
        if self._lift is None:
            rows = np.flatnonzero(self._in)
            self._lift = rows, self._scaled(self._table(rows), lambda items: self.catalogue.share[items])
        return self._lift

    def _table(self, rows: Ints) -> Floats:
        """What each weight adds to these entries, on an example that every item is about; but for what ideas are worth on average."""
        items = self._item[: len(self._weights)]
        table = np.where(items >= 0, self._x[np.ix_(rows, items)], 0.0)
        table[:, self._level] = 1.0
        own = self._own[rows]
        table[np.flatnonzero(own >= 0), own[own >= 0]] = 1.0
        return table

    def _scaled(self, table: Floats, reach: Callable[[Ints], npt.NDArray[Any]]) -> Floats:
        """The table, where `reach(items)` is how far each item is about what a row stands for."""
        items, about = self._item[: len(self._weights)], self._about[: len(self._weights)]
        table[:, about] *= reach(items[about])
        new = self._new[: len(self._weights)]
        table[:, self._idea] = table @ (new & ~about)
        table[:, self._idea_about] = table @ (new & about)
        return table

    def _read_off(self, touched: list[int]) -> None:
        """Posterior mean of every entry that is reasoned about; the variance of those that can be bred from, or were told of just now."""
        rows, table = self._levels()
        entries = [self.archive.entries[row] for row in rows]
        for entry, mean in zip(entries, (table @ self._weights.mean).tolist(), strict=True):
            entry.mean = mean
        live = {*touched, *(self.archive.entries[i].parent for i in touched)}
        at = [k for k, entry in enumerate(entries) if entry.active or entry.index in live]
        for k, var in zip(at, self._weights.var(table[at]).tolist(), strict=True):
            entries[k].var = var

    def _drawn(self, weights: Floats) -> Draw:
        items, about = self._item[: len(weights)], self._about[: len(weights)]
        worth, anywhere = np.full(len(self.catalogue), np.nan), (items >= 0) & ~about
        worth[items[anywhere]] = weights[anywhere]
        worth[items[about]] += self.catalogue.share[items[about]] * weights[about]
        new = np.ones(len(worth), dtype=bool)
        new[list(self.catalogue.rows[0])] = False
        worth[new] += weights[self._idea] + self.catalogue.share[new] * weights[self._idea_about]
        level = np.array([e.mean for e in self.archive.entries])
        rows, table = self._levels()
        level[rows] = table @ weights
        return Draw(worth, level)

    def _remember(self, cells: Cells) -> None:
        """Residual variance and rho, given what is believed now."""
        said = self._features(cells.rows, cells.columns) @ self._weights.mean
        r = cells.gains - said - self._effects[cells.columns]
        pair = self._paired(cells)
        columns = cells.columns[pair]
        theirs = cells.theirs[pair] - self._features(cells.parents[pair], columns) @ self._weights.mean - self._effects[columns]
        self._moments = _PSEUDO + np.array([(theirs**2).sum(), (theirs * r[pair]).sum(), (r**2).sum(), float(len(r))])

    def _hear(self) -> None:
        """Take in what complaints say of the items: `HEED` times by how much they fall is what an item is worth, more or less.

        Less so where the rewards surely say something else: complaints about nothing in particular count for little.
        """
        told = self.complaints.evidence()
        known = np.flatnonzero(self._worth[told.items] >= 0)
        if not len(known):
            return
        table = (self._item[: self.size] == told.items[known, None]).astype(np.float64)
        table = self._scaled(table, lambda items: self.catalogue.share[items])
        worth, var = HEED * told.fall[known], HEED**2 * told.var[known]
        expected = self._weights.var(table) + var + HEED_SD**2
        beyond = ((worth - table @ self._weights.mean) ** 2 - expected).sum() - 2 * math.sqrt(2 * (expected**2).sum())
        vague = HEED_SD**2 + max(0.0, float(beyond)) / len(known)
        self._weights.condition(table, worth, var + vague)

    def _rescale(self) -> None:
        """How much items differ in what they are worth: a step of expectation maximisation over those that are reasoned about."""
        second = (self._weights.mean - self._prior[: self.size]) ** 2 + np.diagonal(self._weights.cov)
        kinds = self.catalogue.items
        learnt = np.array([item >= 0 and kinds[item][0] not in _KNOWN_SD for item in self._item[: self.size].tolist()])
        about = self._about[: self.size]
        self._item_sd = _deviation(second[learnt & ~about], ITEM_SD)
        self._about_sd = _deviation(second[learnt & about], ABOUT_SD)


def _deviation(squares: Floats, prior: float) -> float:
    return math.sqrt((float(squares.sum()) + _LIKE * prior**2) / (len(squares) + _LIKE))
