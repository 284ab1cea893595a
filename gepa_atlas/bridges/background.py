"""One event loop in a thread of its own, for synchronous libraries that call our asynchronous parts from any of their threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Started with the first call, and a daemon: it never keeps a finished program alive."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, or what it raised; the calling thread waits."""
        return asyncio.run_coroutine_threadsafe(work, self._started()).result()

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for a caller that has an event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._started()))

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True).start()
            return self._loop

    def close(self) -> None:
        """End the loop; a later call starts another."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)


__all__ = ["Background"]
