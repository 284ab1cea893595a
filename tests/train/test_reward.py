"""The reward: deltas of a real student behind the real door, shaped, and None as a whole where there is no score."""

from __future__ import annotations

import asyncio
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gepa_atlas.errors import ConfigError, DataError, Outage
from gepa_atlas.train import baseline
from gepa_atlas.train.baseline import baselines_of
from gepa_atlas.train.config import RewardConfig, TrainConfig
from gepa_atlas.train.reward import RimDeltaReward, inputs, redact_trainer_log, shaped
from gepa_atlas.train.school import School, gives_away, labels_of, source_of, tasks_of
from gepa_atlas.types import Example
from tests.train import room


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    room.handoff(tmp_path)
    return tmp_path


def reward_of(tmp_path: Path, config: TrainConfig) -> tuple[School, RimDeltaReward]:
    work = room.workspace(tmp_path, "baseline")
    if not (work.folder / baseline.FILE).exists():
        baseline.run(work, config)
        room.done(work)
    school = School(work, config)
    return school, RimDeltaReward(
        school, tasks_of(work), baselines_of(work), config.reward, config.guards, protocol="playbook", ends=frozenset({2})
    )


def asked(reward: RimDeltaReward, texts: list[str], task: str = "train-0", cut: tuple[int, ...] = ()) -> tuple[list[Any], dict[str, Any]]:
    """Rewards and logged figures of completions for one task; those in `cut` do not end."""
    seen: dict[str, Any] = {}
    call = reward(
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completion_ids=[[7, 9] if at in cut else [7, 2] for at in range(len(texts))],
        task_id=[task] * len(texts),
        log_extra=lambda name, values: seen.update({name: values}),
        log_metric=lambda name, value: seen.update({name: value}),
        prompts=[],
    )
    return asyncio.run(call), seen


def test_a_reward_is_the_shaped_delta_of_the_students_answer(graded: Path) -> None:
    config = room.config()
    school, reward = reward_of(graded, config)
    with school:
        values, seen = asked(reward, ["Add them.", "Subtract them.", "  "], cut=(1,))
    assert values == [1.0, -0.5, -0.5], "right; cut off, so refused unread; empty"
    assert seen["delta"] == [1.0, None, None] and seen["judge_status"] == ["ok", "format", "format"]
    assert seen["format_error_rate"] == pytest.approx(2 / 3) and seen["judge_failed_rate"] == 0


def test_guidance_that_says_the_answer_is_refused_unread(graded: Path) -> None:
    school, reward = reward_of(graded, room.config())
    with school:
        values, _ = asked(reward, ["Add them. The answer is 5"], "train-0")
        assert values == [-1.0] and reward.last[0].status == "leak" and reward.last[0].harmful


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("Answer positive or negative, in one word.", False), ("This one is positive.", True), ("Say NEGATIVE or POSITIVE", False),
        ("Think of what the writer felt.", False), ("It is negative.", False),
    ],
)  # fmt: skip
def test_labels_may_be_named_together_and_not_the_right_one_alone(text: str, leaks: bool) -> None:
    tasks = [Example(f"t{n}", f"Review {n}", (answer,)) for n, answer in enumerate(["positive", "negative"] * 4)]
    labels = labels_of(tasks)
    assert labels == {"positive", "negative"}
    assert gives_away(tasks[0], None, text, labels) == leaks
    codes = [Example(f"t{n}", f"Order {n}", (f"VT-{n}0012",)) for n in range(8)]
    assert labels_of(codes) == frozenset() and gives_away(codes[1], None, "It is VT-10012, not VT-20012", labels_of(codes))


def test_a_loss_weighs_lambda_times_and_is_harmful(graded: Path) -> None:
    config = room.config(**room.GRADED)
    school, reward = reward_of(graded, config)
    with school:
        values, seen = asked(reward, ["one", "two", "three"])
    assert all(row.harmful and row.delta is not None and row.delta < -0.3 for row in reward.last)
    assert values == [pytest.approx(max(-3.0, 3 * row.delta)) for row in reward.last if row.delta is not None]
    assert seen["non_degradation_rate"] == 0


def test_one_failed_run_is_none_and_not_zero(graded: Path) -> None:
    student = {"student": f"{room.STUDENTS}:fragile", "judge": room.GRADED["judge"]}
    school, reward = reward_of(graded, room.config(**student, guards={"judge_backoff_s": [], "judge_failed_rate": 0.5}))
    with school:
        values, seen = asked(reward, ["one", "fail", "two", "three"])
    assert values[1] is None and all(v is not None for at, v in enumerate(values) if at != 1)
    assert seen["judge_failed_rate"] == 0.25 and reward.outage is None and "agent_crashed" in reward.last[1].why


