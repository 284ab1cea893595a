"""One lane per endpoint: how many attempts run at once, how fast they start, when to slow down and when to give up.

A call first comes on deck, where it is put on record, and then takes a seat: so no seat waits for the disk. Deck and seats are given to
the earliest slot of the search first, because results are told in ask order and everything later waits for it.

Additive increase, multiplicative decrease: a 429 halves the attempts in flight (once per burst), each success adds a part of one.
A lane remembers the cheapest request that was answered, and which attempt last showed the endpoint alive: that tells a request that its
endpoint cannot answer from an endpoint that answers nobody.

The breaker counts failed attempts in a row over all calls. It trips on an attempt that was begun after the streak showed and while none
from before the streak is still under way, so a burst sent before anyone knew cannot trip it, and 30 % random faults never do (0.3 ** 20).
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from gepa_atlas.errors import AuthRefused, CallError, NotFound, Outage, RateLimited, Transient
from gepa_atlas.ports import Endpoint
from gepa_atlas.settings import Settings
from gepa_atlas.types import Usage

_AHEAD = 2  # one call is on deck for so many seats
DOUBTFUL = (Transient, AuthRefused, NotFound)  # errors of the endpoint as a whole, for all one knows; any other proves it alive
REFUSALS = 3  # a wrong key answers 401 for ever: this many in a row end the run


Reply = tuple[dict[str, Any], Usage]  # body of an answer, and what it took
Attempting = Callable[[], Awaitable[Reply]]  # one try at a call; raises CallError when it fails


class Retry(Settings):
    """The one retry layer. Waits are seconds: full jitter under an exponential ceiling, or what the server's Retry-After says."""

    attempts: int = Field(default=12, ge=1, le=1000)
    timeouts: int = Field(default=8, ge=1)  # attempts of one call that may end at the deadline: each costs the whole of it
    first_wait: float = Field(default=0.25, ge=0)
    longest_wait: float = Field(default=20.0, ge=0)
    breaker: int = Field(default=20, ge=2)  # failed attempts in a row on one endpoint, over all calls, that end the run
    patience: float = Field(default=600.0, gt=0)  # a Retry-After longer than this ends the run, resumable, instead of waiting

    def wait(self, failures: int) -> float:
        """Seconds before the next attempt after so many failed ones."""
        return random.uniform(0.0, min(self.longest_wait, self.first_wait * 2.0 ** min(failures - 1, 60)))


class Gate:
    """Places for as many as `size()` says now, for the lowest rank first, in order of arrival within a rank."""

    def __init__(self, size: Callable[[], float]) -> None:
        self._size = size
        self._held = 0
        self._arrivals = 0
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []

    @property
    def taken(self) -> bool:
        """Whether anybody has a place, or waits for one."""
        return self._held > 0 or bool(self._queue)

    def place(self, rank: int) -> _Place:
        """Wait for a place; leaving the block gives it back."""
        return _Place(self, rank)

    async def enter(self, rank: int) -> None:
        if not self._queue and self._held < self._size():
            self._held += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._queue, (rank, self._arrivals, turn))
        self.admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        self._held -= 1
        self.admit()

    def admit(self) -> None:
        while self._queue and self._held < self._size():
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                self._held += 1
                turn.set_result(None)


@dataclass(frozen=True, slots=True)
class _Place:
    gate: Gate
    rank: int

    async def __aenter__(self) -> None:
        await self.gate.enter(self.rank)

    async def __aexit__(self, *_: object) -> None:
        self.gate.leave()


@dataclass(frozen=True, slots=True)
class Traffic:
    """An endpoint now: attempts under way, how many may be (lowered by 429s), the configured ceiling, whether it is given up."""

    endpoint: str
    under_way: int
    limit: int
    ceiling: int
    down: bool


