"""Cells on joblib's back-ends: loky on this machine, a Ray or a Dask cluster by its registered back-end. Lost workers are made good.

A worker that dies takes the answer of its cell along, and with loky those of all cells under way. What has no row yet is run again; a
cell that is there whenever workers die is in the end run alone, so that it can only take itself along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from gepa_atlas.cluster import BackendConfig, lost_errors, opened, submitter
from gepa_atlas.sweep.cell import Parcel, Row, run_cell

Done = Callable[[str, Row], None]


class Pool:
    """An open back-end. `travels`: its workers may have other disks. Use as a context manager."""

    def __init__(self, config: BackendConfig, attempts: int) -> None:
        self._config, self._attempts = config, attempts
        self._open: AbstractContextManager[int] | None = None
        self.jobs = 0
        self.travels = config.name != "loky"

    def __enter__(self) -> Pool:
        self._open = opened(self._config)
        cores = self._open.__enter__()
        self.jobs = self._config.jobs or cores
        return self

    def __exit__(self, *about: Any) -> None:
        assert self._open is not None
        self._open.__exit__(*about)

    def run(self, parcels: Sequence[Parcel], done: Done) -> None:
        """Run every parcel; `done(cell id, row)` is called in this thread as each row comes in, once for each cell."""
        waiting = {p.cell.id: p for p in parcels}

        def arrived(row_of: tuple[str, Row]) -> None:
            identity, row = row_of
            if waiting.pop(identity, None) is not None:
                done(identity, row)

        for attempt in range(self._attempts):
            lost = self._round(list(waiting.values()), arrived, alone=attempt == self._attempts - 1 and attempt > 0)
            if not waiting:
                return
        for identity, packed in list(waiting.items()):
            row: Row = {"suite": packed.cell.suite, "settings": dict(packed.cell.settings), "seed": packed.cell.seed, "time": None}
            arrived((identity, row | {"error": f"its worker was lost {self._attempts} times ({lost})"}))

    def _round(self, parcels: list[Parcel], arrived: Callable[[tuple[str, Row]], None], *, alone: bool) -> str:
        """Try each parcel once. Returns why the last worker was lost, or an empty text."""
        lost = ""
        for group in [[p] for p in parcels] if alone else [parcels]:
            try:
                for row_of in self._rows(group):
                    arrived(row_of)
            except lost_errors(self._config.name) as error:
                lost = " ".join(str(error).split())[:200] or type(error).__name__
        return lost

    def _rows(self, parcels: list[Parcel]) -> Iterator[tuple[str, Row]]:
        from joblib import Parallel, delayed, parallel_config

        if self.jobs == 1 and self._config.name == "loky":  # joblib would run them in this process, which a cell could take along
            submit = submitter(self._config, 1)
            for packed in parcels:
                yield submit(_named, packed).result()
            return
        # Ray's back-end returns lists only, and starts its workers for each: some cells at a time, so that a kill loses no more rows.
        streams = self._config.name != "ray"
        size = len(parcels) if streams else 4 * self.jobs
        for first in range(0, len(parcels), size or 1):
            tasks = [delayed(_named)(p) for p in parcels[first : first + size]]
            # batch_size: a cell takes seconds at least, and two in one batch would wait for each other.
            with parallel_config(backend=self._config.name, n_jobs=self.jobs):
                yield from Parallel(batch_size=1, return_as="generator_unordered" if streams else "list")(tasks)


def _named(packed: Parcel) -> tuple[str, Row]:
    return packed.cell.id, run_cell(packed)
