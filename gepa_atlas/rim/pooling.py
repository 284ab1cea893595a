"""How several judges' draws become one word: a Gaussian model of scores, its fit, and the posterior for any pattern of draws.

A draw of judge j on response a of one question is  x = m_j + u_j + d_j * [a is the best] + e_ja + n,  with
    u ~ N(0, P)  the question's level, shared by its responses (some questions are graded harder),
    e ~ N(0, R)  what this judge thinks of this response, the same in every draw; R holds how judges' errors correlate,
    n ~ N(0, s_j)  the noise of one draw.
So repeated draws of one judge only average n away, another judge also averages e, and a missing draw or judge is just absent.
m, R, P, s are moments; d is fitted as a conditional logit (which response is best?) on the means of all draws, R and s fixed:
the weights of judges with k draws are then  (R + s/k)^-1 d, and the softmax over responses is close to a probability.
This is stacking (reference benchmarks 2.2: 89.0 / 90.3 with 32 calls) written so that it holds for every number of draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gepa_atlas.errors import DataError
from gepa_atlas.rim.bank import Array

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Pooling:
    """The fitted model for `judges`, in the judges' own score units."""

    judges: tuple[str, ...]
    level: Array  # m: mean score of a response that is not the best (J)
    spread: Array  # sd of one draw over everything, for standardising (J)
    best: Array  # d (J)
    noise: Array  # s: variance of one draw around its judge's mean (J)
    idiosyncratic: Array  # R (J, J)
    question: Array  # P (J, J)

    def log_posterior(self, mean: Array, draws: Counts) -> Array:
        """Log-probability, up to a constant a row, that each response is the best. `mean`, `draws`: (N, A, J); draws 0 is absent.

        Differences between responses are what counts: the prior is uniform over the responses.
        """
        rows, responses, _ = mean.shape
        out = np.zeros((rows, responses))
        patterns: dict[bytes, list[int]] = {}
        for i in range(rows):
            patterns.setdefault(draws[i].tobytes(), []).append(i)
        for members in patterns.values():
            weights, constant = self._weights(draws[members[0]])
            centred = (mean[members] - self.level).reshape(len(members), -1)
            out[members] = np.nan_to_num(centred) @ weights.T - constant
        return out

    def _weights(self, draws: Counts) -> tuple[Array, Array]:
        """Of one pattern of draws (A, J): linear weights (A, A*J) and constants (A) of each response's log-likelihood ratio."""
        responses, judges = draws.shape
        there = draws.ravel() > 0
        weights = np.zeros((responses, responses * judges))
        constant = np.zeros(responses)
        if not there.any():
            return weights, constant
        covariance = np.kron(np.ones((responses, responses)), self.question) + np.kron(np.eye(responses), self.idiosyncratic)
        covariance += np.diag((self.noise / np.maximum(draws, 1)).ravel())
        inverse = np.linalg.inv(covariance[np.ix_(there, there)])
        for a in range(responses):
            shift = np.zeros((responses, judges))
            shift[a] = self.best
            seen = shift.ravel()[there]
            weights[a, there] = inverse @ seen
            constant[a] = 0.5 * seen @ inverse @ seen
        return weights, constant

    def information(self, draws: Counts) -> float:
        """Squared distance between best and not best, in noise units, for these draws of each judge (J): what an order of judges
        is chosen by."""
        there = draws > 0
        if not there.any():
            return 0.0
        covariance = self.idiosyncratic + np.diag(self.noise / np.maximum(draws, 1))
        d = self.best[there]
        return float(d @ np.linalg.solve(covariance[np.ix_(there, there)], d))

    def weights(self, draws: Counts) -> Array:
        """Weight of each judge's mean score for these draws (J), per score unit."""
        there = draws > 0
        out = np.zeros(len(draws))
        covariance = self.idiosyncratic + np.diag(self.noise / np.maximum(draws, 1))
        out[there] = np.linalg.solve(covariance[np.ix_(there, there)], self.best[there])
        return out

    def to_json(self) -> dict[str, Any]:
        row = {name: np.round(value, 6).tolist() for name, value in vars(self).items() if name != "judges"}
        return {"judges": list(self.judges), **row}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Pooling:
        return cls(
            tuple(row["judges"]), **{name: np.array(row[name], dtype=float) for name in cls.__dataclass_fields__ if name != "judges"}
        )