class Lane:
    """The traffic of one endpoint: places on deck and seats, the opening; `begin` and `end` frame one attempt in a seat."""

    def __init__(self, endpoint: Endpoint, retry: Retry) -> None:
        self.name = endpoint.name
        self.ceiling = endpoint.max_concurrency
        self.limit = float(endpoint.max_concurrency)
        self.down: str | None = None  # why nothing is sent any more
        self.begun = 0  # attempts
        self.alive = 0  # number of the latest attempt that the endpoint answered, be it with a refusal
        self.probing = False  # somebody is asking an answered request again
        self.answered: Attempting | None = None  # the cheapest request that was answered
        self._price = math.inf  # in tokens, of that request
        self._retry = retry
        self._spacing = 60.0 / endpoint.requests_per_minute if endpoint.requests_per_minute else 0.0
        self.deck = Gate(lambda: self._size() + max(1, math.ceil(self.limit / _AHEAD)))
        self.seats = Gate(self._size)
        self._open = asyncio.Event()  # set when waiting is pointless: the lane is down or the run is draining
        self._closed_until = 0.0
        self._next_start = 0.0
        self._news = asyncio.Event()  # set, and replaced, when somebody has left the deck
        self._under_way: set[int] = set()
        self._last_cut = 0  # attempts up to this number were under way when the limit was last halved
        self._streak = 0
        self._streak_from = 0
        self._refusals = 0

    def traffic(self) -> Traffic:
        return Traffic(self.name, len(self._under_way), int(self.limit), self.ceiling, self.down is not None)

    def share(self, endpoint: Endpoint) -> None:
        """Another port of the same endpoint: the stricter limits hold for both."""
        self.ceiling = min(self.ceiling, endpoint.max_concurrency)
        self.limit = min(self.limit, self.ceiling)
        if endpoint.requests_per_minute:
            self._spacing = max(self._spacing, 60.0 / endpoint.requests_per_minute)

    def check(self) -> None:
        if self.down:
            raise Outage(self.down)

    def flush(self) -> None:
        """End every wait: those who wait look again and find out why."""
        self._open.set()
        self.wake()
        self.deck.admit()
        self.seats.admit()

    async def nap(self, seconds: float) -> None:
        """Sleep, or until there is no more point in waiting."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._open.wait()

    @property
    def busy(self) -> bool:
        """Whether something that is under way, or about to be, will say how the endpoint is."""
        return self.probing or self.deck.taken

    async def news(self, seconds: float) -> None:
        """Wait until somebody has left the deck, or there is no more point in waiting."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._news.wait()

    def wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def remember(self, request: Attempting, tokens: int | None) -> None:
        """A request that was answered, now or in an earlier process."""
        price = math.inf if tokens is None else tokens
        if self.answered is None or price < self._price:
            self.answered, self._price = request, price

    def begin(self) -> int:
        self.begun += 1
        self._under_way.add(self.begun)
        return self.begun

    def lost(self, number: int) -> None:
        """The attempt was cancelled, or broke in a way that says nothing about the endpoint."""
        self._under_way.discard(number)

    def end(self, number: int, error: CallError | None) -> None:
        """Learn from a finished attempt."""
        self._under_way.discard(number)
        if isinstance(error, RateLimited):
            self._slow_down(number, error)
        elif error is None:
            self.limit = min(float(self.ceiling), self.limit + 1.0 / self.limit)
        if isinstance(error, DOUBTFUL):
            self._count(number, error)
        else:
            self._streak = self._refusals = 0
            self.alive = max(self.alive, number)

    def _slow_down(self, number: int, error: RateLimited) -> None:
        if number > self._last_cut:
            self.limit = max(1.0, self.limit / 2)
            self._last_cut = self.begun
        if error.retry_after is not None:
            if error.retry_after > self._retry.patience:
                self._trip(f"endpoint {self.name!r} asks to wait {error.retry_after:.0f} s, and patience is {self._retry.patience:.0f} s")
            self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + error.retry_after)

    def _count(self, number: int, error: CallError) -> None:
        if self._streak == 0:
            self._streak_from = self.begun
        self._streak += 1
        self._refusals = self._refusals + 1 if isinstance(error, AuthRefused) else 0
        everyone_knew = number > self._streak_from and min(self._under_way, default=number) > self._streak_from
        if self._refusals >= REFUSALS or (self._streak >= self._retry.breaker and everyone_knew):
            self._trip(f"endpoint {self.name!r} failed {self._streak} times in a row, the last one: {error.kind}: {error}")

    def _trip(self, why: str) -> None:
        self.down = self.down or f"{why}; nothing is lost: see to the endpoint and run the same command again to resume"
        self.flush()

    def _size(self) -> float:
        return math.inf if self._open.is_set() else int(self.limit)

    async def opening(self) -> None:
        """Wait until an attempt may start: after a Retry-After, and as many a minute as the endpoint allows."""
        clock = asyncio.get_running_loop().time
        while not self._open.is_set():
            start = max(self._closed_until, self._next_start if self._spacing else 0.0)
            if start <= clock():
                break
            await self.nap(start - clock())
        if self._spacing:
            self._next_start = clock() + self._spacing
