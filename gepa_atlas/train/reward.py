"""The one reward of GRPO: what a piece of guidance changed in the frozen student's answer, or None as a whole.

It is one function on purpose. With two, trl adds up those that are not None, and a completion that nobody could judge gets the sum of the
rest: often the best of its group. Failures of student or judges never raise and never count as 0; an infinite or undefined number is a
failure too, because one such reward destroys the weights in one step.
"""

from __future__ import annotations

import asyncio
import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gepa_atlas.handoff.prompts import well_formed
from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.loops import gathered
from gepa_atlas.train.baseline import Baseline
from gepa_atlas.train.config import GuardsConfig, RewardConfig, TrainConfig
from gepa_atlas.train.school import Outcome, School, source_of
from gepa_atlas.types import Example, digest

Status = Literal["ok", "format", "leak", "unscored", "nonfinite"]


def inputs(work: Workspace, config: TrainConfig) -> dict[str, str]:
    """Hashes of who is taught and who judges. No call is made."""
    unkept = config.reward.model_copy(update={"cache": False})
    with School(work, config.model_copy(update={"reward": unkept})) as school:
        return school.identity


@dataclass(frozen=True, slots=True)
class Judged:
    """One completion. `value` is the shaped reward; `delta` is None where the student was not asked or has no score."""

    status: Status
    value: float | None
    delta: float | None = None
    harmful: bool = False  # a loss beyond tau, or guidance that was refused: its advantage may not be positive
    why: str = ""
    reward: float | None = None  # of the student's answer, in [0, 1]


def shaped(delta: float, tau: float, saving: float, how: RewardConfig) -> float:
    """The reward of a delta in [-1, 1]: a loss beyond `tau` weighs lambda times, a gain with fewer student tokens a little more.

    saving: share of the student's baseline tokens that the guidance saved, in [0, 1].
    """
    value = delta if delta >= -tau else how.degradation_multiplier * delta
    value += how.efficiency * max(0.0, delta) * saving
    return min(how.max_reward, max(-how.degradation_multiplier, value))


