"""Stage `eval`: {base, adapter} x {seed prompt, evolved prompt} on untouched tasks, and the student alone.

Writes cells.jsonl, one row a {cell, task, sample}; the gate makes its figures from that file alone. Guidance is delivered as in production,
gold answers masked, and a run that nobody could score is a row without a reward and with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gepa_atlas.errors import DataError, Outage
from gepa_atlas.handoff.prompts import Turn, messages, task_prompt, well_formed
from gepa_atlas.handoff.workspace import StageResult, Workspace
from gepa_atlas.loops import gathered
from gepa_atlas.store.exports import write_jsonl
from gepa_atlas.train import weights
from gepa_atlas.train.baseline import Baseline, baselines_of
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.fit import ADAPTER
from gepa_atlas.train.generate import Written, write
from gepa_atlas.train.prompts import Prompts, check_lengths, prompts_of
from gepa_atlas.train.reward import protocol_name
from gepa_atlas.train.school import Outcome, School, tasks_of
from gepa_atlas.train.stages import adapter_before
from gepa_atlas.train.suites import asked
from gepa_atlas.types import Example

CELLS = "cells.jsonl"
_REFUSES = re.compile(
    r"(?i)\b(?:can(?:no|')t|cannot|unable to|not able to|not enough|insufficient|more information|unclear|unknown|under-?specified|"
    r"not specified|does not say|doesn't say|no way to (?:know|tell)|clarif\w+|which (?:one|\w+) do you mean|i do not know|i don't know)\b"
)


@dataclass(frozen=True)
class Question:
    """What one evaluation asks: a task with gold answers, a question that cannot be answered, or one of the regression suite."""

    kind: str  # task, underspecified or regression
    task: Example
    attempt: str | None  # the student's own answer, which the teacher reads
    baseline: float | None


def run(work: Workspace, config: TrainConfig) -> StageResult:
    """Raises ConfigError, DataError (no task to evaluate on) and Outage."""
    weights.quiet()
    base = weights.base_folder(work, config)
    tokenizer = weights.load_tokenizer(base, config.model)
    prompts, stage = prompts_of(work, config), adapter_before(config, "eval")
    adapter = work.folder_of(stage) / ADAPTER if stage else None
    protocol = protocol_name(work, config)
    rows: list[dict[str, Any]] = []
    with School(work, config, prompts.candidate) as school:
        questions = questions_of(work, config, school)
        check_lengths(tokenizer, _longest(prompts, questions, config), config.grpo.max_completion_length, config.model.context)
        rows += school.loop.wait(_alone(school, questions, config))
        for who, folder in (("base", None), ("adapter", adapter)):
            if who == "adapter" and folder is None:
                continue
            model = weights.placed(weights.load_trainee(base, config.model, folder, trainable=False), config)
            for cell, system in _cells(who, prompts, config):
                work.progress.note(f"evaluating {cell}")
                rows += _cell(work, config, school, model, tokenizer, cell, system, questions, protocol)
            rows += _regression(work, config, school, model, tokenizer, who)
    _refuse_outage(rows, config)
    write_jsonl(work.folder / CELLS, rows)
    return StageResult((CELLS,), {**figures(rows), "base_sha256": weights.base_sha256(base)})  # the gate holds the adapter against it


def questions_of(work: Workspace, config: TrainConfig, school: School) -> list[Question]:
    """Tasks of `eval.split` with their baselines, then the under-specified questions, which the student is asked now."""
    baselines = baselines_of(work)
    tasks = list(tasks_of(work, (config.eval.split,)).values())[: config.eval.max_tasks]
    if not tasks:
        raise DataError(f"eval.split: the hand-off has no {config.eval.split} tasks; set eval.split: val, or export a run that has some")
    found = [_question("task", task, baselines.get(task.id)) for task in tasks]
    vague = asked(work, config, "underspecified")
    outcomes: list[Outcome] = school.loop.wait(gathered(school.alone(task) for task in vague))
    return found + [Question("underspecified", task, outcome.output, None) for task, outcome in zip(vague, outcomes, strict=True)]


def _question(kind: str, task: Example, baseline: Baseline | None) -> Question:
    return Question(kind, task, baseline.attempt if baseline else None, baseline.mean if baseline else None)


def _cells(who: str, prompts: Prompts, config: TrainConfig) -> list[tuple[str, str]]:
    cells = [(f"{who}+seed", prompts.seed), (f"{who}+evolved", prompts.evolved)]
    without = config.eval.base_without_prompt or config.handoff.prompt_mode == "distil"
    return [*cells, (f"{who}+none", "")] if without else cells


def _longest(prompts: Prompts, questions: Sequence[Question], config: TrainConfig) -> dict[str, list[Turn]]:
    return {q.task.id: task_prompt(prompts.evolved, q.task, q.attempt, config.handoff.teacher) for q in questions}


async def _alone(school: School, questions: Sequence[Question], config: TrainConfig) -> list[dict[str, Any]]:
    """The student without a teacher: the same answers as in the baseline, by their record."""
    cells = [(q, sample) for q in questions for sample in range(config.eval.samples)]
    outcomes: list[Outcome] = await gathered(school.alone(q.task, sample) for q, sample in cells)
    return [_row("student", q, sample, outcome, None, None) for (q, sample), outcome in zip(cells, outcomes, strict=True)]


def _cell(
    work: Workspace, config: TrainConfig, school: School, model: Any, tokenizer: Any, cell: str, system: str,
    questions: Sequence[Question], protocol: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """One model with one system prompt: guidance for each question and sample, then the student with it."""
    rows: list[dict[str, Any]] = []
    for sample in range(config.eval.samples):
        prompts = [task_prompt(system, q.task, q.attempt, config.handoff.teacher) for q in questions]
        written = write(
            model, tokenizer, prompts, max_tokens=config.grpo.max_completion_length, temperature=config.eval.temperature,
            seed=work.seed + sample, batch_size=config.eval.batch_size,
            done=lambda count: work.progress.step(cell, count, len(questions)),
        )  # fmt: skip
        jobs = [school.taught(q.task, q.attempt, w.text, sample) for q, w in zip(questions, written, strict=True)]
        outcomes: list[Outcome] = school.loop.wait(gathered(jobs))
        made = [
            _row(cell, q, sample, outcome, w, w.finished and well_formed(w.text, protocol))
            for q, w, outcome in zip(questions, written, outcomes, strict=True)
        ]
        if school.holdout is not None:  # the gate asks whether judges that training never asked see the gain too
            asked = [at for at, q in enumerate(questions) if q.kind == "task"]
            jobs = [school.taught_held_out(questions[at].task, questions[at].attempt, written[at].text, sample) for at in asked]
            held_out: list[Outcome] = school.loop.wait(gathered(jobs))
            for at, outcome in zip(asked, held_out, strict=True):
                made[at]["holdout_reward"] = outcome.reward
        rows += made
    return rows


def _row(
    cell: str, question: Question, sample: int, outcome: Outcome, written: Written | None, format_valid: bool | None
) -> dict[str, Any]:
    task = question.kind == "task"
    reward = outcome.reward if task else None
    delta = None if reward is None or question.baseline is None else reward - question.baseline
    refused = bool(_REFUSES.search(outcome.output)) if question.kind == "underspecified" and outcome.output is not None else None
    missing = f"{outcome.missing.kind}: {outcome.missing.reason}" if outcome.missing is not None and (task or refused is None) else None
    return {
        "cell": cell,
        "task_id": question.task.id,
        "sample": sample,
        "kind": question.kind,
        "reward": reward,
        "why_unscored": missing,
        "holdout_reward": None,
        "delta": delta,
        "format_valid": format_valid,
        "refused": refused,
        "confidence": None if written is None else round(written.confidence, 6),
        "tokens": outcome.tokens if written is None else written.tokens,
        "seconds": round(outcome.seconds + (written.seconds if written else 0.0), 6),
    }


def _regression(work: Workspace, config: TrainConfig, school: School, model: Any, tokenizer: Any, who: str) -> list[dict[str, Any]]:
    """The regression suite, asked of the trainee itself without a teacher's prompt: what else it could do before, it still can."""
    tasks = asked(work, config, "regression")
    if not tasks:
        return []
    written = write(
        model, tokenizer, [messages("", task.question) for task in tasks], max_tokens=config.grpo.max_completion_length, temperature=0.0,
        seed=work.seed, batch_size=config.eval.batch_size,
    )  # fmt: skip
    outcomes: list[Outcome] = school.loop.wait(gathered(school.answered(task, w.text) for task, w in zip(tasks, written, strict=True)))
    return [
        _row(who, Question("regression", task, None, None), 0, outcome, w, w.finished) | {"reward": outcome.reward}
        for task, w, outcome in zip(tasks, written, outcomes, strict=True)
    ]


def _refuse_outage(rows: Sequence[Mapping[str, Any]], config: TrainConfig) -> None:
    """An evaluation in which too much is missing says nothing about the model: resumable, not a verdict."""
    asked = [row for row in rows if row["kind"] == "task"]
    missing = [row for row in asked if row["reward"] is None]
    if len(missing) > config.guards.judge_failed_rate * len(asked):
        raise Outage(
            f"{len(missing)} of {len(asked)} runs of the evaluation have no score (guards.judge_failed_rate "
            f"{config.guards.judge_failed_rate:g}), one of them: {missing[0]['why_unscored']}; what was answered is kept, run again"
        )


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean reward and delta of each cell: for a reader. The gate has its own, with intervals."""
    found: dict[str, Any] = {}
    for cell in dict.fromkeys(row["cell"] for row in rows):
        tasks = [row for row in rows if row["cell"] == cell and row["kind"] == "task"]
        found[cell] = {
            "reward": _mean(row["reward"] for row in tasks),
            "delta": _mean(row["delta"] for row in tasks),
            "unscored": sum(row["reward"] is None for row in tasks),
            "format_valid": _mean(row["format_valid"] for row in tasks),
        }
    return {"cells": found, "rows": len(rows)}


def _mean(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None
