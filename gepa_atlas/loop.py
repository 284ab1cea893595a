"""The loop: ask the search what it wants, teach it, tell it what happened, write it down. Resume is the same loop, answered by the ledger.

run(experiment, directory)
  open the run, its lock and its ledger
  make sure the agent answers at all
  until the search wants nothing more:
      keep `width` proposals in flight; take the oldest; tell it; record it
  return what was found
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from gepa_atlas.calls import BUDGET_EXHAUSTED, SLOT, Draining
from gepa_atlas.classroom import Classroom
from gepa_atlas.errors import AgentUnusable, Outage
from gepa_atlas.evolve.engine import Evolution
from gepa_atlas.evolve.rng import rng
from gepa_atlas.experiment import Experiment, Observer, Result, Silent
from gepa_atlas.loops import gathered
from gepa_atlas.ports import Brief
from gepa_atlas.rim import meter
from gepa_atlas.store.run import Run
from gepa_atlas.texts import broken_contract
from gepa_atlas.types import Candidate, Decision, Demo, Draft, Lesson, Outcome, Proposal, SlotKind

_DRAIN_SECONDS = 30.0
_ENOUGH_LESSONS = 20  # below this a share of failures says nothing
_LIMIT_FOR_SEARCH = 0.6  # share of a limit on tokens, dollars or time the search may use
_LIMIT_FOR_RACE = 0.75  # share of it that search and final race may use; the rest is for the held-out test

T = TypeVar("T")
_Told = tuple[Proposal, Outcome, Decision]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: what was in flight is saved; the same command goes on from here."""


def run(
    experiment: Experiment, directory: Path, observer: Observer | None = None, *, on_write: Callable[[int], None] | None = None
) -> Result:
    """Run or resume an experiment in a directory. Raises the errors of `gepa_atlas.errors`, or Interrupted. on_write: see `Run.open`."""
    work = _run(experiment, directory, observer or Silent(), on_write)
    try:
        return asyncio.run(work)
    finally:
        work.close()  # Ctrl-C may come before it is begun


async def _run(experiment: Experiment, directory: Path, observer: Observer, on_write: Callable[[int], None] | None) -> Result:
    with Run.open(directory, manifest=experiment.manifest, config=experiment.config, on_write=on_write) as store:
        experiment.calls.use(store)
        search = _Search(experiment, store, observer)
        observer.started(experiment, directory, bool(store.events()))
        with _signals(search), meter.metering(sums_only=True) as judging:
            result = replace(await search.go(), judging=judging.usage())
        observer.finished(result)
        return result


