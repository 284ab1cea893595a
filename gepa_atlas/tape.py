"""Where calls are recorded: what a settled call is, the tape's contract, and a tape in memory. The tape on disk is `store.Run`."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gepa_atlas.types import Role, Usage

SLOT: contextvars.ContextVar[int] = contextvars.ContextVar("gepa_atlas_slot", default=-1)
"""The slot of the search a call belongs to; -1 outside of any slot."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A settled call. body: the answer when it is done, else kind and reason. Without an answer the usage is zero: none was reported."""

    status: Literal["done", "failed", "dropped"]
    body: dict[str, Any]
    usage: Usage = Usage()
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Charge:
    """A call of the past, for the purse. usage None: intended by a process that died, outcome unknown, so its worst case counts."""

    role: Role
    usage: Usage | None
    worst_tokens: int


class Tape(Protocol):
    """Where calls are recorded. `intend` and `settle` return once their record is safe."""

    def lookup(self, key: str) -> Entry | None:
        """The entry of a done or failed call. Called in the context (SLOT) of whoever uses the answer."""
        ...

    def charges(self) -> Iterable[Charge]:
        """Everything charged before now."""
        ...

    async def intend(self, key: str, role: Role, slot: int, worst_tokens: int = 0) -> None: ...

    async def settle(self, key: str, entry: Entry) -> None: ...


class MemoryTape:
    """A tape without a run directory, for `check`, `evaluate` and tests."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def lookup(self, key: str) -> Entry | None:
        return self.entries.get(key)

    def charges(self) -> Iterable[Charge]:
        return ()

    async def intend(self, key: str, role: Role, slot: int, worst_tokens: int = 0) -> None:
        pass

    async def settle(self, key: str, entry: Entry) -> None:
        if entry.status != "dropped":
            self.entries[key] = entry
