"""A fake provider: latency, faults, and a book of its own, kept outside the program under test.

The book answers the question that a run's own ledger cannot: was a call that had completed charged again?
Latency, faults and the book never change an answer, so they are no part of an agent's identity.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from gepa_atlas.errors import BadRequest, CallError, CallTimeout, Garbled, RateLimited, ServerFault, Unreachable
from gepa_atlas.settings import Settings

T = TypeVar("T")
FaultKind = Literal[429, 500, 400, "timeout", "malformed", "unreachable"]

_FAULTS: dict[FaultKind, Callable[[], CallError]] = {
    429: lambda: RateLimited("injected fault: 429 too many requests", 0.0),
    500: lambda: ServerFault("injected fault: 500 internal server error"),
    400: lambda: BadRequest("injected fault: 400 bad request"),
    "timeout": lambda: CallTimeout("injected fault: no answer before the deadline"),
    "malformed": lambda: Garbled("injected fault: half a JSON document"),
    "unreachable": lambda: Unreachable("injected fault: connection reset"),
}
_STRAGGLE = 10.0  # how many times longer a straggler takes


def uniform(*address: str | int) -> float:
    """A number in [0, 1) that is a function of its address, the same on every platform."""
    key = hashlib.sha256(repr(address).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(key[:8], "big") / 2**64


class Faults(Settings):
    """Share of attempts that fail, drawn by (seed, call, attempt): a retry draws anew and can succeed."""

    rate: float = Field(default=0.0, ge=0.0, le=1.0)
    seed: int = 0
    kinds: tuple[FaultKind, ...] = Field(default=(429, 500, "timeout", "malformed"), min_length=1)


class ProviderSettings(Settings):
    latency: float = Field(default=0.0, ge=0.0)  # mean seconds of an attempt, exponential
    latency_seed: int = 0
    stragglers: float = Field(default=0.0, ge=0.0, le=1.0)  # share of attempts that take ten times as long
    faults: Faults = Faults()
    ledger: Path | None = None  # the provider's book; appended to, never read by the program
    max_concurrency: int = Field(default=64, ge=1)


class FakeProvider:
    """Plays what surrounds an answer. Counts attempts for each call in this process; a restart counts from zero."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings
        self.attempts: Counter[str] = Counter()

    def seconds(self, call: str, attempt: int) -> float:
        """How long this attempt takes: exponential with the configured mean, stragglers ten times that."""
        if self.settings.latency == 0.0:
            return 0.0
        draw = -math.log(1.0 - uniform("latency", self.settings.latency_seed, call, attempt))
        straggles = uniform("straggler", self.settings.latency_seed, call, attempt) < self.settings.stragglers
        return self.settings.latency * draw * (_STRAGGLE if straggles else 1.0)

    def fault(self, call: str, attempt: int) -> CallError | None:
        faults = self.settings.faults
        if uniform("fault", faults.seed, call, attempt) >= faults.rate:
            return None
        kind = faults.kinds[int(uniform("kind", faults.seed, call, attempt) * len(faults.kinds))]
        return _FAULTS[kind]()

    async def serve(self, call: str, answer: Callable[[float], T]) -> T:
        """One attempt: it takes its time, then fails with a CallError that costs nothing, or charges and answers.

        `answer` gets the seconds that were drawn. The charge is written before the time passes, the answer after it,
        so a process that is killed in between leaves a call that was charged and never answered.
        """
        attempt = self.attempts[call]
        self.attempts[call] += 1
        seconds = self.seconds(call, attempt)
        error = self.fault(call, attempt)
        if error is None:
            self._book("P", call)
        await asyncio.sleep(seconds)
        if error is not None:
            raise error
        result = answer(seconds)
        self._book("A", call)
        return result

    def _book(self, mark: Literal["P", "A"], call: str) -> None:
        if self.settings.ledger is None:
            return
        book = os.open(self.settings.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(book, f"{mark} {call}\n".encode())
        finally:
            os.close(book)


@dataclass(frozen=True)
class Book:
    """What a provider's book says: how often each call was charged and answered."""

    charged: Counter[str]
    answered: Counter[str]


def read_book(path: Path) -> Book:
    """The book at `path`; an absent one is empty. A line is `P <call digest>` (charged) or `A <call digest>` (answered)."""
    book = Book(Counter(), Counter())
    for line in path.read_text("ascii").splitlines() if path.exists() else ():
        mark, call = line.split(" ")
        (book.charged if mark == "P" else book.answered)[call] += 1
    return book