def means(scores: Array, wanted: Counts, start: int = 0) -> tuple[Array, Counts]:
    """The mean of the first `wanted` (N, A, J) draws from `start`, cyclically, and how many of them there are.

    A draw that could not be read is paid and absent.
    """
    total = scores.shape[3]
    taken = np.roll(scores, -start, axis=3)
    used = np.where(np.arange(total) < wanted[..., None], taken, np.nan)
    count = np.asarray((~np.isnan(used)).sum(axis=3), dtype=np.int64)
    return np.nansum(used, axis=3) / np.maximum(count, 1), count


def fit(judges: tuple[str, ...], scores: Array, ridge: float = 1e-3) -> Pooling:
    """Fit the model on scores (N, A, J, D) with the best response first. Raises DataError when there is too little."""
    mean, noise = average(scores, 3), np.array([draw_noise(scores[:, :, j]) for j in range(len(judges))])
    spread = np.nanstd(scores, axis=(0, 1, 3))
    whole = ~np.isnan(mean).any(axis=(1, 2))
    if whole.sum() < 20 + 2 * len(judges):
        raise DataError(f"{int(whole.sum())} rows have scores of all of {', '.join(judges)}; at least {20 + 2 * len(judges)} are needed")
    noise = noise + 1e-3
    draws = scores.shape[3]
    level = mean[whole][:, 1:].mean(axis=(0, 1))
    others = mean[whole][:, 1:] - level
    n, a = others.shape[:2]
    if a < 2:
        raise DataError("each row needs at least three responses; for pairs use `--pairs`")
    inner = others - others.mean(axis=1, keepdims=True)
    within = np.einsum("naj,nak->jk", inner, inner) / (n * (a - 1)) - np.diag(noise / draws)
    total = others.sum(axis=1)
    between = (total.T @ total - np.einsum("naj,nak->jk", others, others)) / (n * a * (a - 1))
    model = Pooling(judges, level, spread, np.ones(len(judges)), noise, positive(within), positive(between))
    features = (mean[whole] - level) @ np.linalg.inv(model.idiosyncratic + np.diag(noise / draws))
    best = conditional_logit(features, prior=mean[whole][:, 0].mean(axis=0) - level, ridge=ridge * n)
    return Pooling(judges, level, spread, best, noise, model.idiosyncratic, model.question)


def average(scores: Array, axis: int) -> Array:
    """The mean of what is there; NaN where nothing is."""
    there = ~np.isnan(scores)
    count = there.sum(axis=axis)
    return np.where(count, np.where(there, scores, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def draw_noise(draws: Array) -> float:
    """Variance of one draw around its judge's mean on that response (..., D); 0 when nothing was drawn twice."""
    there = ~np.isnan(draws)
    free = there.sum(axis=-1) - 1
    squares = np.where(there, (draws - average(draws, draws.ndim - 1)[..., None]) ** 2, 0.0).sum(axis=-1)
    several = free > 0
    return float((squares[several] / free[several]).mean()) if several.any() else 0.0


def conditional_logit(features: Array, prior: Array, ridge: float) -> Array:
    """Newton's method for max sum_i log softmax(F_i d)[0] - ridge/2 |d - prior|^2; F (N, A, J), the best response first."""
    d = prior.astype(float).copy()
    for _ in range(60):
        logits = features @ d
        p = softmax(logits)
        expected = np.einsum("na,naj->nj", p, features)
        gradient = ridge * (prior - d) + (features[:, 0] - expected).sum(axis=0)
        hessian = expected.T @ expected - np.einsum("na,naj,nak->jk", p, features, features) - ridge * np.eye(len(d))
        step = np.linalg.solve(hessian, gradient)
        size = float(np.abs(step).max())
        d -= step * min(1.0, 2.0 / size if size > 0 else 1.0)
        if size < 1e-8:
            break
    return d


def positive(matrix: Array) -> Array:
    """The nearest covariance that is safely positive: a floor under its eigenvalues."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    floor = 0.02 * max(float(values.max()), 1e-3)
    return np.asarray(vectors @ np.diag(np.maximum(values, floor)) @ vectors.T)


def softmax(logits: Array) -> Array:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
