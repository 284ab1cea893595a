"""A Gaussian over named weights that grows, and is conditioned on linear views of itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Gaussian:
    """`mean` (n,) and covariance (n, n). `append` costs nothing, `condition` of k views k n^2 or n^3, whichever is less."""

    def __init__(self) -> None:
        self._mean, self._cov, self._n = np.zeros(64), np.zeros((64, 64)), 0
        self._independent = True  # nothing was seen yet

    def __len__(self) -> int:
        return self._n

    @property
    def mean(self) -> Floats:
        return self._mean[: self._n]

    @property
    def cov(self) -> Floats:
        return self._cov[: self._n, : self._n]

    def append(self, mean: float, var: float) -> int:
        """One weight more, independent of the others until something is seen; its number."""
        if self._n == len(self._mean):
            self._mean = np.append(self._mean, np.zeros(self._n))
            self._cov = np.pad(self._cov, (0, self._n))
        at, self._n = self._n, self._n + 1
        self._mean[at], self._cov[at, at] = mean, var
        return at

    def condition(self, phi: Floats, seen: Floats, noise: Floats) -> None:
        """On `seen` (k,) = phi (k, n) @ weights + N(0, noise (k,))."""
        if not len(seen):
            return
        mean, cov = self.mean, self.cov
        missed = seen - phi @ mean
        if len(seen) < self._n:
            cross = phi @ cov
            spread = cross @ phi.T
            spread[np.diag_indices_from(spread)] += noise
            root = np.linalg.solve(np.linalg.cholesky(spread), np.column_stack([cross, missed]))
            mean += root[:, -1] @ root[:, :-1]
            cov -= root[:, :-1].T @ root[:, :-1]
        else:
            weighted = phi / noise[:, None]
            self._informed(self._precision() + phi.T @ weighted, missed @ weighted)
        self._independent = False

    def condition_in_groups(self, phi: Floats, seen: Floats, noise: Floats, group: Ints, part: Floats, var: float) -> tuple[Floats, Floats]:
        """As `condition`, where view i also holds part[i] of what its group adds: N(0, var), the same for all of a group.

        Groups are numbered from 0, and each has a view. Returns what each adds, mean and variance. Summed out, they cost no weights.
        """
        weighted, missed = phi / noise[:, None], seen - phi @ self.mean
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        tied = np.add.reduceat((part[:, None] * weighted)[order], starts)
        precision = 1 / var + np.bincount(group, part**2 / noise)
        drawn = np.bincount(group, part * missed / noise)
        information = self._precision() + phi.T @ weighted - tied.T @ (tied / precision[:, None])
        step = self._informed(information, missed @ weighted - (drawn / precision) @ tied)
        self._independent = False
        return (drawn - tied @ step) / precision, 1 / precision + ((tied @ self.cov) * tied).sum(1) / precision**2

    def _precision(self) -> Floats:
        """The inverse of the covariance."""
        return np.asarray(np.diag(1.0 / np.diagonal(self.cov)) if self._independent else np.linalg.inv(self.cov), dtype=np.float64)

    def _informed(self, precision: Floats, pull: Floats) -> Floats:
        """Take on this precision (n, n); the mean moves by its inverse times `pull` (n,), which is returned."""
        cov = np.linalg.inv(precision)
        self.cov[:] = 0.5 * (cov + cov.T)
        step: Floats = self.cov @ pull
        self.mean[:] += step
        return step

    def var(self, phi: Floats) -> Floats:
        """Variance of phi @ weights, row by row."""
        return np.asarray(np.maximum(((phi @ self.cov) * phi).sum(1), 1e-8))

    def sample(self, random: np.random.Generator) -> Floats:
        jitter = 1e-10 * np.eye(self._n)
        return np.asarray(self.mean + np.linalg.cholesky(self.cov + jitter) @ random.standard_normal(self._n))
