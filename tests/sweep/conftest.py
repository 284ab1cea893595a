from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gepa_atlas.sweep.config import Sweep, load_sweep
from gepa_atlas.testing.postgres import binaries, server

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
    tools = binaries()
    if tools is None:
        pytest.skip("there is no initdb: PostgreSQL's server is not installed")
    with server(tools) as running:
        yield running.database("sweeps").replace("postgresql://", "postgresql+psycopg://")