@dataclass
class _Search:
    """One pass of the loop over one store."""

    experiment: Experiment
    store: Run
    observer: Observer
    lessons: list[Lesson] = field(default_factory=list)
    interrupted: bool = False

    def __post_init__(self) -> None:
        e = self.experiment
        self.examples = {x.id: x for x in (*e.dataset.train, *e.dataset.val, *e.dataset.test)}
        self.pool = tuple(Demo.of(x) for x in e.dataset.train if x.answer is not None)
        self.evolution = Evolution(
            e.plan,
            e.seeds,
            [x.id for x in e.dataset.train],
            [x.id for x in e.dataset.val],
            [x.id for x in e.dataset.test],
            gain=e.gain,
            guard=e.guard,
            questions={x.id: x.question for x in (*e.dataset.train, *e.dataset.val)},
        )
        self.classroom = Classroom(e.student, e.panel, e.protocol)
        past = self.store.events()
        self.stops = {event.n: event.payload["reason"] for event in past if event.kind == "stop"}
        self.replayed = sum(event.kind == "slot" for event in past)
        self.window: deque[tuple[Proposal, asyncio.Task[Outcome]]] = deque()
        self.saving: deque[tuple[asyncio.Future[None], _Told]] = deque()  # decided, and not yet safe on disk
        self.main: asyncio.Task[Any] | None = None
        self.began = time.monotonic()
        self.failed = 0
        self.refused: str | None = None  # the limit that refused a call

    async def go(self) -> Result:
        self.main = asyncio.current_task()
        try:
            while await self._fill():
                proposal, task = self.window[0]
                outcome = await self._outcome(task)
                self.window.popleft()
                self._tell(proposal, outcome)
                await asyncio.sleep(0)  # many slots may be due at once: calls that end meanwhile give their seats on
            self._check_scored()
            return await self._result()
        except Draining:
            with contextlib.suppress(asyncio.CancelledError):  # out of patience
                await self._settle_in_flight()
            raise Interrupted from None
        except asyncio.CancelledError:
            if self.interrupted:
                raise Interrupted from None
            raise
        finally:
            for _, task in self.window:
                task.cancel()
            await asyncio.gather(*(task for _, task in self.window), *(saved for saved, _ in self.saving), return_exceptions=True)

    async def _preflight(self, proposal: Proposal) -> None:
        """A baseline of the first slot before all else: an agent that gives no answer is a user's error now, a lesson's failure later."""
        for example in [self.examples[e] for e, _ in proposal.gate[:1]]:
            with self.experiment.calls.impatient():
                error = (await self.classroom.baseline(example)).attempt.error
            too_late = error is not None and error.kind == BUDGET_EXHAUSTED and self._limit_reached(_LIMIT_FOR_SEARCH) is not None
            if error is not None and not too_late:
                mend = "raise the limit" if error.kind == BUDGET_EXHAUSTED else "try it with `gepa-atlas check` and correct agents.target"
                raise AgentUnusable(
                    f"the agent {self.experiment.name!r} gave no usable answer to example {example.id!r} ({error.kind}): "
                    f"{error.reason}; {mend}"
                )

    async def _fill(self) -> bool:
        """Keep the window full; False when the search is done and nothing is left to tell."""
        evolution = self.evolution
        while evolution.asked - evolution.told < self.experiment.plan.width:
            await self._stop_if_due()
            proposal = evolution.ask()
            if proposal is None:
                break
            if proposal.n == 0:
                await self._preflight(proposal)
            self.window.append((proposal, asyncio.create_task(self._play(proposal))))
            await asyncio.sleep(0)  # its first calls start before the next slot is planned
        return bool(self.window) and evolution.phase.value != "done"

    async def _stop_if_due(self) -> None:
        """Clock, tokens and dollars are not replayable, so the slot at which they ended the search is written down."""
        if self.evolution.race_over:
            return
        racing = self.evolution.stop_reason is not None
        number = _before(self.evolution.asked)
        planned_earlier = self.replayed > 0 and self.evolution.asked < self.replayed + self.experiment.plan.width
        reason = self.stops.get(number) or (self.refused if not racing else None)
        if reason is None and not planned_earlier:
            reason = self._limit_reached(_LIMIT_FOR_RACE if racing else _LIMIT_FOR_SEARCH)
        if reason is not None:
            self.stops[number] = reason
            await self.store.tell(number, "stop", {"reason": reason})
            self.evolution.stop(reason)

    def _limit_reached(self, share: float) -> str | None:
        """Whether so much of a limit is used; what is in flight counts at the average cost of a rollout so far."""
        limits, calls = self.experiment.limits, self.experiment.calls
        spent, elapsed = calls.spent.total, time.monotonic() - self.began
        ahead = 1 + sum(proposal.cost for proposal, _ in self.window) / max(1, calls.counts["student"])
        if limits.seconds is not None and elapsed >= share * limits.seconds:
            return f"deadline: {elapsed:.0f} of {limits.seconds:g} seconds are used; the rest is for the held-out test"
        if limits.tokens is not None and (spent.tokens or 0) * ahead >= share * limits.tokens:
            return f"tokens: {spent.tokens} of {limits.tokens} are used, more are in flight; the rest is for the held-out test"
        if limits.dollars is not None and (spent.dollars or 0.0) * ahead >= share * limits.dollars:
            return f"dollars: {spent.dollars:.4f} of {limits.dollars:g} are used, more are in flight; the rest is for the held-out test"
        return None

    # -- one slot -----------------------------------------------------------------------------------------------------

    async def _play(self, proposal: Proposal) -> Outcome:
        SLOT.set(_of(proposal.n))
        if proposal.kind is SlotKind.IDLE:
            return Outcome(None)
        if proposal.kind is SlotKind.CHILD:
            return await self._play_child(proposal)
        return Outcome(None, await self._teach(proposal.parents, proposal.gate))

    async def _play_child(self, proposal: Proposal) -> Outcome:
        read = await self._teach(proposal.parents[:1], tuple((e, 0) for e in proposal.read))
        draft = await self._draft(proposal, read)
        if draft.candidate is None:
            return Outcome(draft, read)
        return Outcome(draft, read + await self._teach((draft.candidate,), proposal.gate))

    async def _draft(self, proposal: Proposal, read: tuple[Lesson, ...]) -> Draft:
        e = self.experiment
        draft = Draft(proposal.child, "put together from items that paid") if proposal.child else await self._proposed(proposal, read)
        if draft.candidate is None:
            return draft
        refused = broken_contract(draft.candidate, e.components) or self.evolution.refuse(proposal, draft.candidate)
        return Draft(None, refused) if refused else draft

    async def _proposed(self, proposal: Proposal, read: tuple[Lesson, ...]) -> Draft:
        e = self.experiment
        random = rng(e.plan.seed, proposal.n, proposal.operator)
        brief = Brief(proposal.parents, read, e.components, self.pool, random, proposal.rejected, proposal.mates)
        return await e.proposers[proposal.operator].propose(brief)

    async def _teach(self, candidates: Sequence[Candidate], cells: Sequence[tuple[str, int]]) -> tuple[Lesson, ...]:
        return tuple(await gathered([self.classroom.teach(c, self.examples[e], sample) for c in candidates for e, sample in cells]))

    async def _outcome(self, task: asyncio.Task[Outcome]) -> Outcome:
        """What came of the oldest slot; meanwhile the world is told of earlier decisions, each as soon as it is safe."""
        while self.saving and not task.done():
            either: set[asyncio.Future[Any]] = {task, self.saving[0][0]}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            self._announce()
        return await task

    def _tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Decide. The search goes on at once: what it asks for next is written behind this decision."""
        self._check_errors(outcome)
        decision = self.evolution.tell(proposal, outcome)
        if proposal.operator == "seed":
            self.observer.seed_measured(outcome.lessons)
        self.lessons += outcome.lessons
        saved = self.store.record(_of(proposal.n), "slot", _event(proposal, outcome, decision))
        if saved is not None:
            self.saving.append((saved, (proposal, outcome, decision)))
        else:  # told by an earlier process
            self._say(proposal, outcome, decision)
        self._announce()

    def _announce(self) -> None:
        while self.saving and self.saving[0][0].done():
            saved, told = self.saving.popleft()
            saved.result()
            self._say(*told)

    def _say(self, proposal: Proposal, outcome: Outcome, decision: Decision) -> None:
        if proposal.kind is not SlotKind.IDLE:
            self.observer.taught(outcome, proposal)
            self.observer.decided(decision, self.evolution)

    async def _all_safe(self) -> None:
        while self.saving:
            await asyncio.wait([self.saving[-1][0]])
            self._announce()

    def _check_errors(self, outcome: Outcome) -> None:
        """Too many failures end the run before the slot is told, so that a resume tries these calls again."""
        reasons = [lesson.failure for lesson in outcome.lessons if lesson.failure is not None]
        failed = [reason for reason in reasons if reason.kind != BUDGET_EXHAUSTED]
        self.refused = next((reason.reason for reason in reasons if reason.kind == BUDGET_EXHAUSTED), self.refused)
        total = len(self.lessons) + len(outcome.lessons)
        if total >= _ENOUGH_LESSONS and failed and self.failed + len(failed) > self.experiment.error_share * total:
            raise Outage(
                f"{self.failed + len(failed)} of {total} lessons failed (limit {self.experiment.error_share:.0%}), "
                f"last: {failed[-1].reason}; the run is saved, mend the cause and start the same command again"
            )
        self.failed += len(failed)

    def _check_scored(self) -> None:
        """A run in which no lesson was scored has found nothing, whatever its verdict would say."""
        failures = [lesson.failure for lesson in self.lessons if lesson.failure is not None]
        if self.failed and len(failures) == len(self.lessons):
            raise Outage(
                f"none of {len(self.lessons)} lessons could be scored, last: {failures[-1].reason}; mend the cause and start the same "
                "command again, in a new run directory when agent or judges had to change"
            )

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _result(self) -> Result:
        evolution = self.evolution
        verdict = evolution.verdict
        assert verdict is not None and evolution.stop_reason is not None
        shipped = verdict.ruling.value == "ship"
        winner = evolution.winner().candidate if shipped else evolution.seed
        payload = {"stop_reason": evolution.stop_reason, "verdict": verdict.to_json(), "winner": winner.to_json()}
        number = _before(evolution.told)
        await self._all_safe()
        await self.store.tell(_of(evolution.told) if number in self.stops else number, "finish", payload)
        await self.store.finish()
        calls = self.experiment.calls
        return Result(
            self.experiment,
            self.store.directory,
            evolution,
            verdict,
            winner,
            evolution.stop_reason,
            tuple(self.lessons),
            dict(calls.spent.by_role),
            self.store.calls()["rollouts"],
            self.store.digest(),
            run_id=self.store.run_id,
            began=self.store.started,
            events=tuple(self.store.events()),
        )

    def interrupt(self) -> None:
        """First signal: no new call, what is in flight is awaited for a while and saved. Second: at once."""
        if self.interrupted:
            self._give_up()
            return
        self.interrupted = True
        self.experiment.calls.drain()
        asyncio.get_running_loop().call_later(_DRAIN_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.main is not None:
            self.main.cancel()

    async def _settle_in_flight(self) -> None:
        if self.window:
            await asyncio.wait([task for _, task in self.window])


def _of(slot: int) -> int:
    """The number of a slot's event; between two slots there is room for what happened before the later one was planned."""
    return 2 * slot + 1


def _before(slot: int) -> int:
    return 2 * slot


def _event(proposal: Proposal, outcome: Outcome, decision: Decision) -> dict[str, Any]:
    """What was decided in a slot, free of clock, tokens and path: the unit of the run's digest."""
    draft = outcome.draft
    return {
        "proposal": proposal.to_json(),
        "draft": None if draft is None else {"note": draft.note, "candidate": draft.candidate.to_json() if draft.candidate else None},
        "results": [
            [*lesson.cell, lesson.before.value, lesson.after.value, lesson.failure.kind if lesson.failure else None]
            for lesson in outcome.lessons
        ],
        "decision": decision.to_json(),
    }


class _signals:
    """SIGINT and SIGTERM drain the search while it runs (main thread only)."""

    def __init__(self, search: _Search) -> None:
        self._search = search

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._search.interrupt)
        except (ValueError, RuntimeError):  # not the main thread: a library caller keeps its own handling
            pass

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


__all__ = ["Experiment", "Interrupted", "Observer", "Result", "Silent", "run"]
