"""A run directory in the hands of its one owner. Resume is deterministic replay: recorded calls answer, told events are compared."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gepa_atlas.budget import Charge
from gepa_atlas.errors import ContractError, RunChanged
from gepa_atlas.secrets import scrub_document, scrub_json
from gepa_atlas.store.exports import refused, write_json
from gepa_atlas.store.lock import RunLock, refuse_remote
from gepa_atlas.store.log import DDL, SCHEMA, Draft, Index, explain, load
from gepa_atlas.store.view import RunView, connect_reader
from gepa_atlas.store.writer import Writer
from gepa_atlas.tape import SLOT, Entry
from gepa_atlas.types import Role, Usage, canonical

_APPLICATION = 0x47415431  # "GAT1", for file(1)
_PAGE = 512  # bytes: each commit writes the last page again, so a small page is written seldom and cheaply
_CHECKPOINT = 8192  # pages of log after which it is moved into run.db: 4 MB
_KEPT = 16_000_000  # characters of recent answers kept in memory


class Run(RunView):
    """run.db, run.lock and config.json of one run; a Tape for Calls.

    manifest: name -> digest of everything that may not change between start and resume (config without budget keys, data, judges, agent).
    config: the resolved configuration, saved scrubbed as config.json.
    on_write: called with 1, 2, ... before each commit; a test may end the process there.

    Raises RunBusy, RunChanged, RunDamaged, StoreFull, ConfigError. What is told should hold no clock and no seconds: `digest` covers it.
    """

    OWN_ROWS = 2  # that every log begins with: the run and its status

    def __init__(self, directory: Path, lock: RunLock, connection: sqlite3.Connection, index: Index, writer: Writer) -> None:
        super().__init__(directory, connect_reader(directory), index)
        self._lock = lock
        self._connection = connection
        self._writer = writer
        self._leans: dict[int, set[int]] = {}  # slot -> ids of failed entries it was answered with
        self._recent: OrderedDict[str, tuple[dict[str, Any], str]] = OrderedDict()  # key -> head and body of its last entry
        self._kept = 0  # characters in them

    @classmethod
    def open(
        cls,
        directory: str | Path,
        *,
        manifest: Mapping[str, str],
        config: Mapping[str, Any],
        on_write: Callable[[int], None] | None = None,
    ) -> Run:
        path = Path(directory).absolute()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = path.resolve()
            refuse_remote(path)
            lock = RunLock(path)
        except OSError as error:
            raise refused(path, error) from None
        connection: sqlite3.Connection | None = None
        try:
            _make_private(path)
            connection = _connect(path)
            index = load(connection, path)
            writer = Writer(connection, index, path, on_write)
            if index.rows == 0:
                _create(writer, manifest)
            _compare(path, index.manifest, manifest)
            index.forgive()
            _save_config(path, config)
            return cls(path, lock, connection, index, writer)
        except BaseException:
            if connection is not None:
                connection.close()
            lock.release()
            raise

    # -- the tape ------------------------------------------------------------------------------------------------------

    def lookup(self, key: str) -> Entry | None:
        """The recorded answer. That a slot was answered with a failure is remembered: once told, the failure stays."""
        number = self._index.answers.get(key)
        if number is None:
            return None
        head, body = self._recent.get(key) or self._row(number, key)
        if head["status"] == "failed":
            self._leans.setdefault(SLOT.get(), set()).add(number)
        return Entry(head["status"], json.loads(body), Usage.from_json(head["usage"]), head["attempts"])

    def charges(self) -> Iterator[Charge]:
        """Every settled call, then those whose outcome is unknown."""
        try:
            heads = self._reader.execute("SELECT id, kind, head FROM log WHERE kind IN ('intent', 'entry') ORDER BY id").fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.directory) from None
        intents: dict[int, dict[str, Any]] = {}
        for number, kind, text in heads:
            head = json.loads(text)
            if kind == "intent":
                intents[number] = head
                continue
            intent = intents.pop(head["intent"])
            if head["status"] != "dropped":
                yield Charge(head["role"], Usage.from_json(head["usage"]), intent["worst"])
        for intent in intents.values():
            yield Charge(intent["role"], None, intent["worst"])

    async def intend(self, key: str, role: Role, slot: int, worst_tokens: int = 0) -> None:
        await self._append(Draft("intent", key, {"role": role, "slot": slot, "worst": worst_tokens, "at": _now()}))

    async def settle(self, key: str, entry: Entry) -> None:
        intents = self._index.open.get(key)
        if not intents:
            raise ContractError(f"call {key[:12]} is settled without having been intended")
        intent = intents[-1]
        head = {
            "intent": intent.id,
            "role": intent.role,
            "slot": intent.slot,
            "status": entry.status,
            "attempts": entry.attempts,
            "usage": entry.usage.to_json(),
            "at": _now(),
        }
        body = scrub_document(entry.body)
        await self._append(Draft("entry", key, head, body))
        if entry.status != "dropped":
            self._keep(key, head, body)

    def _keep(self, key: str, head: dict[str, Any], body: str) -> None:
        """Answers are mostly read just after they came in: those are not fetched from the disk."""
        self._kept += len(body) - len(self._recent.pop(key, (head, ""))[1])
        self._recent[key] = (head, body)
        while self._kept > _KEPT:
            _, (_, oldest) = self._recent.popitem(last=False)
            self._kept -= len(oldest)

    # -- what was decided ----------------------------------------------------------------------------------------------

    async def tell(self, n: int, kind: str, payload: Mapping[str, Any]) -> None:
        """Record event n, once; returns when it is committed. An event told before must say the same, or RunChanged."""
        recorded = self.record(n, kind, payload)
        if recorded is not None:
            await recorded

    def record(self, n: int, kind: str, payload: Mapping[str, Any]) -> asyncio.Future[None] | None:
        """The same without waiting: the future is done when the event is committed, None when it had been told before. Whatever is
        recorded later is committed later, so a call that follows from this event is never on disk without it."""
        content = scrub_document(dict(payload))
        word = hashlib.sha256(f'{{"kind":{canonical(kind)},"payload":{content}}}'.encode()).hexdigest()
        if n in self._index.told:
            if self._index.told[n][1] != word:
                raise RunChanged(
                    f"{self.directory}: replay of slot {n} differs from what was recorded: the program or a model outside of the record "
                    "changed; use the version that started the run, or a new run directory"
                )
            return None
        leans = sorted(self._leans.pop(n, ()))
        return self._writer.put(self._running(Draft("event", str(n), {"kind": kind, "digest": word, "leans": leans}, content)))

    def adopt(self, rows: Sequence[Draft]) -> None:
        """Take over the beginning of another run's log, in one commit. Only a run that has recorded nothing may."""
        if self._index.rows != self.OWN_ROWS:
            raise ContractError(f"{self.directory}: a run that has records of its own cannot take over those of another")
        self._writer.commit(rows)

    async def finish(self) -> None:
        """The run is complete. Opening it again finds every answer recorded and writes nothing."""
        await self._mark("finished", "")

    async def stop(self, reason: str) -> None:
        """The run ends early, resumable."""
        await self._mark("stopped", reason)

    def close(self) -> None:
        """Commit what is waiting and give the directory back."""
        self._writer.close()
        self._reader.close()
        self._connection.close()
        self._lock.release()

    async def _mark(self, status: Literal["finished", "stopped"], reason: str) -> None:
        if (self._index.status, self._index.reason) != (status, reason):
            await self._writer.append([_status(status, reason)])

    async def _append(self, row: Draft) -> None:
        await self._writer.append(self._running(row))

    def _running(self, row: Draft) -> list[Draft]:
        """A finished or stopped run that records something is running again."""
        return [row] if self._index.status == "running" else [_status("running", ""), row]


