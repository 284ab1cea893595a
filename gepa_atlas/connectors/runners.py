"""Where the code of a Python agent runs: in a thread or the event loop of this process, or in worker processes of its own."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from gepa_atlas.connectors.loading import load_callable
from gepa_atlas.errors import AgentCrashed, Garbled
from gepa_atlas.threads import DaemonThreads

_IDLE_SECONDS = 300  # after which a worker without work ends


class Runner(Protocol):
    async def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the agent returned, pieces of a generator joined. Raises what it raised; AgentCrashed for what would end the loop."""
        ...


class Here:
    """In this process: coroutines in a task of their own, everything else in daemon threads."""

    def __init__(self, call: Callable[..., Any], size: int, name: str) -> None:
        self._call = call
        self._threads = DaemonThreads(size, name)
        code = call if inspect.isfunction(call) or inspect.ismethod(call) or inspect.isbuiltin(call) else type(call).__call__
        self._awaits = inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)

    async def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A thread whose caller gave up runs on, and counts as busy, until the user's function returns."""
        if self._awaits:
            return await _apart(self._call(*args, **kwargs))
        result = await self._threads.run(lambda: _joined(self._call(*args, **kwargs)))
        return await _apart(result) if inspect.isawaitable(result) or isinstance(result, AsyncIterator) else result


class Workers:
    """In up to `size` processes, one call at a time in each, started when they are needed. A call that is given up, or whose process
    ends, takes its process along and no other."""

    def __init__(self, reference: str, base_dir: Path, where: str, size: int) -> None:
        self._about = (reference, str(base_dir), where)
        self._size = size
        self._free: list[Any] = []
        self._places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    def ask(self, function: Callable[..., Any], *more: Any) -> Any:
        """`function(call, digest, *more)` in a worker, now: what must be known of the code without importing it here."""
        worker = self._taken()
        try:
            result = worker.submit(_described, self._about, function, more).result()
        except BaseException:
            _ended(worker)
            raise
        self._free.append(worker)
        return result

    async def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        from joblib.externals.loky import BrokenProcessPool

        places = self._places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._size))
        async with places:
            worker = self._taken()
            try:
                result = await asyncio.wrap_future(worker.submit(_called, self._about, tuple(args), dict(kwargs)))
            except BrokenProcessPool:
                _ended(worker)
                raise AgentCrashed(f"the worker process of {self._about[0]} ended in the middle of a call") from None
            except asyncio.CancelledError:
                _ended(worker)
                raise
            except BaseException:
                self._free.append(worker)
                raise
            self._free.append(worker)
            return result

    def _taken(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        return self._free.pop() if self._free else ProcessPoolExecutor(max_workers=1, timeout=_IDLE_SECONDS)


def _ended(worker: Any) -> None:
    worker.shutdown(wait=False, kill_workers=True)


# -- in the worker ----------------------------------------------------------------------------------------------------


@functools.cache
def _loaded(about: tuple[str, str, str]) -> Any:
    return load_callable(about[0], Path(about[1]), about[2])


def _described(about: tuple[str, str, str], function: Callable[..., Any], more: tuple[Any, ...]) -> Any:
    loaded = _loaded(about)
    return function(loaded.call, loaded.source_digest, *more)


def _called(about: tuple[str, str, str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from gepa_atlas.connectors.answers import plain

    result = _joined(_loaded(about).call(*args, **kwargs))
    if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
        result = asyncio.run(_awaited(result))
    return result if isinstance(result, str | None) else plain(result)


# -- what agents return -----------------------------------------------------------------------------------------------

_under_way: set[asyncio.Task[Any]] = set()


async def _apart(result: Any) -> Any:
    """The result of a coroutine, awaited in a task of its own: one that cancels its task cancels itself, and one that does not obey a
    cancellation keeps nobody waiting."""
    task = asyncio.create_task(_awaited(result))
    _under_way.add(task)
    task.add_done_callback(_finished)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.cancelled():
        raise AgentCrashed("the agent raised CancelledError: it cancelled its own task")
    return task.result()


def _finished(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # whoever still waits gets it from the task; with nobody waiting it must not warn


async def _awaited(result: Any) -> Any:
    try:
        if isinstance(result, AsyncIterator):
            return _join([part async for part in result])
        return await result
    except SystemExit as error:  # a task would end the loop with it
        raise AgentCrashed(f"the agent raised SystemExit: {error}") from error


def _joined(result: Any) -> Any:
    return _join(list(result)) if isinstance(result, Iterator) else result


def _join(parts: list[Any]) -> str:
    for part in parts:
        if not isinstance(part, str):
            raise Garbled(f"the agent yielded a {type(part).__name__}; a generator yields pieces of text")
    return "".join(parts)
