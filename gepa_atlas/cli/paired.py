"""A paired evaluation of teaching: the same questions without it, with it, and with a second try that no teacher guided."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gepa_atlas.classroom import secret
from gepa_atlas.errors import BudgetExhausted, CallError, DataError
from gepa_atlas.evolve.rng import rng
from gepa_atlas.evolve.stats import mean_interval, wilson
from gepa_atlas.ports import Agent, Case
from gepa_atlas.protocols.base import TeachingProtocol
from gepa_atlas.rim.bank import json_rows
from gepa_atlas.rim.panel import Panel
from gepa_atlas.types import Attempt, Candidate, Example, Guidance, Reward, StopReason, Task, Usage, canonical

RIGHT = 0.5  # a reward from here on counts as a right answer
_RETRY = "You answered this question before:\n{attempt}\n\nCheck that answer step by step and answer the question again."


@dataclass(frozen=True, slots=True)
class Side:
    attempt: Attempt
    reward: Reward


@dataclass(frozen=True, slots=True)
class Trial:
    """One example and repeat: before, with teaching, and the control; the teacher's words and what they took."""

    example: Example
    before: Side
    after: Side
    control: Side | None
    guidance: str
    teacher: Usage


async def evaluate(
    student: Agent,
    protocol: TeachingProtocol,
    candidate: Candidate,
    panel: Panel,
    examples: Sequence[Example],
    *,
    samples: int = 1,
    control: bool = True,
) -> list[Trial]:
    """Every example `samples` times, concurrently as far as the endpoints allow."""

    async def side(example: Example, task: Task) -> Side:
        try:
            attempt = await student.run(task)
        except (CallError, BudgetExhausted) as error:
            attempt = Attempt.failed(error.kind, str(error))
        if attempt.output is None:
            assert attempt.error is not None
            return Side(attempt, Reward.none(attempt.error.kind, attempt.error.reason))
        return Side(attempt, await panel.score(Case(example, protocol.answer(attempt.output))))

    async def one(example: Example, sample: int) -> Trial:
        question = example.public()
        before = await side(example, replace(protocol.baseline(question), sample=sample))
        prepared = await protocol.prepare(candidate, question, before.attempt, sample, secret(example))
        if prepared.failure is not None:
            failed = Attempt.failed(prepared.failure.kind, prepared.failure.reason)
            after = Side(failed, Reward.none(prepared.failure.kind, prepared.failure.reason))
        else:
            after = await side(example, prepared.task)
        retried = None
        if control and before.attempt.output is not None:
            again = Guidance(_RETRY.replace("{attempt}", before.attempt.output, 1))
            retried = await side(example, Task(question, again, sample))
        return Trial(example, before, after, retried, prepared.guidance.text, prepared.usage)

    cells = [(example, sample) for example in examples for sample in range(samples)]
    done: dict[int, Trial] = {}
    queue = iter(range(len(cells)))

    async def work() -> None:
        for i in queue:
            done[i] = await one(*cells[i])

    await asyncio.gather(*(work() for _ in range(min(16, len(cells)))))
    return [done[i] for i in range(len(cells))]


def load_questions(path: Path) -> list[Example]:
    """JSON lines with `question`, and optionally `answer` (a text or a list), `context`, `tags`, `difficulty`, `spec`, `id`."""
    examples = []
    for number, row in json_rows(path):
        if not isinstance(row.get("question"), str) or not row["question"].strip():
            raise DataError(f"{path}:{number}: a row has a `question` text; add it")
        gold = row.get("answer", row.get("ground_truth"))
        answers = tuple(map(str, gold)) if isinstance(gold, list) else (() if gold is None else (str(gold),))
        tags = [str(tag) for tag in row.get("tags", [])] + ([str(row["difficulty"])] if row.get("difficulty") else [])
        spec = row.get("spec", "")
        text = spec if isinstance(spec, str) else canonical(spec)
        examples.append(
            Example(str(row.get("id", number)), row["question"], answers, str(row.get("context", "")), "test", tuple(tags), text)
        )
    if not examples:
        raise DataError(f"{path}: the file has no questions")
    return examples


# -- the results page ---------------------------------------------------------------------------------------------------------


