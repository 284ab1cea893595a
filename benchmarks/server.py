"""The one door between an optimizer and a task: it counts every student call, and stops hard when the budget is spent.

A repeat costs like a first call, for everybody alike; the reflector is counted beside, with its tokens. Optimizers import this
module and never a world.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Texts = Mapping[str, str]


class BudgetExhausted(Exception):
    """The student-call budget is spent. The optimizer's best so far counts."""


class Landscape(Protocol):
    """What a server needs of a task. Ids are strings; `calls` numbers the repeats of one (candidate, example)."""

    components: tuple[str, ...]
    train_ids: tuple[str, ...]
    val_ids: tuple[str, ...]

    def seed(self) -> dict[str, str]: ...

    def question(self, example: str) -> str: ...

    def answer(self, example: str) -> str: ...

    def run(self, candidate: Texts, examples: Sequence[str], calls: Sequence[int]) -> list[Rollout]: ...

    def reflect(self, prompt: str, call: int) -> str: ...


@dataclass(frozen=True)
class Rollout:
    """One judged student call. `feedback` is a function because most rollouts are never read."""

    example: str
    score: float
    output: str
    explain: Callable[[], str]

    @property
    def feedback(self) -> str:
        return self.explain()


@dataclass
class Ledger:
    """What was spent. Tokens are characters / 4."""

    budget: int
    student_calls: int = 0
    student_tokens: int = 0
    reflector_calls: int = 0
    reflector_tokens: int = 0
    refused: int = 0  # calls asked for beyond the budget: the overshoot that was stopped
    repeats: int = 0  # calls for a (candidate, example) that had been called before
    best: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # (calls spent, current best) at each checkpoint


class EvalServer:
    """The counting choke point over one landscape. `checkpoints` is how many times the current best is asked on the way."""

    def __init__(self, landscape: Landscape, budget: int, checkpoints: int = 20) -> None:
        self._landscape = landscape
        self.ledger = Ledger(budget)
        self.components = landscape.components
        self.train_ids, self.val_ids = landscape.train_ids, landscape.val_ids
        self.seed = landscape.seed()
        self._marks = [round(budget * (i + 1) / checkpoints) for i in range(checkpoints)]
        self._calls: dict[tuple[tuple[str, ...], str], int] = {}
        self._prompts: dict[str, int] = {}
        self._val = frozenset(landscape.val_ids)
        self._seen: dict[tuple[str, ...], list[float]] = {}
        self._best: Callable[[], Texts] = lambda: self.seed

    @property
    def budget(self) -> int:
        return self.ledger.budget

    @property
    def left(self) -> int:
        return self.ledger.budget - self.ledger.student_calls

    def question(self, example: str) -> str:
        return self._landscape.question(example)

    def answer(self, example: str) -> str:
        """The gold answer, '' where a task has none. Adapters show it in feedback as their optimizer's documents advise."""
        return self._landscape.answer(example)

    def watch(self, best: Callable[[], Texts]) -> None:
        """Tell the server where to ask for the current best; it must answer at any moment, without a call."""
        self._best = best

    def evaluate(self, candidate: Texts, examples: Sequence[str]) -> list[Rollout]:
        """Run and judge; raises BudgetExhausted once the budget is spent, the calls up to it having been made and lost."""
        allowed = min(len(examples), self.left)
        self.ledger.refused += len(examples) - allowed
        rollouts = self._run(candidate, examples[:allowed]) if allowed else []
        if allowed < len(examples):
            raise BudgetExhausted(f"the budget of {self.budget} student calls is spent; {len(examples) - allowed} more were asked for")
        return rollouts

    def _run(self, candidate: Texts, examples: Sequence[str]) -> list[Rollout]:
        texts = tuple(candidate[name] for name in self.components)
        numbers = []
        for example in examples:
            cell = (texts, example)
            number = self._calls.get(cell, 0)
            self._calls[cell] = number + 1
            self.ledger.repeats += number > 0
            numbers.append(number)
        rollouts = self._landscape.run(candidate, examples, numbers)
        scores = [r.score for r in rollouts if r.example in self._val]
        if scores:
            self._seen.setdefault(texts, []).extend(scores)
        self.ledger.student_calls += len(examples)
        self.ledger.student_tokens += len(examples) * (sum(map(len, texts)) // 4)
        while self._marks and self._marks[0] <= self.ledger.student_calls:
            self.ledger.best.append((self._marks.pop(0), dict(self._best())))
        return rollouts

    def reflect(self, prompt: str) -> str:
        """Ask the reflection model. The same prompt again is another sample of the same model."""
        number = self._prompts.get(prompt, 0)
        self._prompts[prompt] = number + 1
        text = self._landscape.reflect(prompt, number)
        self.ledger.reflector_calls += 1
        self.ledger.reflector_tokens += (len(prompt) + len(text)) // 4
        return text

    def val_mean(self, candidate: Texts) -> float | None:
        """Mean judged score over the val calls this candidate has had; None when it had none. For the record, not for search."""
        seen = self._seen.get(tuple(candidate[name] for name in self.components))
        return sum(seen) / len(seen) if seen else None

    async def aevaluate(self, candidate: Texts, examples: Sequence[str]) -> list[Rollout]:
        return self.evaluate(candidate, examples)

    async def areflect(self, prompt: str) -> str:
        return self.reflect(prompt)

    def close(self, final: Texts) -> Ledger:
        """End the run: later checkpoints hold what the optimizer returned."""
        for mark in self._marks:
            self.ledger.best.append((mark, dict(final)))
        self._marks = []
        return self.ledger
