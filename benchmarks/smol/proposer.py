"""The one vocabulary of every optimizer: lines about form, lines read off the train answers, and worked train examples.

SmolLM2-135M cannot reflect, so the reflection model is a script: a text function that takes the current instruction and the examples
out of whatever prompt an optimizer builds, makes one to three edits with the vocabulary, and answers in the form asked for. What is
compared is the search alone.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from benchmarks import demos
from benchmarks.simland.hashing import generator, key64
from benchmarks.smol.tasks import Task
from gepa_atlas.propose.bank import bank
from gepa_atlas.propose.shape import fragments_of
from gepa_atlas.types import Demo

SEED = "Write the output for the input."
_FENCE = re.compile(r"```[^\n]*\n(.*?)\n?```", re.S)


class Proposer:
    """`proposer(prompt, call)`: a function of the task, the prompt and the number of this repeat of it."""

    def __init__(self, task: Task) -> None:
        pool = tuple(Demo(i.id, i.input, i.outputs[0]) for i in task.train)
        self.lines = [*fragments_of(pool), *(line for kind in ("task", "format", "constraint") for line in bank().get(kind, ()))]
        self.examples = [demos.line(i.input, i.outputs[0]) for i in task.train if len(i.input) < 400]
        self._by_input = {i.input: demos.line(i.input, i.outputs[0]) for i in task.train if len(i.input) < 400}

    def __call__(self, prompt: str, call: int = 0) -> str:
        rng = generator("smol proposer", key64(prompt), call)
        if '"clusters"' in prompt:
            return json.dumps({"clusters": []})
        items = self._items(prompt)
        shown = [line for text, line in self._by_input.items() if text in prompt or json.dumps(text)[1:-1] in prompt]
        if '"op"' in prompt:
            return json.dumps({"diagnosis": "One thing at a time.", "edits": self._edits(items, shown, prompt, rng)})
        for _ in range(int(rng.integers(1, 4))):
            items = self._edited(items, shown, rng)
        text = "\n".join(text for _, text in items) or SEED
        if '"texts"' in prompt:
            return json.dumps({"diagnosis": "Written anew.", "texts": {"instructions": text}})
        return f"```\n{text}\n```"

    def instruction(self, seed: int) -> str:
        """A whole instruction out of the vocabulary, for an optimizer whose prompt holds no current one to change."""
        rng = generator("smol instruction", *self.lines[:3], seed)
        count = min(len(self.lines), int(rng.integers(1, 4)))
        weights = np.linspace(2.0, 1.0, len(self.lines))
        return "\n".join(
            [SEED, *(self.lines[int(i)] for i in rng.choice(len(self.lines), count, replace=False, p=weights / weights.sum()))]
        )

    @staticmethod
    def _items(prompt: str) -> list[tuple[int, str]]:
        """(number, text) of the current instruction's items: from a JSON object of numbered items, or the first code fence."""
        for match in re.finditer(r"^[ \t]*(\{)", prompt, re.M):
            try:
                value, _ = json.JSONDecoder().raw_decode(prompt, match.start(1))
            except ValueError:
                continue
            found = _numbered(value)
            if found:
                return found
        fence = _FENCE.search(prompt)
        return [(i, line) for i, line in enumerate(fence.group(1).splitlines(), 1) if line.strip()] if fence else [(1, SEED)]

    def _new(self, have: set[str], shown: list[str], rng: np.random.Generator) -> str:
        """A vocabulary line that is not there: an example in three of five cases, a shown one if there is, else a line about form."""
        examples = [e for e in (shown if shown and rng.random() < 0.7 else self.examples) if e not in have]
        lines = [line for line in self.lines if line not in have]
        if examples and (rng.random() < 0.6 or not lines):
            return examples[int(rng.integers(len(examples)))]
        at = int(len(lines) * rng.random() ** 1.5)  # what was read off the train answers comes first and oftener
        return lines[at] if lines else SEED

    def _edited(self, items: list[tuple[int, str]], shown: list[str], rng: np.random.Generator) -> list[tuple[int, str]]:
        kind, have = rng.random(), {text.lstrip("- ") for _, text in items}
        if kind < 0.55 or not items:
            return [*items, (0, self._new(have, shown, rng))]
        at = int(rng.integers(len(items)))
        if kind < 0.8:
            return [*items[:at], (0, self._new(have, shown, rng)), *items[at + 1 :]]
        return [*items[:at], *items[at + 1 :]] if len(items) > 1 else items

    def _edits(self, items: list[tuple[int, str]], shown: list[str], prompt: str, rng: np.random.Generator) -> list[dict[str, Any]]:
        limit = re.search(r"at most (\d+) edits", prompt)
        count = min(int(rng.integers(1, 4)), int(limit.group(1)) if limit else 3)
        have, left = {text.lstrip("- ") for _, text in items}, list(items)
        edits: list[dict[str, Any]] = []
        for _ in range(count):
            kind = rng.random()
            new = self._new(have, shown, rng)
            if kind < 0.55 or not left:
                edits.append({"component": "instructions", "op": "add", "item": None, "text": new})
            else:
                number, _ = left.pop(int(rng.integers(len(left))))
                op = "replace" if kind < 0.8 or not left else "drop"
                edits.append({"component": "instructions", "op": op, "item": number, "text": new if op == "replace" else ""})
            have.add(new)
        return edits


def _numbered(node: Any) -> list[tuple[int, str]]:
    """The first object whose keys are all numbers and whose values are all texts, anywhere in a JSON value."""
    if isinstance(node, dict):
        if node and all(k.isdigit() for k in node) and all(isinstance(v, str) for v in node.values()):
            return [(int(k), v) for k, v in node.items()]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            found = _numbered(part)
            if found:
                return found
    return []
