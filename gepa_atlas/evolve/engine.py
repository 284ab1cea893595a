"""The search as ask and tell. It says what it wants and is told what happened; it never awaits, prints, saves or reads a clock.

    evolution = Evolution(plan, seeds, train, val, test)
    while (proposal := evolution.ask()) is not None:       # at most plan.width proposals are out at a time
        ...                                                # make the child, teach the cells
        evolution.tell(proposal, outcome)                  # in ask order

Proposal n is planned from the archive as it stood when proposal n - width was told, so the run is a function of (plan, answers),
whatever finishes first. `IDLE` proposals keep that clock when there is nothing worth doing yet; they are told at once with no lessons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from gepa_atlas.budget import Budget
from gepa_atlas.errors import ContractError
from gepa_atlas.evolve.archive import Archive, Entry, chance_above_zero, non_dominated
from gepa_atlas.evolve.belief import Belief
from gepa_atlas.evolve.planner import Plan, Planner
from gepa_atlas.evolve.rng import rng
from gepa_atlas.evolve.verdict import rule
from gepa_atlas.texts import similarity
from gepa_atlas.types import Candidate, Decision, Lesson, Outcome, Proposal, SlotKind, Status, Verdict

_BARREN = 60  # slots in a row without a single new rollout after which the search has nothing left to try
_FINAL, _RETEST = -1, -2  # slot numbers under which the held-out test and the retest are reserved from the start
_CREDIT_SDS = 0.5  # a step earns its operator what it is above this many of its sd: harmless changes earn nothing
_ACTIVE = 48  # candidates that can be bred from and are kept up to date; the rest is history


class Phase(StrEnum):
    SEARCH = "search"
    RETEST = "retest"
    FINAL = "final"
    DONE = "done"


class Standing(NamedTuple):
    """Who was best after so many rollouts, by what was believed then: mean gain on the val split and its variance."""

    rollouts: int
    best_id: str
    mean: float
    var: float


class Evolution:
    """One search. `gain` values a lesson (None when unscored); `guard` refuses a candidate with a reason before it costs anything.

    `questions` (example id -> text) lets the search see which items of a prompt are about which examples; without it they are about none.
    Components named in `whole` (code, JSON) are never taken apart and put together again line by line.
    """

    def __init__(
        self,
        plan: Plan,
        seeds: Sequence[Candidate],
        train: Sequence[str],
        val: Sequence[str],
        test: Sequence[str],
        *,
        gain: Callable[[Lesson], float | None] = lambda lesson: lesson.delta,
        guard: Callable[[Candidate], str | None] = lambda candidate: None,
        questions: Mapping[str, str] | None = None,
        whole: Collection[str] = (),
    ) -> None:
        if not seeds or not val or not plan.operators:
            raise ContractError("a search needs at least one seed, one val example and one operator")
        self.plan = plan
        self.seed = seeds[0]
        self.val = tuple(_shuffled(val, plan.seed, "val"))
        self.archive = Archive(self.val, tuple(train))
        for candidate in dict.fromkeys(seeds):
            self.archive.add(candidate, 0)
        self.budget = Budget(plan.rollouts)
        belief = Belief(self.archive, questions or {}, frozenset(whole))
        self.planner = Planner(plan, self.archive, self.budget, train, self.val, belief, guard)
        self.belief, self.portfolio = self.planner.belief, self.planner.portfolio
        self.phase = Phase.SEARCH
        self.stop_reason: str | None = None
        self.race_over = False  # ended before it was decided
        self.verdict: Verdict | None = None
        self.decisions: list[Decision] = []
        self.course: list[Standing] = []  # best so far, after each measurement
        self.told = 0
        self._gain, self._guard = gain, guard
        self._paid: set[str] = set()
        self._best_since = 0
        self._barren = 0
        self._best_mean = -math.inf
        self._observed: dict[tuple[str, str], float] = {}
        self.test = self._reserve_final(tuple(_shuffled(test, plan.seed, "test")))
        if plan.retest and plan.rollouts is not None:
            self.budget.reserve(_RETEST, int(plan.retest_share * (self.budget.free or 0)))

    # -- ask ----------------------------------------------------------------------------------------------------------

    @property
    def asked(self) -> int:
        return self.planner.asked

    def ask(self) -> Proposal | None:
        """The next proposal, or None when the run is done. Call it until `asked - told == width`, and after each tell."""
        due = max(0, self.asked - self.plan.width + 1)
        if self.told != due and self.phase is not Phase.DONE:
            raise ContractError(f"ask {self.asked} needs exactly {due} told proposals, not {self.told}")
        self._advance()
        if self.phase is Phase.DONE:
            return None
        proposal = {Phase.SEARCH: self._search, Phase.RETEST: self._retest, Phase.FINAL: self._final}[self.phase]()
        if proposal.kind is not SlotKind.FINAL:
            self.budget.reserve(proposal.n, proposal.cost)
        self.planner.flying[proposal.n] = proposal
        self.planner.asked += 1
        return proposal

    def stop(self, reason: str) -> None:
        """End the search after what is in flight; said once more, the final race too. The held-out test still runs."""
        self.race_over = self.stop_reason is not None
        self.stop_reason = self.stop_reason or reason

    def known_at(self, proposal: Proposal, candidate_id: str) -> bool:
        """Whether the candidate was in the archive when the proposal was planned."""
        index = self.archive.by_id.get(candidate_id)
        return index is not None and self.archive.entries[index].born <= max(0, proposal.n - self.plan.width + 1)

    def refuse(self, proposal: Proposal, candidate: Candidate) -> str | None:
        """Why this draft is not worth a rollout: seen before, almost seen before, or against the guard. None when it is fine."""
        if self.known_at(proposal, candidate.id):
            return f"the same as candidate {candidate.id}, which is known"
        for other in proposal.rejected:
            if _near(candidate, other):
                return f"almost the same as candidate {other.id}, which was tried and not kept"
        return self._guard(candidate)

    def _advance(self) -> None:
        """Move on: to the final race as soon as the search wants nothing more, while its last slots are in flight; to the held-out test and
        to the end once nothing is."""
        if self.phase is Phase.SEARCH and self._search_over():
            self.phase = Phase.RETEST
            self._barren = 0
            if self.plan.retest and self.plan.rollouts is not None:
                self.budget.settle(_RETEST, 0)
        if any(p.kind is not SlotKind.IDLE for p in self.planner.flying.values()):
            return
        if self.phase is Phase.RETEST and self._next_race() is None:
            self.phase = Phase.FINAL
        if self.phase is Phase.FINAL and self.verdict is not None:
            self.phase = Phase.DONE

    def _search_over(self) -> bool:
        if self.stop_reason is None and self.plan.plateau is not None and self._best_since >= self.plan.plateau:
            self.stop_reason = f"plateau: {self._best_since} children in a row brought nothing better"
        if self.stop_reason is None and self._barren >= _BARREN:
            self.stop_reason = f"exhausted: {self._barren} proposals in a row were refused, repeated or could not be made"
        if self.stop_reason is None and self.plan.target is not None and self._reached(self.plan.target):
            self.stop_reason = f"target: the mean gain on val reached {self.plan.target}"
        if self.stop_reason is None and not self.planner.seeds_left and not self.budget.affords(self.planner.least_cost()):
            self.stop_reason = (
                f"budget: fewer than {self.planner.least_cost()} of {self.plan.rollouts} rollouts are left beside those kept for the test"
            )
        if self.stop_reason is None and self.planner.seeds_left and not self.budget.affords(2 * self.plan.student_calls):
            self.stop_reason = f"budget: {self.plan.rollouts} rollouts do not pay for one lesson"
        return self.stop_reason is not None

    def _reached(self, target: float) -> bool:
        best = self.best()
        return best.n >= min(len(self.val), 3 * self.plan.minibatch) and best.mean >= target

    def _search(self) -> Proposal:
        return self.planner.idle() if self._search_over() else self.planner.search()

    def _retest(self) -> Proposal:
        return self._next_race() or self.planner.idle()

    def _next_race(self) -> Proposal | None:
        """The final race goes on while it wants something and gets it."""
        return self.planner.race() if self._barren < _BARREN and not self.race_over else None

    def _final(self) -> Proposal:
        if any(p.kind is SlotKind.FINAL for p in self.planner.flying.values()):
            return self.planner.idle()
        if not self.test:
            self.verdict = rule(self.seed, self.winner().candidate, (), 0, self._why_no_test)
            return self.planner.idle()
        winner = self.winner().candidate
        pair = (self.seed,) if winner.id == self.seed.id else (self.seed, winner)
        return Proposal(self.asked, SlotKind.FINAL, "final", pair, (), tuple((e, 0) for e in self.test), self._final_cost)

    # -- tell ---------------------------------------------------------------------------------------------------------

    def tell(self, proposal: Proposal, outcome: Outcome) -> Decision:
        """Take an outcome in ask order; returns what was done about it and why."""
        if proposal.n != self.told:
            raise ContractError(f"proposal {proposal.n} was told when {self.told} was due")
        del self.planner.flying[proposal.n]
        self.told += 1
        requests = {r for lesson in outcome.lessons for r in lesson.requests} - self._paid
        self._paid |= requests
        if proposal.kind is SlotKind.FINAL:
            self.budget.settle(_FINAL, len(requests))
            decision = self._tell_final(proposal, outcome, len(requests))
        else:
            self.budget.settle(proposal.n, len(requests))
            decision = self._tell_search(proposal, outcome, len(requests))
            if proposal.kind is not SlotKind.IDLE:
                self._barren = 0 if requests else self._barren + 1
        self.decisions.append(decision)
        return decision

    def _tell_search(self, proposal: Proposal, outcome: Outcome, spent: int) -> Decision:
        for lesson in outcome.lessons:
            self.planner.baselines.add(lesson.example.id)
            if lesson.example.split == "train" and lesson.sample == 0:
                self.planner.reading[(lesson.candidate_id, lesson.example.id)] = lesson
        if proposal.kind is SlotKind.IDLE:
            return self._decide(proposal, None, Status.NOT_ADDED, "nothing to do until more is told", 0)
        if proposal.kind is SlotKind.MEASURE:
            entry = self.archive.get(proposal.parents[0].id)
            self._take(entry, outcome.lessons)
            self.belief.settle()
            status, reason = self._standing(entry)
            return self._decide(proposal, entry.id, status, reason, spent)
        return self._tell_child(proposal, outcome, spent)

    def _tell_child(self, proposal: Proposal, outcome: Outcome, spent: int) -> Decision:
        draft, parent = outcome.draft, proposal.parents[0]
        if outcome.lessons and outcome.lessons[0].candidate_id == parent.id:
            self._take_read(parent, outcome.lessons)
        if draft is None or draft.candidate is None:
            self.belief.settle()
            if proposal.child is None:
                self.portfolio.credit(proposal.operator, 0.0, spent)
            self._best_since += 1
            return self._decide(proposal, None, Status.NOT_ADDED, draft.note if draft else "no draft", spent)
        child = draft.candidate
        if child.id in self.archive.by_id:
            self._take(self.archive.get(child.id), outcome.lessons)
            self.belief.settle()
            return self._decide(proposal, child.id, Status.NOT_ADDED, "the same idea was told while this one was in flight", spent)
        entry = self._enter(child, None if proposal.child else proposal.read, draft.note)
        self._take(entry, outcome.lessons)
        self.belief.settle()
        if entry.n == 0:
            entry.active = False
            self._best_since += 1
            return self._decide(proposal, child.id, Status.NOT_ADDED, _why_unscored(outcome.lessons), spent)
        chance, improvement = self._step(entry)
        if proposal.child is None:
            self.portfolio.credit(proposal.operator, improvement, spent)
        if chance < 0.15:
            entry.active = False
            self.planner.rejected.setdefault(parent.id, []).append(child)
            self._best_since += 1
            return self._decide(proposal, child.id, Status.NOT_ADDED, f"better than its parent with probability {chance:.2f} only", spent)
        status, reason = self._standing(entry)
        return self._decide(
            proposal, child.id, Status.NEW if status is Status.NOT_ADDED else status, f"{reason}; {draft.note}".rstrip("; "), spent
        )

    def _take_read(self, parent: Candidate, lessons: Sequence[Lesson]) -> None:
        """What was read about the parent; one that was put together for it is entered now."""
        known = parent.id in self.archive.by_id
        entry = self.archive.get(parent.id) if known else self._enter(parent, None, "put together to be read about")
        for lesson in lessons:
            if lesson.candidate_id == parent.id and lesson.example.split == "train" and lesson.after.value is not None:
                self.belief.complaints.note(entry.index, lesson.example.id, 1.0 - lesson.after.value, lesson.after.rationale)
        self._take(entry, lessons)
        entry.active &= known or entry.n > 0

    def _enter(self, candidate: Candidate, read: Sequence[str] | None, note: str) -> Entry:
        """A new entry, written from what was read; None: put together."""
        entry = self.archive.add(candidate, self.told, note)
        self._retire()
        self.belief.enter(entry)
        self.planner.study(entry, read)
        return entry

    def _retire(self) -> None:
        """Keep the active set small, so that a tell costs the same however long the run: the least likely to be the best makes room."""
        measured = [e for e in self.archive.active()[1:] if e.n]
        if len(measured) > _ACTIVE:
            min(measured, key=lambda e: e.mean + 2 * math.sqrt(e.var)).active = False

    def _take(self, entry: Entry, lessons: Sequence[Lesson]) -> None:
        """The evidence on this entry into matrix and belief: val cells, and train lessons that nothing in it was written from.

        Where one set is both, its examples are val cells: what was not taken in would be asked for for ever.
        """
        columns = []
        for lesson in lessons:
            if lesson.candidate_id != entry.id or lesson.example.id not in self.archive.columns or lesson.cell in self.planner.taught:
                continue
            if lesson.example.id in entry.studied and self.archive.columns[lesson.example.id] >= self.archive.n_val:
                continue
            gain = self._gain(lesson)
            self.planner.taught[lesson.cell] = gain
            if gain is not None:
                first = self._observed.setdefault((entry.id, lesson.example.id), gain)
                if lesson.sample:
                    self.planner.repeats.append(gain != first)
                self.archive.record(entry, lesson.example.id, gain)
                self.belief.judged(lesson.after.uncertainty)
                entry.harmed += (lesson.delta or 0.0) < 0
                columns.append(self.archive.columns[lesson.example.id])
        if columns:
            self.belief.learn(entry, np.array(sorted(set(columns))))

    def _standing(self, entry: Entry) -> tuple[Status, str]:
        best = self.best()
        self.course.append(Standing(self.budget.spent, best.id, best.mean, best.var))
        figure = f"mean gain {entry.mean:+.3f} ± {1.96 * math.sqrt(entry.var):.3f} on {entry.n} val examples"
        if best is entry and entry.mean > self._best_mean + 1e-12:
            self._best_mean, self._best_since = entry.mean, 0
            return Status.IMPROVED, f"new best: {figure}"
        self._best_since += 1
        return Status.NOT_ADDED, figure

    def _step(self, entry: Entry) -> tuple[float, float]:
        """Of a child's step from its parent: the probability that it is positive, and how much of it is more than noise."""
        if entry.parent is None:
            return 1.0, 0.0
        parent = self.archive.entries[entry.parent]
        sd = math.sqrt(entry.var + 0.25 * parent.var)
        step = entry.mean - parent.mean
        return chance_above_zero(step, sd), max(0.0, step - _CREDIT_SDS * sd)

    def _decide(self, proposal: Proposal, candidate_id: str | None, status: Status, reason: str, spent: int) -> Decision:
        return Decision(proposal.n, proposal.kind, proposal.operator, candidate_id, status, reason, spent)

    def _tell_final(self, proposal: Proposal, outcome: Outcome, spent: int) -> Decision:
        winner = proposal.parents[-1]
        self.verdict = rule(self.seed, winner, outcome.lessons, len(self.test))
        return self._decide(proposal, winner.id, Status.NOT_ADDED, "; ".join(self.verdict.reasons), spent)

    # -- what is known ------------------------------------------------------------------------------------------------

    def best(self) -> Entry:
        """The entry with the highest posterior mean among those with evidence; ties go to the shorter, then the older."""
        pool = [e for e in self.archive.entries if e.n and e.active] or [self.archive.entries[0]]
        top = max(e.mean for e in pool)
        return min((e for e in pool if e.mean == top), key=lambda e: (e.candidate.size(), e.index))

    def frontier(self) -> list[Entry]:
        """The non-dominated set over mean gain, share of val examples not harmed, and brevity, of the well-measured candidates."""
        pool = self._well_measured()
        points = np.array([(e.mean, -e.harmed / max(1, e.n), -float(e.candidate.size())) for e in pool]).reshape(len(pool), 3)
        return [e for e, keep in zip(pool, non_dominated(points), strict=True) if keep]

    def _well_measured(self) -> list[Entry]:
        most = max(e.cells for e in self.archive.entries)
        enough = min(most, max(2 * self.plan.minibatch, len(self.val) // 3))
        return [e for e in self.archive.entries if e.n and e.cells >= enough] or [self.archive.entries[0]]

    def winner(self) -> Entry:
        """Who goes to the held-out test: the best of the well-measured, within a hair the shorter; the seed where that may be luck.

        What is believed is about the val examples, on which all candidates that share an item were measured alike; on others the
        difference may be another one by as much as a mean over so many examples varies.
        """
        seed, pool = self.archive.entries[0], self._well_measured()
        top = max(e.mean for e in pool)
        best = min((e for e in pool if e.mean >= top - 0.005), key=lambda e: (e.candidate.size(), e.index))
        return best if self.belief.chance(best, seed, self.belief.cell_var / len(self.val)) >= self.plan.sure else seed

    def _reserve_final(self, test: tuple[str, ...]) -> tuple[str, ...]:
        """Keep rollouts for the held-out test before anything is spent: baseline, seed and winner on each test example."""
        each = 1 + 2 * self.plan.student_calls
        self._why_no_test = "there is no test split" if not test else ""
        size = len(test)
        if self.plan.rollouts is not None:
            size = min(size, int(self.plan.rollouts * self.plan.final_share) // each)
        if test and size < 2:
            self._why_no_test = f"{self.plan.rollouts} rollouts leave no room for a held-out test: {each} are needed for each example"
            size = 0
        self._final_cost = size * each
        self.budget.reserve(_FINAL, self._final_cost)
        return test[:size]


def _shuffled(ids: Sequence[str], seed: int, purpose: str) -> list[str]:
    ordered = sorted(ids)
    return [ordered[i] for i in rng(seed, purpose).permutation(len(ordered))]


def _near(a: Candidate, b: Candidate) -> bool:
    """The same demonstrations and settings, and texts that differ in a word or two."""
    if a.demos != b.demos or a.settings != b.settings:
        return False
    left, right = dict(a.texts), dict(b.texts)
    return left.keys() == right.keys() and all(similarity(left[k], right[k]) > 0.95 for k in left)


def _why_unscored(lessons: Sequence[Lesson]) -> str:
    reasons = [lesson.failure.reason for lesson in lessons if lesson.failure is not None]
    return f"none of its lessons was scored: {reasons[0]}" if reasons else "it was taught nothing"


__all__ = ["Evolution", "Phase", "Plan", "Standing"]
