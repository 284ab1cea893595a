"""Statistics of paired comparisons. Pure numpy; every interval is 95 % two-sided unless said otherwise.

Sources: Newcombe 1998 (Statistics in Medicine 17, method 10) for paired binary differences; Wilson 1927 for a share;
bootstrap over examples for everything else, because examples, not rollouts, are what a claim generalises over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gepa_atlas.evolve.rng import rng
from gepa_atlas.types import Lesson, Scorecard

Z95 = 1.959963984540054
_RESAMPLES = 2000


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a share; (0, 1) when nothing was observed."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def newcombe_paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Interval of mean(a) - mean(b) for paired 0/1 outcomes. Honest where a bootstrap is blind: all pairs alike."""
    n = len(a)
    p1, p2 = a.mean(), b.mean()
    l1, u1 = wilson(a.sum(), n)
    l2, u2 = wilson(b.sum(), n)
    both, only_a, only_b = float((a * b).sum()), float((a * (1 - b)).sum()), float(((1 - a) * b).sum())
    neither = n - both - only_a - only_b
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    phi = 0.0
    if product > 0:
        phi = (both * neither - only_a * only_b) / np.sqrt(product)
    low = p1 - p2 - np.sqrt(max(0.0, (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2))
    high = p1 - p2 + np.sqrt(max(0.0, (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2))
    return float(max(-1.0, low)), float(min(1.0, high))


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """Interval of a mean of values in [-1, 1], one value an example. None below two examples.

    The bootstrap interval is widened to at least the Wilson-type width that n examples can support, so that a constant
    sample does not claim certainty: with n equal values v the half-width is z^2 / (n + z^2) of the range on the open side.
    """
    n = len(values)
    if n < 2:
        return None
    draws = rng(seed, "bootstrap", n).integers(0, n, size=(_RESAMPLES, n))
    means = values[draws].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    centre = values.mean()
    unseen = Z95 * Z95 / (n + Z95 * Z95)
    low = min(low, centre - unseen * (centre + 1) / 2)
    high = max(high, centre + unseen * (1 - centre) / 2)
    return float(max(-1.0, low)), float(min(1.0, high))


def paired_interval(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """Interval of mean(a - b), paired by position: exact-type for 0/1 outcomes, bootstrap over examples otherwise."""
    if len(a) < 2:
        return None
    if np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all():
        return newcombe_paired(a, b)
    return mean_interval(a - b, seed)


def by_example(lessons: Sequence[Lesson]) -> dict[str, tuple[float, float]]:
    """Mean (before, after) by example id over the scored samples; examples without a scored lesson are absent."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for lesson in lessons:
        if lesson.before.value is not None and lesson.after.value is not None:
            pairs.setdefault(lesson.example.id, []).append((lesson.before.value, lesson.after.value))
    return {key: (float(np.mean([p[0] for p in v])), float(np.mean([p[1] for p in v]))) for key, v in pairs.items()}


def scorecard(candidate_id: str, lessons: Sequence[Lesson], planned: int) -> Scorecard:
    """Sum up a candidate's lessons; `planned` is how many were wanted, so that failures show as coverage."""
    scored = by_example(lessons)
    n_scored = sum(1 for lesson in lessons if lesson.delta is not None)
    if not scored:
        return Scorecard(candidate_id, planned, 0, None, None, None, None, None, None)
    before = np.array([scored[k][0] for k in sorted(scored)])
    after = np.array([scored[k][1] for k in sorted(scored)])
    interval = paired_interval(after, before) or (None, None)
    tokens = [lesson.second.usage.tokens for lesson in lessons if lesson.delta is not None]
    known = [t for t in tokens if t is not None]
    return Scorecard(
        candidate_id,
        planned,
        n_scored,
        float((after - before).mean()),
        interval[0],
        interval[1],
        float(after.mean()),
        float(before.mean()),
        float((after < before).mean()),
        float(np.mean(known)) if len(known) == len(tokens) else None,
    )


def paired_gain(
    winner: Mapping[str, tuple[float, float]], seed: Mapping[str, tuple[float, float]]
) -> tuple[float, float | None, float | None, int]:
    """Winner minus seed on the examples both were scored on: (gain, low, high, pairs). Takes `by_example` of each."""
    shared = sorted(winner.keys() & seed.keys())
    if not shared:
        return 0.0, None, None, 0
    a = np.array([winner[k][1] for k in shared])
    b = np.array([seed[k][1] for k in shared])
    apart = np.array([winner[k][0] - seed[k][0] for k in shared])
    if apart.any():  # more judges were asked about one lesson than about the other: only its own baseline is on its scale
        low, high = mean_interval(np.clip(a - b - apart, -1.0, 1.0)) or (None, None)
    else:
        low, high = paired_interval(a, b) or (None, None)
    return float((a - b - apart).mean()), low, high, len(shared)


def judging_error(winner: Sequence[Lesson], seed: Sequence[Lesson]) -> float | None:
    """Standard error that judging alone gives the paired gain; None when a judge does not know its noise, 0 for programs.

    An answer that both gave is judged once, so its noise is in both and drops out.
    """
    ours, theirs = _after(winner), _after(seed)
    shared = ours.keys() & theirs.keys()
    total = 0.0
    for key in shared:
        for mine, other in ((ours[key], theirs[key]), (theirs[key], ours[key])):
            for output, uncertainty in mine:
                if output in {o for o, _ in other}:
                    continue
                if uncertainty is None:
                    return None
                total += (uncertainty / len(mine)) ** 2
    return float(np.sqrt(total)) / len(shared) if shared else None


def _after(lessons: Sequence[Lesson]) -> dict[str, list[tuple[str | None, float | None]]]:
    """(answer, standard error of its reward) of the scored lessons, by example id."""
    found: dict[str, list[tuple[str | None, float | None]]] = {}
    for lesson in lessons:
        if lesson.delta is not None:
            found.setdefault(lesson.example.id, []).append((lesson.second.output, lesson.after.uncertainty))
    return found
