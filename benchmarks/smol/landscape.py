"""A task on the embedded model as the server sees it, its admission test, and its held-out score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.server import Rollout, Texts
from benchmarks.smol.proposer import SEED, Proposer
from benchmarks.smol.student import Student, prompt, right
from benchmarks.smol.tasks import Item, Task


class SmolLandscape:
    """Implements `benchmarks.server.Landscape`."""

    components: tuple[str, ...] = ("instructions",)

    def __init__(self, task: Task, student: Student) -> None:
        self.task, self._student = task, student
        self.train_ids = tuple(i.id for i in task.train)
        self.val_ids = tuple(i.id for i in task.val)
        self._items = {i.id: i for i in task.train + task.val}
        self.proposer = Proposer(task)

    def seed(self) -> dict[str, str]:
        return {"instructions": SEED}

    def question(self, example: str) -> str:
        return self._items[example].input

    def answer(self, example: str) -> str:
        return self._items[example].outputs[0]

    def run(self, candidate: Texts, examples: Sequence[str], calls: Sequence[int]) -> list[Rollout]:
        items = [self._items[e] for e in examples]
        if len(items) == 1:  # whoever asks one at a time will ask for more of the split: computed together that takes a tenth of the time
            self._ask(candidate, self.task.train if items[0] in self.task.train else self.task.val)
        outputs = self._ask(candidate, items)
        return [Rollout(i.id, float(right(o, i.outputs)), o, partial(_feedback, o, i)) for i, o in zip(items, outputs, strict=True)]

    def reflect(self, prompt: str, call: int) -> str:
        return self.proposer(prompt, call)

    def held_out(self, candidate: Texts) -> list[float]:
        """Scores on the test split, in order. Not reachable through the server."""
        outputs = self._ask(candidate, self.task.test)
        return [float(right(o, i.outputs)) for i, o in zip(self.task.test, outputs, strict=True)]

    def _ask(self, candidate: Texts, items: Sequence[Item]) -> list[str]:
        return self._student.answers([prompt(candidate["instructions"], i.input) for i in items], self.task.max_tokens)


def _feedback(output: str, item: Item) -> str:
    if right(output, item.outputs):
        return "The answer is right."
    return f"The answer is wrong. The right answer is: {item.outputs[0]}"


@dataclass(frozen=True)
class Admission:
    """Whether a task has headroom that prompts can reach: eight different prompts on train and val examples."""

    task: str
    best: float
    worst: float
    error: float
    admitted: bool

    @property
    def reason(self) -> str:
        return f"best of 8 prompts {self.best:.2f}, worst {self.worst:.2f}, standard error {self.error:.3f}"


def admit(landscape: SmolLandscape, sample: int = 40) -> Admission:
    """Keep a task when the best of eight prompts is right in 10 to 85 % and the prompts differ by more than two standard errors."""
    ids = (landscape.train_ids + landscape.val_ids)[-sample:]
    examples = landscape.proposer.examples
    texts = [SEED] + [landscape.proposer.instruction(i) for i in range(3)]
    texts += ["\n".join([SEED, *examples[i * 3 : i * 3 + 2 + i]]) for i in range(4)]
    scores = []
    for text in texts:
        rollouts = landscape.run({"instructions": text}, ids, [0] * len(ids))
        scores.append(sum(r.score for r in rollouts) / len(rollouts))
    best, worst = max(scores), min(scores)
    error = math.sqrt(max(best * (1 - best), 0.01) / len(ids))
    return Admission(landscape.task.name, best, worst, error, 0.10 <= best <= 0.85 and best - worst > 2 * error)
