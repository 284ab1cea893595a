"""The population: one example x candidate matrix, nothing bought twice, lineage, and the fronts read off it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gepa_atlas.types import Candidate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Entry:
    """What the archive knows of one candidate; see `belief.py` for how its cells become a posterior."""

    index: int
    candidate: Candidate
    parent: int | None  # index of the first parent
    born: int  # number of slots told when it entered
    active: bool = True
    mean: float = 0.0  # posterior mean of the gain
    var: float = 0.25  # posterior variance
    n: int = 0  # observations: val cells and train lessons that nothing in it was written from; repeats of a cell included
    cells: int = 0  # val examples measured at least once
    harmed: int = 0  # val cells with a negative delta
    studied: frozenset[str] = frozenset()  # train examples that something in it was written from
    note: str = ""  # why it was made

    @property
    def id(self) -> str:
        return self.candidate.id


def chance_above_zero(mean: float, sd: float) -> float:
    """That a Gaussian of this mean and standard deviation is positive."""
    return 0.5 * (1 + math.erf(mean / (sd * math.sqrt(2))))


@dataclass(frozen=True, slots=True)
class Cells:
    """Measured cells: entry, column, mean gain over its repeats, their number; and the parent (-1: not measured there) with its gain."""

    rows: Ints
    columns: Ints
    gains: Floats
    times: Floats
    parents: Ints
    theirs: Floats


class Archive:
    """Entries in order of arrival, and the matrix `values[entry, val column]` (NaN where nothing was measured)."""

    def __init__(self, val: Sequence[str], train: Sequence[str] = ()) -> None:
        self.columns = {example: j for j, example in enumerate(dict.fromkeys((*val, *train)))}
        self.n_val = len(val)
        self.entries: list[Entry] = []
        self.by_id: dict[str, int] = {}
        self.children: dict[int, list[int]] = {}
        self._sum = np.zeros((8, len(self.columns)))
        self._count = np.zeros((8, len(self.columns)), dtype=np.int32)

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
        entry.cells += int(j < self.n_val and self._count[entry.index, j] == 0)
        entry.n += 1
        self._sum[entry.index, j] += gain
        self._count[entry.index, j] += 1

    def measured(self, entry: Entry) -> np.ndarray:
        """Columns on which the entry has a value."""
        return np.flatnonzero(self._count[entry.index])

    def cells(self, entries: Sequence[int], columns: Sequence[Ints] | None = None) -> Cells:
        """The measured cells of these entries: all, or those on the columns that are given for each of them."""
        where = [np.flatnonzero(self._count[i]) for i in entries] if columns is None else columns
        each = [len(found) for found in where]
        rows, at = np.repeat(np.asarray(entries, dtype=np.int64), each), np.concatenate(where)
        parents = np.repeat(np.array([-1 if (p := self.entries[i].parent) is None else p for i in entries], dtype=np.int64), each)
        anchor = np.maximum(parents, 0)
        shared = (parents >= 0) & (self._count[anchor, at] > 0)
        theirs = np.where(shared, self._sum[anchor, at] / np.maximum(self._count[anchor, at], 1), 0.0)
        times = self._count[rows, at].astype(np.float64)
        return Cells(rows, at, self._sum[rows, at] / times, times, np.where(shared, parents, -1), theirs)

    def active(self) -> list[Entry]:
        return [e for e in self.entries if e.active]

    def table(self, entries: Sequence[Entry]) -> Floats:
        """Mean gain of each entry on each val example, NaN where it was not measured."""
        rows = np.array([e.index for e in entries], dtype=np.int64)
        count, total = self._count[rows, : self.n_val], self._sum[rows, : self.n_val]
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Mask of the rows of `points` (larger is better in every column) that no other row dominates. Exact, one pass a row."""
    keep = np.ones(len(points), dtype=bool)
    for i, point in enumerate(points):
        if keep[i]:
            better = (points >= point).all(axis=1) & (points > point).any(axis=1)
            keep[i] = not better.any()
    return keep
