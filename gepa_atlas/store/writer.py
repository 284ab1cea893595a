"""The single writer: a thread that commits whatever is waiting as one transaction, then answers everyone who waited.

Every commit is synced before anyone is answered (`synchronous=FULL`), so what was answered for survives a kill of the process and a power
cut alike. Rows are committed in the order they came in: who goes on without waiting is still behind everything it rests on.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from gepa_atlas.errors import AtlasError, ContractError
from gepa_atlas.store.log import Draft, Index, chain, explain
from gepa_atlas.types import canonical

_GATHER = 0.004  # seconds a commit waits for company while several calls are under way: fewer syncs, fewer pages written twice


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one commit, and who waits for them."""

    rows: list[Draft] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class Writer:
    """Appends to the log. After a refused write it refuses all others with the same error: what is on disk stays a prefix."""

    def __init__(self, connection: sqlite3.Connection, index: Index, directory: Path, on_write: Callable[[int], None] | None) -> None:
        self._connection = connection
        self._index = index
        self._directory = directory
        self._on_write = on_write
        self._writes = 0
        self._broken: AtlasError | None = None
        self._next = _Batch()
        self._busy = False  # a commit is under way, or about to be: the next one follows it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches: SimpleQueue[_Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def append(self, rows: Sequence[Draft]) -> None:
        """Returns when the rows are committed. Cancelling the wait does not cancel the write."""
        await self.put(rows)

    def put(self, rows: Sequence[Draft]) -> asyncio.Future[None]:
        """Hand in rows to be committed behind everything handed in before; the future is done when they are safe."""
        if self._broken:
            raise self._broken
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # another `asyncio.run` on the same run: nobody waits any more for what the last one left
            self._hand_over()
            self._loop, self._busy = loop, False
        done: asyncio.Future[None] = loop.create_future()
        self._next.rows.extend(rows)
        self._next.waiting.append(done)
        if not self._busy:
            self._busy = True
            loop.call_later(_GATHER if self._index.under_way > 1 else 0.0, self._hand_over)
        return done

    def close(self) -> None:
        """Commit what is still waiting, then end the thread. Whatever comes later is refused."""
        self._hand_over()
        if self._thread is not None:
            self._batches.put(None)
            self._thread.join()
            self._thread = None
        self._broken = self._broken or ContractError(f"{self._directory}: the run is closed; nothing more can be recorded")

    def commit(self, rows: Sequence[Draft], before: Sequence[str] = ()) -> None:
        """One transaction, on the calling thread; `before` are statements that create the table."""
        if self._broken:
            raise self._broken
        try:
            written = self._insert(rows, before)
        except sqlite3.Error as error:
            self._broken = explain(error, self._directory)
            raise self._broken from error
        finally:
            if self._connection.in_transaction:
                self._connection.rollback()
        for row, (number, sha) in zip(rows, written, strict=True):
            self._index.apply(number, sha, row.kind, row.name, row.head, row.body)

    def _insert(self, rows: Sequence[Draft], before: Sequence[str]) -> list[tuple[int, str]]:
        number, sha = self._index.rows, self._index.sha
        written = []
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in before:
            self._connection.execute(statement)
        for row in rows:
            number, head = number + 1, canonical(row.head)
            sha = chain(sha, number, row.kind, row.name, head, row.body)
            self._connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", (number, row.kind, row.name, head, row.body, sha))
            written.append((number, sha))
        self._writes += 1
        if self._on_write:
            self._on_write(self._writes)
        self._connection.execute("COMMIT")
        return written

    def _hand_over(self) -> None:
        """What has gathered is the next commit of the writer's thread."""
        if not self._next.rows:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="run.db writer", daemon=True)
            self._thread.start()
        batch, self._next = self._next, _Batch()
        self._batches.put(batch)

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            problem: BaseException | None = None
            try:
                self.commit(batch.rows)
            except BaseException as error:  # a border: whatever stopped the thread belongs to those who wait
                problem = error
            loop = batch.waiting[0].get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._committed, batch, problem)

    def _committed(self, batch: _Batch, problem: BaseException | None) -> None:
        """On the loop: answer those who waited; what came meanwhile is next."""
        self._busy = bool(self._next.rows)
        if self._busy:
            self._hand_over()
        for done in batch.waiting:
            if not done.done():
                if problem is None:
                    done.set_result(None)
                else:
                    done.set_exception(problem)