class RimDeltaReward:
    """An async reward function of trl. After each call `last` has one Judged a completion, in order, and `outage` says why training must
    stop here, where it must.

    ends: token ids that end a completion; one that does not end in one of them was cut, which is a format error.
    """

    __name__ = "rim_delta"  # trl names the reward by it

    def __init__(
        self,
        school: School,
        tasks: Mapping[str, Example],
        baselines: Mapping[str, Baseline],
        how: RewardConfig,
        guards: GuardsConfig,
        *,
        protocol: str,
        ends: frozenset[int] = frozenset(),
    ) -> None:
        self._school, self._tasks, self._baselines = school, tasks, baselines
        self._how, self._guards, self._protocol, self._ends = how, guards, protocol, ends
        self.last: list[Judged] = []
        self.outage: str | None = None
        self.nonfinite = 0

    async def __call__(
        self,
        *,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        task_id: Sequence[str],
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Rewards in the order of the completions; None where there is none."""
        texts = [said(completion) for completion in completions]
        rows = [(t, text, self._is_cut(ids)) for t, text, ids in zip(task_id, texts, completion_ids, strict=True)]
        self.last = await self._school.loop.carry(self._judged(rows))
        if log_extra is not None:
            log_extra("delta", [row.delta for row in self.last])
            log_extra("judge_status", [row.status for row in self.last])
        if log_metric is not None:
            for name, value in figures(self.last).items():
                log_metric(name, value)
            for name, value in (await self._school.loop.carry(self._held_out(rows))).items():
                log_metric(name, value)
        return [row.value for row in self.last]

    # -- judging --------------------------------------------------------------------------------------------------------

    async def _judged(self, rows: Sequence[tuple[str, str, bool]]) -> list[Judged]:
        """Judge all, and those that failed again after each of the breaker's waits while too many have failed."""
        found: list[Judged] = await gathered(self._one(*row) for row in rows)
        self.outage = None
        for wait in self._guards.judge_backoff_s:
            if not self._too_many(found):
                return found
            await asyncio.sleep(wait)
            await self._school.start_again()
            again = await gathered(self._one(*row) for row, old in zip(rows, found, strict=True) if old.status == "unscored")
            left = iter(again)
            found = [next(left) if old.status == "unscored" else old for old in found]
        if self._too_many(found):
            failed = [row for row in found if row.status == "unscored"]
            self.outage = f"{len(failed)} of {len(found)} completions have no score, one of them: {failed[0].why}"
        return found

    def _too_many(self, found: Sequence[Judged]) -> bool:
        return sum(row.status == "unscored" for row in found) > self._guards.judge_failed_rate * len(found)

    async def _one(self, task_id: str, text: str, cut: bool) -> Judged:
        task, baseline = self._tasks[task_id], self._baselines[task_id]
        if cut or not well_formed(text, self._protocol):
            return Judged("format", -self._how.format_penalty, harmful=True)
        if self._school.leaks(task, baseline.attempt, text):
            return Judged("leak", -self._how.leak_penalty, harmful=True)
        if baseline.mean is None:
            return Judged("unscored", None, why="the task has no baseline")
        outcome = await self._school.taught(task, baseline.attempt, text)
        if outcome.reward is None:
            assert outcome.missing is not None
            return Judged("unscored", None, why=f"{outcome.missing.kind}: {outcome.missing.reason}")
        delta, tau = outcome.reward - baseline.mean, max(self._how.tau, baseline.error)
        value = shaped(delta, tau, _saving(outcome, baseline), self._how)
        if not math.isfinite(value):
            self.nonfinite += 1
            return Judged("nonfinite", None, why=f"the reward is {value}")
        return Judged("ok", value, delta, delta < -tau, reward=outcome.reward)

    async def _held_out(self, rows: Sequence[tuple[str, str, bool]]) -> dict[str, float]:
        """How much higher the judges score than those of `reward.holdout`, on the same answers to a share of the completions."""
        if self._school.holdout is None:
            return {}
        chosen = [
            (row, judged.reward)
            for row, judged in zip(rows, self.last, strict=True)
            if judged.reward is not None and int(digest(row[:2], 8), 16) < self._how.holdout_share * 16**8
        ]
        others: list[Outcome] = await gathered(
            self._school.taught_held_out(self._tasks[row[0]], self._baselines[row[0]].attempt, row[1]) for row, _ in chosen
        )
        gaps = [ours - other.reward for (_, ours), other in zip(chosen, others, strict=True) if other.reward is not None]
        return {"judge_gap": statistics.fmean(gaps)} if gaps else {}

    def _is_cut(self, ids: Sequence[int]) -> bool:
        return bool(self._ends) and (not len(ids) or int(ids[-1]) not in self._ends)


def _saving(outcome: Outcome, baseline: Baseline) -> float:
    if outcome.tokens is None or not baseline.tokens:
        return 0.0
    return min(1.0, max(0.0, 1.0 - outcome.tokens / baseline.tokens))


def said(completion: Any) -> str:
    """The text of a completion, which trl hands over as a list of messages where the prompt was one."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def figures(rows: Sequence[Judged]) -> dict[str, float]:
    """What a step's completions say together. The mean of no delta is left out, never 0."""
    count = max(1, len(rows))
    deltas = [row.delta for row in rows if row.delta is not None]
    found = {
        "judge_failed_rate": sum(row.status in ("unscored", "nonfinite") for row in rows) / count,
        "format_error_rate": sum(row.status == "format" for row in rows) / count,
        "leak_rate": sum(row.status == "leak" for row in rows) / count,
        "nonfinite": float(sum(row.status == "nonfinite" for row in rows)),
    }
    if deltas:
        found["delta_mean"] = statistics.fmean(deltas)
        found["non_degradation_rate"] = 1.0 - sum(row.harmful and row.status == "ok" for row in rows) / len(deltas)
    return found


class Redacting(logging.Filter):
    """Keeps prompts and completions out of a log: trl warns of an unscored row by printing it whole."""

    def filter(self, record: logging.LogRecord) -> bool:
        if "All reward functions returned None" in str(record.msg):
            record.msg = "a completion could not be scored and takes no part in this step (metrics.jsonl: judge_failed_rate)"
            record.args = ()
        return True


def redact_trainer_log() -> None:
    """Install the filter on trl's logger, once."""
    logger = logging.getLogger("trl.trainer.grpo_trainer")
    if not any(isinstance(found, Redacting) for found in logger.filters):
        logger.addFilter(Redacting())


def protocol_name(work: Workspace, config: TrainConfig) -> str:
    """How guidance reaches the student: the protocol of the optimization run."""
    return source_of(work, config).loaded.config.protocol_name
