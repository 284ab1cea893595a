"""The exam of the Proposer port, on briefs from the toy world."""

from __future__ import annotations

import asyncio
from functools import cache
from unittest import SkipTest

from gepa_atlas.evolve.rng import rng
from gepa_atlas.ports import Brief, Proposer
from gepa_atlas.testing.conformance.common import HOSTILE, given
from gepa_atlas.testing.toyworld import SEED_GUIDANCE, ToyWorld, WorldSettings
from gepa_atlas.texts import broken_contract
from gepa_atlas.types import (
    Attempt,
    Candidate,
    Component,
    Demo,
    Draft,
    Example,
    Guidance,
    JudgeScore,
    Lesson,
    Reward,
)


@cache
def _world() -> ToyWorld:
    return ToyWorld(WorldSettings(seed=11, kinds=2, noise=0.0))


class ProposerConformance:
    """The exam of a Proposer: every draft obeys the contracts, names its lineage, and shows train examples only."""

    deterministic = True  # the draft is a function of the brief
    finds_something = True  # on the full brief, at least one of several draws gives a candidate
    draws = 12
    components: tuple[Component, ...] = (Component("guidance", max_chars=2000, purpose="what the student is told"),)

    def make(self) -> Proposer:
        raise NotImplementedError("return a proposer")

    def make_failing(self) -> Proposer | None:
        """A proposer whose model is broken."""
        return None

    def world(self) -> ToyWorld:
        return _world()

    def parent(self) -> Candidate:
        """One rule, one decoy and one demonstration, so that there is something to add, drop, swap and reorder."""
        lines = [SEED_GUIDANCE, *self.world().fragments()[:3]]
        return Candidate.of({"guidance": "\n".join(lines)}, self.pool()[:2])

    def pool(self) -> tuple[Demo, ...]:
        return tuple(Demo.of(e) for e in self.world().examples() if e.split == "train")

    def brief(self, draw: int = 0) -> Brief:
        """What a proposer is given in a search of the toy world: two parents, lessons with right and wrong answers, a pool."""
        world, parent = self.world(), self.parent()
        mate = parent.child("edit", texts={"guidance": "\n".join([SEED_GUIDANCE, *world.fragments()[3:6]])}, demos=self.pool()[2:4])
        train = [e for e in world.examples() if e.split == "train"][:8]
        lessons = tuple(toy_lesson(world, parent, e) for e in train)
        parents = (parent, mate)
        return Brief(parents, lessons, self.components, self.pool(), rng(0, draw, "conformance"), (), (mate,))

    def empty_brief(self) -> Brief:
        """A first slot: nothing is known and nothing can be shown."""
        return Brief((Candidate.of({"guidance": ""}),), (), self.components, (), rng(0, "conformance"))

    def drafts(self) -> list[tuple[Brief, Draft]]:
        async def story() -> list[tuple[Brief, Draft]]:
            proposer = self.make()
            briefs = [self.brief(i) for i in range(self.draws)]
            return [(brief, await proposer.propose(brief)) for brief in briefs]

        return asyncio.run(story())

    def test_it_is_a_proposer(self) -> None:
        proposer = self.make()
        assert isinstance(proposer, Proposer) and proposer.name and proposer.name == self.make().name

    def test_drafts_obey_the_contracts(self) -> None:
        made = self.drafts()
        for brief, draft in made:
            assert isinstance(draft, Draft) and (draft.candidate is not None or draft.note), "without a candidate there is a reason"
            if draft.candidate is not None:
                assert broken_contract(draft.candidate, brief.components) is None
                assert draft.candidate.id != brief.parents[0].id, "a child differs from its parent"
        assert not self.finds_something or any(d.candidate for _, d in made), [d.note for _, d in made]

    def test_lineage_and_origin_are_named(self) -> None:
        for brief, draft in self.drafts():
            if draft.candidate is not None:
                known = {c.id for c in (*brief.parents, *brief.mates)}
                assert draft.candidate.parents and set(draft.candidate.parents) <= known, draft.candidate.parents
                assert draft.candidate.origin == self.make().name

    def test_demonstrations_come_from_the_pool(self) -> None:
        for brief, draft in self.drafts():
            ids = [d.example_id for d in draft.candidate.demos] if draft.candidate else []
            assert set(ids) <= {d.example_id for d in brief.pool} and len(ids) == len(set(ids))

    def test_the_draft_is_a_function_of_the_brief(self) -> None:
        if not self.deterministic:
            raise SkipTest("not promised")
        assert [d for _, d in self.drafts()] == [d for _, d in self.drafts()]

    def test_an_empty_brief_is_no_error(self) -> None:
        draft = asyncio.run(self.make().propose(self.empty_brief()))
        assert draft.candidate is not None or draft.note
        assert draft.candidate is None or broken_contract(draft.candidate, self.components) is None

    def test_hostile_parents_are_data(self) -> None:
        async def story() -> None:
            proposer = self.make()
            for i, text in enumerate(h for h in HOSTILE if len(h) < 1000):
                full = self.brief(i)
                parent = Candidate.of({"guidance": text}, full.parents[0].demos)
                draft = await proposer.propose(Brief((parent,), full.lessons, self.components, full.pool, full.rng))
                assert draft.candidate is None or broken_contract(draft.candidate, self.components) is None

        asyncio.run(story())

    def test_a_broken_model_gives_a_draft_without_a_candidate(self) -> None:
        draft = asyncio.run(given(self.make_failing(), "make_failing").propose(self.brief()))
        assert draft.candidate is None and draft.note


def toy_lesson(world: ToyWorld, candidate: Candidate, example: Example, sample: int = 0) -> Lesson:
    """The lesson this candidate gives on this example in the toy world, under the playbook protocol, judged exactly."""

    def attempt(guidance: Guidance) -> tuple[Attempt, Reward]:
        output = world.answer(guidance, example.question, sample)
        value = float(output == example.answer)
        return Attempt(output), Reward(value, (JudgeScore("exact", value),))

    guidance = Guidance("\n".join(text for _, text in candidate.texts), candidate.demos)
    (first, before), (second, after) = attempt(Guidance()), attempt(guidance)
    return Lesson(example, candidate.id, sample, "playbook", first, guidance, second, before, after)
