"""One owner, one manifest, every event once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gepa_atlas import secrets
from gepa_atlas.calls import SLOT, Calls, Entry, Retry
from gepa_atlas.errors import ConfigError, ContractError, Outage, RunBusy, RunChanged, ServerFault, StoreFull
from gepa_atlas.ports import Endpoint
from gepa_atlas.store import Run, RunView, atomic_write, list_runs, write_json, write_jsonl
from gepa_atlas.store.lock import refuse_remote
from gepa_atlas.types import Usage, digest

KEY = digest("a call")
DONE = Entry("done", {"text": "hello"}, Usage(3, 2, 0.25, 0.1, 1), 2)


def opened(path: Path, **manifest: str) -> Run:
    return Run.open(path, manifest=manifest, config={"budget": 3})


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)


# -- the owner --------------------------------------------------------------------------------------------------------


def test_fifty_parallel_starts_one_runs(tmp_path: Path) -> None:
    """Each child says what happened on a pipe; the one that got the run keeps it until it is killed."""
    reader, writer = os.pipe()

    def start() -> None:
        began = time.monotonic()
        try:
            opened(tmp_path / "run")
        except RunBusy as busy:
            os.write(writer, (json.dumps([os.getpid(), str(busy), time.monotonic() - began]) + "\n").encode())
            return
        os.write(writer, (json.dumps([os.getpid(), "runs", 0]) + "\n").encode())
        signal.pause()

    pids = [child(start) for _ in range(50)]
    os.close(writer)
    text = b""
    while text.count(b"\n") < 50:
        text += os.read(reader, 65536)
    os.close(reader)
    said = [json.loads(line) for line in text.decode().splitlines()]
    (owner,) = [pid for pid, word, _ in said if word == "runs"]
    assert all(f"process {owner} on " in word for _, word, _ in said if word != "runs")
    with pytest.raises(RunBusy, match=f"process {owner} on"):
        opened(tmp_path / "run")
    os.kill(owner, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    opened(tmp_path / "run").close()  # the lock died with its owner


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    reader, writer = os.pipe()

    def forked() -> None:
        os.write(writer, str(os.getpid()).encode())  # by itself: what runs in it after a fork has run
        signal.pause()

    def parent() -> None:
        run = opened(tmp_path / "run")
        assert run.status == "running"
        child(forked)
        signal.pause()

    pid = child(parent)
    grandchild = int(os.read(reader, 64))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        opened(tmp_path / "run").close()
    finally:
        os.kill(grandchild, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_files_are_private(tmp_path: Path) -> None:
    with opened(tmp_path / "deep" / "run") as run:
        asyncio.run(run.intend(KEY, "student", 0))
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in run.directory.iterdir()}
        assert set(modes) == {"run.db", "run.db-wal", "run.db-shm", "run.lock", "config.json"}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(run.directory.stat().st_mode) == 0o700


def test_a_network_disk_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n31 22 0:40 / /mnt/team\\040data rw shared:1 - nfs4 host:/x rw\n")
    refuse_remote(Path("/mnt/teams/run"), mounts)
    with pytest.raises(ConfigError, match="is on nfs4"):
        refuse_remote(Path("/mnt/team data/run"), mounts)


def test_a_path_that_cannot_be_a_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        opened(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be written"):
        opened(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match="holds no run"):
        RunView.read(tmp_path)


# -- the manifest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [{"config": "1", "data": "3"}, {"config": "1"}, {"config": "1", "data": "2", "judges": "4"}])
def test_a_changed_resume_names_the_fields(tmp_path: Path, now: dict[str, str]) -> None:
    opened(tmp_path / "run", config="1", data="2").close()
    changed = "judges" if "judges" in now else "data"
    with pytest.raises(RunChanged, match=f"other values of: {changed};"):
        opened(tmp_path / "run", **now)
    opened(tmp_path / "run", config="1", data="2").close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        run._connection.execute("PRAGMA user_version = 2")
    with pytest.raises(RunChanged, match="schema 2, this program reads 1"):
        opened(tmp_path / "run")


def test_config_is_saved_without_secrets(tmp_path: Path) -> None:
    secrets.remember("hunter2-hunter2")
    with Run.open(tmp_path / "run", manifest={}, config={"url": "https://h/?k=hunter2-hunter2"}) as run:
        assert json.loads((run.directory / "config.json").read_text()) == {"url": "https://h/?k=[redacted]"}


# -- calls and events -------------------------------------------------------------------------------------------------


def test_what_is_settled_is_found_again(tmp_path: Path) -> None:
    async def first(run: Run) -> None:
        await run.intend(KEY, "judge", 4, 99)
        assert run.calls()["unsettled"] == 1
        await run.settle(KEY, DONE)
        await run.intend(digest(2), "student", 5, 7)  # never settled: the process ends

    with opened(tmp_path / "run") as run:
        assert run.lookup(KEY) is None
        asyncio.run(first(run))
        assert run.lookup(KEY) == DONE
    with opened(tmp_path / "run") as run:
        assert run.lookup(KEY) == DONE
        assert run.lookup(digest(2)) is None
        assert [(c.role, c.usage, c.worst_tokens) for c in run.charges()] == [("judge", DONE.usage, 99), ("student", None, 7)]
        calls = run.calls()
        assert (calls["rollouts"], calls["by_role"], calls["unsettled"], calls["attempts"]) == (0, {"judge": 1}, 1, {"judge": 2})
        assert calls["usage"]["judge"]["dollars"] == 0.25
        assert Calls(run).spent.total == Usage(3 + 7, 2, 0.25, 0.1, 2)


def test_a_settle_without_intent_is_a_defect(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run, pytest.raises(ContractError, match="without having been intended"):
        asyncio.run(run.settle(KEY, DONE))


def test_a_closed_run_records_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as run:
        asyncio.run(run.tell(0, "toy", {}))
    with pytest.raises(ContractError, match="the run is closed"):
        asyncio.run(run.tell(1, "toy", {}))
    opened(tmp_path / "run").close()


def test_events_are_told_once_and_compared(tmp_path: Path) -> None:
    async def tell(run: Run, *values: int) -> None:
        for n, value in enumerate(values):
            await run.tell(n, "toy", {"value": value})

    with opened(tmp_path / "a") as run:
        asyncio.run(tell(run, 7, 8))
        first = run.digest()
    with opened(tmp_path / "a") as run:
        size = (run.directory / "run.db").stat().st_size
        asyncio.run(tell(run, 7, 8))
        assert run.digest() == first and (run.directory / "run.db").stat().st_size == size
        assert [(e.n, e.kind, e.payload) for e in run.events()] == [(0, "toy", {"value": 7}), (1, "toy", {"value": 8})]
        with pytest.raises(RunChanged, match="replay of slot 1 differs"):
            asyncio.run(tell(run, 7, 9))
        asyncio.run(tell(run, 7, 8, 9))
        assert run.digest() != first
    with opened(tmp_path / "b") as run:
        asyncio.run(tell(run, 7, 8))
        assert run.digest() == first  # another path, another time


def test_who_goes_on_without_waiting_is_still_behind_what_it_rests_on(tmp_path: Path) -> None:
    """Events handed in without waiting, then a call that follows from them: the rows are in that order, all safe once the last one is."""

    async def story(run: Run) -> list[bool]:
        recorded = [run.record(n, "toy", {"value": n}) for n in range(20)]
        assert not any(future is None or future.done() for future in recorded)
        await run.intend(KEY, "student", 20)
        with pytest.raises(RunChanged, match="replay of slot 3 differs"):
            run.record(3, "toy", {"value": 4})
        assert run.record(3, "toy", {"value": 3}) is None
        return [future is not None and future.done() for future in recorded]

    with opened(tmp_path / "run") as run:
        assert all(asyncio.run(story(run)))
        names = run._connection.execute("SELECT kind, name FROM log WHERE id > 2 ORDER BY id").fetchall()
    assert names == [*(("event", str(n)) for n in range(20)), ("intent", KEY)]


def test_answers_that_left_memory_are_read_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gepa_atlas.store.run._KEPT", 100)

    async def story(run: Run) -> None:
        for i in range(8):
            await run.intend(digest(i), "student", i)
            await run.settle(digest(i), Entry("done", {"text": "x" * 40, "i": i}))
        assert len(run._recent) == 1
        for i in range(8):
            entry = run.lookup(digest(i))
            assert entry is not None and entry.body["i"] == i

    with opened(tmp_path / "run") as run:
        asyncio.run(story(run))


def test_status_and_list(tmp_path: Path) -> None:
    async def work(run: Run) -> None:
        await run.stop("the endpoint is down")
        assert (run.status, run.reason) == ("stopped", "the endpoint is down")
        await run.tell(0, "toy", {})
        assert (run.status, run.reason) == ("running", "")

    run = opened(tmp_path / "b")
    asyncio.run(work(run))
    with RunView.read(tmp_path / "b") as view:  # while another connection owns it
        assert view.status == "running" and view.digest() == run.digest() and view.run_id == run.run_id
    run.close()
    with RunView.read(tmp_path / "b") as view:
        assert view.status == "interrupted"
    with opened(tmp_path / "a") as run:
        asyncio.run(run.finish())
    assert [(r.directory.name, r.status, r.told) for r in list_runs(tmp_path)] == [("b", "interrupted", 1), ("a", "finished", 0)]


def test_a_finished_run_is_opened_without_a_write(tmp_path: Path) -> None:
    writes: list[int] = []
    with opened(tmp_path / "run") as run:
        asyncio.run(run.finish())
    before = (tmp_path / "run" / "run.db").read_bytes()
    with Run.open(tmp_path / "run", manifest={}, config={"budget": 3}, on_write=writes.append) as run:
        asyncio.run(run.finish())
    assert writes == [] and (tmp_path / "run" / "run.db").read_bytes() == before


def test_a_failure_stays_once_something_told_depends_on_it(tmp_path: Path) -> None:
    """Slot 5 made the call that failed; slot 3, told before, was answered with it too."""

    async def slots(run: Run, told: int | None) -> list[str]:
        calls, seen, tries = Calls(run, retry=Retry(attempts=3, first_wait=0)), [], []

        async def attempt() -> tuple[dict[str, object], Usage]:
            tries.append(1)
            if told is None:
                return {"text": "fine"}, Usage()
            raise ServerFault("500")

        for n in (5, 3):
            SLOT.set(n)
            try:
                await calls.make(role="student", key=KEY, endpoint=Endpoint("e"), worst_tokens=1, attempt=attempt)
                seen.append("answer")
            except ServerFault as error:
                seen.append(str(error))
        if told is not None:
            await run.tell(told, "toy", {})
        return [*seen, f"{len(tries)} tries"]

    def quick(path: Path, told: int | None) -> list[str]:
        with opened(path) as run:
            return asyncio.run(slots(run, told))

    for told, then in ((3, ["500", "500", "0 tries"]), (4, ["answer", "answer", "1 tries"])):
        path = tmp_path / str(told)
        assert quick(path, told) == ["500", "500", "3 tries"]
        assert quick(path, None) == then


def test_a_call_given_up_in_an_outage_is_neither_answered_nor_unsettled(tmp_path: Path) -> None:
    async def story(run: Run) -> None:
        async def attempt() -> tuple[dict[str, object], Usage]:
            raise ServerFault("500")

        calls = Calls(run, retry=Retry(attempts=9, first_wait=0, breaker=5))
        with pytest.raises(Outage):
            await calls.make(role="student", key=KEY, endpoint=Endpoint("e"), worst_tokens=1, attempt=attempt)
        assert run.lookup(KEY) is None

    with opened(tmp_path / "run") as run:
        asyncio.run(story(run))
    with RunView.read(tmp_path / "run") as view:
        assert (view.calls()["unsettled"], view.calls()["rollouts"], view.calls()["attempts"]) == (0, 0, {"student": 5})


# -- exports ----------------------------------------------------------------------------------------------------------


def test_atomic_files(tmp_path: Path) -> None:
    secrets.remember("hunter2-hunter2")
    path = tmp_path / "out.json"
    write_json(path, {"a": 'say "hunter2-hunter2"', "b": "é\ud800"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 'say "[redacted]"', "b": "é\ud800"}
    write_jsonl(path, [{"n": 1}, {"n": 2}])
    assert path.read_text() == '{"n": 1}\n{"n": 2}\n'
    atomic_write(path, b"\x00raw")
    assert path.read_bytes() == b"\x00raw" and [p.name for p in tmp_path.iterdir()] == ["out.json"]
    with pytest.raises(ConfigError, match="cannot be written"):
        atomic_write(tmp_path / "none" / "x", "text")
    with pytest.raises(ConfigError, match="cannot be written"):
        atomic_write(tmp_path, "text")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_full_store() -> None:
    from gepa_atlas.store.exports import refused

    with pytest.raises(OSError) as caught, open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")
    assert isinstance(refused(Path("x"), caught.value), StoreFull)


def test_lines_are_written_as_they_come_and_whole_or_not_at_all(tmp_path: Path) -> None:
    def rows(until: int) -> Iterator[dict[str, str]]:
        for i in range(until):
            yield {"text": f"{i} " * 5000}
        if until < 1000:
            raise RuntimeError("the lessons end here")

    path = tmp_path / "traces.jsonl"
    tracemalloc.start()
    write_jsonl(path, rows(1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    before = path.read_bytes()
    assert before.count(b"\n") == 1000 and peak < len(before) / 10
    with pytest.raises(RuntimeError):
        write_jsonl(path, rows(10))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["traces.jsonl"]
