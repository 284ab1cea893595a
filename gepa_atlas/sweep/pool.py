"""Cells on joblib's back-ends: loky on this machine, a Ray or a Dask cluster by its registered back-end. Lost workers are made good.

A worker that dies takes the answer of its cell along, and with loky those of all cells under way. What has no row yet is run again; a
cell that is there whenever workers die is in the end run alone, so that it can only take itself along.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gepa_atlas.errors import ConfigError, MissingExtra
from gepa_atlas.sweep.cell import Parcel, Row, run_cell
from gepa_atlas.sweep.config import BackendConfig

_CONNECT_SECONDS = 20
Done = Callable[[str, Row], None]


class Pool:
    """An open back-end. `travels`: its workers may have other disks. Use as a context manager."""

    def __init__(self, config: BackendConfig, attempts: int) -> None:
        self._config, self._attempts = config, attempts
        self._open: AbstractContextManager[int] | None = None
        self.jobs = 0
        self.travels = config.name != "loky"

    def __enter__(self) -> Pool:
        self._open = _OPENED[self._config.name](self._config)
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
            except _lost_errors(self._config.name) as error:
                lost = " ".join(str(error).split())[:200] or type(error).__name__
        return lost

    def _rows(self, parcels: list[Parcel]) -> Iterator[tuple[str, Row]]:
        from joblib import Parallel, delayed, parallel_config

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


def _lost_errors(name: str) -> tuple[type[BaseException], ...]:
    """What a back-end raises when a worker is gone."""
    if name == "ray":
        from ray.exceptions import RayError

        return (RayError,)
    if name == "dask":
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        return (KilledWorker, CommClosedError)
    from joblib.externals.loky.process_executor import BrokenProcessPool

    return (BrokenProcessPool,)


# -- back-ends --------------------------------------------------------------------------------------------------------


@contextmanager
def _loky(config: BackendConfig) -> Iterator[int]:
    from joblib import cpu_count
    from joblib.externals.loky import get_reusable_executor

    try:
        yield cpu_count()
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


@contextmanager
def _ray(config: BackendConfig) -> Iterator[int]:
    """This package travels as a module of the job's environment; tasks find the rest of their needs installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise MissingExtra("backend: ray", "ray") from None
    package = str(Path(__file__).parent.parent)
    _reach(config)
    try:
        ray.init(
            address=config.address,
            runtime_env={"py_modules": [package]} if config.address else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=None if config.address else False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _unreachable(config, error) from None
    register_ray()
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        ray.shutdown()


@contextmanager
def _dask(config: BackendConfig) -> Iterator[int]:
    """This package travels as an uploaded archive to workers that came with the cluster."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise MissingExtra("backend: dask", "dask") from None
    cluster = None
    _reach(config)
    try:
        if config.address is None:
            cluster = LocalCluster(n_workers=config.jobs, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None)
        client = Client(cluster or config.address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise _unreachable(config, error) from None
    try:
        if config.address is not None:
            with tempfile.TemporaryDirectory() as folder:
                client.upload_file(_archive(folder))
        yield max(1, sum(client.nthreads().values()))
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


_OPENED: dict[str, Callable[[BackendConfig], AbstractContextManager[int]]] = {"loky": _loky, "ray": _ray, "dask": _dask}


def _reach(config: BackendConfig) -> None:
    """Whether anybody listens at the address. The clients themselves try for minutes."""
    found = urlsplit(config.address or "" if "://" in (config.address or "") else f"//{config.address or ''}")
    try:
        if found.hostname and found.port:
            socket.create_connection((found.hostname, found.port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(config, error) from None
    except ValueError:
        raise ConfigError(f"backend.address: {config.address} is no address; write HOST:PORT, ray://HOST:PORT or tcp://HOST:PORT") from None


def _unreachable(config: BackendConfig, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    where = f" at {config.address}" if config.address else ""
    return ConfigError(f"backend.address: no {config.name} cluster answers{where} ({reason}); start it, or correct the address")


def _archive(folder: str) -> str:
    """This package, zipped, as Dask sends code to its workers."""
    root, path = Path(__file__).parent.parent, Path(folder) / "gepa_atlas.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(root.parent))
    return str(path)
