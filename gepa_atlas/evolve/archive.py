"""The population: one example x candidate matrix, nothing bought twice, lineage, and the fronts read off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gepa_atlas.types import Candidate


@dataclass(slots=True)
class Entry:
    """What the archive knows of one candidate. Sums are over val cells; see `belief.py` for how they become a posterior."""

    index: int
    candidate: Candidate
    parent: int | None  # index of the first parent
    born: int  # number of slots told when it entered
    active: bool = True
    mean: float = 0.0  # posterior mean of the gain
    var: float = 0.25  # posterior variance
    n: int = 0  # val observations, repeats of a cell included
    cells: int = 0  # val examples measured at least once
    harmed: int = 0  # val cells with a negative delta
    effect_sum: float = 0.0  # sum over its observations of (gain - example effect)
    shared_n: int = 0  # cells its parent has too
    shared_sum: float = 0.0  # sum over the shared cells of the parent's (gain - example effect)
    note: str = ""  # why it was made

    @property
    def id(self) -> str:
        return self.candidate.id


class Archive:
    """Entries in order of arrival, and the matrix `values[entry, val column]` (NaN where nothing was measured)."""

    def __init__(self, val: Sequence[str]) -> None:
        self.columns = {example: j for j, example in enumerate(val)}
        self.entries: list[Entry] = []
        self.by_id: dict[str, int] = {}
        self.children: dict[int, list[int]] = {}
        self._sum = np.zeros((8, len(val)))
        self._count = np.zeros((8, len(val)), dtype=np.int32)
        self.column_sum = np.zeros(len(val))  # over observations: gain - posterior mean of who was observed
        self.column_n = np.zeros(len(val))

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, candidate_id: str) -> Entry:
        return self.entries[self.by_id[candidate_id]]

    def add(self, candidate: Candidate, born: int, note: str = "") -> Entry:
        """A new entry. The caller has checked that the id is not known."""
        parent = self.by_id.get(candidate.parents[0]) if candidate.parents else None
        entry = Entry(len(self.entries), candidate, parent, born, note=note)
        if entry.index >= len(self._sum):
            self._sum = np.vstack([self._sum, np.zeros_like(self._sum)])
            self._count = np.vstack([self._count, np.zeros_like(self._count)])
        self.entries.append(entry)
        self.by_id[candidate.id] = entry.index
        if parent is not None:
            self.children.setdefault(parent, []).append(entry.index)
        return entry

    def record(self, entry: Entry, example: str, gain: float) -> None:
        """One measured cell; repeats of a cell are averaged."""
        j = self.columns[example]
        entry.cells += int(self._count[entry.index, j] == 0)
        entry.n += 1
        self._sum[entry.index, j] += gain
        self._count[entry.index, j] += 1
        self.column_n[j] += 1
        self.column_sum[j] += gain - entry.mean

    def measured(self, entry: Entry) -> np.ndarray:
        """Columns on which the entry has a value."""
        return np.flatnonzero(self._count[entry.index])

    def has(self, entry: Entry, column: int) -> bool:
        return bool(self._count[entry.index, column])

    def observations(self, entry: Entry, columns: np.ndarray) -> np.ndarray:
        """How often the entry was measured on each column."""
        return np.asarray(self._count[entry.index, columns])

    def move(self, entry: Entry, mean: float) -> None:
        """A new posterior mean; what its observations say of the examples moves with it."""
        if entry.n:
            self.column_sum -= (mean - entry.mean) * self._count[entry.index]
        entry.mean = mean

    def values(self, entry: Entry, columns: np.ndarray) -> np.ndarray:
        """Mean gain of the entry on columns it was measured on."""
        return np.asarray(self._sum[entry.index, columns] / self._count[entry.index, columns])

    def effects(self, columns: np.ndarray) -> np.ndarray:
        """How much easier than average each example is: shrunk mean of what all entries got there, their level removed."""
        known = self.column_n > 0
        centre = float((self.column_sum[known] / self.column_n[known]).mean()) if known.any() else 0.0
        seen = self.column_n[columns]
        return np.asarray((self.column_sum[columns] - centre * seen) / (seen + 2.0))

    def active(self) -> list[Entry]:
        return [e for e in self.entries if e.active]

    def front(self, entries: Sequence[Entry], columns: np.ndarray) -> list[Entry]:
        """Per-example front: who is best (ties shared) on at least one of the columns. One pass."""
        best: list[Entry] = []
        if not entries or not len(columns):
            return best
        rows = np.array([e.index for e in entries])
        with np.errstate(invalid="ignore", divide="ignore"):
            table = np.where(
                self._count[np.ix_(rows, columns)] > 0, self._sum[np.ix_(rows, columns)] / self._count[np.ix_(rows, columns)], -np.inf
            )
        top = table.max(axis=0)
        wins = ((table == top) & (top > -np.inf)).any(axis=1)
        return [e for e, won in zip(entries, wins, strict=True) if won]


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Mask of the rows of `points` (larger is better in every column) that no other row dominates. Exact, one pass a row."""
    keep = np.ones(len(points), dtype=bool)
    for i, point in enumerate(points):
        if keep[i]:
            better = (points >= point).all(axis=1) & (points > point).any(axis=1)
            keep[i] = not better.any()
    return keep
