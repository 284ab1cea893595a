"""The single writer: a thread that commits whatever is waiting as one transaction, then answers everyone who waited.

Every commit is synced before anyone is answered (`synchronous=FULL`), so what was answered for survives a kill of the process and a power
cut alike. Rows are committed in the order they came in: who goes on without waiting is still behind everything it rests on.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from gepa_atlas.errors import AtlasError, ContractError
from gepa_atlas.store.log import Draft, Index, chain, explain
from gepa_atlas.types import canonical

_Request = tuple[Sequence[Draft], asyncio.AbstractEventLoop, "asyncio.Future[None]"]
_GATHER = 0.004  # seconds a commit waits for company while several calls are under way: fewer syncs, fewer pages written twice


class Writer:
    """Appends to the log. After a refused write it refuses all others with the same error: what is on disk stays a prefix."""

    def __init__(self, connection: sqlite3.Connection, index: Index, directory: Path, on_write: Callable[[int], None] | None) -> None:
        self._connection = connection
        self._index = index
        self._directory = directory
        self._on_write = on_write
        self._writes = 0
        self._broken: AtlasError | None = None
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def append(self, rows: Sequence[Draft]) -> None:
        """Returns when the rows are committed. Cancelling the wait does not cancel the write."""
        await self.put(rows)

    def put(self, rows: Sequence[Draft]) -> asyncio.Future[None]:
        """Hand in rows to be committed behind everything handed in before; the future is done when they are safe."""
        if self._broken:
            raise self._broken
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="run.db writer", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._requests.put((rows, loop, done))
        return done

    def close(self) -> None:
        """Commit what is still waiting, then end the thread. Whatever comes later is refused."""
        if self._thread is not None:
            self._requests.put(None)
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

    def _work(self) -> None:
        last = False
        while not last:
            waiting: list[_Request] = []
            request = self._requests.get()
            if request is not None and self._index.under_way > 1:
                time.sleep(_GATHER)
            while True:
                if request is None:
                    last = True
                else:
                    waiting.append(request)
                try:
                    request = self._requests.get_nowait()
                except Empty:
                    break
            if waiting:
                self._serve(waiting)

    def _serve(self, waiting: Sequence[_Request]) -> None:
        problem: BaseException | None = None
        try:
            self.commit([row for rows, _, _ in waiting for row in rows])
        except BaseException as error:  # a border: whatever stopped the thread belongs to those who wait
            problem = error
        for _, loop, done in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_answer, done, problem)


def _answer(done: asyncio.Future[None], problem: BaseException | None) -> None:
    if done.done():
        return
    if problem is None:
        done.set_result(None)
    else:
        done.set_exception(problem)
