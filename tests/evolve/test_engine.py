"""The search as a whole: never over budget, a function of its plan, and it finds what is there to find."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.errors import ContractError
from gepa_atlas.evolve.engine import Evolution, Plan
from gepa_atlas.evolve.portfolio import Operator
from gepa_atlas.evolve.rng import rng
from gepa_atlas.types import Attempt, Candidate, Draft, Example, Guidance, Lesson, Outcome, Proposal, Reward, Ruling, SlotKind
from tests.evolve.sim import OPERATORS, Letters, drive

plans = st.builds(
    Plan,
    seed=st.integers(0, 999),
    width=st.integers(1, 9),
    rollouts=st.integers(1, 260),
    operators=st.just(OPERATORS),
    minibatch=st.integers(1, 9),
    retest=st.integers(0, 4),
    plateau=st.one_of(st.none(), st.integers(1, 20)),
)
worlds = st.builds(Letters, seed=st.integers(0, 99), noise=st.sampled_from([0.0, 0.3, 1.0]), fail=st.sampled_from([0.0, 0.2, 1.0]))


@given(plans, worlds, st.tuples(st.integers(0, 12), st.integers(1, 20), st.integers(0, 20)))
@settings(max_examples=60, deadline=None)
def test_the_rollout_limit_is_never_passed_and_every_run_ends_with_a_verdict(
    plan: Plan, world: Letters, sizes: tuple[int, int, int]
) -> None:
    evolution, _, spent = drive(plan, world, sizes)
    assert plan.rollouts is not None
    assert len(world.calls) == evolution.budget.spent <= plan.rollouts
    assert all(s <= plan.rollouts for s in spent)
    assert evolution.verdict is not None and evolution.stop_reason


@given(plans, worlds)
@settings(max_examples=15, deadline=None)
def test_equal_plans_and_answers_are_equal_runs(plan: Plan, world: Letters) -> None:
    first = [d.to_json() for d in drive(plan, world)[1]]
    assert first == [d.to_json() for d in drive(plan, world)[1]]


@given(plans, worlds, st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_where_one_set_serves_both_sides_no_known_cell_is_measured(plan: Plan, world: Letters, size: int) -> None:
    """A repeat has a number of its own, so it is a cell of its own; and a cell that was read is known."""
    drive(plan, world, (size, size, 6), shared=True)
    assert world.again == []


def test_where_one_set_serves_both_sides_everything_read_counts() -> None:
    evolution, decisions, _ = drive(Plan(rollouts=200, operators=OPERATORS), Letters(), (12, 12, 0), shared=True)
    assert {lesson.cell for lesson in evolution.planner.reading.values()} <= set(evolution.planner.taught)
    assert any(d.operator == "reflect" for d in decisions)


def test_a_proposal_is_planned_from_the_archive_width_slots_ago() -> None:
    evolution = Evolution(Plan(width=3, operators=OPERATORS), [Candidate.of({"guidance": ""})], [], ["v1", "v2"], [])
    for _ in range(3):
        evolution.ask()
    with pytest.raises(ContractError, match="needs exactly 1 told"):
        evolution.ask()


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_clear_gain_is_found_and_ships(noise: float) -> None:
    shipped = 0
    for seed in range(5):
        evolution, _, _ = drive(Plan(seed=seed, rollouts=600, operators=OPERATORS), Letters(seed, noise), (10, 40, 40))
        assert evolution.verdict is not None
        shipped += evolution.verdict.ruling is Ruling.SHIP
    assert shipped >= 4


class Flat(Letters):
    """Every prompt is right half of the time: whatever looks better is luck."""

    def right(self, prompt: str, example: Example, sample: int) -> float | None:
        self.calls.add(f"{prompt}|{example.id}|{sample}")
        return float(rng(self.seed, prompt, example.id, sample).random() < 0.5)


def test_where_nothing_helps_luck_does_not_ship() -> None:
    """At a one-sided 2.5 % a lucky winner passes now and then; 3 of 12 would be a broken gate (p < 0.003)."""
    rulings = [drive(Plan(seed=seed, rollouts=300, operators=OPERATORS), Flat(seed))[0].verdict for seed in range(12)]
    assert sum(v is not None and v.ruling is Ruling.SHIP for v in rulings) <= 2


def test_a_budget_too_small_for_anything_says_so() -> None:
    evolution, decisions, _ = drive(Plan(rollouts=1, operators=OPERATORS), Letters())
    assert evolution.verdict is not None and evolution.verdict.ruling is Ruling.INCONCLUSIVE
    assert "1 rollouts" in (evolution.stop_reason or "")
    assert all(d.kind is SlotKind.IDLE for d in decisions)


def test_who_is_put_together_to_be_read_about_is_entered_with_what_was_read() -> None:
    """Its lessons are evidence on it, not on the child that was written from them, and lineage goes through it."""
    train, val = [f"t{i}" for i in range(40)], [f"v{i}" for i in range(20)]
    examples = {e: Example(e, e, split="train" if e in train else "val") for e in train + val}
    seed = Candidate.of({"guidance": "Be brief."})
    plan = Plan(seed=3, width=2, rollouts=400, operators=(Operator("reflect", 4),), retest=0)
    evolution = Evolution(plan, [seed], train, val, [])
    window: deque[Proposal] = deque()
    composed = []
    while evolution.phase.value != "done":
        while evolution.asked - evolution.told < plan.width and (proposal := evolution.ask()) is not None:
            window.append(proposal)
        if not window:
            break
        proposal = window.popleft()
        base = proposal.parents[0] if proposal.parents else seed
        child = proposal.child or base.child("reflect", texts={"guidance": f"{base.text('guidance')}\nRule {proposal.n} of many."})
        new = proposal.kind is SlotKind.CHILD and proposal.child is None and base.id not in evolution.archive.by_id
        who = child if proposal.kind is SlotKind.CHILD else base
        lessons = [_lesson(base, examples[e]) for e in proposal.read] + [_lesson(who, examples[e]) for e, _ in proposal.gate]
        evolution.tell(proposal, Outcome(Draft(child) if proposal.kind is SlotKind.CHILD else None, tuple(lessons)))
        if new:
            shown, entry = evolution.archive.get(base.id), evolution.archive.get(child.id)
            composed.append(shown)
            fresh = set(proposal.read) - shown.studied
            assert shown.n >= len(fresh) and (fresh == set(proposal.read) or len(shown.studied) > len(train) - plan.operators[0].reads)
            assert set(proposal.read) <= entry.studied and entry.parent == shown.index
    assert composed


def _lesson(candidate: Candidate, example: Example) -> Lesson:
    value = float(rng(0, candidate.id, example.id).random() < 0.2 + 0.1 * len(candidate.text("guidance").splitlines()))
    empty = Attempt("")
    request = (f"{candidate.id} {example.id}",)
    return Lesson(example, candidate.id, 0, "playbook", empty, Guidance(""), empty, Reward(0.0), Reward(value), requests=request)
