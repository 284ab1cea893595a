"""A student and a reflection model that take a set time and know nothing: what is measured with them is the machinery around them.

A prompt is lines; a line helps with probability `good`, by its hash, and hurts otherwise; an answer is right with the prompt's quality,
by the hash of (prompt, question). So every system sees the same task, and a run is the same whatever finishes first.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gepa_atlas.build import width_of
from gepa_atlas.calls import Calls, MemoryTape
from gepa_atlas.data import Dataset
from gepa_atlas.evolve.engine import Plan
from gepa_atlas.evolve.portfolio import Operator
from gepa_atlas.loop import Experiment
from gepa_atlas.ports import Case, ChatRequest, Completion, Endpoint
from gepa_atlas.propose.registry import build_proposers
from gepa_atlas.protocols.playbook import GUIDANCE, Playbook
from gepa_atlas.rim.panel import Panel, Seat
from gepa_atlas.types import Attempt, Candidate, Example, JudgeScore, Task, digest

SEED = "Answer the question."


def unit(*address: object) -> float:
    """A number in [0, 1) that is a function of its address."""
    return int.from_bytes(hashlib.sha256(repr(address).encode()).digest()[:6]) / 2**48


@dataclass
class Work:
    """Time that calls took, summed: ideal wall clock is `seconds` / concurrency. Also a gauge of calls in flight."""

    call: float
    stragglers: float = 0.0
    slowest: float = 9.0
    draw: int = 0  # which calls are slow
    seconds: float = 0.0
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, *address: object) -> float:
        """Seconds this call takes; a straggler takes up to `slowest` times as long."""
        slow = unit("straggler", self.draw, *address) < self.stragglers
        seconds = self.call * (1 + (self.slowest - 1) * unit("how slow", self.draw, *address) if slow else 1)
        with self.lock:
            self.seconds += seconds
            self.calls += 1
        return seconds


@dataclass(frozen=True)
class Task01:
    """Whether an answer is right. `good` is how often a new line helps."""

    good: float = 0.25
    step: float = 0.04

    def quality(self, text: str) -> float:
        lines = [line for line in text.splitlines()[1:] if line.strip()]
        return min(0.95, max(0.05, 0.3 + sum(self.step if unit("line", line) < self.good else -self.step for line in lines)))

    def score(self, text: str, question: str) -> float:
        return float(unit("answer", text, question) < self.quality(text))


class SleepyAgent:
    """A student that takes its time. The answer says the score, for the judge to read."""

    identity = "fake student"

    def __init__(self, work: Work, concurrency: int, task: Task01) -> None:
        self.endpoint = Endpoint("student", max_concurrency=concurrency)
        self._work, self._task = work, task

    async def run(self, task: Task) -> Attempt:
        seconds = self._work.take(task.guidance.text, task.question.text)
        if seconds:
            await asyncio.sleep(seconds)
        return Attempt(f"{self._task.score(task.guidance.text or SEED, task.question.text):.0f}")


class SleepyReflection:
    """A reflection model that adds one line, a function of the request."""

    identity = "fake reflection"

    def __init__(self, work: Work, concurrency: int) -> None:
        self.endpoint = Endpoint("reflection", max_concurrency=concurrency)
        self._work = work

    async def complete(self, request: ChatRequest) -> Completion:
        key = digest(request.to_json(), 16)
        seconds = self._work.take(key)
        if seconds:
            await asyncio.sleep(seconds)
        edit = {"component": GUIDANCE, "op": "add", "item": None, "text": f"Rule {key}: mind case {key[:6]}."}
        return Completion(json.dumps({"diagnosis": "A rule is missing.", "edits": [edit]}))


class ReadScore:
    """The judge that reads the score off the answer."""

    name = "read"
    identity = "read score"
    needs_answer = False

    async def judge(self, case: Case) -> JudgeScore:
        return JudgeScore(self.name, float(case.output))


def atlas_experiment(
    *, students: Work, reflections: Work, concurrency: int, rollouts: int, train: int, val: int, task: Task01 = Task01()
) -> Experiment:
    """A run of ours on the fake task, through the real loop, ledger and call door, with the width that the product gives it."""
    calls = Calls(MemoryTape(), concurrency=concurrency)
    protocol = Playbook()
    examples = [Example(f"e{i}", f"Question number {i}?", split="train" if i < train else "val") for i in range(train + val)]
    dataset = Dataset(tuple(examples[:train]), tuple(examples[train:]), (), digest([train, val], 16))
    model = calls.model(SleepyReflection(reflections, concurrency), "reflection")
    return Experiment(
        name="fake",
        plan=Plan(seed=0, width=width_of(rollouts), rollouts=rollouts, operators=(Operator("reflect", 4),)),
        seeds=(Candidate.of({GUIDANCE: SEED}),),
        components=protocol.components(),
        dataset=dataset,
        student=calls.agent(SleepyAgent(students, concurrency, task)),
        panel=Panel([Seat(ReadScore())]),
        protocol=protocol,
        proposers=build_proposers(["reflect"], model=model),
        calls=calls,
        manifest={"benchmark": "fake"},
        config={"benchmark": "fake"},
    )


class FakeGepaAdapter:
    """The same task for gepa, its batches in `threads` threads when more than one, over all (candidate, batch) pairs at once."""

    propose_new_texts = None

    def __init__(self, work: Work, task: Task01, pool: Any | None) -> None:
        self._work, self._task, self._pool = work, task, pool

    def _one(self, cell: tuple[str, str]) -> float:
        text, question = cell
        seconds = self._work.take(text, question)
        if seconds:
            time.sleep(seconds)
        return self._task.score(text, question)

    def _scores(self, cells: list[tuple[str, str]]) -> list[float]:
        return list(self._pool.map(self._one, cells)) if self._pool is not None else [self._one(c) for c in cells]

    def evaluate(self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        return self._pack(batch, self._scores([(candidate["guidance"], q) for q in batch]))

    @staticmethod
    def _pack(batch: list[str], scores: list[float]) -> Any:
        from gepa.core.adapter import EvaluationBatch

        return EvaluationBatch(outputs=[""] * len(batch), scores=scores, trajectories=batch)

    def make_reflective_dataset(self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]) -> Any:
        rows = [{"Inputs": q, "Feedback": str(s)} for q, s in zip(eval_batch.trajectories, eval_batch.scores, strict=True)]
        return {name: rows for name in components_to_update}


class BatchingGepaAdapter(FakeGepaAdapter):
    """With the hand-written batch_evaluate that the tuned configuration needs: all pairs of a step in one go."""

    def batch_evaluate(self, items: list[tuple[dict[str, str], list[str]]]) -> list[Any]:
        scores = iter(self._scores([(candidate["guidance"], q) for candidate, batch in items for q in batch]))
        return [self._pack(batch, [next(scores) for _ in batch]) for _, batch in items]


class GepaReflection:
    """gepa's reflection callable: adds one line. `batch_complete` is what makes its proposals parallel."""

    def __init__(self, work: Work, pool: Any | None) -> None:
        self._work, self._pool = work, pool
        if pool is not None:
            self.batch_complete = self._batch

    def __call__(self, prompt: Any) -> str:
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        key = digest([text, self._work.calls], 16)
        seconds = self._work.take(key)
        if seconds:
            time.sleep(seconds)
        current = text.split("```")[1].strip()
        return f"```\n{current}\nRule {key}: mind case {key[:6]}.\n```"

    def _batch(self, prompts: list[Any], **_: Any) -> list[str]:
        assert self._pool is not None
        return list(self._pool.map(self, prompts))


def written() -> int:
    """Bytes this process has passed to write calls so far (Linux: files, whatever the disk does with them); 0 elsewhere."""
    source = Path("/proc/self/io")
    if not source.exists():
        return 0
    return int(next(line for line in source.read_text().splitlines() if line.startswith("wchar")).split()[1])
