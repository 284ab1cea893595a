"""An event loop that keeps its own time: processor time of its thread, plus every wait it would have slept through.

What runs on it takes as long as it would on a machine that does nothing else, however busy this one is. For work that waits only for
timers: nothing outside the loop may be waited for.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Skipping(selectors.DefaultSelector):
    skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout is not None and timeout > 0:
            self.skipped += timeout
        return found


class Alone(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return time.thread_time() + self._skipping.skipped


def seconds(work: Coroutine[Any, Any, T]) -> tuple[float, T]:
    """How long the work takes on such a loop, and its result."""
    loop = Alone()
    try:
        began = loop.time()
        result = loop.run_until_complete(work)
        return loop.time() - began, result
    finally:
        loop.close()
