"""Tasks as files: one JSONL of {"input", "output"} a task, output a text or a list of accepted texts. The key draws the splits."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simland.hashing import generator

TRAIN, VAL, TEST = 60, 60, 200
Rows = list[tuple[str, tuple[str, ...]]]  # (input, accepted outputs)
_PIECES = re.compile(r"[^\W\d_]{1,3}|\S")
LONGEST = 1200  # characters of an input; a longer one is left out, the context is small


@dataclass(frozen=True)
class Item:
    id: str
    input: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One draw of splits. Ids begin with t (train), v (val) or x (test)."""

    name: str
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]

    @property
    def max_tokens(self) -> int:
        """Room for the longest answer (a token is three letters at least, or one other character) and for seeing that it goes on."""
        longest = max(len(_PIECES.findall(o)) for item in self.train + self.val for o in item.outputs[:1])
        return min(48, 4 + longest)


def load(folder: Path) -> dict[str, Rows]:
    """(input, accepted outputs) by task. Also reads the layouts of instruction induction and BBH. ValueError names what is wrong."""
    tasks: dict[str, Rows] = {}
    for file in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.json")]):
        rows = _rows(file)
        kept = {r["input"].strip(): _outputs(r["output"]) for r in rows if len(r["input"]) <= LONGEST}
        if kept:
            known = tasks.setdefault(file.stem, [])  # files of one name in several folders are one task
            known += [pair for pair in kept.items() if pair[0] not in {text for text, _ in known}]
    tasks = {name: rows for name, rows in tasks.items() if len(rows) >= 60}
    if not tasks:
        raise ValueError(f"{folder} has no task: it should hold JSONL files of at least 60 objects with `input` and `output`")
    return tasks


def _rows(file: Path) -> list[dict[str, Any]]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        body = json.loads(text)
        examples = body.get("examples", []) if isinstance(body, dict) else body
        rows = list(examples.values()) if isinstance(examples, dict) else examples
        rows = [{"input": r["input"], "output": r.get("output", r.get("target"))} for r in rows if "input" in r]
    for r in rows:
        if not isinstance(r.get("input"), str) or not isinstance(r.get("output"), str | list):
            raise ValueError(f"{file.name}: a row needs `input` (text) and `output` (text or list of texts), got {str(r)[:80]}")
    return rows


def _outputs(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def draw(name: str, rows: Rows, key: str, seed: int) -> Task:
    """Disjoint splits, a function of the key, the task's name and the seed; a small task gives a quarter to train, a quarter to val."""
    order = generator("smol", key, name, seed).permutation(len(rows))
    train, val = min(TRAIN, len(rows) // 4), min(VAL, len(rows) // 4)
    cuts = np.cumsum([train, val, min(TEST, len(rows) - train - val)])
    picked = [rows[int(i)] for i in order]

    def part(mark: str, low: int, high: int) -> tuple[Item, ...]:
        return tuple(Item(f"{mark}{i}", text, outs) for i, (text, outs) in enumerate(picked[low:high]))

    return Task(name, part("t", 0, cuts[0]), part("v", cuts[0], cuts[1]), part("x", cuts[1], cuts[2]))
