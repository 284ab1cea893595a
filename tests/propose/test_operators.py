"""What holds for every operator that needs no model, on any brief."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from gepa_atlas import pieces as p
from gepa_atlas.evolve.rng import rng
from gepa_atlas.ports import Brief, Proposer
from gepa_atlas.propose import build_proposers
from gepa_atlas.propose.demos import Demos, DemosOptions
from gepa_atlas.propose.edit import Edit, EditOptions
from gepa_atlas.propose.merge import Merge
from gepa_atlas.propose.shape import fragments_of
from gepa_atlas.texts import broken_contract
from gepa_atlas.types import Candidate, Demo, Draft
from tests.propose.briefs import GUIDANCE, brief, briefs, demo, lesson

PURE = ("demos", "edit", "ablate", "merge", "restart", "recall")
RECALLED = {
    "items": [{"component": name, "text": text, "worth": 0.1} for name in ("guidance", "template") for text in ("Be brief.", "Cite {x}.")],
    "harmful": ["Answer the question."],
}
OPERATORS = build_proposers([*PURE, "recombine"], options={"recall": RECALLED})
SEED = Candidate.of({"guidance": "Answer the question."})


def propose(operator: Proposer, given: Brief) -> Draft:
    return asyncio.run(operator.propose(given))


def check(operator: Proposer, given: Brief, address: int) -> None:
    draft = propose(operator, given)
    again = propose(operator, replace(given, rng=rng(7, address, "op")))
    assert draft == again, "not a function of the rng's address"
    if draft.candidate is None:
        assert draft.note
        return
    child, parent = draft.candidate, given.parents[0]
    known = {c.id for c in (*given.parents, *given.mates, *given.rejected)}
    assert child.id not in known
    assert broken_contract(child, given.components) is None
    assert child.parents[0] == parent.id
    assert child.origin == operator.name
    sources = {d for c in (*given.parents, *given.mates, *given.rejected) for d in c.demos} | set(given.pool)
    assert set(child.demos) <= sources
    assert len({d.example_id for d in child.demos}) == len(child.demos) <= DemosOptions().max_demos
    assert 0 < len(draft.note) <= 300


@pytest.mark.parametrize("name", PURE)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=briefs())
def test_children_are_new_sound_and_repeatable(name: str, made: tuple[Brief, int]) -> None:
    check(OPERATORS[name], *made)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=briefs())
def test_recombined_children_are_new_sound_and_repeatable(made: tuple[Brief, int]) -> None:
    check(OPERATORS["recombine"], *made)


def drafts(operator: Proposer, make: object, n: int = 60) -> list[Candidate]:
    found = [propose(operator, make(address)) for address in range(n)]  # type: ignore[operator]
    assert all(d.candidate is not None for d in found), {d.note for d in found if d.candidate is None}
    return [d.candidate for d in found if d.candidate]


def test_demos_first_set_is_a_jump_and_shows_every_label() -> None:
    pool = [demo(i, "yes" if i % 2 else "no") for i in range(20)]
    sets = [c.demos for c in drafts(Demos(), lambda a: brief(SEED, pool=pool, address=a))]
    assert 8 <= min(map(len, sets)) < 10 and 16 < max(map(len, sets)) <= 20
    mixed = sum(len({d.answer for d in s}) == 2 for s in sets)
    assert mixed >= 0.8 * len(sets)


def test_demos_sets_become_as_large_as_those_that_did_well() -> None:
    pool = [demo(i) for i in range(60)]

    def fresh(known: int) -> list[int]:
        parent = SEED.child("x", demos=tuple(pool[:known]))
        made = [propose(Demos(), brief(parent, pool=pool, address=a)) for a in range(200)]
        return [len(d.candidate.demos) for d in made if d.candidate and d.note.startswith("another set")]

    assert set(fresh(2)) <= {1, 2, 3, 4} and max(fresh(2)) == 4
    assert min(fresh(24)) < 14 and max(fresh(24)) in range(30, DemosOptions().max_demos + 1)


def test_demos_respect_size_and_length_limits() -> None:
    pool = [replace(demo(i), context="c" * 400) for i in range(20)]
    operator = Demos(DemosOptions(max_demos=4, max_chars=1400))
    parent = SEED
    for address in range(60):
        child = propose(operator, brief(parent, pool=pool, address=address)).candidate
        assert child is not None and len(child.demos) <= 4
        assert sum(len(d.question) + len(d.answer) + len(d.context) for d in child.demos) <= 1400
        parent = child


@pytest.mark.parametrize("operator", [Demos(), Merge()])
@pytest.mark.parametrize("each", [200, 650])
def test_up_to_eight_demonstrations_may_take_all_of_the_room_and_more_of_them_half(operator: Proposer, each: int) -> None:
    pool = [replace(demo(i), context="c" * each) for i in range(30)]
    parent, mate = (SEED.child("x", demos=tuple(pool[low : low + 8])) for low in (0, 10))
    sets = [c.demos for c in drafts(operator, lambda a: brief(parent, pool=pool, address=a, mates=[mate]), 100)]
    room = [(len(s), sum(len(d.question) + len(d.answer) + len(d.context) for d in s)) for s in sets]
    assert all(size <= (6_000 if n <= 8 else 3_000) for n, size in room)
    assert any(n > 8 for n, _ in room) if each == 200 else any(size > 3_000 for _, size in room)


def test_demos_do_not_show_near_duplicates_together() -> None:
    pool = [Demo(f"d{i}", f"What is the capital city of the large northern country number {i}?", str(i)) for i in range(10)]
    pool += [demo(i) for i in range(10)]
    operator = Demos(DemosOptions(near=0.5))
    for child in drafts(operator, lambda a: brief(SEED, pool=pool, address=a)):
        assert sum(d.example_id.startswith("d") for d in child.demos) <= 1


def test_demos_prefer_what_the_parent_fails_at_and_what_mates_show() -> None:
    pool = [demo(i) for i in range(30)]
    parent = SEED.child("x", demos=(pool[0],))
    bad = [lesson(i, 0.0, parent) for i in (3, 4, 5)]
    plain = drafts(Demos(), lambda a: brief(parent, pool=pool, address=a), 300)
    told = drafts(Demos(), lambda a: brief(parent, pool=pool, lessons=bad, address=a), 300)

    def share(children: list[Candidate]) -> float:
        shown = [d.example_id for c in children for d in c.demos if d.example_id != "t0"]
        return sum(s in ("t3", "t4", "t5") for s in shown) / len(shown)

    assert share(told) > 1.5 * share(plain)


def test_without_a_pool_demos_say_why() -> None:
    draft = propose(Demos(), brief(SEED))
    assert draft.candidate is None and "no train examples" in draft.note


def test_edit_uses_only_own_fragments_when_told_so() -> None:
    own = ("Rule one holds.", "Rule two holds.", "Rule three holds.")
    operator = Edit(EditOptions(fragments=own, builtin=False, from_data=False))
    for child in drafts(operator, lambda a: brief(SEED, address=a)):
        assert set(p.texts(child.text("guidance"))) <= {"Answer the question.", *own}


def test_edit_keeps_the_other_items_to_the_letter() -> None:
    text = "You are a judge.\n\n# Rules\n- One rule.\n- Another rule with {braces}.\n\n```\nkeep   this\n```\nEnd."
    parent = Candidate.of({"guidance": text})
    operator = Edit(EditOptions(bold=0.0))
    for child in drafts(operator, lambda a: brief(parent, address=a)):
        before, after = [x.text for x in p.split(text)], [x.text for x in p.split(child.text("guidance"))]
        assert len(set(before) - set(after)) <= 1 and len(set(after) - set(before)) <= 1


def test_edit_finds_every_subset_of_fragments() -> None:
    """From any text every rule can be reached and dropped again: no fragment is out of reach."""
    own = tuple(f"Rule number {i} holds." for i in range(6))
    operator = Edit(EditOptions(fragments=own, builtin=False, from_data=False))
    seen: set[str] = set()
    for child in drafts(operator, lambda a: brief(SEED, address=a), 200):
        seen |= set(p.texts(child.text("guidance")))
    assert seen >= set(own)


def test_ablation_never_grows_and_ends() -> None:
    parent = Candidate.of({"guidance": "One. Two. Three.\nFour.\n- five"}, tuple(demo(i) for i in range(4)))
    for address in range(40):
        child = propose(OPERATORS["ablate"], brief(parent, address=address)).candidate
        if child is None:
            break
        assert child.size() < parent.size()
        parent = child
    assert len(parent.demos) + len(p.split(parent.text("guidance"))) == 1


def test_merge_joins_items_and_honours_what_a_lineage_dropped() -> None:
    base = Candidate.of({"guidance": "Keep.\nOld."})
    mine = base.child("edit", texts={"guidance": "Keep.\nOld.\nMine."})
    other = base.child("edit", texts={"guidance": "Keep.\nTheirs."})
    found = {c.text("guidance") for c in drafts(Merge(), lambda a: brief(mine, mates=[other, base], address=a))}
    assert found == {"Keep.\nMine.\nTheirs."}


def test_merge_without_a_second_candidate_says_so() -> None:
    assert "no second candidate" in propose(Merge(), brief(SEED)).note


def test_recombine_settings_stay_in_range() -> None:
    operator = build_proposers(
        ["recombine"], options={"recombine": {"ranges": {"temperature": [0.0, 1.0]}, "choices": {"position": ["a", "b"]}}}
    )
    for child in drafts(operator["recombine"], lambda a: brief(SEED, address=a), 5):
        values = dict(child.settings)
        assert 0.0 <= float(values["temperature"]) <= 1.0 and values["position"] in ("a", "b")


def test_shape_reads_labels_form_and_case() -> None:
    labels = tuple(demo(i, "positive" if i % 3 else "negative") for i in range(9))
    assert "Answer with exactly one of: positive, negative." in fragments_of(labels)
    assert "Write the answer in lowercase letters." in fragments_of(labels)
    assert 'Start the answer with "A-".' in fragments_of(tuple(demo(i) for i in range(9)))
    keyed = tuple(demo(i, f'{{"name": "n{i}", "age": {i}}}') for i in range(5))
    assert any('"name", "age"' in f for f in fragments_of(keyed))
    assert fragments_of((demo(1, "x"),)) == ()


def test_a_long_text_is_not_split_into_a_slow_mess() -> None:
    parent = Candidate.of({"guidance": "word. " * 3000})
    wide = replace(GUIDANCE, max_chars=20_000)
    assert propose(OPERATORS["edit"], brief(parent, components=[wide])).candidate is not None


def test_recall_takes_out_harm_and_puts_in_what_paid_most() -> None:
    items = [{"component": "guidance", "text": text, "worth": worth} for text, worth in (("Be brief.", 0.9), ("Sing.", 0.01))]
    options = {"items": items, "harmful": ["Answer the question."], "at_once": 1}
    operator = build_proposers(["recall"], options={"recall": options})["recall"]
    texts = [child.text("guidance") for child in drafts(operator, lambda a: brief(SEED, address=a))]
    assert not any("Answer the question." in text for text in texts)
    assert 0.9 < sum("Be brief." in text for text in texts) / len(texts) < 1.0


def test_recall_says_when_nothing_is_left() -> None:
    options = {"recall": {"items": [{"component": "guidance", "text": "Answer the question.", "worth": 0.5}]}}
    assert "everything" in propose(build_proposers(["recall"], options=options)["recall"], brief(SEED)).note
    assert "--warm-start" in propose(build_proposers(["recall"])["recall"], brief(SEED)).note
