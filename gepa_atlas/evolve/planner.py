"""What to do next: pure reads of what is known. The search measures, breeds, and at the end races the best few against the seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from gepa_atlas.budget import Budget
from gepa_atlas.evolve.archive import Archive, Entry
from gepa_atlas.evolve.belief import Belief, Draw
from gepa_atlas.evolve.compose import compose
from gepa_atlas.evolve.portfolio import Operator, Portfolio
from gepa_atlas.evolve.rng import rng
from gepa_atlas.types import Candidate, Lesson, Proposal, SlotKind

_SMALL = 200  # below this many rollouts the seed gets half of its first look, so that something is left to try
_ENOUGH = 24  # val observations with which a candidate is bred from in any case; the final race measures the best ones further
_PRECISION = 0.6  # a favourite is measured until its sd is this share of the sd of a step
_SPECIALISTS = 0.3  # share of children whose parent is drawn by lexicase rather than by mean
_CHANGES = 8  # items that a composed child has changed of its base, at most
_FINALS = 2  # candidates that are put together from all that is known, for the final race
_DUEL = 0.4  # share of the final race that goes to the seed while it is known less well than the favourite


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
    sure: float = 0.97  # probability of being better than the seed on new examples below which the seed itself is the winner
    final_share: float = 0.4  # at most this share of the rollouts is kept for the held-out test
    plateau: int | None = None  # children in a row without a new best before the search ends
    target: float | None = None  # mean gain at which the search ends
    student_calls: int = 1  # student runs of one second attempt
    repeats: bool = True  # whether the final race may ask for a known cell again, in case the student is random
    ideas: float = 0.75  # share of slots that ask an operator for something new; the others compose and measure what there is


class Planner:
    """Makes proposals. Holds, beside the archive, what has been taught, read, refused and asked for."""

    def __init__(
        self,
        plan: Plan,
        archive: Archive,
        budget: Budget,
        train: Sequence[str],
        val: Sequence[str],
        belief: Belief,
        guard: Callable[[Candidate], str | None],
    ) -> None:
        self.plan, self.archive, self.budget, self.guard = plan, archive, budget, guard
        self.train, self.val = tuple(train), tuple(val)
        self.belief = belief
        for entry in archive.entries:
            self.belief.enter(entry)
        self.portfolio = Portfolio(plan.operators)
        self.asked = 0
        self.finals = 0
        self.flying: dict[int, Proposal] = {}
        self.taught: dict[tuple[str, str, int], float | None] = {}  # gain of each val cell, None where it was not scored
        self.reading: dict[tuple[str, str], Lesson] = {}  # train lessons by candidate and example
        self.rejected: dict[str, list[Candidate]] = {}  # by parent
        self.baselines: set[str] = set()  # examples whose baseline is paid
        self._coming_of = (-1, 0)  # the moment (proposals asked, in flight) that the next two were taken at
        self._baselines_coming: set[str] = set()
        self._lessons_coming: set[tuple[str, str]] = set()
        self.studied: dict[int, frozenset[str]] = {}  # train examples that an item was written from
        self.repeats: list[bool] = []  # whether each repeated cell said something else than the first time
        self.seeds_left = [e.id for e in archive.entries]

    def search(self) -> Proposal:
        """Ask an operator for a child of the favourite of a Thompson draw or of a specialist; or try what the draw would ship."""
        if self.seeds_left:
            entry = self.archive.get(self.seeds_left.pop(0))
            small = self.plan.rollouts is not None and self.plan.rollouts < _SMALL
            return self.measure(entry, "seed", self.plan.minibatch * (1 if small else 2))
        random = rng(self.plan.seed, self.asked, "plan")
        draw = self.belief.draw(random)
        active = self.archive.active()
        favourite = max(active, key=lambda e: (draw.level[e.index], -e.index))
        if random.random() >= self.plan.ideas:
            proposal = self._exploit(favourite, draw, random)
            if proposal is not None:
                return proposal
        return self._child(favourite, active, draw, random)

    def _exploit(self, favourite: Entry, draw: Draw, random: np.random.Generator) -> Proposal | None:
        """What this draw would ship: put together from known items, or somebody known; measured either way."""
        child = self._composite(favourite, draw)
        if child is not None and child.id not in self.archive.by_id:
            proposal = self._try(child, favourite, random)
            if proposal is not None:
                return proposal
        elif child is not None:
            favourite = self.archive.get(child.id)
        if self._worth_measuring(favourite):
            proposal = self.measure(favourite, "race", max(self.plan.minibatch, self._n_with_pending(favourite)))
            if proposal.gate and self.budget.affords(proposal.cost):
                return proposal
        return None

    def _composite(self, base: Entry, draw: Draw) -> Candidate | None:
        return compose(base.candidate, draw, self.belief.catalogue, _CHANGES)

    def _try(self, child: Candidate, base: Entry, random: np.random.Generator) -> Proposal | None:
        """A slot for a composed child; None when another one has it under way, or it cannot be paid."""
        gate = self._choose_gate(base, random)
        cost = self.cost(gate, (), base.candidate)
        if child.id in self._under_way() or not self.budget.affords(cost):
            return None
        return Proposal(self.asked, SlotKind.CHILD, "compose", (base.candidate,), (), gate, cost, child=child)

    def _under_way(self) -> set[str]:
        """Put together by a slot in flight, and not yet known."""
        made = {c.id for p in self.flying.values() for c in (*p.parents, *((p.child,) if p.child else ()))}
        return made - self.archive.by_id.keys()

    def _worth_measuring(self, entry: Entry) -> bool:
        """A favourite is measured until its sd is well under the size of a step; then it is bred from."""
        pending = self._n_with_pending(entry) - entry.n
        if entry.cells + pending >= len(self.val):
            return False
        n = max(1, entry.n + pending)
        if n >= _ENOUGH:
            return False
        return math.sqrt(self.belief.cell_var / n) > _PRECISION * math.sqrt(self.belief.step_var)

    def _child(self, favourite: Entry, active: Sequence[Entry], draw: Draw, random: np.random.Generator) -> Proposal:
        entry = favourite if random.random() >= _SPECIALISTS else self._lexicase(active, random)
        operator = self.portfolio.pick(random)
        gate = self._choose_gate(entry, random)
        parent = self._shown(entry, draw) if operator.reads else entry.candidate
        read = self._choose_read(parent, operator, random)
        cost = self.cost(gate, read, parent)
        if not self.budget.affords(cost):
            parent, read = entry.candidate, ()
            cost = self.cost(gate, read, parent)
        if not self.budget.affords(cost):
            return self.idle()
        others = sorted((e for e in active if e is not entry and e.n), key=lambda e: -e.mean)[:6]
        return Proposal(
            self.asked,
            SlotKind.CHILD,
            operator.name,
            (parent,),
            read,
            gate,
            cost,
            tuple(self.rejected.get(entry.id, ())[-12:]),
            tuple(e.candidate for e in others),
        )

    def _shown(self, entry: Entry, draw: Draw) -> Candidate:
        """Who is read about: what the draw would ship in place of the entry. So what is read is evidence on many items at once."""
        child = self._composite(entry, draw)
        if child is None or child.id in self._under_way() or self.guard(child) is not None:
            return entry.candidate
        return child

    def _lexicase(self, active: Sequence[Entry], random: np.random.Generator) -> Entry:
        """The survivor of val examples in random order: keeps specialists and generalists alike, needs no scalar score."""
        pool = [e for e in active if e.n] or list(active)
        table = self.archive.table(pool)
        alive = np.ones(len(pool), dtype=bool)
        for j in random.permutation(len(self.val)):
            column = np.where(alive, table[:, j], np.nan)
            if np.count_nonzero(column == column) < 2:
                continue
            alive = column == np.nanmax(column)
            if np.count_nonzero(alive) == 1:
                break
        left = np.flatnonzero(alive)
        return pool[int(left[random.integers(len(left))])]

    def _choose_gate(self, parent: Entry, random: np.random.Generator) -> tuple[tuple[str, int], ...]:
        """Cells for a new child: val examples the parent is known on, so that the comparison is paired at no extra cost."""
        known = [self.val[j] for j in self.archive.measured(parent) if j < len(self.val)]
        picked = [known[i] for i in random.permutation(len(known))[: self.plan.minibatch]]
        fresh = (e for e in self.val if e not in picked)
        picked += islice(fresh, self.plan.minibatch - len(picked))
        return tuple((e, 0) for e in picked)

    def _choose_read(self, parent: Candidate, operator: Operator, random: np.random.Generator) -> tuple[str, ...]:
        """Train examples whose lessons the proposer reads: known failures of the parent first, then unseen ones, evidence before others."""
        if not operator.reads or not self.train:
            return ()
        order = [self.train[i] for i in random.permutation(len(self.train))]
        known = {e: self.reading[(parent.id, e)] for e in order if (parent.id, e) in self.reading}
        failed = [e for e, lesson in known.items() if (lesson.after.value or 0.0) < 1.0]
        studied = self._studied(self.belief.catalogue.row(parent))
        unseen = sorted((e for e in order if e not in known), key=studied.__contains__)
        take = failed[: operator.reads // 2] if unseen else failed
        return tuple((take + unseen + failed[len(take) :])[: operator.reads])

    def race(self) -> Proposal | None:
        """The next cells of the final race: top-two Thompson sampling among the best few and the seed; None when it is decided."""
        if self.plan.retest == 0:
            return None
        best = sorted((e for e in self.archive.entries if e.n), key=lambda e: -e.mean)[: self.plan.retest]
        if not best:
            return None
        seed = self.archive.entries[0]
        field = best if seed in best or not seed.n else [*best, seed]
        random = rng(self.plan.seed, self.asked, "race")
        child = self._composite(best[0], self.belief.expected()) if self.finals < _FINALS else None
        if child is not None and child.id not in self.archive.by_id:
            proposal = self._try(child, best[0], random)
            if proposal is not None:
                self.finals += 1
                return proposal
        level = self.belief.draw(random).level
        order = sorted(field, key=lambda e: -level[e.index])
        if seed.n < best[0].n and random.random() < _DUEL:  # what the winner is worth is known no better than the seed is
            order = [seed, *(e for e in order if e is not seed)]
        for entry in order:
            proposal = self.measure(entry, "retest", self.plan.minibatch)
            if proposal.gate:
                return proposal
        for entry in order[:2] if self.plan.repeats and self._open(field) else ():
            proposal = self._repeat(entry)
            if proposal.gate:
                return proposal
        return None

    def _open(self, field: Sequence[Entry]) -> bool:
        """Whether a second look at known cells may still change who wins. Not where everybody else is surely worse, by what is believed or
        by a sign test over the val examples, or answered the same on all of them."""
        favourite = max(field, key=lambda e: (e.mean, -e.index))
        (mine,) = self.archive.table([favourite])
        rivals = [e for e in field if self.belief.chance(favourite, e) < self.plan.sure]
        return any(_doubtful(int((mine > row).sum()), int((row > mine).sum()), self.plan.sure) for row in self.archive.table(rivals))

    def _repeat(self, entry: Entry) -> Proposal:
        """The same cells once more, where the student is known or not yet known to be random; nothing for a deterministic one."""
        cells: list[tuple[str, int]] = []
        noisy = any(self.repeats) or len(self.repeats) < 2 * self.plan.minibatch
        pending = {c for p in self.flying.values() if entry.candidate in p.parents for c in p.gate}
        for sample in range(1, 4):
            cells += [(e, sample) for e in self.val if (entry.id, e, sample) not in self.taught and (e, sample) not in pending]
        cells = cells[: self.plan.minibatch] if noisy else []
        cost = len(cells) * self.plan.student_calls
        if not self.budget.affords(cost):
            cells = []
        return Proposal(self.asked, SlotKind.MEASURE, "repeat", (entry.candidate,), (), tuple(cells), len(cells) * self.plan.student_calls)

    def measure(self, entry: Entry, why: str, wanted: int) -> Proposal:
        """Teach a known candidate on the next val cells in the common order, as many as wanted and affordable."""
        pending = {e for p in self.flying.values() if entry.candidate in p.parents and p.kind is SlotKind.MEASURE for e, _ in p.gate}
        left = [e for e in self.val if (entry.id, e, 0) not in self.taught and e not in pending]
        coming, _ = self._coming()
        cells: list[tuple[str, int]] = []
        cost = 0
        for example in left[:wanted]:
            more = self.plan.student_calls + (example not in self.baselines and example not in coming)
            if not self.budget.affords(cost + more):
                break
            cells.append((example, 0))
            cost += more
        return Proposal(self.asked, SlotKind.MEASURE, why, (entry.candidate,), (), tuple(cells), cost)

    def study(self, entry: Entry, read: Sequence[str] | None) -> None:
        """Note which train examples a new entry was written from: what it does on those is no evidence of its worth. None: put together."""
        row = self.belief.catalogue.rows[entry.index]
        if read is None:
            entry.studied = self._studied(row)
            return
        parent = self.archive.entries[entry.parent or 0]
        for item in set(row) - set(self.belief.catalogue.rows[parent.index]):
            self.studied.setdefault(item, frozenset(read))
        entry.studied = self._studied(row).union(parent.studied, read)

    def _studied(self, row: Sequence[int]) -> frozenset[str]:
        return frozenset().union(*(self.studied.get(item, frozenset()) for item in row))

    def idle(self) -> Proposal:
        return Proposal(self.asked, SlotKind.IDLE, "idle", ())

    def _n_with_pending(self, entry: Entry) -> int:
        return entry.n + sum(len(p.gate) for p in self.flying.values() if p.kind is SlotKind.MEASURE and entry.candidate in p.parents)

    def cost(self, gate: Sequence[tuple[str, int]], read: Sequence[str], parent: Candidate) -> int:
        """Upper bound of what a child slot takes: its gate cells, the lessons still to be read, and baselines nobody has paid yet."""
        baselines, lessons = self._coming()
        unread = [e for e in read if (parent.id, e) not in self.reading and (parent.id, e) not in lessons]
        needed = {e for e, _ in gate} | set(unread)
        return (len(gate) + len(unread)) * self.plan.student_calls + len(needed - self.baselines - baselines)

    def _coming(self) -> tuple[set[str], set[tuple[str, str]]]:
        """What slots in flight teach whatever comes of them, so that no later slot reserves it again: baselines, and train lessons."""
        if self._coming_of != (self.asked, len(self.flying)):
            self._coming_of = (self.asked, len(self.flying))
            children = [p for p in self.flying.values() if p.kind is SlotKind.CHILD]
            measured = {e for p in self.flying.values() if p.kind is SlotKind.MEASURE for e, _ in p.gate}
            self._baselines_coming = measured.union(*(p.read for p in children)) - self.baselines
            self._lessons_coming = {(p.parents[0].id, e) for p in children for e in p.read}
        return self._baselines_coming, self._lessons_coming

    def least_cost(self) -> int:
        """What the cheapest child can cost at most: below it the search ends."""
        return min(self.plan.minibatch, len(self.val)) * (self.plan.student_calls + any(e not in self.baselines for e in self.val))


def _doubtful(won: int, lost: int, sure: float) -> bool:
    """Whether so many pairs won, and lost, may be luck: the one-sided sign test. Pairs that are all even leave nothing to find out."""
    pairs = won + lost
    return pairs > 0 and sum(math.comb(pairs, k) for k in range(lost + 1)) / 2**pairs > 1 - sure
