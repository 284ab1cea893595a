"""The skill library: planted effects are found with their sign, null items are not, and only pairs that differ in one item count."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.errors import ConfigError
from gepa_atlas.memory import rows, skills
from gepa_atlas.memory.store import Memory
from gepa_atlas.types import Candidate, Demo

from .lines import lesson_line

PAYS, HURTS, NULL = "Cite the order.", "Guess when unsure.", "Be polite."


def candidate(*items: str) -> Candidate:
    return Candidate.of({"guidance": "\n".join(["Answer.", *items])})


ALL = [candidate(*itertools.compress((PAYS, HURTS, NULL), which)) for which in itertools.product((0, 1), repeat=3)]


def lessons(seed: int, run_id: str, examples: int = 24, effects: tuple[float, ...] = (0.4, -0.4, 0.0)) -> list[rows.Trace]:
    """Every candidate on every example, a coin flip each."""
    draw = np.random.default_rng(seed)
    found = []
    for one in ALL:
        chance = 0.5 + sum(e for text, e in zip((PAYS, HURTS, NULL), effects, strict=True) if text in one.text("guidance"))
        for n in range(examples):
            line = lesson_line(f"e{n}", one.id, after=float(draw.random() < min(1.0, max(0.0, chance))))
            found.append(rows.lesson(line, run_id, "shop", 1.0))
    return found


def stored(memory: Memory, seeds: range, effects: tuple[float, ...] = (0.4, -0.4, 0.0)) -> dict[str, skills.Skill]:
    for seed in seeds:
        items, evidence = skills.evidence_of(f"r{seed}", "shop", ALL, lessons(seed, f"r{seed}", effects=effects))
        memory.put_evidence(f"r{seed}", items, evidence)
    return {skill.text: skill for skill in skills.library(memory, "shop")}


def test_planted_effects_are_found(tmp_path: object) -> None:
    with Memory.open(f"{tmp_path}/m.db") as memory:
        found = stored(memory, range(3))
        assert stored(memory, range(3)) == found, "doing it again replaces, and adds nothing"
    assert [found[text].finding for text in (PAYS, HURTS, NULL)] == ["verified", "harmful", "unclear"]
    assert found[PAYS].low <= 0.4 <= found[PAYS].high and found[HURTS].low <= -0.4 <= found[HURTS].high
    assert found[PAYS].pairs == 3 * 24 * 4 and found[PAYS].runs == 3 and found[PAYS].examples == 24
    assert found[PAYS].helped > found[PAYS].hurt and len(found[PAYS].by_example) == 24
    assert [skill.text for skill in skills.search(list(found.values()), "which ORDER?")] == [PAYS]


def test_null_items_are_seldom_found(tmp_path: object) -> None:
    """30 libraries of three items that do nothing: any finding in one is a false one; 5 % of them may have one."""
    with Memory.open(f"{tmp_path}/m.db") as memory:
        for seed in range(30):
            items, evidence = skills.evidence_of(f"r{seed}", f"shop{seed}", ALL, lessons(seed, f"r{seed}", effects=(0.0, 0.0, 0.0)))
            memory.put_evidence(f"r{seed}", items, evidence)
        found = skills.library(memory)
    assert len(found) == 90
    wrong = {skill.operation for skill in found if skill.finding != "unclear"}
    assert len(wrong) <= 5


def test_intervals_cover_the_truth(tmp_path: object) -> None:
    inside = 0
    for seed in range(40):
        found = skills.differences(ALL, ((t.candidate_id, t.example_id, t.after) for t in lessons(seed, "r")))
        item = ("guidance", PAYS.casefold())
        values = np.array([np.mean(v) for (i, _), v in sorted(found.items()) if i == item])
        low, high = skills.mean_interval(values) or (0.0, 0.0)
        inside += low <= 0.4 <= high
    assert inside >= 34


@given(st.lists(st.sampled_from([PAYS, HURTS, NULL]), unique=True), st.lists(st.sampled_from([PAYS, HURTS, NULL]), unique=True))
def test_only_pairs_that_differ_in_one_item_count(one: list[str], two: list[str]) -> None:
    a, b = candidate(*one), candidate(*two)
    found = skills.differences([a, b], [(a.id, "e1", 1.0), (b.id, "e1", 0.0), (a.id, "e2", 1.0), (b.id, "e3", 1.0), (a.id, "e4", None)])
    apart = set(one) ^ set(two)
    if len(apart) != 1:
        assert not found
        return
    (item,) = apart
    assert found == {(("guidance", item.casefold()), "e1"): [1.0 if item in one else -1.0]}


def test_demonstrations_are_items_too() -> None:
    demo = Demo("t1", "What is t1?", "gold")
    bare, shown = candidate(), Candidate.of({"guidance": "Answer."}, (demo,))
    taught = [rows.lesson(lesson_line("e1", c.id, after=v), "r", "shop", 1.0) for c, v in ((bare, 0.0), (shown, 1.0))]
    items, evidence = skills.evidence_of("r", "shop", [bare, shown], taught)
    assert [item["text"] for item in items] == ["What is t1? -> gold"] and evidence[0]["difference"] == 1.0


def test_an_item_is_named_by_the_beginning_of_its_id(tmp_path: object) -> None:
    with Memory.open(f"{tmp_path}/m.db") as memory:
        found = list(stored(memory, range(1)).values())
    assert [skill.text for skill in skills.named(found, found[0].item_id[:8])] == [found[0].text]
    assert json.dumps(found[0].to_json())
    for wrong in ("", "zz"):
        with pytest.raises(ConfigError, match="no such item"):
            skills.named(found, wrong)
