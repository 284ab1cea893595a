"""What judges are known to add by themselves: it bounds what the search takes from a parent, and the gate's interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gepa_atlas.evolve.archive import Archive
from gepa_atlas.evolve.belief import Belief
from gepa_atlas.evolve.rng import rng
from gepa_atlas.evolve.stats import judging_error
from gepa_atlas.evolve.verdict import rule
from gepa_atlas.types import Attempt, Candidate, Example, Guidance, Lesson, Reward, Ruling

SEED, WINNER = Candidate.of({"guidance": "a"}), Candidate.of({"guidance": "b"})


def lesson(candidate: Candidate, number: int, after: float, error: float | None, output: str = "", sample: int = 0) -> Lesson:
    example = Example(f"t{number}", f"question {number}", split="test")
    said = Attempt(output or f"{candidate.id} says {number}")
    return Lesson(
        example, candidate.id, sample, "playbook", Attempt("x"), Guidance("g"), said, Reward(0.2), Reward(after, uncertainty=error)
    )


def both(gains: list[float], error: float | None, base: float = 0.4) -> list[Lesson]:
    rows = [(lesson(SEED, i, base, error), lesson(WINNER, i, base + gain, error)) for i, gain in enumerate(gains)]
    return [x for row in rows for x in row]


def test_the_interval_is_never_narrower_than_judging_alone() -> None:
    gains = [0.1] * 60
    exact, noisy = rule(SEED, WINNER, both(gains, 0.0), 60), rule(SEED, WINNER, both(gains, 0.3), 60)
    assert exact.judge_error == 0 and "judg" not in exact.reasons[0]
    assert noisy.judge_error == pytest.approx(0.3 * math.sqrt(2 / 60))
    assert exact.gain_low is not None and noisy.gain_low is not None and noisy.gain_high is not None
    assert noisy.gain_low == pytest.approx(min(exact.gain_low, 0.1 - 1.96 * 0.3 * math.sqrt(2 / 60)), abs=1e-3)
    assert f"judging alone makes ±{1.96 * 0.3 * math.sqrt(2 / 60):.3f} of it" in noisy.reasons[0]


def test_noise_of_judges_can_take_a_win_away() -> None:
    gains = [0.25, 0.35] * 20
    assert rule(SEED, WINNER, both(gains, 0.0), 40).ruling is Ruling.SHIP
    assert rule(SEED, WINNER, both(gains, 1.0), 40).ruling is Ruling.INCONCLUSIVE


def test_judges_that_do_not_know_their_noise_are_said_to() -> None:
    verdict = rule(SEED, WINNER, both([0.1, 0.3] * 10, None), 20)
    assert verdict.judge_error is None and "own noise is not known" in verdict.reasons[0]
    assert verdict.to_json()["judge_error"] is None


def test_an_answer_both_gave_is_judged_once() -> None:
    same = [lesson(c, i, 0.5, 0.2, output="the same") for i in range(10) for c in (SEED, WINNER)]
    ours, theirs = [x for x in same if x.candidate_id == WINNER.id], [x for x in same if x.candidate_id == SEED.id]
    assert judging_error(ours, theirs) == 0.0
    repeated = [lesson(WINNER, 0, 0.5, 0.2, sample=s, output=f"try {s}") for s in range(4)]
    assert judging_error(repeated, theirs) == pytest.approx(math.sqrt(4 * (0.2 / 4) ** 2 + 0.2**2))
    assert judging_error([], theirs) is None


def test_measured_noise_bounds_what_is_shared_with_the_parent() -> None:
    """Two columns alike in parent and child look shared; judges with a known noise say how much of it can be."""
    random = rng(0, "noise")
    ids = [f"v{i}" for i in range(40)]

    def believing(error: float | None) -> Belief:
        archive = Archive(ids)
        parent, child = archive.add(SEED, 0), archive.add(SEED.child("edit", texts={"guidance": "c"}), 0)
        belief = Belief(archive, {})
        belief.enter(parent)
        belief.enter(child)
        values = random.normal(0, 0.3, 40)
        for entry in (parent, child):
            for i, value in zip(ids, values, strict=True):
                archive.record(entry, i, float(np.clip(value, -1, 1)))
                belief.judged(error)
            belief.learn(entry, np.arange(40))
            belief.settle()
        return belief

    silent, exact, noisy = believing(None), believing(0.0), believing(0.25)
    assert silent.judge_var == exact.judge_var == 0.0
    assert noisy.judge_var == pytest.approx(0.0625)
    assert noisy.rho <= max(0.0, 1 - noisy.judge_var / noisy.residual_var) + 1e-9 and noisy.rho < silent.rho
    assert noisy.cell_var >= 0.0625 > exact.cell_var
