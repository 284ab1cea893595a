"""Stores to test on: an SQLite file, and a database of a real PostgreSQL that one test session starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gepa_atlas.memory.store import Memory
from gepa_atlas.testing.postgres import Postgres, binaries, server

_number = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("psycopg", reason="the extra [postgres] is not installed; [dev] has it")
    tools = binaries()
    if tools is None:
        pytest.skip("there is no PostgreSQL to start: neither PATH nor /usr/lib/postgresql has initdb and pg_ctl")
    with server(tools) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a store that is not there yet."""
    if request.param == "sqlite":
        return str(tmp_path / "memory.db")
    running: Postgres = request.getfixturevalue("postgres")
    return running.database(f"t{next(_number)}")


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., Memory]]:
    """Opens the store; whatever was opened is closed at the end."""
    found: list[Memory] = []

    def open_(**how: object) -> Memory:
        found.append(Memory.open(url, **how))  # type: ignore[arg-type]
        return found[-1]

    yield open_
    for memory in found:
        memory.close()
