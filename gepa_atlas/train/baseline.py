"""Stage `baseline`: the student alone, several times a task, in the eyes of the judges that the rewards will come from.

Writes baselines.jsonl: {task_id, split, attempts, rewards, why_unscored, mean, sd, n, tokens}. A delta is measured against the mean; the
noise of that mean goes into tau. The answer of sample 0 is the attempt that the teacher reads in the evaluation.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gepa_atlas.errors import DataError, Outage, Transient
from gepa_atlas.handoff.workspace import StageResult, Workspace
from gepa_atlas.loops import gathered
from gepa_atlas.store.exports import write_jsonl
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.school import OUTAGE, Outcome, School, read_rows, tasks_of
from gepa_atlas.types import Example

FILE = "baselines.jsonl"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the student gets without guidance. Rewards are in [0, 1]."""

    task_id: str
    attempt: str | None  # its first answer; None where that run failed
    mean: float | None  # None: no run could be scored
    sd: float  # standard deviation of one run
    n: int  # runs that were scored
    tokens: float | None  # mean of a run; None where the connector reports none

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.sd / math.sqrt(self.n) if self.n else 0.0


def run(work: Workspace, config: TrainConfig) -> StageResult:
    """Raises DataError when no task could be scored, Outage when too many could not."""
    tasks = list(tasks_of(work).values())
    samples = config.baseline.samples
    with School(work, config) as school:
        school.panel.check(tasks)
        rows = school.loop.wait(_measured(school, tasks, samples, work))
        identity = school.identity
    failed = [row for row in rows if row["mean"] is None]
    runs = samples * len(rows)
    unscored = sum(len(row["why_unscored"]) for row in rows)
    if len(failed) == len(rows) and not any(_passing(why) for why in failed[0]["why_unscored"]):
        raise DataError(f"none of {len(rows)} tasks has a baseline: {failed[0]['why_unscored'][0]}; mend the student or the judges")
    if unscored > config.guards.judge_failed_rate * runs:
        reason = next(row["why_unscored"][0] for row in rows if row["why_unscored"])
        raise Outage(
            f"{unscored} of {runs} baseline runs have no score (guards.judge_failed_rate {config.guards.judge_failed_rate:g}), "
            f"one of them: {reason}; what was answered is kept, run the same command again"
        )
    write_jsonl(work.folder / FILE, rows)
    return StageResult((FILE,), _figures(rows, samples, identity))


def _passing(why: str) -> bool:
    """Whether a failure is one that another time may not have: out of reach is not the same as wrong."""
    kinds: list[type[Transient]] = [Transient, *Transient.__subclasses__()]
    return why.partition(":")[0] in {OUTAGE, *(kind.kind for kind in kinds)}


async def _measured(school: School, tasks: list[Example], samples: int, work: Workspace) -> list[dict[str, Any]]:
    done = 0

    async def one(task: Example) -> dict[str, Any]:
        nonlocal done
        outcomes: list[Outcome] = await gathered(school.alone(task, sample) for sample in range(samples))
        done += 1
        work.progress.step("tasks", done, len(tasks))
        return _row(task, outcomes)

    return await gathered(one(task) for task in tasks)


def _row(task: Example, outcomes: list[Outcome]) -> dict[str, Any]:
    rewards = [o.reward for o in outcomes]
    scored = [r for r in rewards if r is not None]
    tokens = [o.tokens for o in outcomes if o.tokens is not None]
    return {
        "task_id": task.id,
        "split": task.split,
        "attempts": [o.output for o in outcomes],
        "rewards": rewards,
        "why_unscored": [f"{o.missing.kind}: {o.missing.reason}" for o in outcomes if o.missing is not None],
        "mean": statistics.fmean(scored) if scored else None,
        "sd": statistics.stdev(scored) if len(scored) > 1 else 0.0,
        "n": len(scored),
        "tokens": statistics.fmean(tokens) if tokens else None,
    }


def _figures(rows: list[dict[str, Any]], samples: int, identity: dict[str, str]) -> dict[str, Any]:
    scored = [row for row in rows if row["mean"] is not None]
    return {
        "tasks": len(rows),
        "samples": samples,
        "unscored": sum(len(row["why_unscored"]) for row in rows),
        "mean": statistics.fmean(row["mean"] for row in scored),
        "noise": math.sqrt(statistics.fmean(row["sd"] ** 2 for row in scored)),
        "identity": identity,
    }


def baselines_of(work: Workspace) -> dict[str, Baseline]:
    """What the stage found, by task. Raises ConfigError when it has not run."""
    found = {}
    for row in read_rows(_file(work)):
        found[row["task_id"]] = Baseline(row["task_id"], row["attempts"][0], row["mean"], row["sd"], row["n"], row["tokens"])
    return found


def _file(work: Workspace) -> Path:
    return work.folder_of("baseline") / FILE
