"""What the lessons of a run are worth once the noise is taken off.

The best of many noisy deltas is too good to be true (the winner's curse), so lessons are ranked by a lower bound:

    delta_low = delta - z * sqrt(s^2 / n_b + s^2 / n + u_b^2 + u^2)

delta: mean reward of n repeats of one guidance at one task, less the mean of n_b baseline attempts at it. s^2: variance of the reward of
repeats, pooled over the run (same guidance, same task, other sample; and baselines tried more than once). u, u_b: the panel's own
uncertainty, in rewards. Without any repeats s is not known; it then counts as 0, and the manifest says so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from gepa_atlas.types import Split


@dataclass(frozen=True, slots=True)
class Fact:
    """A lesson without its texts: what selection needs of it. Ids of equal texts are equal."""

    trace_id: str
    task_id: str
    split: Split
    candidate_id: str
    guidance_id: str
    baseline_id: str  # of the text of the first attempt; empty: there is none
    before: float | None
    after: float | None
    before_sd: float  # the panel's uncertainty; 0 where it states none
    after_sd: float
    truncated: bool
    text: bool  # guidance that a teacher could write: no settings, no texts of a composed agent
    leak: bool  # guidance that states the gold answer
    empty: bool  # no guidance at all
    contaminated: bool = False  # guidance of a train task that repeats a held-out one
    words: int = 0  # of the guidance

    @property
    def scored(self) -> bool:
        return self.before is not None and self.after is not None


@dataclass(frozen=True, slots=True)
class Base:
    """The student without guidance at one task."""

    mean: float | None
    std: float | None  # of single attempts; None: fewer than two
    n: int
    sd: float  # the panel's uncertainty


@dataclass(frozen=True, slots=True)
class Played:
    """One guidance at one task, over its repeats: the unit of selection. `trace_id` is that of its first scored lesson."""

    trace_id: str
    task_id: str
    split: Split
    candidate_id: str
    delta: float
    delta_low: float
    judge_sd: float  # the panel's uncertainty of the second attempt
    truncated: bool  # in any of its repeats
    text: bool
    leak: bool
    empty: bool
    contaminated: bool
    n: int
    words: int = 0  # of the guidance


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate over the val tasks: what a guidance that is the same for every task was worth."""

    delta: float
    delta_low: float
    tasks: int


class Evidence:
    """All that is known of a set of lessons. `z`: standard errors between a delta and its lower bound."""

    def __init__(self, facts: Iterable[Fact], z: float) -> None:
        self.facts = tuple(facts)
        self.z = z
        self._by_task: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            self._by_task[fact.task_id].append(fact)

    @cached_property
    def bases(self) -> dict[str, Base]:
        return {task: _base(facts) for task, facts in self._by_task.items()}

    @cached_property
    def noise(self) -> tuple[float | None, int]:
        """Pooled variance of the reward of a repeat, and its degrees of freedom; None with 0."""
        squares, freedom = 0.0, 0
        for values in self._repeats():
            if len(values) > 1:
                mean = fmean(values)
                squares += math.fsum((value - mean) ** 2 for value in values)
                freedom += len(values) - 1
        return (squares / freedom if freedom else None), freedom

    def _repeats(self) -> Iterable[list[float]]:
        taught: dict[tuple[str, str], list[float]] = defaultdict(list)
        for fact in self.facts:
            if fact.after is not None:
                taught[fact.task_id, fact.guidance_id].append(fact.after)
        yield from taught.values()
        for facts in self._by_task.values():
            yield list(_attempts(facts).values())

    @cached_property
    def played(self) -> tuple[Played, ...]:
        """Every scored guidance x task, in the order in which they were first seen."""
        groups: dict[tuple[str, str], list[Fact]] = {}
        for fact in self.facts:
            if fact.scored:
                groups.setdefault((fact.task_id, fact.guidance_id), []).append(fact)
        return tuple(self._played(group) for group in groups.values())

    def _played(self, group: Sequence[Fact]) -> Played:
        first, base = group[0], self.bases[group[0].task_id]
        after_sd = fmean(fact.after_sd for fact in group)
        assert base.mean is not None
        delta = fmean(fact.after for fact in group if fact.after is not None) - base.mean
        return Played(
            first.trace_id,
            first.task_id,
            first.split,
            first.candidate_id,
            delta,
            delta - self.z * self.error(base, len(group), after_sd),
            after_sd,
            any(fact.truncated for fact in group),
            first.text,
            first.leak,
            first.empty,
            first.contaminated,
            len(group),
            first.words,
        )

    def error(self, base: Base, n: int, after_sd: float) -> float:
        """Standard error of a delta of `n` repeats against this baseline."""
        variance = self.noise[0] or 0.0
        return math.sqrt(variance / max(1, base.n) + variance / n + base.sd**2 + after_sd**2)

    @cached_property
    def matrix(self) -> dict[str, dict[str, float]]:
        """task -> candidate -> mean delta over its scored lessons there."""
        cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for played in self.played:
            cells[played.task_id][played.candidate_id] += [played.delta] * played.n
        return {task: {name: fmean(values) for name, values in row.items()} for task, row in cells.items()}

    def deltas(self, task_id: str) -> list[float]:
        """The delta of every scored lesson at a task, repeats one by one."""
        base = self.bases.get(task_id)
        facts = self._by_task.get(task_id, ())
        return [] if base is None or base.mean is None else [f.after - base.mean for f in facts if f.scored and f.after is not None]

    @cached_property
    def standings(self) -> dict[str, Standing]:
        """Candidates that were scored on two val tasks or more."""
        columns: dict[str, list[float]] = defaultdict(list)
        splits = {fact.task_id: fact.split for fact in self.facts}
        for task, row in self.matrix.items():
            if splits[task] == "val":
                for candidate, delta in row.items():
                    columns[candidate].append(delta)
        found = {}
        for candidate, values in columns.items():
            if len(values) > 1:
                mean, n = fmean(values), len(values)
                # n equal values have no deviation and are no certainty: at least the width of a Wilson bound, as in the search's intervals.
                width = max(self.z * stdev(values) / math.sqrt(n), self.z**2 / (n + self.z**2) * (mean + 1) / 2)
                found[candidate] = Standing(mean, mean - width, n)
        return found


def _attempts(facts: Iterable[Fact]) -> dict[str, float]:
    """Mean reward of each different baseline attempt: one that all lessons share was made and judged once."""
    seen: dict[str, list[float]] = defaultdict(list)
    for fact in facts:
        if fact.before is not None:
            seen[fact.baseline_id].append(fact.before)
    return {attempt: fmean(values) for attempt, values in seen.items()}


def _base(facts: Sequence[Fact]) -> Base:
    values = list(_attempts(facts).values())
    if not values:
        return Base(None, None, 0, 0.0)
    doubt = fmean(fact.before_sd for fact in facts if fact.before is not None)
    return Base(fmean(values), stdev(values) if len(values) > 1 else None, len(values), doubt)