def test_too_many_failures_are_an_outage_and_are_asked_again_after_each_wait(graded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = graded / "down"
    monkeypatch.setenv("STUDENT_DOWN", str(switch))
    student = {"student": f"{room.STUDENTS}:fragile", "judge": room.GRADED["judge"]}
    school, reward = reward_of(graded, room.config(**student, guards={"judge_backoff_s": [0.0, 0.0], "judge_failed_rate": 0.2}))
    with school:
        switch.touch()
        values, _ = asked(reward, ["one", "two"])
        assert values == [None, None] and reward.outage is not None and "2 of 2" in reward.outage
        switch.unlink()
        values, _ = asked(reward, ["one", "two"])
        assert None not in values and reward.outage is None, "a failure that was recorded is tried again"


@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_never_leaves(graded: Path, broken: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gepa_atlas.train.reward.shaped", lambda *_: broken)
    school, reward = reward_of(graded, room.config())
    with school:
        values, seen = asked(reward, ["Add them."])
    assert values == [None] and reward.nonfinite == 1 and seen["nonfinite"] == 1.0 and seen["judge_failed_rate"] == 1.0


def test_an_answer_is_paid_once_also_over_processes(graded: Path) -> None:
    config = room.config(student=f"{room.STUDENTS}:coin", judge=room.GRADED["judge"])
    school, reward = reward_of(graded, config)
    with school:
        first = [asked(reward, [text])[0] for text in ("a", "b", "c", "d", "e")]
        assert len({tuple(v) for v in first}) == 2, "this student is not always right"
    school, reward = reward_of(graded, config)
    with school:
        assert [asked(reward, [text])[0] for text in ("a", "b", "c", "d", "e")] == first


def test_the_gap_to_held_out_judges_is_logged(graded: Path) -> None:
    held_out = {"judges": [{"type": "python", "function": f"{room.STUDENTS}:read_half"}]}
    config = room.config(**room.GRADED, reward={"retries": 0, "holdout": held_out, "holdout_share": 1.0})
    school, reward = reward_of(graded, config)
    with school:
        _, seen = asked(reward, ["one", "two"])
    rewards = [row.reward for row in reward.last if row.reward is not None]
    assert seen["judge_gap"] == pytest.approx(sum(rewards) / len(rewards) / 2)


def test_the_noise_of_the_baseline_goes_into_tau(graded: Path) -> None:
    config = room.config(student=f"{room.STUDENTS}:coin", judge=room.GRADED["judge"], baseline={"samples": 8})
    school, reward = reward_of(graded, config)
    with school:
        found = baselines_of(room.workspace(graded, "baseline"))
        noisy = next(b for b in found.values() if b.sd > 0)
        assert noisy.n == 8 and noisy.mean is not None and 0.5 < noisy.mean < 1 and noisy.error == pytest.approx(noisy.sd / math.sqrt(8))
        asked(reward, [f"x{n}" for n in range(8)], noisy.task_id)
    small = [row for row in reward.last if row.delta is not None and row.delta < 0]
    assert small and all(row.harmful == (row.delta < -max(0.02, noisy.error)) for row in small if row.delta is not None)


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 1), st.floats(1, 5), st.floats(0, 1))
def test_shaping_is_bounded_monotone_and_never_rewards_a_loss(delta: float, tau: float, saving: float, weight: float, eff: float) -> None:
    how = RewardConfig(degradation_multiplier=weight, efficiency=eff)
    value = shaped(delta, tau, saving, how)
    assert -weight <= value <= how.max_reward
    assert (value <= 0) == (delta <= 0) or delta == 0
    assert shaped(min(1.0, delta + 0.1), tau, saving, how) >= value
    if delta < -tau:
        assert value == pytest.approx(max(-weight, weight * delta))


def test_trl_prints_no_prompt_of_an_unscored_row(caplog: pytest.LogCaptureFixture) -> None:
    redact_trainer_log()
    logger = logging.getLogger("trl.trainer.grpo_trainer")
    with caplog.at_level(logging.WARNING):
        logger.warning("All reward functions returned None for the following kwargs:\n{'prompt': 'the secret question'}")
        logger.warning("something else")
    assert "secret" not in caplog.text and "could not be scored" in caplog.text and "something else" in caplog.text


def test_who_is_taught_is_part_of_the_key_of_a_stage(graded: Path) -> None:
    work = room.workspace(graded, "train")
    one, same = inputs(work, room.config()), inputs(work, room.config())
    assert one == same and inputs(work, room.config(**room.GRADED)) != one
    assert not (work.cache_dir / "answers").exists(), "nothing is opened for it"


def test_without_a_run_a_student_must_be_named(graded: Path) -> None:
    config = room.config().model_copy(update={"student": None})
    with pytest.raises(ConfigError, match="name who is taught"):
        source_of(room.workspace(graded, "train"), config)


def test_a_baseline_that_nobody_could_score_is_an_outage_or_an_error(graded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = graded / "down"
    monkeypatch.setenv("STUDENT_DOWN", str(switch))
    config = room.config(student=f"{room.STUDENTS}:fragile", judge=room.GRADED["judge"])
    work = room.workspace(graded, "baseline")
    switch.touch()
    with pytest.raises((DataError, Outage), match="none of 18 tasks has a baseline: agent_crashed"):
        baseline.run(work, config)
    assert not (work.folder / baseline.FILE).exists()
    switch.unlink()
    assert baseline.run(work, config).figures["unscored"] == 0, "the failures were not kept"
