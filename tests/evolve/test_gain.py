"""The gains, by hand-computed values."""

from __future__ import annotations

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.evolve.gain import GAINS, gain
from gepa_atlas.types import Attempt, Example, Guidance, Lesson, Reward


def lesson(before: float | None, after: float | None, base: str = "a b c d", second: str = "a", teaching: str = "") -> Lesson:
    rewards = [Reward.none("garbled", "x") if v is None else Reward(v) for v in (before, after)]
    return Lesson(Example("e", "q"), "c", 0, "playbook", Attempt(base), Guidance(teaching), Attempt(second), *rewards)


@pytest.mark.parametrize("name", GAINS)
def test_unscored_is_none_and_no_change_of_a_wrong_answer_is_nothing(name: str) -> None:
    assert gain(name)(lesson(None, 1.0)) is None
    assert gain(name)(lesson(0.5, None)) is None
    assert gain(name)(lesson(0.0, 0.0)) == 0.0


TEACHING = "word " * 100  # L = 100 tokens: the brevity factor is 1 + 100 / 200


@pytest.mark.parametrize(
    ("name", "up", "down", "kept"),
    [
        ("delta", 1.0, -1.0, 0.0),
        ("asymmetric", 1.0, -2.0, 0.0),
        ("headroom", 1.0, -1.0, 0.0),
        ("atlas_r1", 1.5, -2.0, 0.0),
        ("atlas_r2", 1.5, -2.0, 0.75),
        ("atlas_r3", 1.5, 0.0, 0.75),
        ("atlas_r4", 1.75, -1.0, 0.75),
    ],
)
def test_values(name: str, up: float, down: float, kept: float) -> None:
    score = gain(name)
    assert [score(lesson(b, a, teaching=TEACHING)) for b, a in ((0, 1), (1, 0), (1, 1))] == [up, down, kept]


def test_partial_rewards() -> None:
    assert gain("headroom")(lesson(0.5, 0.75)) == 0.5
    assert gain("headroom")(lesson(0.5, 0.25)) == -0.5
    assert gain("asymmetric", {"lambda": 3})(lesson(0.5, 0.25)) == -0.75
    assert gain("atlas_r1", {"lambda": 0})(lesson(0.0, 0.5)) == 0.5
    assert gain("atlas_r4")(lesson(1.0, 1.0, base="")) == 0.0
    assert gain("atlas_r4", {"threshold": 0.5})(lesson(0.4, 0.6, second="a b c d e f")) == 1.0


@pytest.mark.parametrize(
    ("name", "params", "line"),
    [
        ("asymetric", {}, "did you mean 'asymmetric'?"),
        ("asymmetric", {"lambda": 1.5}, "below 2.0"),
        ("asymmetric", {"lamda": 3}, "did you mean 'lambda'?"),
        ("delta", {"lambda": 3}, "no such parameter"),
        ("asymmetric", {"lambda": float("nan")}, "below"),
    ],
)
def test_bad_names_and_parameters(name: str, params: dict[str, float], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        gain(name, params)
