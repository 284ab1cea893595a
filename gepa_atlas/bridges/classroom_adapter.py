"""Our classroom as a `GEPAAdapter`: upstream gepa runs on the same agent, data, protocol and judges as a run of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gepa_atlas.bridges.background import Background
from gepa_atlas.classroom import Classroom
from gepa_atlas.errors import AgentUnusable, ConfigError
from gepa_atlas.loop import Experiment
from gepa_atlas.types import Candidate, Example, Lesson


class ClassroomAdapter:
    """`score` is the reward of the second attempt (in [0, 1]) or the delta over the first; the other one is an objective score.

    A lesson that has no score stops gepa with the reason, unless `failure_score` says which number gepa shall be told instead; how many
    those were is `unscored`. Calls are recorded in memory: the same request is paid once.
    """

    propose_new_texts = None

    def __init__(self, experiment: Experiment, *, score: Literal["reward", "delta"] = "reward", failure_score: float | None = None) -> None:
        if score not in ("reward", "delta"):
            raise ConfigError(f"score={score!r}: it is 'reward' or 'delta'")
        self._classroom = Classroom(experiment.student, experiment.panel, experiment.protocol)
        self._seed = experiment.seeds[0]
        self._score, self._failure_score = score, failure_score
        self._loop = Background("classroom")
        self.unscored = 0
        self.seed_candidate: dict[str, str] = dict(self._seed.texts)
        self.trainset: list[Example] = list(experiment.dataset.train)
        self.valset: list[Example] = list(experiment.dataset.val)
        self.testset: list[Example] = list(experiment.dataset.test)

    def evaluate(self, batch: Sequence[Example], candidate: Mapping[str, str], capture_traces: bool = False) -> Any:
        """gepa's EvaluationBatch; the trajectories are lessons."""
        from gepa import EvaluationBatch

        lessons = self._loop.run(self._teach(Candidate.of(candidate, self._seed.demos, dict(self._seed.settings)), batch))
        return EvaluationBatch(
            outputs=[lesson.second.output for lesson in lessons],
            scores=[self._number(lesson) for lesson in lessons],
            trajectories=lessons if capture_traces else None,
            objective_scores=[_both(lesson) for lesson in lessons],
        )

    def make_reflective_dataset(
        self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: Sequence[str]
    ) -> dict[str, list[dict[str, Any]]]:
        lessons: list[Lesson] = eval_batch.trajectories or []
        return {name: [_shown(lesson) for lesson in lessons] for name in components_to_update}

    async def _teach(self, candidate: Candidate, batch: Sequence[Example]) -> list[Lesson]:
        return list(await asyncio.gather(*(self._classroom.teach(candidate, example) for example in batch)))

    def _number(self, lesson: Lesson) -> float:
        value = lesson.after.value if self._score == "reward" else lesson.delta
        if value is not None:
            return value
        self.unscored += 1
        if self._failure_score is None:
            reason = lesson.failure.reason if lesson.failure else "it had no reward"
            raise AgentUnusable(f"example {lesson.example.id!r} has no score: {reason}; mend it, or give failure_score")
        return self._failure_score


def _both(lesson: Lesson) -> dict[str, float]:
    values = {"reward": lesson.after.value, "delta": lesson.delta}
    return {name: value for name, value in values.items() if value is not None}


def _shown(lesson: Lesson) -> dict[str, Any]:
    """A row of gepa's reflective dataset: what was asked, what came, and what the judges say of it. Train examples only reach here."""
    example = lesson.example
    inputs = {"question": example.question} | ({"context": example.context} if example.context else {})
    said = [f"reward {lesson.after.value}" if lesson.after.value is not None else "no reward", lesson.after.rationale]
    if example.answers:
        said.append(f"accepted answers: {', '.join(example.answers)}")
    return {"Inputs": inputs, "Generated Outputs": lesson.second.output or "", "Feedback": "; ".join(part for part in said if part)}


__all__ = ["ClassroomAdapter"]
