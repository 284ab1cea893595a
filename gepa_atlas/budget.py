"""Budgets are reserved before spending and never passed. Rollouts are exact; the rest is settled from what calls report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gepa_atlas.errors import BudgetExhausted, ConfigError, ContractError
from gepa_atlas.types import Role, Usage


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits of a run; None is no limit. Seconds are wall clock, dollars need known prices."""

    rollouts: int | None = None
    tokens: int | None = None
    dollars: float | None = None
    seconds: float | None = None


class Budget:
    """Rollouts, reserved as an upper bound when a slot is planned and settled, in ask order, at what it really took.

    One rollout is one run of the student agent that is not answered by the ledger: a baseline, a second attempt, a probe.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.spent = 0
        self._reserved: dict[int, int] = {}

    @property
    def reserved(self) -> int:
        return sum(self._reserved.values())

    @property
    def free(self) -> int | None:
        """Rollouts that can still be reserved; None without a limit."""
        return None if self.limit is None else self.limit - self.spent - self.reserved

    def affords(self, rollouts: int) -> bool:
        return self.free is None or rollouts <= self.free

    def reserve(self, slot: int, rollouts: int) -> None:
        if rollouts < 0 or slot in self._reserved:
            raise ContractError(f"slot {slot} reserves {rollouts} rollouts: it must be new and the number not negative")
        if not self.affords(rollouts):
            raise BudgetExhausted(f"slot {slot} needs {rollouts} rollouts; {self.free} of {self.limit} are left")
        self._reserved[slot] = rollouts

    def settle(self, slot: int, rollouts: int) -> int:
        """Turn a reservation into spending; returns the refund."""
        reserved = self._reserved.pop(slot)
        if rollouts > reserved:
            raise ContractError(f"slot {slot} spent {rollouts} rollouts and had reserved {reserved}")
        self.spent += rollouts
        return reserved - rollouts


@dataclass(frozen=True, slots=True)
class Charge:
    """A call of the past, for the purse. usage None: intended by a process that died, outcome unknown, so its worst case counts."""

    role: Role
    usage: Usage | None
    worst_tokens: int


class Purse:
    """Tokens and dollars of real calls, by role. The edge asks before each call and settles after it.

    A call holds its worst case (prompt characters / 2 + max_tokens, given by the caller) until calls of its role have been seen; then at
    most twice the largest of them. Dollars are held at the largest price seen for the role.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.by_role: dict[Role, Usage] = {}
        self._held_tokens = 0
        self._held_dollars = 0.0
        self._largest_dollars: dict[Role, float] = {}
        self._largest_tokens: dict[Role, int] = {}

    @property
    def total(self) -> Usage:
        total = Usage()
        for usage in self.by_role.values():
            total = total + usage
        return total

    def hold(self, role: Role, worst_tokens: int) -> tuple[int, float]:
        """Reserve one call, or raise BudgetExhausted. Returns the hold, to be given back to `settle`."""
        known = self.total
        if role in self._largest_tokens:
            worst_tokens = min(worst_tokens, 2 * self._largest_tokens[role])
        if self.limits.tokens is not None and (known.tokens or 0) + self._held_tokens + worst_tokens > self.limits.tokens:
            raise BudgetExhausted(
                f"the token limit of {self.limits.tokens} leaves no room for a {role} call of up to {worst_tokens} tokens"
            )
        dollars = self._largest_dollars.get(role, 0.0)
        if self.limits.dollars is not None and (known.dollars or 0.0) + self._held_dollars + dollars > self.limits.dollars:
            raise BudgetExhausted(f"the limit of {self.limits.dollars} dollars leaves no room for another {role} call")
        self._held_tokens += worst_tokens
        self._held_dollars += dollars
        return worst_tokens, dollars

    def settle(self, role: Role, hold: tuple[int, float], usage: Usage) -> None:
        self._held_tokens -= hold[0]
        self._held_dollars -= hold[1]
        self.add(role, usage)
        if self.limits.dollars is not None and usage.dollars is None:
            raise BudgetExhausted(f"a {role} call has no known price, so the limit of {self.limits.dollars} dollars cannot be kept")

    def add(self, role: Role, usage: Usage) -> None:
        self.by_role[role] = self.by_role.get(role, Usage()) + usage
        if usage.tokens:
            self._largest_tokens[role] = max(self._largest_tokens.get(role, 0), usage.tokens)
        if usage.dollars is not None:
            self._largest_dollars[role] = max(self._largest_dollars.get(role, 0.0), usage.dollars)

    def countable(self, usage: Usage, worst_tokens: int) -> Usage:
        """Under a token limit an unknown usage counts as the worst case; else unknown stays unknown."""
        if self.limits.tokens is None or usage.tokens is not None:
            return usage
        return Usage(worst_tokens, 0, usage.dollars, usage.seconds, usage.calls)

    def restore(self, charges: Iterable[Charge]) -> None:
        """Take calls of the past in. Raises ConfigError for a call without a price under a limit on dollars."""
        dearest: dict[Role, float] = {}
        unknown: list[Charge] = []
        for charge in charges:
            if charge.usage is None:
                unknown.append(charge)
                continue
            if self.limits.dollars is not None and charge.usage.dollars is None:
                raise unpriced(charge.role, f"what the {charge.role} calls of this run cost is unknown")
            self.add(charge.role, self.countable(charge.usage, charge.worst_tokens))
            dearest[charge.role] = max(dearest.get(charge.role, 0.0), charge.usage.dollars or 0.0)
        for charge in unknown:
            self.add(charge.role, Usage(charge.worst_tokens, 0, dearest.get(charge.role, 0.0), 0.0, 1))


def unpriced(role: Role, why: object) -> ConfigError:
    return ConfigError(f"budget.dollars: {why}; give the {role} a price (price, or dollars_per_call), or remove budget.dollars")
