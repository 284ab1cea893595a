"""An evaluation as it was measured: one row for each cell, task and sample (`eval/cells.jsonl`), and means by task.

A cell is who answered: `student` (no teacher), `base+seed`, `base+evolved`, `adapter+seed`, `adapter+evolved`, `adapter+none`,
`base+none`, `promoted` (what serves now). A row without a reward is unscored, with a reason; it lowers coverage and is never a zero.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.settings import load
from gepa_atlas.types import Lesson, digest

Kind = Literal["task", "underspecified", "regression"]
MAX_BYTES = 2_000_000_000


class Row(BaseModel):
    """One answer of one cell. Rewards, deltas and confidence are shares; tokens are those of the guidance, seconds wall clock."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    cell: str = Field(min_length=1)
    task_id: str = Field(min_length=1)
    sample: int = Field(default=0, ge=0)
    kind: Kind = "task"
    reward: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    why_unscored: str | None = None
    delta: float | None = Field(default=None, ge=-1, le=1, allow_inf_nan=False)  # reward less the cached baseline of the student
    holdout_reward: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)  # by a judge of another family
    format_valid: bool | None = None
    refused: bool | None = None
    confidence: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    tokens: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)


Read = Callable[[Row], float | None]


@dataclass(frozen=True)
class Evaluation:
    """The rows of one evaluation, in the order of the file."""

    rows: tuple[Row, ...]

    def cells(self, kind: Kind = "task") -> tuple[str, ...]:
        return tuple(sorted({row.cell for row in self.rows if row.kind == kind}))

    def of(self, cell: str, kind: Kind = "task") -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.cell == cell and row.kind == kind)

    def tasks(self, kind: Kind = "task") -> tuple[str, ...]:
        """Every task that any cell was asked, sorted: what coverage is a share of."""
        return tuple(sorted({row.task_id for row in self.rows if row.kind == kind}))

    def means(self, cell: str, read: Read, kind: Kind = "task") -> dict[str, float]:
        """Mean over the samples of each task that have a value; tasks without one are absent."""
        found: dict[str, list[float]] = {}
        for row in self.of(cell, kind):
            value = read(row)
            if value is not None:
                found.setdefault(row.task_id, []).append(value)
        return {task: float(np.mean(values)) for task, values in sorted(found.items())}

    def rewards(self, cell: str, kind: Kind = "task") -> dict[str, float]:
        return self.means(cell, lambda row: row.reward, kind)

    def deltas(self, cell: str) -> dict[str, float]:
        """Reward by task less that of the student alone: of its cell where it was run, else of the cached baseline."""
        alone = self.rewards("student")
        if alone:
            return {task: value - alone[task] for task, value in self.rewards(cell).items() if task in alone}
        return self.means(cell, lambda row: row.delta)

    def unscored(self, cells: Iterable[str]) -> tuple[int, int, dict[str, int]]:
        """(rows without a reward, rows that should be there, reasons): an answer that is not in the file counts as unscored."""
        names = [cell for cell in cells if self.of(cell)]
        places = {(row.task_id, row.sample) for cell in names for row in self.of(cell)}
        reasons: dict[str, int] = {}
        for cell in names:
            rows = self.of(cell)
            for row in rows:
                if row.reward is None:
                    reason = row.why_unscored or "no reason given"
                    reasons[reason] = reasons.get(reason, 0) + 1
            if absent := len(places) - len(rows):
                reasons["no such row"] = reasons.get("no such row", 0) + absent
        return sum(reasons.values()), len(places) * len(names), reasons

    def test_set(self) -> str:
        """The identity of the tasks, whatever was measured on them."""
        return digest(list(self.tasks()), 32)


def read_cells(path: Path) -> Evaluation:
    """The evaluation in a file of JSON lines. Raises DataError with the line, the rule and the next step."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES} bytes; that is no evaluation of ours")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the evaluation cannot be read ({error}); run the stage `eval` again") from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at U+2028, which JSON allows inside a string
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not a JSON document ({error}); run the stage `eval` again") from None
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number}: a row is an object with cell, task_id and reward")
        rows.append(_row_of(value, f"{path}:{number}"))
    return evaluation(rows, str(path))


def evaluation(rows: Sequence[Row], where: str = "the evaluation") -> Evaluation:
    """Raises DataError when it is empty or a row is there twice (it would count twice)."""
    if not any(row.kind == "task" for row in rows):
        raise DataError(f"{where}: there is no row of kind task; evaluate at least one task of the test split")
    seen: set[tuple[str, str, str, int]] = set()
    for row in rows:
        key = (row.kind, row.cell, row.task_id, row.sample)
        if key in seen:
            raise DataError(f"{where}: cell {row.cell!r}, task {row.task_id!r}, sample {row.sample} is there twice; evaluate again")
        seen.add(key)
    return Evaluation(tuple(rows))


def of_lessons(lessons: Sequence[Lesson], seed_id: str, winner_id: str) -> Evaluation:
    """The cells `student`, `base+seed` and `base+evolved` from the held-out lessons of an optimization run, for a gate on its prompt."""
    rows = [
        _row(cell, lesson)
        for lesson in lessons
        for cell, identity in (("base+seed", seed_id), ("base+evolved", winner_id))
        if identity == lesson.candidate_id
    ]
    alone: dict[tuple[str, int], Row] = {}
    for lesson in lessons:
        if lesson.candidate_id in (seed_id, winner_id):
            place = (lesson.example.id, lesson.sample)
            alone.setdefault(place, _student(lesson))
    return evaluation([*rows, *alone.values()], "the held-out lessons")


def _row(cell: str, lesson: Lesson) -> Row:
    reward, missing = lesson.after.value, lesson.after.missing
    why = None if reward is not None else (missing.kind if missing else "unscored")
    return Row(
        cell=cell, task_id=lesson.example.id, sample=lesson.sample, reward=reward, why_unscored=why, delta=lesson.delta,
        tokens=lesson.second.usage.tokens, seconds=lesson.second.usage.seconds,
    )  # fmt: skip


def _student(lesson: Lesson) -> Row:
    reward, missing = lesson.before.value, lesson.before.missing
    why = None if reward is not None else (missing.kind if missing else "unscored")
    return Row(cell="student", task_id=lesson.example.id, sample=lesson.sample, reward=reward, why_unscored=why)


def _row_of(value: dict[str, object], where: str) -> Row:
    try:
        return load(Row, value, where)
    except ConfigError as error:
        raise DataError(f"{error} (a row of the evaluation; run the stage `eval` again)") from None
