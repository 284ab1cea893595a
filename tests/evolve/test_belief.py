"""What is believed: the Gaussian against its definition, evidence that crosses lineages, and what is put together from it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gepa_atlas.evolve.archive import Archive, Entry
from gepa_atlas.evolve.belief import Belief, Draw
from gepa_atlas.evolve.compose import compose
from gepa_atlas.evolve.gaussian import Gaussian
from gepa_atlas.evolve.items import DEMO, SHOWN, Catalogue, items_of
from gepa_atlas.evolve.rng import rng
from gepa_atlas.evolve.topics import ALIKE, Topics
from gepa_atlas.types import Candidate, Demo

RULES = ["Cite the order number.", "Answer in capitals only.", "Never mention the weather today.", "Name two sources below."]


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_conditioning_in_parts_is_conditioning_at_once_and_is_the_definition(seed: int, n: int, k: int) -> None:
    random = rng(seed, "gaussian")
    var, phi, seen, noise = random.random(n) + 0.1, random.standard_normal((k, n)), random.standard_normal(k), random.random(k) + 0.1
    parts, once = Gaussian(), Gaussian()
    for g in (parts, once):
        for v in var:
            g.append(0.3, v)
    for i in range(k):
        parts.condition(phi[i : i + 1], seen[i : i + 1], noise[i : i + 1])
    once.condition(phi, seen, noise)
    cov = np.linalg.inv(np.diag(1 / var) + phi.T @ np.diag(1 / noise) @ phi)
    mean = cov @ (0.3 / var + phi.T @ (seen / noise))
    for g in (parts, once):
        assert g.mean == pytest.approx(mean) and g.cov == pytest.approx(cov)


@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 12), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_groups_that_are_summed_out_are_what_weights_of_their_own_would_be(seed: int, n: int, k: int, groups: int) -> None:
    random = rng(seed, "groups")
    phi, seen, noise, part = random.standard_normal((k, n)), random.standard_normal(k), random.random(k) + 0.1, random.random(k)
    _, group = np.unique(random.integers(0, groups, k), return_inverse=True)
    groups = int(group.max()) + 1
    short, whole = Gaussian(), Gaussian()
    for _ in range(n):
        short.append(0.2, 0.7)
        whole.append(0.2, 0.7)
    for _ in range(groups):
        whole.append(0.0, 0.4)
    mean, var = short.condition_in_groups(phi, seen, noise, group, part, 0.4)
    whole.condition(np.hstack([phi, np.eye(groups)[group] * part[:, None]]), seen, noise)
    assert short.mean == pytest.approx(whole.mean[:n]) and short.cov == pytest.approx(whole.cov[:n, :n])
    assert mean == pytest.approx(whole.mean[n:]) and var == pytest.approx(np.diagonal(whole.cov)[n:])


def test_samples_have_the_moments_of_the_posterior() -> None:
    g = Gaussian()
    for _ in range(3):
        g.append(0.0, 1.0)
    g.condition(np.array([[1.0, 1.0, 0.0]]), np.array([1.0]), np.array([0.01]))
    drawn = np.array([g.sample(rng(i, "draw")) for i in range(4000)])
    assert drawn.mean(0) == pytest.approx(g.mean, abs=0.05)
    assert np.cov(drawn.T) == pytest.approx(g.cov, abs=0.08)


class Population:
    """A seed without rules; every rule is worth `worth` on every example, plus noise of a cell."""

    def __init__(self, worth: dict[str, float], sd: float = 0.1) -> None:
        self.worth, self.sd = worth, sd
        self.ids = [f"v{i}" for i in range(60)]
        self.archive = Archive(self.ids)
        self.belief = Belief(self.archive, {})
        self.seed = self.enter([])

    def candidate(self, rules: list[str], parent: Entry | None = None) -> Candidate:
        texts = {"guidance": "\n".join(["Be brief.", *rules])}
        return parent.candidate.child("test", texts=texts) if parent else Candidate.of(texts)

    def enter(self, rules: list[str], cells: int = 30, parent: Entry | None = None) -> Entry:
        entry = self.archive.add(self.candidate(rules, parent), 0)
        self.belief.enter(entry)
        random = rng(len(self.archive), "cells")
        columns = np.sort(random.permutation(60)[:cells])
        for j in columns:
            self.archive.record(entry, self.ids[j], 0.3 + sum(self.worth.get(r, 0.0) for r in rules) + self.sd * random.standard_normal())
        if cells:
            self.belief.learn(entry, columns)
            self.belief.settle()
        return entry

    def item(self, rule: str) -> int:
        return self.belief.catalogue.index["guidance", rule.casefold()]


def test_an_item_is_known_from_every_lineage_it_was_in() -> None:
    """A candidate nobody has measured is believed to be what its items were worth elsewhere."""
    world = Population({RULES[0]: 0.2, RULES[1]: -0.15, RULES[2]: 0.0, RULES[3]: 0.1})
    for rules in ([RULES[0]], [RULES[1]], [RULES[0], RULES[2]], [RULES[3], RULES[1]], [RULES[3]]):
        world.enter(rules, parent=world.seed)
    worth = world.belief.expected().worth
    order = sorted(RULES, key=lambda r: -worth[world.item(r)])
    assert order == [RULES[0], RULES[3], RULES[2], RULES[1]]
    new = world.enter([RULES[0], RULES[3]], cells=0, parent=world.seed)
    level = world.belief.expected().level
    assert level[new.index] > max(level[0], level[2], level[4], level[5]) + 0.04  # shrunk, but above each that lacks one of the two


def test_how_sure_one_is_better_than_another_is_what_the_posterior_says_of_the_difference() -> None:
    """What both share is in no doubt between them: each alone is uncertain by how easy the examples are, their difference is not."""
    world = Population({RULES[0]: 0.12}, sd=0.15)
    ease = 0.4 * rng(1, "ease").standard_normal(60)
    two = [world.enter([RULES[0]], 0, world.seed), world.enter([RULES[0], RULES[1]], 0, world.seed)]
    for entry, gain in zip((world.seed, *two), (0.0, 0.12, 0.12), strict=True):
        noise = 0.15 * rng(entry.index, "noise").standard_normal(60)
        for j in range(60):
            world.archive.record(entry, world.ids[j], 0.3 + gain + ease[j] + noise[j])
        world.belief.learn(entry, np.arange(60))
    world.belief.settle()
    levels = np.array([world.belief.draw(rng(i, "levels")).level for i in range(4000)])
    for entry in two:
        apart = levels[:, entry.index] - levels[:, 0]
        assert world.belief.chance(entry, world.seed) == pytest.approx((apart > 0).mean(), abs=0.02)
        assert apart.var() < 0.6 * (entry.var + world.seed.var)
        assert 0.5 < world.belief.chance(entry, world.seed, unseen=0.5) < 0.6
    assert world.belief.chance(world.seed, world.seed) == 0.5


def test_what_judges_complain_about_is_evidence_on_the_line_that_names_it() -> None:
    """Two lines with the same rewards: complaints of what one names stop where it is, of what the other names they do not."""
    world = Population({}, sd=0.3)
    entries = [world.seed, world.enter([RULES[0]], cells=6, parent=world.seed), world.enter([RULES[1]], cells=6, parent=world.seed)]
    for e in range(80):
        about = e % 4
        for entry in entries:
            helped = about == 0 and entry is entries[1]
            said = ["no order number", "not in capitals", "the weather again", "sources are lacking"][about]
            world.belief.complaints.note(entry.index, f"t{e}", 0.0 if helped else 1.0, said)
    world.enter([RULES[2]], cells=6, parent=world.seed)
    worth = world.belief.expected().worth
    assert worth[world.item(RULES[0])] > worth[world.item(RULES[1])] + 0.04


@pytest.mark.parametrize("spoken", [False, True])
def test_complaints_that_name_everything_always_do_not_hide_what_rewards_say(spoken: bool) -> None:
    """A judge that says the same of every lesson tells nothing of the lines; what the rewards say of them stands."""
    good, harmful = {f"Rule {w}: do the {w}.": 0.25 for w in "abc"}, {f"Rule {w}: do the {w}.": -0.25 for w in "def"}
    world = Population(good | harmful, sd=0.1)
    for rule in [*good, *harmful]:
        entry = world.enter([rule], parent=world.seed)
        for e in range(60 if spoken else 0):
            for number in (entry.index, world.seed.index):
                world.belief.complaints.note(number, f"{rule}{e}", 1.0, f"nothing of {rule[5]} is right")
    world.enter([], cells=0, parent=world.seed)
    world.enter(["Be kind."], cells=6, parent=world.seed)
    worth = world.belief.expected().worth
    assert min(worth[world.item(r)] for r in good) > 0.1 and max(worth[world.item(r)] for r in harmful) < -0.1


def test_words_that_most_lines_share_are_about_no_example() -> None:
    questions = [f"an order of a {w}" for w in ("lamp", "chair", "desk")] * 4 + ["nothing else"] * 12
    catalogue = Catalogue(questions, len(questions))
    lines = [f"of every {w} say the price" for w in ("lamp", "chair", "desk", "sofa", "bench", "stool")]
    catalogue.enter(Candidate.of({"guidance": "\n".join(lines)}))
    catalogue.find_again()
    assert [int(row.sum()) for row in catalogue.matches()] == [4, 4, 4, 0, 0, 0]


def test_the_draw_that_knows_composes_the_best_candidate() -> None:
    world = Population({RULES[0]: 0.2, RULES[1]: -0.2, RULES[2]: 0.15, RULES[3]: -0.1})
    for rule in RULES:
        world.enter([rule], cells=60, parent=world.seed)
    base = world.archive.entries[2]
    child = compose(base.candidate, world.belief.expected(), world.belief.catalogue, 4)
    assert child is not None
    kept = set(child.text("guidance").splitlines())
    assert {RULES[0], RULES[2]} <= kept and RULES[1] not in kept and RULES[3] not in kept
    assert child.parents == (base.id,)


def test_composing_keeps_placeholders_and_has_one_item_of_a_topic() -> None:
    seed = Candidate.of({"guidance": "Question: {question}\nReply with the number only."})
    other = Candidate.of({"guidance": "Question: {question}\nReply with the bare number only."})
    catalogue = Catalogue()
    catalogue.enter(seed)
    catalogue.enter(other)
    bad, twin = catalogue.index["guidance", "question: {question}"], catalogue.index["guidance", "reply with the bare number only."]
    worth = np.zeros(len(catalogue))
    worth[bad], worth[twin] = -1.0, 0.5
    child = compose(seed, Draw(worth, np.zeros(2)), catalogue, 4)
    assert child is not None and child.text("guidance") == "Question: {question}\nReply with the bare number only."
    assert compose(seed, Draw(np.full(len(catalogue), np.nan), np.zeros(2)), catalogue, 4) is None


def test_demonstrations_are_items_up_to_the_most_that_any_candidate_had() -> None:
    demos = [Demo(f"t{i}", f"question {i}", f"answer {i}") for i in range(3)]
    one, two = Candidate.of({"guidance": "Go."}, (demos[0],)), Candidate.of({"guidance": "Go."}, (demos[1], demos[2]))
    catalogue = Catalogue()
    for candidate in (one, two):
        catalogue.enter(candidate)
    at = {item[1]: catalogue.index[item] for item in catalogue.items if item[0] == DEMO}
    assert list(at) == ["t0", "t1", "t2"]
    worth = np.zeros(len(catalogue))
    worth[[at["t0"], at["t1"], at["t2"]]] = 0.1, 0.3, 0.2
    child = compose(one, Draw(worth, np.zeros(2)), catalogue, 4)
    assert child is not None and [d.example_id for d in child.demos] == ["t0", "t1"]


def test_the_last_demonstration_stays_while_showing_any_is_worth_it() -> None:
    demos = tuple(Demo(f"t{i}", f"question {i}", f"answer {i}") for i in range(3))
    catalogue = Catalogue()
    catalogue.enter(Candidate.of({"guidance": "Go."}))
    base = Candidate.of({"guidance": "Go."}, demos)
    catalogue.enter(base)
    worth = np.where([item[0] == DEMO for item in catalogue.items], -0.1, 0.0)
    worth[catalogue.index[DEMO, "t1"]] = -0.01
    worth[catalogue.index[SHOWN]] = 0.5
    child = compose(base, Draw(worth, np.zeros(2)), catalogue, 8)
    assert child is not None and [d.example_id for d in child.demos] == ["t1"]
    worth[catalogue.index[SHOWN]] = -0.5
    bare = compose(base, Draw(worth, np.zeros(2)), catalogue, 8)
    assert bare is not None and bare.demos == ()


def test_an_item_is_about_the_examples_that_share_a_telling_word_with_it() -> None:
    questions = ["a parcel to Norway", "a parcel to Spain", "a letter to Norway", "a parcel to Italy", "a parcel to Malta"]
    catalogue = Catalogue(questions, 5)
    catalogue.enter(Candidate.of({"guidance": "For Norway add customs forms.\nA parcel is weighed."}))
    norway, parcel = catalogue.matches()
    assert norway.tolist() == [True, False, True, False, False] and catalogue.share[0] == pytest.approx(0.4)
    assert not parcel.any()  # most questions have that word
    assert items_of(Candidate.of({"a": "One.\nOne.", "b": "One."})) == (("a", "one."), ("b", "one."))


@pytest.mark.parametrize("worth", [0.15, -0.15])
def test_what_an_idea_is_worth_on_average_is_learnt(worth: float) -> None:
    """Where four ideas helped the fifth is believed in before it is tried, and where they harmed it is doubted."""
    rules = [f"Rule {n} about {word}." for n, word in enumerate(["parcels", "letters", "stamps", "customs", "weights"])]
    world = Population(dict.fromkeys(rules, worth), sd=0.05)
    for rule in rules[:-1]:
        world.enter([rule], cells=60, parent=world.seed)
    world.enter([rules[-1]], cells=0, parent=world.seed)
    assert world.belief.expected().worth[world.item(rules[-1])] * worth > 0.003 * abs(worth)


def test_entries_that_are_history_still_say_what_their_items_are_worth() -> None:
    """All but the seed have retired: their cells count for the lines that they had, and there is no weight for each of them."""
    world = Population({RULES[0]: 0.2, RULES[1]: -0.2, RULES[2]: 0.15, RULES[3]: -0.1})
    for rule in RULES:
        for _ in range(2):
            world.enter([rule, f"Filler {len(world.archive)}."], parent=world.seed)
            world.archive.entries[-1].active = False
    told = world.seed
    for j in range(30, 60):
        world.archive.record(told, world.ids[j], 0.3)
        world.belief.learn(told, np.array([j]))
        world.belief.settle()
    worth = world.belief.expected().worth
    assert sorted(RULES, key=lambda r: -worth[world.item(r)]) == [RULES[0], RULES[2], RULES[3], RULES[1]]
    assert np.count_nonzero(world.belief._own >= 0) == 1


@given(st.lists(st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=6, unique=True), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_topics_are_those_of_the_definition(items: list[list[str]]) -> None:
    topics = Topics()
    for at, words in enumerate(items):
        topic = topics.enter(words)
        seen = Counter(w for item in items[: at + 1] for w in item)

        def weight(bag: set[str], seen: Counter[str] = seen, at: int = at) -> float:
            return sum(np.log1p((at + 1) / seen[w]) for w in bag)

        shares = {o: weight(set(words) & set(items[o])) / weight(set(words) | set(items[o])) for o in range(at) if topics.of[o] == o}
        if not any(abs(share - ALIKE) < 1e-9 for share in shares.values()):
            assert topic == next((o for o, share in shares.items() if share >= ALIKE), at)
