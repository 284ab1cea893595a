"""Labelled judgments for `rim calibrate --labels`: is this output right, and what did the judges say of it?

JSON lines. A row holds `label` (true, false, or a number in [0, 1]) and either the judges' words, `scores: {judge: score or [draws]}` in
[0, 1], or what a panel needs to judge it now: `question`, `output` and optionally `answer` (a text or a list), `context`, `spec`.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gepa_atlas.errors import DataError
from gepa_atlas.ports import Case
from gepa_atlas.rim import meter
from gepa_atlas.rim.bank import Array, json_rows
from gepa_atlas.rim.panel import Panel
from gepa_atlas.types import Example, canonical, digest


@dataclass(frozen=True)
class Labels:
    judges: tuple[str, ...]
    scores: Array  # (N, J, D)
    label: Array  # (N)
    lengths: Array | None  # characters of the output, where every row has one
    digests: tuple[str, ...]


def load_labels(path: Path, panel: Panel | None = None) -> Labels:
    """Read a label file, and have `panel` judge the rows that hold no scores. Raises DataError naming the line."""
    rows = list(json_rows(path))
    if not rows:
        raise DataError(f"{path}: the file has no rows")
    labels = [_label(path, number, row) for number, row in rows]
    if all("scores" in row for _, row in rows):
        said = [_scores(path, number, row) for number, row in rows]
    elif panel is None:
        raise DataError(f"{path}: rows without `scores` are judged now, by the panel of --config; give one")
    else:
        said = asyncio.run(_judge(panel, [_case(path, number, row) for number, row in rows]))
    judges = tuple(sorted({name for one in said for name in one}))
    if not judges:
        raise DataError(f"{path}: no judge scored any row")
    draws = max(len(d) for one in said for d in one.values())
    table = np.full((len(rows), len(judges), draws), np.nan)
    for i, one in enumerate(said):
        for j, name in enumerate(judges):
            values = one.get(name, [])
            table[i, j, : len(values)] = values
    outputs = [row.get("output") for _, row in rows]
    lengths = np.array([float(len(str(o))) for o in outputs]) if all(o is not None for o in outputs) else None
    return Labels(judges, table, np.array(labels), lengths, tuple(digest([row], 12) for _, row in rows))


def _label(path: Path, number: int, row: dict[str, Any]) -> float:
    label = row.get("label")
    if isinstance(label, bool) or (isinstance(label, int | float) and math.isfinite(label) and 0 <= label <= 1):
        return float(label)
    raise DataError(f"{path}:{number}: `label` is true, false or a number in [0, 1], not {label!r}")


def _scores(path: Path, number: int, row: dict[str, Any]) -> dict[str, list[float]]:
    said: dict[str, list[float]] = {}
    if not isinstance(row["scores"], dict):
        raise DataError(f"{path}:{number}: `scores` is an object, judge -> score or [draws], not {row['scores']!r}"[:200])
    for name, value in row["scores"].items():
        values = value if isinstance(value, list) else [value]
        if any(v is not None and (isinstance(v, bool) or not isinstance(v, int | float) or not 0 <= v <= 1) for v in values):
            raise DataError(f"{path}:{number}: the scores of {name!r} are numbers in [0, 1] or null, not {value!r}"[:200])
        said[str(name)] = [math.nan if v is None else float(v) for v in values]
    return said


def _case(path: Path, number: int, row: dict[str, Any]) -> Case:
    if not isinstance(row.get("question"), str) or not isinstance(row.get("output"), str):
        raise DataError(f"{path}:{number}: a row without `scores` has `question` and `output` texts; add them")
    gold = row.get("answer", row.get("answers", ()))
    answers = tuple(map(str, gold)) if isinstance(gold, list) else (() if gold in (None, ()) else (str(gold),))
    spec = row.get("spec", "")
    example = Example(
        str(row.get("id", number)),
        row["question"],
        answers,
        str(row.get("context", "")),
        spec=spec if isinstance(spec, str) else canonical(spec),
    )
    return Case(example, row["output"])


async def _judge(panel: Panel, cases: list[Case]) -> list[dict[str, list[float]]]:
    said: list[dict[str, list[float]]] = [{} for _ in cases]
    queue = iter(range(len(cases)))

    async def work() -> None:
        for i in queue:
            with meter.metering() as notes:
                reward = await panel.level(cases[i])
            for part in reward.parts:
                if part.value is not None:
                    note = notes.get(part.judge)
                    said[i][part.judge] = [s.score for s in note.samples] if note and note.samples else [part.value]

    await asyncio.gather(*(work() for _ in range(min(len(cases), 32))))
    return said
