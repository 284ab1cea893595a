"""What is believed of each candidate: a Gaussian down the lineage, with the parent as control variate.

A child's gain is its parent's plus a step, q_c = q_p + N(mu, tau^2). On val example e it shows y_ce = q_c + a_e + r_ce, where a_e is how
easy the example is and r is what is left. Part of r repeats the parent's: r_ce = rho r_pe + noise. rho is learnt in the run: near 1
when rollouts are deterministic (then a child differs from its parent on few examples and pairing is worth most), near 0 when they are
noise (then pairing would double the variance). So one estimator serves both regimes:

    z_e = y_ce - a_e - rho (y_pe - a_e - m_p),    q_c | data  ~  N(m_p + mu, v_p + tau^2)  x  N(mean z, s^2 (1 - rho^2) / n)
"""

from __future__ import annotations

import numpy as np

from gepa_atlas.evolve.archive import Archive, Entry

SEED_VAR = 0.25
_REFRESH = 8  # example effects move slowly: everybody's sums are taken anew once in so many slots


class Belief:
    """Moments learnt in the run, and the posterior of every active entry."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        # pseudo-observations: ten cells of residual variance 0.2 with rho 0.5, four steps of sd 0.14
        self._xx = self._yy = 10 * 0.2
        self._xy = 0.5 * self._xx
        self._cells = 10.0
        self._step_sum, self._step_sq, self._steps = 0.0, 4 * 0.02, 4.0
        self._judge_sum, self._judged = 0.0, 0  # variance that judging alone gives a cell, where the judges know their noise
        self._learned = 0
        self._step_of: dict[int, tuple[float, float, float]] = {}  # entry -> what it has put into the three sums

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
        return max(0.0, min(0.97, ceiling, self._xy / self._xx))

    @property
    def residual_var(self) -> float:
        """Variance of one cell around candidate level and example effect."""
        return max(self._yy / self._cells, 1e-4)

    @property
    def cell_var(self) -> float:
        """Variance of one cell as evidence on a candidate, after the control variate."""
        return max(self.residual_var * (1 - self.rho**2), self.judge_var, 1e-4)

    @property
    def step_mean(self) -> float:
        return self._step_sum / self._steps

    @property
    def step_var(self) -> float:
        """Excess of observed steps over what their own noise explains: the moment estimate, floored."""
        return max(self._step_sq / self._steps - self.step_mean**2, 4e-4)

    def learn(self, entry: Entry, columns: np.ndarray) -> None:
        """Take newly measured val columns of an entry into the moments and into the posterior of everything active."""
        current = self.archive.active()
        self._learned += 1
        stale = current if self._learned % _REFRESH == 0 else [self.archive.entries[i] for i in self.archive.children.get(entry.index, ())]
        for known in [entry, *(other for other in stale if other.active and other is not entry)]:
            self._sums(known)
        self.update(entry)
        self._moments(entry, columns)
        self._learn_step(entry)
        for known in current:
            self.update(known)

    def _learn_step(self, entry: Entry) -> None:
        """The step from parent to child as it was seen, less the variance that noise alone gives it; more cells weigh more."""
        if entry.parent is None:
            return
        parent = self.archive.entries[entry.parent]
        step = self._evidence(entry, parent.mean) - parent.mean
        noise = self.cell_var / entry.n + parent.var
        weight = entry.n / (entry.n + 12.0)
        new = (weight * step, weight * (step * step - noise), weight)
        old = self._step_of.get(entry.index, (0.0, 0.0, 0.0))
        self._step_of[entry.index] = new
        self._step_sum += new[0] - old[0]
        self._step_sq += new[1] - old[1]
        self._steps += new[2] - old[2]

    def _evidence(self, entry: Entry, level: float) -> float:
        """Mean of z over the entry's observations: effects removed, the parent's residuals as control variate."""
        return (entry.effect_sum - self.rho * (entry.shared_sum - entry.shared_n * level)) / entry.n

    def update(self, entry: Entry) -> None:
        """The posterior of one entry from its sums and its parent's posterior."""
        if entry.parent is None:
            prior_mean, prior_var, level = 0.0, SEED_VAR, 0.0
        else:
            parent = self.archive.entries[entry.parent]
            prior_mean, prior_var, level = parent.mean + self.step_mean, parent.var + self.step_var, parent.mean
        if entry.n == 0:
            self.archive.move(entry, prior_mean)
            entry.var = prior_var
            return
        z = self._evidence(entry, level)
        precision = 1 / prior_var + entry.n / self.cell_var
        self.archive.move(entry, (prior_mean / prior_var + z * entry.n / self.cell_var) / precision)
        entry.var = 1 / precision

    def _sums(self, entry: Entry) -> None:
        columns = self.archive.measured(entry)
        times = self.archive.observations(entry, columns)
        entry.effect_sum = float(((self.archive.values(entry, columns) - self.archive.effects(columns)) * times).sum())
        entry.shared_n, entry.shared_sum = 0, 0.0
        if entry.parent is not None:
            parent = self.archive.entries[entry.parent]
            both = self.archive.observations(parent, columns) > 0
            shared, times = columns[both], times[both]
            entry.shared_n = int(times.sum())
            entry.shared_sum = float(((self.archive.values(parent, shared) - self.archive.effects(shared)) * times).sum())

    def _moments(self, entry: Entry, columns: np.ndarray) -> None:
        own = self.archive.values(entry, columns) - self.archive.effects(columns) - entry.mean
        self._yy += float((own**2).sum())
        self._cells += len(columns)
        if entry.parent is None:
            return
        parent = self.archive.entries[entry.parent]
        mask = self.archive.observations(parent, columns) > 0
        shared = columns[mask]
        other = self.archive.values(parent, shared) - self.archive.effects(shared) - parent.mean
        self._xy += float((own[mask] * other).sum())
        self._xx += float((other**2).sum())
