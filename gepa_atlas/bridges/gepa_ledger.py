"""What a `run_dir` keeps of a compat run: scores and proposed texts, in the same run.db as every other run. Resume is replay.

An adapter's outputs and traces are opaque Python objects: they are not written (no pickle is), so a resumed run has scores and texts of
what was done before, and outputs and traces of what it does itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gepa_atlas.types import Role, digest


class Ledger:
    """Keyed answers. Without a directory nothing is recalled and nothing recorded."""

    def __init__(self, directory: str | Path | None, manifest: dict[str, str], config: dict[str, Any]) -> None:
        self.directory = directory
        self.replayed = 0
        self._run: Any = None
        if directory is not None:
            from gepa_atlas.store.run import Run

            self._run = Run.open(directory, manifest=manifest, config=config)
            self._thread = ThreadPoolExecutor(1)  # the caller may have an event loop of its own running

    @staticmethod
    def key(*parts: Any) -> str:
        return digest(list(parts))

    def recall(self, key: str) -> dict[str, Any] | None:
        entry = None if self._run is None else self._run.lookup(key)
        if entry is None:
            return None
        self.replayed += 1
        body: dict[str, Any] = entry.body
        return body

    def record(self, key: str, role: Role, body: dict[str, Any]) -> None:
        if self._run is None:
            return
        from gepa_atlas.tape import Entry

        self._wait(self._run.intend(key, role, -1))
        self._wait(self._run.settle(key, Entry("done", body)))

    def close(self, *, finished: bool) -> None:
        if self._run is None:
            return
        if finished:
            self._wait(self._run.finish())
        self._run.close()
        self._thread.shutdown()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        self._thread.submit(asyncio.run, work).result()
