"""Something to close when the running event loop ends, so that nobody has to carry a `close` to the end of a program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from weakref import WeakKeyDictionary

_held: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, AsyncGenerator[None, None]]] = WeakKeyDictionary()


async def at_loop_end(key: Hashable, close: Callable[[], Awaitable[None]]) -> None:
    """Await `close()` when the loop shuts its async generators down, as `asyncio.run` does; once for each key and loop."""
    held = _held.setdefault(asyncio.get_running_loop(), {})
    if key not in held:
        held[key] = _until_closed(close)
        await anext(held[key])


async def _until_closed(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await close()
