"""A torn or rotten run.db opens as a prefix of what was committed, or not at all."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from gepa_atlas.calls import Entry
from gepa_atlas.errors import ConfigError, RunChanged, RunDamaged, StoreFull
from gepa_atlas.store import Run, RunView, list_runs
from gepa_atlas.types import Usage, digest

Rows = list[tuple[object, ...]]


async def fill(run: Run, calls: int, chars: int = 200) -> None:
    for i in range(calls):
        await run.intend(digest(i), "student", i, 10)
        await run.settle(digest(i), Entry("done", {"text": "x" * chars, "i": i}, Usage(1, 1, 0.0, 0.5, 1)))
        await run.tell(i, "toy", {"i": i})


def rows(path: Path) -> Rows:
    connection = sqlite3.connect(path / "run.db")
    try:
        return connection.execute("SELECT * FROM log ORDER BY id").fetchall()
    finally:
        connection.close()


def killed(path: Path, calls: int) -> None:
    """A run whose process dies without closing it: everything is in run.db-wal."""
    pid = os.fork()
    if pid == 0:
        try:
            run = Run.open(path, manifest={"a": "1"}, config={})
            asyncio.run(fill(run, calls))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, Rows]:
    """run.db and run.db-wal as a killed process leaves them, and the rows they hold."""
    path = tmp_path_factory.mktemp("written") / "run"
    killed(path, 12)
    files = (path / "run.db").read_bytes(), (path / "run.db-wal").read_bytes()
    whole = rows(path)
    assert len(whole) == 2 + 3 * 12 and len(files[1]) > 10_000
    return *files, whole


def survives(path: Path, whole: Rows) -> str:
    """damaged, or how it opened; fails the test when it opens as anything but a prefix."""
    try:
        with RunView.read(path) as view:
            assert view.told <= 12
        with Run.open(path, manifest={"a": "1"}, config={}):
            pass
    except (RunDamaged, RunChanged):
        return "damaged"
    except ConfigError:
        return "empty"
    found = rows(path)
    assert found == whole[: len(found)]
    return "whole" if len(found) == len(whole) else "prefix"


def spoil(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data))
    kind = chance.choice(["flip", "cut", "zeros", "noise"])
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    size = min(512, len(data) - at)
    return data[:at] + (bytes(size) if kind == "zeros" else chance.randbytes(size)) + data[at + size :]


def test_three_hundred_torn_or_flipped_logs(written: tuple[bytes, bytes, Rows], memory_dir: Path) -> None:
    base, log, whole = written
    chance, seen = random.Random(5), []
    for _ in range(300):
        path = memory_dir / "run"
        path.mkdir()
        (path / "run.db").write_bytes(base)
        (path / "run.db-wal").write_bytes(spoil(chance, log))
        seen.append(survives(path, whole))
        shutil.rmtree(path)
    assert seen.count("prefix") > 150, {s: seen.count(s) for s in set(seen)}


def test_three_hundred_spoiled_databases(written: tuple[bytes, bytes, Rows], memory_dir: Path) -> None:
    base, log, whole = written
    clean = memory_dir / "clean"
    clean.mkdir()
    (clean / "run.db").write_bytes(base)
    (clean / "run.db-wal").write_bytes(log)
    with Run.open(clean, manifest={"a": "1"}, config={}):
        pass  # closing moves the log into run.db
    data = (clean / "run.db").read_bytes()
    assert not (clean / "run.db-wal").exists()
    chance, seen = random.Random(6), []
    for _ in range(300):
        path = memory_dir / "run"
        path.mkdir()
        (path / "run.db").write_bytes(spoil(chance, data))
        seen.append(survives(path, whole))
        shutil.rmtree(path)
    assert seen.count("damaged") > 150, {s: seen.count(s) for s in set(seen)}
    assert "prefix" not in seen


def test_a_changed_row_is_refused_and_listed_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with Run.open(path, manifest={}, config={}) as run:
        asyncio.run(fill(run, 3))
    connection = sqlite3.connect(path / "run.db")
    connection.execute("UPDATE log SET body = replace(body, 'x', 'y') WHERE id = 4")
    connection.commit()
    connection.close()
    with pytest.raises(RunDamaged, match=r"run\.db is damaged \(row 4 does not match its hash\)"):
        RunView.read(path)
    assert [run.status for run in list_runs(tmp_path)] == ["damaged"]


def test_a_full_database_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    async def until_full(run: Run) -> None:
        run._connection.execute("PRAGMA max_page_count = 96")
        with pytest.raises(StoreFull, match="the disk refused a write"):
            await fill(run, 100)
        with pytest.raises(StoreFull):  # from now on nothing is written: what is there stays a prefix
            await run.tell(1000, "toy", {})

    path = tmp_path / "run"
    with Run.open(path, manifest={}, config={}) as run:
        asyncio.run(until_full(run))
        kept = run.told
    assert 0 < kept < 100
    with Run.open(path, manifest={}, config={}) as run:
        assert run.told == kept
        asyncio.run(run.tell(1000, "toy", {}))
