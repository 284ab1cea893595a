"""Guards over the log of a run, without a trainer: each trips on what it is for, on nothing else, and by its name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.train.config import GuardsConfig
from gepa_atlas.train.grpo import schedule
from gepa_atlas.train.guards import no_signal, unhealthy

HOW = GuardsConfig()
WELL = {
    "reward": 0.2, "delta_mean": 0.2, "kl": 0.01, "entropy": 1.0, "completions/mean_length": 40.0, "completions/clipped_ratio": 0.0,
    "frac_reward_zero_std": 0.1, "judge_failed_rate": 0.0,
}  # fmt: skip


def log(steps: int, **changed: Any) -> list[dict[str, Any]]:
    """A healthy run in which `changed` names a figure and how it goes with the step (0 is the first)."""
    return [{**WELL, **{name.replace("__", "/"): way(step) for name, way in changed.items()}} for step in range(steps)]


def test_a_healthy_run_trips_nothing() -> None:
    assert unhealthy(log(300), HOW) is None and no_signal(log(300), HOW) is None and unhealthy([], HOW) is None


@pytest.mark.parametrize(
    ("name", "steps", "changed"),
    [
        ("kl_ceiling", 3, {"kl": lambda s: 0.6}),
        ("reward_collapse", 60, {"delta_mean": lambda s: -0.1}),
        ("entropy_collapse", 3, {"entropy": lambda s: 0.01}),
        ("length_gaming", 10, {"completions__clipped_ratio": lambda s: 0.5 if s else 0.0}),
        ("length_gaming", 40, {"completions__mean_length": lambda s: 40.0 + 3 * s}),
        ("judge_gap", 40, {"judge_gap": lambda s: 0.01 * s, "reward": lambda s: 0.2 + 0.01 * s}),
    ],
)
def test_each_guard_trips_by_its_name(name: str, steps: int, changed: dict[str, Any]) -> None:
    how = GuardsConfig(entropy_min=0.05)
    rows = log(steps + 5, **changed)
    why = next(why for n in range(1, len(rows) + 1) if (why := unhealthy(rows[:n], how)) is not None)
    assert why.startswith(f"{name}: ") and "guards." in why


def test_a_spike_of_one_step_is_forgiven() -> None:
    assert unhealthy(log(30, kl=lambda s: 9.0 if s in (5, 6, 20, 21) else 0.1), HOW) is None
    assert unhealthy(log(30, kl=lambda s: 9.0 if s in (5, 6, 7) else 0.1)[:8], HOW) is not None


def test_a_step_without_the_figure_breaks_a_row_and_is_not_zero() -> None:
    assert unhealthy(log(4, kl=lambda s: None if s == 2 else 0.9), HOW) is None
    assert unhealthy(log(80, delta_mean=lambda s: None), HOW) is None
    assert unhealthy(log(9, entropy=lambda s: None), GuardsConfig(entropy_min=0.1)) is None


def test_a_gap_that_grows_while_rewards_fall_is_not_gaming() -> None:
    assert unhealthy(log(40, judge_gap=lambda s: 0.01 * s, reward=lambda s: 0.5 - 0.01 * s), HOW) is None


def test_evaluations_in_the_log_are_no_steps() -> None:
    rows = [row for pair in zip(log(3, kl=lambda s: 0.9), [{"eval_reward": 0.1}] * 3, strict=True) for row in pair]
    assert unhealthy(rows, HOW) is not None, "three steps in a row, with evaluations between"


def test_no_signal_is_a_warning_and_not_said_of_an_outage() -> None:
    flat = {"frac_reward_zero_std": lambda s: 0.95}
    assert unhealthy(log(30, **flat), HOW) is None
    warning = no_signal(log(30, **flat), HOW)
    assert warning is not None and warning.startswith("no_signal: ")
    assert no_signal(log(19, **flat), HOW) is None
    assert no_signal(log(30, judge_failed_rate=lambda s: 1.0, **flat), HOW) is None


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=40), st.integers(1, 200), st.integers(0, 5), st.booleans())
def test_the_curriculum_is_in_proportion_whatever_the_weights(weight: list[float], count: int, seed: int, curriculum: bool) -> None:
    rows = [{"weight": w} for w in weight]
    order = schedule(rows, count, seed, curriculum=curriculum)
    assert len(order) == count and order == schedule(rows, count, seed, curriculum=curriculum)
    share = [w / sum(weight) if curriculum else 1 / len(weight) for w in weight]
    rounds = count // len(rows)
    whole = order[: rounds * len(rows)]
    for at, part in enumerate(share):
        assert abs(whole.count(at) - part * len(whole)) < 2, "never two turns from its share"
    longer = schedule(rows, count + 7, seed, curriculum=curriculum)
    assert longer[:count] == order, "a longer run begins as the shorter one"
