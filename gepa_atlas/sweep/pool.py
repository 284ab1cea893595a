"""Cells through joblib: loky on this machine, tasks of a Ray or a Dask cluster beyond it. Lost workers are made good.

A worker that dies takes the answer of its cell along, and with loky those of all cells under way. What has no row yet is run again; a
cell that is there whenever workers die is in the end run alone, so that it can only take itself along.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

from gepa_atlas.cluster import BackendConfig, Lost, lost_errors, opened, submitter, tasks
from gepa_atlas.sweep.cell import Parcel, Row, run_cell
from gepa_atlas.sweep.config import LimitsConfig
from gepa_atlas.sweep.limits import end_with, run_limited

Done = Callable[[str, Row], None]


class Pool:
    """An open back-end. `travels`: its workers may have other disks. Use as a context manager."""

    def __init__(self, config: BackendConfig, attempts: int, limits: LimitsConfig) -> None:
        self._config, self._attempts, self._limits = config, attempts, limits
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
            row: Row = packed.cell.head() | {"time": None}
            arrived((identity, row | {"error": f"its worker was lost {self._attempts} times ({lost})"}))

    def _round(self, parcels: list[Parcel], arrived: Callable[[tuple[str, Row]], None], *, alone: bool) -> str:
        """Try each parcel once. Returns why the last worker was lost, or an empty text."""
        lost = ""
        for group in [[p] for p in parcels] if alone else [parcels]:
            try:
                with _cancelling(), closing(self._rows(group)) as rows:  # where a row cannot be noted, what is under way is ended
                    for found in rows:
                        if isinstance(found, Lost):
                            lost = found.reason
                        else:
                            arrived(found)
            except lost_errors(self._config.name) as error:
                lost = " ".join(str(error).split()) or type(error).__name__
        return lost[:200]

    def _rows(self, parcels: list[Parcel]) -> Generator[tuple[str, Row] | Lost]:
        from joblib import Parallel, delayed, parallel_config

        call = functools.partial(_named, self._limits, os.getpid() if self._config.name == "loky" else None)
        if self.jobs == 1:  # joblib would run them in this process, which a cell could take along
            submit = submitter(self._config, 1)
            for packed in parcels:
                yield submit(call, packed).result()
            return
        # batch_size: cells take seconds, and two in one batch would wait for each other. pre_dispatch: no more at once than asked.
        name = "loky" if self._config.name == "loky" else tasks(self._config, self.jobs)
        with parallel_config(backend=name, n_jobs=self.jobs):
            parallel = Parallel(batch_size=1, pre_dispatch=self.jobs, return_as="generator_unordered")
            yield from parallel(delayed(call)(p) for p in parcels)


def _named(limits: LimitsConfig, parent: int | None, packed: Parcel) -> tuple[str, Row]:
    """In a worker. `parent`: the process that started it, which it ends with: where that one is killed, nobody waits for this cell."""
    if parent is not None:
        end_with(parent, _exit)
    return packed.cell.id, run_limited(packed, limits) if limits else run_cell(packed)


@contextmanager
def _cancelling() -> Iterator[None]:
    """Without joblib's warning that work was cancelled or is not used, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ tasks (which were|have been)", UserWarning)
        yield


def _exit() -> None:
    os._exit(1)
