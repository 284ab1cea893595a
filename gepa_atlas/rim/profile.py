"""A calibration profile: what was fitted on labelled judgments, versioned, recorded by runs, and read by panel and benchmark."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gepa_atlas.errors import ConfigError
from gepa_atlas.rim.bank import Array
from gepa_atlas.rim.plans import Plan
from gepa_atlas.rim.pooling import Pooling, sigmoid
from gepa_atlas.types import digest

SCHEMA = 2
KIND = "gepa_atlas.rim.profile"
_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(15)  # a standard normal in 15 points
_SHARES = _SHARES / _SHARES.sum()


@dataclass(frozen=True, slots=True)
class Platt:
    """A monotone map from log-odds to a probability: sigmoid(slope * x + shift), slope > 0."""

    slope: float = 1.0
    shift: float = 0.0

    def __call__(self, log_odds: float) -> float:
        return sigmoid(self.slope * log_odds + self.shift)

    def many(self, log_odds: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-np.clip(self.slope * log_odds + self.shift, -40, 40))))

    @classmethod
    def fit(cls, log_odds: Array, right: Array) -> Platt:
        """Newton's method on the log-loss of `right` (0/1, or shares), with Platt's smoothed targets against overconfidence."""
        high, low = float(right.sum()), float((1 - right).sum())
        target = np.where(right > 0.5, (high + 1) / (high + 2), 1 / (low + 2))
        features = np.stack([np.clip(log_odds, -40, 40), np.ones_like(log_odds)], axis=1)
        beta = np.array([1.0, 0.0])
        for _ in range(100):
            p = 1 / (1 + np.exp(-np.clip(features @ beta, -40, 40)))
            gradient = features.T @ (target - p) - 1e-6 * beta
            hessian = (features * (p * (1 - p))[:, None]).T @ features + 1e-6 * np.eye(2)
            step = np.linalg.solve(hessian, gradient)
            beta += step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
            if float(np.abs(step).max()) < 1e-9:
                break
        return cls(max(float(beta[0]), 1e-3), float(beta[1]))

    def halfway(self) -> Platt:
        """Half-way back to the identity, for log-odds that are close to calibrated as they are: fitted on a few hundred questions the
        map chases noise (mean error over twelve halves of the RewardBench-2 bank and eight plans: .027 fitted, .025 untouched, .025
        half-way, whose worst case is the lowest)."""
        return Platt(1 + 0.5 * (self.slope - 1), 0.5 * self.shift)

    def to_json(self) -> list[float]:
        return [round(self.slope, 6), round(self.shift, 6)]


@dataclass(frozen=True)
class Planned:
    """A plan with what it did in cross-validation: calls per response, accuracy, and the map of its confidence."""

    plan: Plan
    calls: float
    calls_error: float
    accuracy: float
    confidence: Platt

    @property
    def expected(self) -> float:
        """Calls per response that other questions will hardly pass: three standard errors up, and never more than its last stage."""
        return min(float(self.plan.stages[-1]), self.calls + 3 * self.calls_error)

    def to_json(self) -> dict[str, Any]:
        figures = {n: round(v, 6) for n, v in (("calls", self.calls), ("calls_error", self.calls_error), ("accuracy", self.accuracy))}
        return {"plan": self.plan.to_json(), **figures, "confidence": self.confidence.to_json()}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Planned:
        return cls(Plan.from_json(row["plan"]), row["calls"], row["calls_error"], row["accuracy"], Platt(*row["confidence"]))


@dataclass(frozen=True)
class Contest:
    """What was fitted for choosing the best of several responses under one prompt."""

    pooling: Pooling
    plans: tuple[Planned, ...]
    atlas: tuple[str, str] | None = None  # (small, large) of ATLAS's rule: the pair of judges that served it best where it was fitted

    def choose(self, most_calls: float | None) -> Planned:
        """The most accurate plan whose calls per response stay within the cap, with three standard errors to spare."""
        within = [p for p in self.plans if most_calls is None or p.expected <= most_calls]
        if not within:
            least = min(p.expected for p in self.plans)
            raise ConfigError(f"--max-calls-per-response {most_calls:g}: the cheapest plan of the profile needs {least:.2f}; raise the cap")
        if most_calls is None:
            # Without a cap, close answers get everything there is: at equal accuracy in cross-validation more calls lose nothing.
            within = [p for p in within if p.plan.stages[-1] == max(q.plan.stages[-1] for q in within)]
        best = max(p.accuracy for p in within)
        return min((p for p in within if p.accuracy >= best - 5e-4), key=lambda p: p.calls)

    def to_json(self) -> dict[str, Any]:
        return {"pooling": self.pooling.to_json(), "plans": [p.to_json() for p in self.plans], "atlas": self.atlas and list(self.atlas)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Contest:
        atlas = row["atlas"]
        return cls(Pooling.from_json(row["pooling"]), tuple(map(Planned.from_json, row["plans"])), (atlas[0], atlas[1]) if atlas else None)


@dataclass(frozen=True)
class Points:
    """What was fitted for one response alone: is it right? `pooling.best` is right minus wrong; `level` is the mean of wrong ones."""

    pooling: Pooling
    map: Platt
    bias: dict[str, float] = field(default_factory=dict)  # mean score minus mean label, by judge, on the judges' scale
    length_slope: float = 0.0  # log-odds a judge panel gives for a doubling of length at equal label; taken off when lengths are known
    measured: frozenset[str] = frozenset()  # judges that were asked more than once about something, so that their noise is known

    def value(
        self, scores: dict[str, tuple[float, int]], length: int | None = None, exact: frozenset[str] = frozenset()
    ) -> tuple[float, float | None]:
        """P(right) and the standard error that judging alone gives it, from (mean score, draws) by judge.

        `exact` judges have no noise; the error is None where another judge's noise was never measured.
        """
        known = self.pooling.judges
        draws = np.array([scores[j][1] if j in scores else 0 for j in known], dtype=np.int64)
        mean = np.array([scores[j][0] if j in scores else 0.0 for j in known])
        log_odds = float(self.pooling.log_posterior(mean[None, None], draws[None, None])[0, 0])
        if length is not None and self.length_slope:
            log_odds -= self.length_slope * math.log2(max(length, 1))
        p = self.map(log_odds)
        if scores.keys() - exact - self.measured:
            return p, None
        noisy = np.array([j in scores and j not in exact for j in known])
        noise = math.sqrt(float((self.pooling.weights(draws) ** 2 * self.pooling.noise / np.maximum(draws, 1) * noisy).sum()))
        around = self.map.many(log_odds + noise * _NODES)
        return p, math.sqrt(max(0.0, float(_SHARES @ around**2 - (_SHARES @ around) ** 2)))

    def to_json(self) -> dict[str, Any]:
        return {
            "pooling": self.pooling.to_json(),
            "map": self.map.to_json(),
            "bias": self.bias,
            "length_slope": self.length_slope,
            "measured": sorted(self.measured),
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Points:
        return cls(Pooling.from_json(row["pooling"]), Platt(*row["map"]), row["bias"], row["length_slope"], frozenset(row["measured"]))


@dataclass(frozen=True)
class Profile:
    """`contests` by prompt, from a bank; `points` from labels (or from a bank: the chosen response is right, the others wrong)."""

    source: dict[str, Any]  # fingerprint, rows, row digests of what it was fitted on: nothing may be scored that is in it
    contests: dict[str, Contest] = field(default_factory=dict)
    points: dict[str, Points] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)  # cross-validated, as reported
    pairs: dict[str, Any] = field(default_factory=dict)  # judge -> weight, and what was fitted with it (rim.pairs)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "schema_version": SCHEMA,
            "source": self.source,
            "contests": {name: c.to_json() for name, c in self.contests.items()},
            "points": {name: p.to_json() for name, p in self.points.items()},
            "figures": self.figures,
            "pairs": self.pairs,
        }

    @property
    def identity(self) -> str:
        return digest(self.to_json(), 24)


def load_profile(path: Path) -> Profile:
    """Raises ConfigError when the file is not a profile of this version."""
    try:
        row = json.loads(path.read_text("utf-8"))
        if row["kind"] != KIND or row["schema_version"] != SCHEMA:
            raise ConfigError(f"{path}: kind {row['kind']!r}, version {row['schema_version']!r} is not {KIND} {SCHEMA}; calibrate again")
        contests = {name: Contest.from_json(c) for name, c in row["contests"].items()}
        return Profile(
            row["source"], contests, {name: Points.from_json(p) for name, p in row["points"].items()}, row["figures"], row["pairs"]
        )
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the file that `gepa-atlas rim calibrate --out` wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a calibration profile ({type(error).__name__}: {error}); calibrate again") from None
