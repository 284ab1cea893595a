"""Where calls are recorded: what a settled call is, the tape's contract, and a tape in memory. The tape on disk is `store.Run`."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gepa_atlas.budget import Charge
from gepa_atlas.errors import BudgetExhausted, CallError, Permanent, Transient
from gepa_atlas.secrets import scrub
from gepa_atlas.types import Role, Usage

BUDGET_EXHAUSTED = "budget_exhausted"  # the kind of a call that a limit refused: recorded, never made

SLOT: contextvars.ContextVar[int] = contextvars.ContextVar("gepa_atlas_slot", default=-1)
"""The slot of the search a call belongs to; -1 outside of any slot."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A settled call. body: the answer when it is done, else kind and reason. Without an answer the usage is zero: none was reported."""

    status: Literal["done", "failed", "dropped"]
    body: dict[str, Any]
    usage: Usage = Usage()
    attempts: int = 1


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


# -- errors as the body of an entry -----------------------------------------------------------------------------------


def error_body(error: CallError | BudgetExhausted) -> dict[str, Any]:
    """Kind and reason of a call that has no answer, without secrets."""
    kind = error.kind if isinstance(error, CallError) else BUDGET_EXHAUSTED
    return {"kind": kind, "reason": scrub(str(error)), "transient": isinstance(error, Transient)}


def recorded_error(body: Mapping[str, Any]) -> CallError | BudgetExhausted:
    """The recorded error again, as its own class."""
    if body["kind"] == BUDGET_EXHAUSTED:
        return BudgetExhausted(body["reason"])
    kind = _kinds(CallError).get(body["kind"], Transient if body["transient"] else Permanent)
    return kind(body["reason"])


def _kinds(base: type[CallError]) -> dict[str, type[CallError]]:
    found = {base.kind: base}
    for child in base.__subclasses__():
        found = _kinds(child) | found  # of classes that share a kind, the one that gave it its name
    return found