def results(trials: Sequence[Trial]) -> dict[str, Any]:
    """Every figure of the page. Means are over trials scored on both sides; intervals and tests resample examples, not trials."""
    scored = [t for t in trials if t.before.reward.value is not None and t.after.reward.value is not None]
    page: dict[str, Any] = {"trials": len(trials), "scored": len(scored), "examples": len({t.example.id for t in trials})}
    page["completion_rate"] = {name: _completed([getattr(t, name).attempt for t in trials]) for name in ("before", "after")}
    page["unscored"] = _reasons(trials)
    if not scored:
        return page
    gains = np.array([_gain(t) for t in scored])
    by_example = _clustered(scored, gains)
    interval = mean_interval(by_example)
    page |= {
        "reward": _both(scored, lambda value: value),
        "accuracy": _both(scored, lambda value: float(value >= RIGHT)),
        "gain": float(gains.mean()),
        "gain_interval": list(interval) if interval else None,
        "p_value": sign_flip(by_example),
        "maximum_improvement": float(gains.max()),
        "non_degradation_rate": float((gains >= 0).mean()),
        "non_degradation_low": wilson(float((by_example >= 0).sum()), len(by_example), 1.6449)[0],
        "folds": _folds(by_example),
        "learning_curve": _curve(gains),
        "by_tag": {tag: _tag(scored, tag) for tag in sorted({tag for t in scored for tag in t.example.tags})},
        "tokens": _change([t.before.attempt.usage.tokens for t in scored], [t.after.attempt.usage.tokens for t in scored]),
        "seconds": _change([t.before.attempt.usage.seconds for t in scored], [t.after.attempt.usage.seconds for t in scored]),
    }
    page["teaching_tokens"] = _mean([t.teacher.output_tokens if t.teacher.calls else len(t.guidance.split()) for t in scored])
    lift = page["accuracy"]["after"] - page["accuracy"]["before"]
    length = page["teaching_tokens"]
    page["teaching_efficiency"] = lift * page["completion_rate"]["after"] / (length / 1000) if length else None
    page["self_refine"] = _control(scored)
    return page


def _gain(trial: Trial) -> float:
    return (trial.after.reward.value or 0.0) - (trial.before.reward.value or 0.0)


def _completed(attempts: Sequence[Attempt]) -> float:
    return sum(a.stop is StopReason.DONE for a in attempts) / len(attempts)


def _reasons(trials: Sequence[Trial]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for trial in trials:
        for reward in (trial.before.reward, trial.after.reward):
            if reward.missing:
                counts[reward.missing.kind] = counts.get(reward.missing.kind, 0) + 1
    return counts


def _both(trials: Sequence[Trial], read: Any) -> dict[str, float]:
    sides = {name: float(np.mean([read(getattr(t, name).reward.value) for t in trials])) for name in ("before", "after")}
    return sides | {"change": sides["after"] - sides["before"]}


def _clustered(trials: Sequence[Trial], values: np.ndarray) -> np.ndarray:
    """One mean per example, in order of first appearance."""
    groups: dict[str, list[float]] = {}
    for trial, value in zip(trials, values, strict=True):
        groups.setdefault(trial.example.id, []).append(float(value))
    return np.array([np.mean(group) for group in groups.values()])


def sign_flip(values: np.ndarray, rounds: int = 10_000) -> float:
    """Two-sided p of the paired sign-flip test that the mean is 0: exact up to 12 examples, sampled beyond."""
    if not np.any(values):
        return 1.0
    n = len(values)
    if n <= 12:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ values) >= abs(values.sum()) - 1e-12).mean())
    signs = rng(0, n, "sign-flip").choice([-1.0, 1.0], (rounds, n))
    return float((1 + (np.abs(signs @ values) >= abs(values.sum()) - 1e-12).sum()) / (rounds + 1))


def _folds(values: np.ndarray, k: int = 5) -> list[float]:
    """The mean gain in each of k parts of the examples, drawn once at random: how much one part differs from another."""
    if len(values) < 2 * k:
        return []
    place = rng(0, len(values), "folds").permutation(len(values)) % k
    return [float(values[place == fold].mean()) for fold in range(k)]


def _curve(gains: np.ndarray) -> list[list[float]]:
    """Running mean of the gain after so many trials, at ten points."""
    points = sorted({max(1, math.ceil(len(gains) * part / 10)) for part in range(1, 11)})
    return [[n, float(gains[:n].mean())] for n in points]


def _tag(trials: Sequence[Trial], tag: str) -> dict[str, Any]:
    own = [t for t in trials if tag in t.example.tags]
    return {"trials": len(own), "reward": _both(own, lambda v: v), "accuracy": _both(own, lambda v: float(v >= RIGHT))}


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _change(before: Sequence[float | None], after: Sequence[float | None]) -> dict[str, float | None]:
    was, now = _mean(before), _mean(after)
    return {"before": was, "after": now, "change": (now - was) / was if was and now is not None else None}


def _control(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """What a second try without a teacher is worth, and what teaching is worth beyond it."""
    own = [t for t in trials if t.control is not None and t.control.reward.value is not None]
    if not own:
        return None
    retry = np.array([(t.control.reward.value or 0.0) - (t.before.reward.value or 0.0) for t in own if t.control is not None])
    beyond = np.array([_gain(t) for t in own]) - retry
    clustered = _clustered(own, beyond)
    interval = mean_interval(clustered)
    return {
        "trials": len(own),
        "gain_of_a_second_try": float(retry.mean()),
        "gain_beyond_it": float(beyond.mean()),
        "interval": list(interval) if interval else None,
        "p_value": sign_flip(clustered),
    }
