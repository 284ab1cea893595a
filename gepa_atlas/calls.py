"""The one door for every paid call: replay, share, limit, retry, record.

A call has a key: the digest of role, the port's identity (provider, base URL, model, parameters), the full request and the sample number.
A recorded key is answered from the tape and costs nothing; a key under way is shared; any other is intended (committed before the first
attempt), attempted, and settled (committed before the answer is returned). What is returned the first time is what replay returns: secrets
are scrubbed and numbers rounded before either.

Transient errors are retried here and nowhere else. A call that still fails is settled as "failed" and replayed as that error; one that was
given up because the run stopped (drain, outage) is settled as "dropped": its outcome is known, there is no answer, and it is made again.

In a run, nobody hears of a failure that may be an outage's first: it is held until the endpoint has answered something begun after it, and
is then the call's own, or until the endpoint is given up, and is then no failure of the call. Where nothing else is under way, the
cheapest request that was answered before is asked once more to find out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from gepa_atlas.budget import Charge, Limits, Purse, unpriced
from gepa_atlas.errors import AtlasError, BudgetExhausted, CallError, CallTimeout, ContractError, Garbled, Outage, Permanent
from gepa_atlas.lanes import DOUBTFUL, Attempting, Gate, Lane, Reply, Retry, Traffic
from gepa_atlas.ports import Agent, ChatModel, Composed, Endpoint
from gepa_atlas.roles import ChatBehind, ComposedStudent, Student
from gepa_atlas.secrets import scrub, scrub_document
from gepa_atlas.tape import BUDGET_EXHAUSTED, SLOT, Entry, MemoryTape, Tape, error_body, recorded_error
from gepa_atlas.types import Role, Usage

_NO_LIMITS, _RETRY, _NOTHING = Limits(), Retry(), Usage()
_NEVER_MADE = {"kind": "never_made", "reason": "the run stopped before it was sent", "transient": True}


class Draining(AtlasError):
    """The run is stopping: no new call is made. Control flow between `Calls.drain` and the loop; never shown to a user."""


Happening = Literal["started", "retried", "settled", "failed", "dropped", "replayed", "shared"]


@dataclass(frozen=True, slots=True)
class CallEvent:
    """For the progress view. reason: of a retry, a failure or a drop; attempt: how many were made so far."""

    what: Happening
    role: Role
    key: str
    slot: int
    endpoint: str
    attempt: int = 0
    reason: str = ""
    usage: Usage = Usage()


@dataclass(slots=True)
class _Call:
    role: Role
    key: str
    endpoint: Endpoint
    worst_tokens: int
    attempt: Attempting
    slot: int
    intended: bool = False
    attempts: int = 0
    timeouts: int = 0
    error: CallError | None = None  # of the last attempt
    probes: Usage = Usage()  # what it took to find out that the endpoint answers others


class Calls:
    """`concurrency` bounds attempts over all endpoints; each endpoint has its own limits besides (lanes.py).

    spent: tokens and dollars by role, of this and earlier processes of the run. counts: distinct calls answered in this process, made or
    replayed, by role. happened: how often each kind of CallEvent took place. limits.seconds run from the first call: when they are over,
    calls that wait or are under way end, and new ones are refused, as BudgetExhausted.
    """

    def __init__(
        self,
        tape: Tape,
        *,
        concurrency: int = 16,
        limits: Limits = _NO_LIMITS,
        retry: Retry = _RETRY,
        on_event: Callable[[CallEvent], None] | None = None,
    ) -> None:
        self.spent = Purse(limits)
        self.counts: Counter[Role] = Counter()
        self.happened: Counter[Happening] = Counter()
        self.draining = False
        self._tape = tape
        self._retry = retry
        self._holds = False  # failures that may be an outage's first
        self._on_event = on_event
        self._room = Gate(lambda: math.inf if self.draining else concurrency)
        self._lanes: dict[str, Lane] = {}
        self._flights: dict[str, asyncio.Task[None]] = {}
        self._first_slot: dict[str, int] = {}
        self._rollout_keys: dict[int, set[str]] = {}
        self._deadline: float | None = None  # on the clock of the event loop; known from the first call on
        self._reserved = 0  # calls with a reservation in the purse
        self._given_back = asyncio.Event()
        self.spent.restore(tape.charges())

    async def make(self, *, role: Role, key: str, endpoint: Endpoint, worst_tokens: int, attempt: Attempting) -> dict[str, Any]:
        """The body of this call: recorded, shared or new. `attempt` makes one try and raises CallError when it fails.

        Raises CallError (recorded), BudgetExhausted, Outage, Draining or StoreFull (not recorded). A caller may be cancelled: the call
        goes on for the others, and is recorded.
        """
        if self._deadline is None and self.spent.limits.seconds is not None:
            self._deadline = asyncio.get_running_loop().time() + self.spent.limits.seconds
        call = _Call(role, key, endpoint, worst_tokens, attempt, SLOT.get())
        shared = False
        while (entry := self._tape.lookup(key)) is None:
            flight = self._flights.get(key)
            if flight is None:
                self._check(self._lane(endpoint))
                flight = asyncio.create_task(self._fly(call))
                self._flights[key] = flight
                flight.add_done_callback(lambda done: self._landed(key, done))
            elif not shared:
                self._tell("shared", call)
            shared = True
            await asyncio.shield(flight)
        self._used(call, entry, replayed=not shared)
        if entry.status == "failed":
            raise recorded_error(entry.body)
        self._lane(endpoint).remember(attempt, entry.usage.tokens)
        return entry.body

    def use(self, tape: Tape) -> None:
        """Record the calls of a run on this tape from now on. Ports are wrapped before its ledger is open; nothing may have been called."""
        if self.counts:
            raise ContractError("the tape was changed after the first call")
        self._tape = tape
        self._holds = True
        self.spent.restore(tape.charges())

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        """Give up early inside: seven attempts, three time-outs, short waits. For the first call to an agent, which may not be there at
        all; an endpoint that fails at 30 % of the attempts is taken for such a one in one run of a thousand."""
        hasty = {"attempts": 7, "timeouts": 3, "longest_wait": min(1.0, self._retry.longest_wait)}
        patient, self._retry = (self._retry, self._holds), self._retry.model_copy(update=hasty)
        self._holds = False
        try:
            yield
        finally:
            self._retry, self._holds = patient

    def drain(self) -> None:
        """Stop: new calls and further attempts raise Draining; attempts under way finish and settle."""
        self.draining = True
        self._room.admit()
        for lane in self._lanes.values():
            lane.flush()

    async def finish(self) -> None:
        """Drain, and wait until no call is under way."""
        self.drain()
        while self._flights:
            await asyncio.wait(list(self._flights.values()))

    def traffic(self) -> tuple[Traffic, ...]:
        return tuple(lane.traffic() for lane in self._lanes.values())

    def rollouts(self, slot: int) -> int:
        """Student calls this slot used and no earlier slot did. Final, and free of timing and replay, once all earlier slots are told."""
        return sum(self._first_slot[key] == slot for key in self._rollout_keys.get(slot, ()))

    def agent(self, agent: Agent) -> Agent:
        """The same agent behind this door, in the role of the student."""
        kind = ComposedStudent if isinstance(agent, Composed) else Student
        return kind(agent, self, agent.identity, agent.endpoint)

    def model(self, model: ChatModel, role: Role) -> ChatModel:
        """The same model behind this door, in the given role."""
        return ChatBehind(model, role, self, model.identity, model.endpoint)

    # -- one call ------------------------------------------------------------------------------------------------------

    async def _fly(self, call: _Call) -> None:
        try:
            hold = await self._reserve(call)
        except BudgetExhausted as error:  # recorded like an answer, so that a replay is refused at the same call
            await self._tape.intend(call.key, call.role, call.slot, 0)
            await self._settle(call, Entry("failed", error_body(error), Usage(), 0))
            return
        usage = Usage()
        try:
            usage = self.spent.countable(await self._call(call), call.worst_tokens)
        finally:
            self._reserved -= 1
            self._given_back.set()
            try:
                self.spent.settle(call.role, hold, usage)
            except BudgetExhausted as error:
                raise unpriced(call.role, error) from None

    async def _reserve(self, call: _Call) -> tuple[int, float]:
        """Room in the purse for the worst case of this call. While there is none, calls under way are awaited: most of what was reserved
        for them is given back."""
        while True:
            self._in_time(call.role)
            try:
                hold = self.spent.hold(call.role, call.worst_tokens)
                self._reserved += 1
                return hold
            except BudgetExhausted:
                if not self._reserved:
                    raise
            self._given_back.clear()
            await self._given_back.wait()
            self._check(self._lane(call.endpoint))

    async def _call(self, call: _Call) -> Usage:
        """Attempt until there is an answer, a permanent error or no attempt left; settle it. Returns what it took."""
        lane = self._lane(call.endpoint)
        try:
            while True:
                reply = await self._attempt(call, lane)
                if reply is not None:
                    return await self._settle(call, Entry("done", reply[0], reply[1], call.attempts))
                error = call.error
                assert error is not None
                spent = call.attempts >= self._retry.attempts or call.timeouts >= self._retry.timeouts
                over = isinstance(error, Permanent) or (spent and not lane.down and not self.draining)
                if over and (not self._holds or not isinstance(error, DOUBTFUL) or await self._answers_others(call, lane)):
                    return await self._settle(call, Entry("failed", error_body(error), Usage(calls=1) + call.probes, call.attempts))
                self._check(lane)
                self._tell("retried", call)
                left = self._in_time(call.role)
                await lane.nap(min(left, self._retry.wait(call.attempts)))  # a Retry-After is obeyed by the lane, for every call on it
        except BudgetExhausted as error:  # out of time
            if not call.intended:
                await self._tape.intend(call.key, call.role, call.slot, call.worst_tokens)
            return await self._settle(call, Entry("failed", error_body(error), Usage(calls=min(1, call.attempts)), call.attempts))
        except (Draining, Outage):  # no answer, and nobody may take it for a failure of the call
            if call.error is not None:
                await self._settle(call, Entry("dropped", error_body(call.error), Usage(calls=1), call.attempts))
            elif call.intended:
                await self._settle(call, Entry("dropped", _NEVER_MADE, _NOTHING, 0))
            raise

    async def _answers_others(self, call: _Call, lane: Lane) -> bool:
        """Wait until the endpoint has answered something begun after this failure. False: it never answered anything, so there is nothing
        to ask but this call again. Raises Outage when it is given up meanwhile."""
        since, probes = lane.begun, 0
        while lane.alive <= since:
            self._check(lane)
            left = self._in_time(call.role)
            if lane.busy:
                await lane.news(left)
            elif lane.answered is None:
                return False
            else:
                probes += 1
                await self._probe(call, lane, lane.answered, min(left, self._retry.wait(probes)))
        return True

    async def _probe(self, call: _Call, lane: Lane, answered: Attempting, wait: float) -> None:
        """One attempt of this call, made with a request that was answered before."""
        own, error = call.attempt, call.error
        self._tell("retried", call)
        lane.probing = True
        try:
            await lane.nap(wait)
            call.attempt = answered
            reply = await self._attempt(call, lane)
            if reply is not None:
                call.probes = replace(reply[1], calls=0)
        finally:
            call.attempt, call.error = own, error
            lane.probing = False
            lane.wake()

    async def _attempt(self, call: _Call, lane: Lane) -> Reply | None:
        """One attempt in a free seat. None: it failed, see `call.error`."""
        try:
            async with lane.deck.place(call.slot):
                return await self._on_deck(call, lane)
        finally:
            lane.wake()

    async def _on_deck(self, call: _Call, lane: Lane) -> Reply | None:
        if not call.intended:
            self._check(lane)
            self._in_time(call.role)
            await self._tape.intend(call.key, call.role, call.slot, call.worst_tokens)
            call.intended = True
        try:
            async with asyncio.timeout_at(self._deadline) as clock, lane.seats.place(call.slot):
                await lane.opening()
                async with self._room.place(call.slot):
                    return await self._seated(call, lane)
        except TimeoutError:
            if not clock.expired():
                raise
            raise self._out_of_time(call.role) from None

    async def _seated(self, call: _Call, lane: Lane) -> Reply | None:
        self._check(lane)
        if call.attempts == 0:
            self._tell("started", call)
        call.attempts += 1
        number = lane.begin()
        reply = None
        try:
            reply = await _timed(call)
            call.error = None
        except CallError as error:
            call.error = error
            call.timeouts += isinstance(error, CallTimeout)
        except BaseException:
            lane.lost(number)
            raise
        lane.end(number, call.error)
        return reply

    async def _settle(self, call: _Call, entry: Entry) -> Usage:
        await self._tape.settle(call.key, entry)
        if entry.status == "done":
            self._tell("settled", call, entry.usage)
        else:
            self._tell(entry.status, call, entry.usage, f"{entry.body['kind']}: {entry.body['reason']}")
        return entry.usage

    def _check(self, lane: Lane) -> None:
        lane.check()
        if self.draining:
            raise Draining("the run is stopping; no new call is made")

    def _in_time(self, role: Role) -> float:
        """Seconds that are left. BudgetExhausted when there are none."""
        left = math.inf if self._deadline is None else self._deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise self._out_of_time(role)
        return left

    def _out_of_time(self, role: Role) -> BudgetExhausted:
        return BudgetExhausted(f"the limit of {self.spent.limits.seconds:g} seconds leaves no time for a {role} call")

    def _lane(self, endpoint: Endpoint) -> Lane:
        lane = self._lanes.get(endpoint.name)
        if lane is None:
            lane = self._lanes[endpoint.name] = Lane(endpoint, self._retry)
        else:
            lane.share(endpoint)
        return lane

    def _landed(self, key: str, flight: asyncio.Task[None]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # those who wait get it from the task; with nobody waiting it must not warn

    # -- what was spent ------------------------------------------------------------------------------------------------

    def _used(self, call: _Call, entry: Entry, replayed: bool) -> None:
        if call.key not in self._first_slot:
            self.counts[call.role] += 1
        self._first_slot[call.key] = min(call.slot, self._first_slot.get(call.key, call.slot))
        if call.role == "student":
            self._rollout_keys.setdefault(call.slot, set()).add(call.key)
        if replayed:
            self._tell("replayed", call, entry.usage)

    def _tell(self, what: Happening, call: _Call, usage: Usage = _NOTHING, reason: str = "") -> None:
        self.happened[what] += 1
        if self._on_event is not None:
            reason = reason or (f"{call.error.kind}: {scrub(str(call.error))}" if call.error else "")
            self._on_event(CallEvent(what, call.role, call.key, call.slot, call.endpoint.name, call.attempts, reason, usage))


async def _timed(call: _Call) -> Reply:
    """One attempt under its wall-clock deadline, which ends even a server that drips; the answer as replay will return it."""
    seconds = call.endpoint.timeout
    try:
        async with asyncio.timeout(seconds) as clock:
            body, usage = await call.attempt()
    except TimeoutError:
        if not clock.expired():
            raise
        raise CallTimeout(
            f"no complete answer from {call.endpoint.name!r} within {seconds:g} s; raise `timeout` if it needs longer"
        ) from None
    try:
        return json.loads(scrub_document(body)), Usage.from_json(usage.to_json())
    except ValueError:
        raise Garbled(f"an answer from {call.endpoint.name!r} holds a number that is not finite") from None


__all__ = ["BUDGET_EXHAUSTED", "SLOT", "CallEvent", "Calls", "Charge", "Draining", "Entry", "MemoryTape", "Retry", "Tape"]
