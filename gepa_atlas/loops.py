"""Event loops: something to close when the running one ends, and one of one's own in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable, Iterable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from gepa_atlas.errors import AtlasError

T = TypeVar("T")

_held: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, AsyncGenerator[None, None]]] = WeakKeyDictionary()


async def at_loop_end(key: Hashable, close: Callable[[], Awaitable[None]]) -> None:
    """Await `close()` when the loop shuts its async generators down, as `asyncio.run` does; once for each key and loop. So nobody has to
    carry a `close` to the end of a program."""
    held = _held.setdefault(asyncio.get_running_loop(), {})
    if key not in held:
        held[key] = _until_closed(close)
        await anext(held[key])


async def gathered(work: Iterable[Awaitable[T]]) -> list[T]:
    """Await all, in order. An error is raised only when the others have ended, so that no paid call is abandoned."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [r for r in results if not isinstance(r, BaseException)]


async def _until_closed(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await close()


class LoopThread:
    """An event loop in a daemon thread, for work whose limits and caches must hold over callers with other loops, or with none.

    `closed` is what a caller reads who comes after `close`.
    """

    def __init__(self, name: str, closed: str) -> None:
        self._closed = closed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which runs on this loop; for callers without a loop."""
        future = self._submit(work)
        try:
            result: T = future.result()
        except BaseException:
            future.cancel()
            raise
        return result

    async def carry(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for callers on another loop."""
        result: T = await asyncio.wrap_future(self._submit(work))
        return result

    def close(self) -> None:
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        if threading.current_thread() is not self._thread:
            self._thread.join(5)
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Any:
        if self._loop.is_closed() or not self._thread.is_alive():
            work.close()
            raise AtlasError(self._closed)
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()  # HTTP clients close themselves there
        self._loop.call_soon(self._loop.stop)
