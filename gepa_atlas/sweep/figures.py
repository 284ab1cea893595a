"""What a sweep found: a board of settings with intervals, what each setting is worth, and what the best would do elsewhere.

The interval of a mean over suites, seeds and examples resamples seeds and examples together (Owen's pigeonhole bootstrap): runs with one
seed share its luck, runs on one example share its difficulty. Differences to the best are paired by suite, seed and example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gepa_atlas.sweep.cell import Row
from gepa_atlas.sweep.config import OBJECTIVES, Value

_RESAMPLES = 2000
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class TrialRecord:
    """One combination of settings and the rows of its cells, by "suite/seed"."""

    number: int
    settings: dict[str, Value]
    state: str  # waiting, running, complete, pruned or failed
    rows: dict[str, Row]

    @property
    def errors(self) -> list[str]:
        return [f"{key}: {row['error']}" for key, row in sorted(self.rows.items()) if row["error"]]


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval; low and high are None where there is too little to say."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Standing:
    """A line of the board."""

    trial: TrialRecord
    objectives: dict[str, Interval]  # of each objective
    behind: Interval | None  # best minus this one, paired; None for the best itself
    front: bool  # no other one is at least as good in every objective and better in one


def board(trials: Sequence[TrialRecord], objectives: Sequence[str], seed: int = 0) -> list[Standing]:
    """Finished trials, best first by the first objective, ties to the earlier trial."""
    finished = [t for t in trials if t.state == "complete"]
    first = objectives[0]
    sign = 1.0 if OBJECTIVES[first] else -1.0
    order = sorted(finished, key=lambda t: (-sign * mean_of(t, first), t.number))
    front = _front(order, objectives)
    return [
        Standing(
            trial,
            {name: interval(_cells(trial, name), seed) for name in objectives},
            interval(_difference(order[0], trial, first), seed) if trial is not order[0] else None,
            trial.number in front,
        )
        for trial in order
    ]


def mean_of(trial: TrialRecord, objective: str) -> float:
    figures = [row[objective] for row in trial.rows.values()]
    return math.fsum(figures) / len(figures)


def interval(cells: Mapping[tuple[str, int], Mapping[str, float]], seed: int = 0) -> Interval:
    """Mean over cells (suite, seed) of the mean over their examples. A cell without examples is {"": its figure}."""
    suites = sorted({suite for suite, _ in cells})
    tables = [_table(cells, suite) for suite in suites]
    mean = float(np.mean([np.nanmean(np.nanmean(t, axis=1)) for t in tables]))
    if all(t.shape[0] < 2 and t.shape[1] < 2 for t in tables):
        return Interval(mean, None, None)
    draw = np.random.default_rng(seed)
    totals = np.zeros(_RESAMPLES)
    for table in tables:
        rows, columns = (_weights(draw, n) for n in table.shape)
        known = ~np.isnan(table)
        sums = np.einsum("rs,se,re->r", rows, np.where(known, table, 0.0), columns)
        counts = np.einsum("rs,se,re->r", rows, known.astype(float), columns)
        totals += np.divide(sums, counts, out=np.full(_RESAMPLES, np.nan), where=counts > 0)
    low, high = np.nanquantile(totals / len(tables), [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def _weights(draw: np.random.Generator, n: int) -> Array:
    """How often each of n is drawn in each resample. One alone is no sample: it stays."""
    return np.ones((_RESAMPLES, 1)) if n == 1 else draw.multinomial(n, np.full(n, 1.0 / n), size=_RESAMPLES).astype(float)


def _table(cells: Mapping[tuple[str, int], Mapping[str, float]], suite: str) -> Array:
    """Seeds x examples of a suite, NaN where a cell has not that example."""
    own = {seed: values for (name, seed), values in cells.items() if name == suite}
    examples = sorted({e for values in own.values() for e in values})
    return np.array([[own[s].get(e, math.nan) for e in examples] for s in sorted(own)])


def _cells(trial: TrialRecord, objective: str) -> dict[tuple[str, int], dict[str, float]]:
    return {(row["suite"], row["seed"]): _examples(row, objective) for row in trial.rows.values()}


def _examples(row: Row, objective: str) -> dict[str, float]:
    found: dict[str, float] = row.get("examples") or {} if objective == "gain" else {}
    return found or {"": float(row[objective])}


def _difference(best: TrialRecord, other: TrialRecord, objective: str) -> dict[tuple[str, int], dict[str, float]]:
    one, two = _cells(best, objective), _cells(other, objective)
    found = {cell: {e: one[cell][e] - two[cell][e] for e in one[cell] if e in two[cell]} for cell in one if cell in two}
    return {cell: values for cell, values in found.items() if values} or {
        ("", 0): {"": mean_of(best, objective) - mean_of(other, objective)}
    }


def _front(trials: Sequence[TrialRecord], objectives: Sequence[str]) -> set[int]:
    points = [[(1.0 if OBJECTIVES[n] else -1.0) * mean_of(t, n) for n in objectives] for t in trials]
    better = [
        any(all(a >= b for a, b in zip(q, p, strict=True)) and q != p for q in points) for p in points
    ]  # fmt: skip
    return {t.number for t, beaten in zip(trials, better, strict=True) if not beaten}


def elsewhere(trials: Sequence[TrialRecord], objective: str = "gain") -> float | None:
    """What choosing the best is worth on examples that did not choose it: chosen on one half, scored on the other, both ways.

    The best of many is partly the luckiest: its own mean is too high by what this is lower. None where cells report no examples.
    """
    finished = [t for t in trials if t.state == "complete" and all(row.get("examples") for row in t.rows.values())]
    if objective != "gain" or len(finished) < 2:
        return None
    halves = [[_half(t, which) for t in finished] for which in (0, 1)]
    if any(math.isnan(value) for half in halves for value in half):
        return None
    chosen = [max(range(len(finished)), key=lambda i, h=half: (h[i], -finished[i].number)) for half in halves]  # type: ignore[misc]
    return (halves[1][chosen[0]] + halves[0][chosen[1]]) / 2


def _half(trial: TrialRecord, which: int) -> float:
    """Mean over cells of every other example."""
    means = [list(dict(sorted(row["examples"].items())).values())[which::2] for row in trial.rows.values()]
    return math.fsum(math.fsum(m) / len(m) if m else math.nan for m in means) / len(means)


def effects(trials: Sequence[TrialRecord], objective: str) -> dict[str, list[tuple[str, Interval, int]]]:
    """For each setting: the mean objective of the finished trials with each of its values, and how many those are.

    Numbers with more than six values are put into four ranges of equal count.
    """
    finished = [t for t in trials if t.state == "complete"]
    found: dict[str, list[tuple[str, Interval, int]]] = {}
    for name in finished[0].settings if finished else ():
        groups: dict[str, list[TrialRecord]] = {}
        for label, trial in zip(_binned([t.settings[name] for t in finished]), finished, strict=True):
            groups.setdefault(label, []).append(trial)
        found[name] = [(label, _group(group, objective), len(group)) for label, group in groups.items()]
    return found


def _group(trials: Sequence[TrialRecord], objective: str) -> Interval:
    """Mean over trials; the interval is of trials, which differ in their other settings."""
    return interval({("", t.number): {"": mean_of(t, objective)} for t in trials})


def interactions(trials: Sequence[TrialRecord], objective: str) -> list[tuple[float, str, str, dict[tuple[str, str], float]]]:
    """Pairs of settings, strongest first: (size, setting, setting, mean objective by both labels).

    size: the standard deviation of what is left of the cell means when both settings' own effects are taken away.
    """
    finished = [t for t in trials if t.state == "complete"]
    names = list(finished[0].settings) if finished else []
    labels = {name: _binned([t.settings[name] for t in finished]) for name in names}
    found = []
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            groups: dict[tuple[str, str], list[float]] = {}
            for a, b, trial in zip(labels[one], labels[two], finished, strict=True):
                groups.setdefault((a, b), []).append(mean_of(trial, objective))
            means = {key: math.fsum(values) / len(values) for key, values in groups.items()}
            rows, columns = dict.fromkeys(a for a, _ in means), dict.fromkeys(b for _, b in means)
            if len(rows) > 1 and len(columns) > 1 and len(means) == len(rows) * len(columns):
                table = np.array([[means[a, b] for b in columns] for a in rows])
                rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
                found.append((float(rest.std()), one, two, means))
    return sorted(found, key=lambda item: -item[0])


def _binned(values: Sequence[Value]) -> list[str]:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) <= 6:
        return [shown(v) for v in values]
    edges = np.quantile(np.array(numbers, float), [0.0, 0.25, 0.5, 0.75, 1.0])
    places = np.clip(np.searchsorted(edges, np.array(numbers, float), side="right") - 1, 0, 3)
    return [f"{edges[p]:.3g} to {edges[p + 1]:.3g}" for p in places]


def shown(value: Value) -> str:
    """A setting's value, as a person reads it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