def _now() -> float:
    return round(time.time(), 3)


def _status(status: str, reason: str) -> Draft:
    return Draft("status", status, {"reason": reason, "at": _now()})


def _make_private(directory: Path) -> None:
    """Only the user may read a run. SQLite gives its log the mode of run.db."""
    try:
        os.close(os.open(directory / "run.db", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise refused(directory / "run.db", error) from None


def _connect(directory: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(directory / "run.db", isolation_level=None, check_same_thread=False, timeout=5)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE}")  # of a new file
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        connection.close()
        raise explain(error, directory) from None
    return connection


def _create(writer: Writer, manifest: Mapping[str, str]) -> None:
    run = Draft("run", secrets.token_hex(6), {"schema": SCHEMA, "at": _now()}, canonical(dict(manifest)))
    writer.commit([run, _status("running", "")], (f"PRAGMA application_id = {_APPLICATION}", f"PRAGMA user_version = {SCHEMA}", DDL))


def _compare(directory: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise RunChanged(
            f"{directory}: this run was started with other values of: {', '.join(changed)}; "
            "a resume must be given the same ones: set them back, or choose a new run directory"
        )


def _save_config(directory: Path, config: Mapping[str, Any]) -> None:
    path = directory / "config.json"
    kept = json.dumps(scrub_json(dict(config)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != kept:
        write_json(path, dict(config))
