"""Machines beyond this process: joblib's loky here, or a Ray or Dask cluster. This package travels to its workers; secrets do not."""

from __future__ import annotations

import functools
import logging
import os
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from gepa_atlas.errors import ConfigError, MissingExtra
from gepa_atlas.settings import Settings

_CONNECT_SECONDS = 20


class BackendConfig(Settings):
    """Where work is done: joblib's loky (processes of this machine), or a Ray or Dask cluster by address (none: a local one is started)."""

    name: Literal["loky", "ray", "dask"] = "loky"
    address: str | None = None
    jobs: int | None = Field(default=None, ge=1)  # at once; None: the cores of this machine, or of the cluster

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _address(self) -> Self:
        if self.name == "loky" and self.address is not None:
            raise ValueError("loky runs on this machine and has no address; remove it, or choose ray or dask")
        return self


def lost_errors(name: str) -> tuple[type[BaseException], ...]:
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


@dataclass(frozen=True)
class Lost:
    """Stands for the result of a call whose worker is gone."""

    reason: str


# -- back-ends --------------------------------------------------------------------------------------------------------


@contextmanager
def _loky(config: BackendConfig) -> Iterator[int]:
    from joblib import cpu_count
    from joblib.externals.loky import get_reusable_executor

    try:
        yield cpu_count()
    finally:
        get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)  # the one there is, whatever it was made with


@contextmanager
def _ray(config: BackendConfig) -> Iterator[int]:
    """This package travels as a module of the job's environment; tasks find the rest of their needs installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtra("backend: ray", "ray") from None
    package = str(Path(__file__).parent)
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
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        ray.shutdown()


@contextmanager
def _dask(config: BackendConfig) -> Iterator[int]:
    """This package travels as an uploaded archive to workers that came with the cluster."""
    try:
        from distributed import Client, LocalCluster
        from distributed.diagnostics.plugin import UploadFile
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
                client.register_plugin(UploadFile(_archive(folder)))  # not client.upload_file: a scheduler would import it as well
        yield max(1, sum(client.nthreads().values()))
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


_OPENED: dict[str, Callable[[BackendConfig], AbstractContextManager[int]]] = {"loky": _loky, "ray": _ray, "dask": _dask}


def opened(config: BackendConfig) -> AbstractContextManager[int]:
    """Open a back-end for joblib and for `submitter`; the value is how many jobs it can do at once. Raises ConfigError, MissingExtra."""
    return _OPENED[config.name](config)


def submitter(config: BackendConfig, jobs: int) -> Callable[..., Future[Any]]:
    """submit(function, *arguments) -> Future of single calls, on an open back-end. joblib runs lists of calls, and has no such door."""
    if config.name == "ray":
        import ray

        remote = functools.cache(ray.remote(max_retries=0))  # Ray sends a function once for each object made of it
        return lambda function, *arguments: remote(function).remote(*arguments).future()
    if config.name == "dask":
        from distributed import default_client

        executor = default_client().get_executor(pure=False)
        return lambda function, *arguments: executor.submit(function, *arguments)
    from joblib.externals.loky import get_reusable_executor

    return lambda function, *arguments: get_reusable_executor(max_workers=jobs).submit(function, *arguments)


def tasks(config: BackendConfig, jobs: int) -> str:
    """The name of a joblib back-end whose calls are tasks of the open cluster, where a lost worker takes one of them along, as `Lost`.

    Ray's own back-end keeps actors that ask for no processor, so all may land on one node, returns lists only, and loses a whole list with
    a worker; that of Dask waits for ever when a task has killed its workers.
    """
    from joblib import register_parallel_backend
    from joblib._parallel_backends import ThreadingBackend

    submit, lost = submitter(config, jobs), lost_errors(config.name)

    def waited(batch: Callable[[], list[Any]]) -> list[Any]:
        try:
            return submit(_called, batch).result()  # type: ignore[no-any-return]
        except lost as error:
            return [Lost(" ".join(str(error).split()) or type(error).__name__)]

    class Tasks(ThreadingBackend):  # type: ignore[misc]  # joblib has no types
        def submit(self, func: Callable[[], list[Any]], callback: Any = None) -> Any:
            return super().submit(functools.partial(waited, func), callback)

    name = f"tasks of {config.name}"
    register_parallel_backend(name, Tasks)
    return name


def _called(batch: Callable[[], list[Any]]) -> list[Any]:
    return batch()


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
    root, path = Path(__file__).parent, Path(folder) / "gepa_atlas.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(root.parent))
    return str(path)
