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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from gepa_atlas.budget import Budget
from gepa_atlas.errors import ContractError
from gepa_atlas.evolve.archive import Archive, Entry
from gepa_atlas.evolve.belief import Belief
from gepa_atlas.evolve.portfolio import Operator, Portfolio
from gepa_atlas.evolve.rng import rng
from gepa_atlas.evolve.verdict import rule
from gepa_atlas.texts import similarity
from gepa_atlas.types import Candidate, Decision, Lesson, Outcome, Proposal, SlotKind, Status, Verdict

_BARREN = 60  # slots in a row without a single new rollout after which the search has nothing left to try
_FINAL, _RETEST = -1, -2  # slot numbers under which the held-out test and the retest are reserved from the start
_ENOUGH = 24  # val observations with which a candidate is bred from in any case; the final race measures the best ones further
_PRECISION = 0.6  # a favourite is measured until its sd is this share of the sd of a step
_DUEL = 0.4  # share of the final race that goes to the seed while it is known less well than the favourite
_CREDIT_SDS = 0.5  # a step earns its operator what it is above this many of its sd: harmless changes earn nothing
_ACTIVE = 48  # candidates that can be bred from and are kept up to date; the rest is history


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a search. Two runs with the same plan, examples and answers are the same run."""

    seed: int = 0
    width: int = 4  # proposals in flight
    rollouts: int | None = 150  # hard limit; None is no limit
    operators: tuple[Operator, ...] = ()
    minibatch: int = 6  # val cells that a new child is tried on
    retest: int = 8  # candidates that race for the win when the search is over
    retest_share: float = 0.2  # share of the search's rollouts that is kept for this race
    sure: float = 0.97  # posterior probability of being better than the seed below which the seed itself is the winner
    final_share: float = 0.4  # at most this share of the rollouts is kept for the held-out test
    plateau: int | None = None  # children in a row without a new best before the search ends
    target: float | None = None  # mean gain at which the search ends
    student_calls: int = 1  # student runs of one second attempt


class Phase(StrEnum):
    SEARCH = "search"
    RETEST = "retest"
    FINAL = "final"
    DONE = "done"


class Evolution:
    """One search. `gain` values a lesson (None when unscored); `guard` refuses a candidate with a reason before it costs anything."""

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
    ) -> None:
        if not seeds or not val or not plan.operators:
            raise ContractError("a search needs at least one seed, one val example and one operator")
        self.plan = plan
        self.seed = seeds[0]
        self.train = tuple(train)
        self.val = tuple(_shuffled(val, plan.seed, "val"))
        self.archive = Archive(self.val)
        self.belief = Belief(self.archive)
        self.portfolio = Portfolio(plan.operators)
        self.budget = Budget(plan.rollouts)
        self.phase = Phase.SEARCH
        self.stop_reason: str | None = None
        self.verdict: Verdict | None = None
        self.decisions: list[Decision] = []
        self.asked = 0
        self.told = 0
        self._gain, self._guard = gain, guard
        self._flying: dict[int, Proposal] = {}
        self._paid: set[str] = set()
        self._taught: dict[tuple[str, str, int], float | None] = {}
        self._reading: dict[tuple[str, str], Lesson] = {}
        self._rejected: dict[str, list[Candidate]] = {}
        self._baselines: set[str] = set()
        self._best_since = 0
        self._barren = 0
        self._best_mean = -math.inf
        self._repeats: list[bool] = []  # whether each repeated cell said something else than the first time
        self._observed: dict[tuple[str, str], float] = {}
        for seed in seeds:
            if seed.id not in self.archive.by_id:
                self.archive.add(seed, 0)
        self._seeds_left = [e.id for e in self.archive.entries]
        self.test = self._reserve_final(tuple(_shuffled(test, plan.seed, "test")))
        if plan.retest and plan.rollouts is not None:
            self.budget.reserve(_RETEST, int(plan.retest_share * (self.budget.free or 0)))

    # -- ask ----------------------------------------------------------------------------------------------------------

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
        self._flying[proposal.n] = proposal
        self.asked += 1
        return proposal

    def stop(self, reason: str) -> None:
        """End the search after what is in flight; the retest and the held-out test still run."""
        if self.stop_reason is None:
            self.stop_reason = reason

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
        """Move to the next phase once the present one wants nothing and nothing of it is in flight."""
        busy = any(p.kind is not SlotKind.IDLE for p in self._flying.values())
        if busy:
            return
        if self.phase is Phase.SEARCH and self._search_over():
            self.phase = Phase.RETEST
            if self.plan.retest and self.plan.rollouts is not None:
                self.budget.settle(_RETEST, 0)
        if self.phase is Phase.RETEST and self._race() is None:
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
        if self.stop_reason is None and not self._seeds_left and not self.budget.affords(self._least_cost()):
            self.stop_reason = (
                f"budget: fewer than {self._least_cost()} of {self.plan.rollouts} rollouts are left beside those kept for the test"
            )
        if self.stop_reason is None and self._seeds_left and not self.budget.affords(2 * self.plan.student_calls):
            self.stop_reason = f"budget: {self.plan.rollouts} rollouts do not pay for one lesson"
        return self.stop_reason is not None

    def _reached(self, target: float) -> bool:
        best = self.best()
        return best.n >= min(len(self.val), 3 * self.plan.minibatch) and best.mean >= target

    def _search(self) -> Proposal:
        if self._search_over():
            return self._idle()
        if self._seeds_left:
            entry = self.archive.get(self._seeds_left.pop(0))
            return self._measure(entry, "seed", 2 * self.plan.minibatch)
        random = rng(self.plan.seed, self.asked, "plan")
        active = self.archive.active()
        sampled = [e.mean + math.sqrt(e.var) * random.standard_normal() for e in active]
        favourite = active[int(np.argmax(sampled))]
        if self._worth_measuring(favourite):
            proposal = self._measure(favourite, "race", max(self.plan.minibatch, self._n_with_pending(favourite)))
            if proposal.gate and self.budget.affords(proposal.cost):
                return proposal
        return self._child(favourite, active, random)

    def _worth_measuring(self, entry: Entry) -> bool:
        """A favourite is measured until its sd is well under the size of a step; then it is bred from."""
        if entry.cells + self._n_with_pending(entry) - entry.n >= len(self.val):
            return False
        n = max(1, self._n_with_pending(entry))
        if n >= _ENOUGH:
            return False
        return math.sqrt(self.belief.cell_var / n) > _PRECISION * math.sqrt(self.belief.step_var)

    def _child(self, favourite: Entry, active: Sequence[Entry], random: np.random.Generator) -> Proposal:
        parent = favourite if random.random() < 0.7 else self._lexicase(active, random)
        operator = self.portfolio.pick(random)
        gate = self._choose_gate(parent, random)
        read = self._choose_read(parent, operator, random)
        cost = self._cost(gate, read, parent)
        if not self.budget.affords(cost):
            read, cost = (), self._cost(gate, (), parent)
        if not self.budget.affords(cost):
            return self._idle()
        others = sorted((e for e in active if e is not parent and e.n), key=lambda e: -e.mean)[:6]
        return Proposal(
            self.asked,
            SlotKind.CHILD,
            operator.name,
            (parent.candidate,),
            read,
            gate,
            cost,
            tuple(self._rejected.get(parent.id, ())[-12:]),
            tuple(e.candidate for e in others),
        )

    def _lexicase(self, active: Sequence[Entry], random: np.random.Generator) -> Entry:
        """The survivor of val examples in random order: keeps specialists and generalists alike, needs no scalar score."""
        pool = [e for e in active if e.n] or list(active)
        for j in random.permutation(len(self.val)):
            column = np.array([j])
            scored = [(e, float(self.archive.values(e, column)[0])) for e in pool if self.archive.has(e, int(j))]
            if len(scored) < 2:
                continue
            top = max(value for _, value in scored)
            pool = [e for e, value in scored if value == top]
            if len(pool) == 1:
                break
        return pool[int(random.integers(len(pool)))]

    def _choose_gate(self, parent: Entry, random: np.random.Generator) -> tuple[tuple[str, int], ...]:
        """Cells for a new child: val examples the parent is known on, so that the comparison is paired at no extra cost."""
        known = [self.val[j] for j in self.archive.measured(parent)]
        fresh = [e for e in self.val if e not in set(known)]
        picked = [known[i] for i in random.permutation(len(known))][: self.plan.minibatch]
        picked += fresh[: self.plan.minibatch - len(picked)]
        return tuple((e, 0) for e in picked)

    def _choose_read(self, parent: Entry, operator: Operator, random: np.random.Generator) -> tuple[str, ...]:
        """Train examples whose lessons the proposer reads: known failures of the parent first, then unseen ones."""
        if not operator.reads or not self.train:
            return ()
        order = [self.train[i] for i in random.permutation(len(self.train))]
        known = {e: self._reading[(parent.id, e)] for e in order if (parent.id, e) in self._reading}
        failed = [e for e, lesson in known.items() if (lesson.after.value or 0.0) < 1.0]
        unseen = [e for e in order if e not in known]
        take = failed[: operator.reads // 2] if unseen else failed
        return tuple((take + unseen + failed[len(take) :])[: operator.reads])

    def _retest(self) -> Proposal:
        return self._race() or self._idle()

    def _race(self) -> Proposal | None:
        """The next cells of the final race: top-two Thompson sampling among the best few and the seed; None when it is decided."""
        if self.plan.retest == 0:
            return None
        best = sorted((e for e in self.archive.entries if e.n), key=lambda e: -e.mean)[: self.plan.retest]
        if not best:
            return None
        seed = self.archive.entries[0]
        field = best if seed in best or not seed.n else [*best, seed]
        random = rng(self.plan.seed, self.asked, "race")
        order = sorted(field, key=lambda e: -(e.mean + math.sqrt(e.var) * random.standard_normal()))
        if seed.n < best[0].n and random.random() < _DUEL:  # what the winner is worth is known no better than the seed is
            order = [seed, *(e for e in order if e is not seed)]
        for entry in order:
            proposal = self._measure(entry, "retest", self.plan.minibatch)
            if proposal.gate:
                return proposal
        for entry in order[:2]:
            proposal = self._repeat(entry)
            if proposal.gate:
                return proposal
        return None

    def _repeat(self, entry: Entry) -> Proposal:
        """The same cells once more, where the student is known or not yet known to be random; nothing for a deterministic one."""
        cells: list[tuple[str, int]] = []
        noisy = any(self._repeats) or len(self._repeats) < 2 * self.plan.minibatch
        pending = {c for p in self._flying.values() if entry.candidate in p.parents for c in p.gate}
        for sample in range(1, 4):
            cells += [(e, sample) for e in self.val if (entry.id, e, sample) not in self._taught and (e, sample) not in pending]
        cells = cells[: self.plan.minibatch] if noisy else []
        cost = len(cells) * self.plan.student_calls
        if not self.budget.affords(cost):
            cells = []
        return Proposal(self.asked, SlotKind.MEASURE, "repeat", (entry.candidate,), (), tuple(cells), len(cells) * self.plan.student_calls)

    def _final(self) -> Proposal:
        if any(p.kind is SlotKind.FINAL for p in self._flying.values()):
            return self._idle()
        if not self.test:
            self.verdict = rule(self.seed, self.winner().candidate, (), 0, self._why_no_test)
            return self._idle()
        winner = self.winner().candidate
        pair = (self.seed,) if winner.id == self.seed.id else (self.seed, winner)
        return Proposal(self.asked, SlotKind.FINAL, "final", pair, (), tuple((e, 0) for e in self.test), self._final_cost)

    def _measure(self, entry: Entry, why: str, wanted: int) -> Proposal:
        """Teach a known candidate on the next val cells in the common order, as many as wanted and affordable."""
        pending = {e for p in self._flying.values() if entry.candidate in p.parents and p.kind is SlotKind.MEASURE for e, _ in p.gate}
        left = [e for e in self.val if (entry.id, e, 0) not in self._taught and e not in pending]
        cells: list[tuple[str, int]] = []
        cost = 0
        for example in left[:wanted]:
            more = self.plan.student_calls + (example not in self._baselines)
            if not self.budget.affords(cost + more):
                break
            cells.append((example, 0))
            cost += more
        return Proposal(self.asked, SlotKind.MEASURE, why, (entry.candidate,), (), tuple(cells), cost)

    def _idle(self) -> Proposal:
        return Proposal(self.asked, SlotKind.IDLE, "idle", ())

    def _n_with_pending(self, entry: Entry) -> int:
        return entry.n + sum(len(p.gate) for p in self._flying.values() if p.kind is SlotKind.MEASURE and entry.candidate in p.parents)

    def _cost(self, gate: Sequence[tuple[str, int]], read: Sequence[str], parent: Entry) -> int:
        """Upper bound of what a child slot takes: its gate cells, the lessons still to be read, and baselines nobody has paid yet."""
        unread = [e for e in read if (parent.id, e) not in self._reading]
        baselines = {e for e, _ in gate} | set(unread)
        return (len(gate) + len(unread)) * self.plan.student_calls + len(baselines - self._baselines)

    def _least_cost(self) -> int:
        """What the cheapest child can cost at most: below it the search ends."""
        return min(self.plan.minibatch, len(self.val)) * (self.plan.student_calls + (len(self._baselines & set(self.val)) < len(self.val)))

    # -- tell ---------------------------------------------------------------------------------------------------------

    def tell(self, proposal: Proposal, outcome: Outcome) -> Decision:
        """Take an outcome in ask order; returns what was done about it and why."""
        if proposal.n != self.told:
            raise ContractError(f"proposal {proposal.n} was told when {self.told} was due")
        del self._flying[proposal.n]
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
            self._baselines.add(lesson.example.id)
            if lesson.example.split == "train" and lesson.sample == 0:
                self._reading[(lesson.candidate_id, lesson.example.id)] = lesson
        if proposal.kind is SlotKind.IDLE:
            return self._decide(proposal, None, Status.NOT_ADDED, "nothing to do until more is told", 0)
        if proposal.kind is SlotKind.MEASURE:
            entry = self.archive.get(proposal.parents[0].id)
            self._take(entry, outcome.lessons)
            status, reason = self._standing(entry)
            return self._decide(proposal, entry.id, status, reason, spent)
        return self._tell_child(proposal, outcome, spent)

    def _tell_child(self, proposal: Proposal, outcome: Outcome, spent: int) -> Decision:
        draft, parent = outcome.draft, proposal.parents[0]
        if draft is None or draft.candidate is None:
            self.portfolio.credit(proposal.operator, 0.0, spent)
            self._best_since += 1
            return self._decide(proposal, None, Status.NOT_ADDED, draft.note if draft else "no draft", spent)
        child = draft.candidate
        if child.id in self.archive.by_id:
            self._take(self.archive.get(child.id), outcome.lessons)
            return self._decide(proposal, child.id, Status.NOT_ADDED, "the same idea was told while this one was in flight", spent)
        entry = self.archive.add(child, self.told, draft.note)
        self.belief.update(entry)
        self._take(entry, outcome.lessons)
        if entry.n == 0:
            entry.active = False
            self._best_since += 1
            return self._decide(proposal, child.id, Status.NOT_ADDED, _why_unscored(outcome.lessons), spent)
        chance, improvement = self._step(entry)
        self.portfolio.credit(proposal.operator, improvement, spent)
        if chance < 0.15:
            entry.active = False
            self._rejected.setdefault(parent.id, []).append(child)
            self._best_since += 1
            return self._decide(proposal, child.id, Status.NOT_ADDED, f"better than its parent with probability {chance:.2f} only", spent)
        status, reason = self._standing(entry)
        return self._decide(
            proposal, child.id, Status.NEW if status is Status.NOT_ADDED else status, f"{reason}; {draft.note}".rstrip("; "), spent
        )

    def _retire(self) -> None:
        """Keep the active set small: whoever has the least chance to be the best makes room."""
        active = self.archive.active()
        if len(active) > _ACTIVE:
            min(active[1:], key=lambda e: e.mean + 2 * math.sqrt(e.var)).active = False

    def _take(self, entry: Entry, lessons: Sequence[Lesson]) -> None:
        """Val lessons of this entry into the matrix and the belief."""
        columns = []
        for lesson in lessons:
            if lesson.candidate_id != entry.id or lesson.example.id not in self.archive.columns or lesson.cell in self._taught:
                continue
            gain = self._gain(lesson)
            self._taught[lesson.cell] = gain
            if gain is not None:
                first = self._observed.setdefault((entry.id, lesson.example.id), gain)
                if lesson.sample:
                    self._repeats.append(gain != first)
                self.archive.record(entry, lesson.example.id, gain)
                entry.harmed += (lesson.delta or 0.0) < 0
                columns.append(self.archive.columns[lesson.example.id])
        if columns:
            self.belief.learn(entry, np.unique(columns))

    def _standing(self, entry: Entry) -> tuple[Status, str]:
        best = self.best()
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
        return 0.5 * (1 + math.erf(step / (sd * math.sqrt(2)))), max(0.0, step - _CREDIT_SDS * sd)

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
        return min(pool, key=lambda e: (-e.mean, e.candidate.size(), e.index))

    def winner(self) -> Entry:
        """Who goes to the held-out test: the best of the well-measured, within a hair the shorter; the seed where that may be luck."""
        seed = self.archive.entries[0]
        most = max(e.cells for e in self.archive.entries)
        enough = min(most, max(2 * self.plan.minibatch, len(self.val) // 3))
        pool = [e for e in self.archive.entries if e.cells >= enough and e.n]
        if not pool:
            return seed
        top = max(e.mean for e in pool)
        best = min((e for e in pool if e.mean >= top - 0.005), key=lambda e: (e.candidate.size(), e.index))
        return best if self._surely_better(best, seed) else seed

    def _surely_better(self, entry: Entry, seed: Entry) -> bool:
        sd = math.sqrt(entry.var + (seed.var if seed.n else 0.0))
        return 0.5 * (1 + math.erf((entry.mean - seed.mean) / (sd * math.sqrt(2)))) >= self.plan.sure

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
