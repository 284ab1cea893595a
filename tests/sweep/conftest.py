from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gepa_atlas.sweep.config import Sweep, load_sweep

HERE = Path(__file__).parent
Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Write a sweep's file beside a copy of worlds.py: made(function="bowl", params={}, **keys)."""
    shutil.copy(HERE / "worlds.py", tmp_path)

    def write(function: str = "bowl", params: dict[str, Any] | None = None, **keys: Any) -> Path:
        suite: dict[str, Any] = {"function": f"worlds.py:{function}", "params": params or {}}
        tree = {"suites": {"world": suite}, "space": {"x": [0, 1, 2, 3, 4]}, "backend": {"name": "loky", "jobs": 2}, **keys}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return path

    return write


@pytest.fixture
def sweep_of(made: Made) -> Callable[..., Sweep]:
    return lambda *args, **keys: load_sweep(made(*args, **keys))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server on loopback, of this test run alone."""
    binaries = shutil.which("initdb") and Path(shutil.which("initdb") or "").parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    folder = found[-1].parent if found else binaries
    if not folder:
        pytest.skip("there is no initdb: PostgreSQL's server is not installed")
    root = os.geteuid() == 0  # initdb refuses root
    who: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if root else {}
    place = Path(tempfile.mkdtemp(prefix="atlas_pg_"))  # pytest's own folders are closed to others
    if root:
        shutil.chown(place, "nobody", "nogroup")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = place / "data"

    def do(*command: str) -> None:
        done = subprocess.run([str(folder / command[0]), *command[1:]], capture_output=True, text=True, cwd=place, **who)
        assert done.returncode == 0, done.stdout + done.stderr

    do("initdb", "-D", str(data), "-A", "trust", "-U", "atlas", "-N")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    do("pg_ctl", "-D", str(data), "-o", options, "-l", str(place / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg://atlas@127.0.0.1:{port}/postgres"
    finally:
        do("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(place, ignore_errors=True)
