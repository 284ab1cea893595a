"""What is chosen and why: pairs, labels, the curriculum, duplicates, contamination."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.handoff.config import ExportConfig
from gepa_atlas.handoff.contamination import Held
from gepa_atlas.handoff.duplicates import near
from gepa_atlas.handoff.evidence import Evidence, Fact
from gepa_atlas.handoff.leaks import leaks
from gepa_atlas.handoff.selection import curriculum, labelled, pairs
from gepa_atlas.texts import shingles
from gepa_atlas.types import Demo, Example, Guidance

CONFIG = ExportConfig()


def facts(cells: dict[str, list[float | None]], before: dict[str, float] | None = None, doubt: float = 0.0) -> list[Fact]:
    """task -> reward of guidance 0, 1, ... there."""
    return [
        Fact(
            f"{task}-{n}", task, "train", f"c{n}", f"g{n}", "b", (before or {}).get(task, 0.0), after, 0.0, doubt, False, True, False, False
        )
        for task, values in cells.items()
        for n, after in enumerate(values)
    ]


def tasks(*names: str) -> list[Example]:
    return [Example(name, f"Question {name}?") for name in names]


def test_the_curriculum_reads_the_matrix() -> None:
    cells: dict[str, list[float | None]] = {
        "spread": [0.0, 1.0, 0.0, 1.0], "even": [0.5, 0.5, 0.5], "solved": [1.0, 0.0], "failed": [None, None],
    }  # fmt: skip
    cells |= {f"never{n}": [0.0, 0.0] for n in range(20)}
    found = curriculum(tasks(*cells, "untaught"), Evidence(facts(cells, {"solved": 1.0}), 1.0), CONFIG, 0)
    assert found.weights["spread"] == 0.55 and found.weights["even"] == 0.05
    assert found.removed == {"solved_by_baseline": 1, "never_improved": 18}
    assert sum(name.startswith("never") for name in found.weights) == 2
    known = [found.weights[name] for name in found.weights if name not in ("untaught", "failed")]
    assert abs(found.weights["untaught"] - sum(known) / len(known)) < 1e-9 and found.weights["failed"] == found.weights["untaught"]
    fewer = curriculum(tasks(*cells), Evidence(facts(cells), 1.0), ExportConfig(max_samples=3), 0)
    assert len(fewer.weights) == 3 and fewer.removed["over_max_samples"] == 3
    assert curriculum(tasks(*cells), Evidence(facts(cells), 1.0), ExportConfig(max_samples=3), 1).weights != fewer.weights


def test_pairs_need_a_gap_that_is_more_than_the_judges_noise() -> None:
    cells: dict[str, list[float | None]] = {"wide": [1.0, 0.0, 0.9, 0.1], "narrow": [0.5, 0.4], "harm": [0.1, 0.0], "single": [1.0]}
    before = {"harm": 0.9}

    def made(doubt: float) -> list[tuple[str, str, float]]:
        played = Evidence(facts(cells, before, doubt), 1.0).played
        return [(p.chosen.trace_id, p.rejected.trace_id, round(p.gap, 6)) for p in pairs(played, CONFIG)]

    assert made(0.0) == [("wide-0", "wide-1", 1.0), ("wide-2", "wide-3", 0.8)]
    assert made(0.3) == [("wide-0", "wide-1", 1.0)]  # two standard deviations of a difference: .85
    assert made(0.4) == []
    assert [p.chosen.task_id for p in pairs(Evidence(facts(cells), 1.0).played, ExportConfig(pair_gap=0.05))] == [
        "harm",
        "narrow",
        "wide",
        "wide",
    ]


@pytest.mark.parametrize("z", [0.5, 1.0, 2.0])
def test_a_few_equal_val_tasks_are_no_certainty(z: float) -> None:
    """What a candidate was worth is bounded; with two standard errors, 40 tasks of which two failed say more than 12 of 12."""
    wins = {"few": [1.0] * 12, "many": [1.0] * 38 + [0.0] * 2, "none": [0.0] * 12}
    found = Evidence(
        [
            Fact(f"{name}{n}", f"t{n}", "val", name, name, "b", 0.0, after, 0.0, 0.0, False, True, False, False)
            for name, values in wins.items()
            for n, after in enumerate(values)
        ],
        z,
    ).standings
    assert all(standing.delta_low < standing.delta for standing in found.values())
    assert (found["many"].delta_low > found["few"].delta_low) == (z > 1)


def test_kto_says_nothing_where_there_was_nothing_to_gain() -> None:
    evidence = Evidence(facts({"open": [1.0, 0.0], "solved": [1.0, 0.5]}, {"solved": 1.0}), 1.0)
    found = {played.trace_id: good for played, good in labelled(evidence.played, CONFIG, evidence.bases)}
    assert found == {"open-0": True, "open-1": False, "solved-1": False}


@given(st.integers(0, 10_000), st.sampled_from([0.9, 0.7, 0.5]))
def test_near_duplicates_are_those_of_a_full_comparison(seed: int, threshold: float) -> None:
    draw = random.Random(seed)
    words = [f"w{n}" for n in range(30)]
    texts: dict[str, str] = {}
    for n in range(12):
        base = draw.choice(list(texts.values())).split() if texts and draw.random() < 0.7 else draw.choices(words, k=40)
        if draw.random() < 0.8:
            base[draw.randrange(len(base))] = draw.choice(words)
        texts[f"t{n}"] = " ".join(base)
    names = list(texts)

    def alike(a: str, b: str) -> float:
        left, right = shingles(texts[a], 5), shingles(texts[b], 5)
        return len(left & right) / len(left | right)

    full = {(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if alike(a, b) >= threshold}
    found = set(near(texts.items(), threshold))
    assert found <= full and len(full - found) <= 1, "one pair of two hundred may be missed"


def held(**more: Any) -> Held:
    test = Example(
        "t", "The quick brown fox jumps over the lazy dog near the old river bank today.", ("a rather long answer",), split="test"
    )
    short = Example("s", "Name seven colours of the rainbow.", ("red",), split="val")
    train = [
        Example("a", "Near the old river bank today we went for a walk and then home again."),
        Example("b", "Why?", ("another long answer",)),
    ]
    return Held([test, short, Example("v", "?", ("another long answer",), split="val")], train, **({"n": 8} | more))


def test_contamination_is_a_run_of_words_a_short_question_or_a_long_answer() -> None:
    assert held().repeated("He said: QUICK brown fox   jumps over the lazy dog!") == [("t", "quick brown fox jumps over the lazy dog")]
    assert held().repeated("quick brown fox jumps over the lazy cat") == []
    assert held().repeated("near the old river bank today .") == [] and held(n=7).repeated("near the old river bank today .") != []
    assert held().repeated("so name seven colours of the rainbow. Now") == [("s", "name seven colours of the rainbow .")]
    assert held().repeated("it is a rather long answer, and red") == [("t", "a rather long answer")]
    assert held().repeated("it is another long answer") == [], "a train task has that answer too"


def test_a_leak_is_an_answer_that_nobody_had_yet() -> None:
    task = Example("t", "Which city is the capital of France?", ("Paris is it",))
    assert leaks(Guidance("Remember: paris is it."), task, "London", "lesson")
    assert not leaks(Guidance("Remember: paris is it."), task, "I think Paris is it", "lesson")
    assert not leaks(Guidance("Answer with Paris is it, or with London."), task, None, "playbook"), "labels are named by right"
    shown = Guidance("", (Demo("x", "which city is  the capital of France?", "Paris is it"),))
    assert leaks(shown, task, None, "playbook") and leaks(Guidance("", (Demo("t", "other", "x"),)), task, None, "playbook")
