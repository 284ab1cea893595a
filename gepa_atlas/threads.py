"""A small pool of daemon threads for user code that blocks.

`concurrent.futures` joins its threads when the interpreter ends, so one hung agent would keep a finished program alive.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from gepa_atlas.errors import said

_IDLE_SECONDS = 10.0  # after which a thread without work ends


def _harmless(error: BaseException) -> BaseException:
    """StopIteration and cancellation mean something else to the event loop: one of them here would hang or end the whole run."""
    return RuntimeError(said(error)) if isinstance(error, StopIteration | CancelledError) else error


class DaemonThreads:
    """At most `size` functions run at once. A caller that gives up leaves its thread to finish; what was still queued never starts."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._open = 0  # functions queued or running

    async def run(self, function: Callable[[], Any]) -> Any:
        """The result of `function()`, or what it raised."""
        context = contextvars.copy_context()
        future: Future[Any] = Future()
        with self._lock:
            self._open += 1
            self._work.put((future, lambda: context.run(function)))
            needed = self._threads < min(self._open, self._size)
            self._threads += needed
        if needed:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        return await asyncio.wrap_future(future)

    def _serve(self) -> None:
        while True:
            try:
                future, function = self._work.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._work.empty():
                        self._threads -= 1
                        return
                continue
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except (Exception, SystemExit, KeyboardInterrupt) as error:  # handed to the caller: user code may call sys.exit
                    future.set_exception(_harmless(error))
                except BaseException as error:  # of the user's own making
                    future.set_exception(_harmless(RuntimeError(said(error))))
            del future, function  # an idle thread must not keep the last request alive
            with self._lock:
                self._open -= 1
