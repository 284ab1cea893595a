"""One sweep on every back-end, undisturbed and with a worker killed half-way: is its result table the same everywhere?"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from benchmarks.results import Row
from gepa_atlas.store.lock import alive, owner
from gepa_atlas.sweep.config import load_sweep
from gepa_atlas.sweep.report import read_findings, table
from gepa_atlas.sweep.runner import run_sweep


@contextmanager
def _here() -> Iterator[str]:
    yield "{name: loky, jobs: 2}"


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Two Ray nodes of one processor each, on loopback; the `backend` of a sweep that uses them."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield f'{{name: ray, jobs: 2, address: "{cluster.address}"}}'
    finally:
        cluster.shutdown()


@contextmanager
def dask_cluster() -> Iterator[str]:
    """Two Dask workers, processes of their own, on loopback; the `backend` of a sweep that uses them."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        yield f'{{name: dask, jobs: 2, address: "{cluster.scheduler_address}"}}'


BACKENDS: dict[str, Callable[[], AbstractContextManager[str]]] = {"loky": _here, "ray": ray_cluster, "dask": dask_cluster}


class Killer(threading.Thread):
    """Kills one worker of a sweep: the process that works on a cell when the `begun`th one has begun, `seconds` later.

    A cell that is a run names its process in its lock, so this finds nobody else's. Use as a context manager; `killed` is the process.
    """

    def __init__(self, folder: Path, begun: int, seconds: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.killed: int | None = None
        self._folder, self._begun, self._seconds = folder, begun, seconds
        self._ended = threading.Event()

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while len(list(self._folder.glob("runs/*/run.lock"))) < self._begun:
            if self._ended.wait(0.01):
                return
        if self._ended.wait(self._seconds):
            return
        while self.killed is None and not self._ended.wait(0.01):
            for run in self._folder.glob("runs/*"):
                claim = owner(run)
                if claim is not None and alive(claim):
                    with suppress(ProcessLookupError):
                        os.kill(claim["pid"], signal.SIGKILL)
                        self.killed = claim["pid"]
                        break


def one(path: Path, folder: Path, backend: str, kill: tuple[int, float] | None, overrides: list[str]) -> tuple[str, float]:
    """The result table of the sweep on this back-end, and its seconds. `kill`: see Killer."""
    sweep = load_sweep(path, [*overrides, f"backend={backend}"])
    began = time.perf_counter()
    if kill is None:
        run_sweep(sweep, folder)
    else:
        with Killer(folder, *kill) as killer:
            run_sweep(sweep, folder)
        if killer.killed is None:
            raise RuntimeError(f"{path.name} on {backend}: no worker was at work when one was to be killed")
    return table(read_findings(folder)), time.perf_counter() - began


def same(place: Path, path: Path, seconds: float, overrides: list[str]) -> list[Row]:
    """A row a back-end and fate. The first, loky undisturbed, is what the others are compared with."""
    sweep = load_sweep(path, overrides)
    half = sweep.planned() * len(sweep.instances) // 2 + 1
    rows: list[Row] = []
    expected = ""
    for name, started in BACKENDS.items():
        with warnings.catch_warnings(action="ignore"), started() as backend:  # those of ray and distributed
            for kill in (None, (half, seconds)):
                found, wall = one(path, place / str(len(rows)), backend, kill, overrides)
                expected = expected or found
                rows.append(_compared(f"{path.stem}, {name}{', a worker killed' if kill else ''}", found, expected, wall))
                print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def _compared(key: str, found: str, expected: str, wall: float) -> Row:
    pairs = list(itertools.zip_longest(found.splitlines(), expected.splitlines()))[1:]
    for mine, other in pairs:
        if mine != other:
            print(f"- {other}\n+ {mine}", file=sys.stderr)
    equal = sum(mine == other for mine, other in pairs)
    return {"what": "same", "key": key, "figure": equal, "unit": f"of {len(pairs)} cells equal", "seconds": round(wall, 1)}
