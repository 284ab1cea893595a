"""Recorded judgments: tables of real judges' scores, so that the whole panel is fitted, tested and compared with no key.

A bank is JSON lines (optionally gzip), one row a question with several responses:
`{"id", "subset"?, "chosen": index of the best response, "scores": {prompt: {judge: [[score of each draw] of each response]}}}`.
A null is a draw whose reply could not be read. This is the format of the recorded RewardBench-2 scores (composo-ai/llm-judge-
criteria-ensembling, MIT); ids repeat across subsets, so (subset, id) is the key.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gepa_atlas.errors import DataError
from gepa_atlas.types import digest

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bank:
    """`scores[prompt]` has shape (rows, responses, judges, draws), NaN where there is nothing; the best response comes first."""

    keys: tuple[str, ...]
    judges: dict[str, tuple[str, ...]]  # by prompt
    scores: dict[str, Array]
    fingerprint: str
    row_digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, prompt: str, judges: Sequence[str]) -> Array:
        """The scores of these judges under `prompt`, in this order; a judge the bank does not have is all NaN."""
        known, table = self.judges[prompt], self.scores[prompt]
        empty = np.full((*table.shape[:2], table.shape[3]), np.nan)
        return np.stack([table[:, :, known.index(j)] if j in known else empty for j in judges], axis=2)


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a .jsonl or .jsonl.gz file. Raises DataError naming the line."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; correct the path")
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise DataError(f"{path}:{number}: not a JSON object ({error}); correct the line") from None
                    if not isinstance(row, dict):
                        raise DataError(f"{path}:{number}: a row is a JSON object, not {type(row).__name__}; correct the file")
                    yield number, row
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as JSON lines ({error}); correct the file") from None


def load_bank(path: Path) -> Bank:
    """Read a bank. Raises DataError naming the line whose shape does not fit."""
    rows: list[tuple[str, dict[str, Any]]] = []
    seen: set[str] = set()
    for number, row in json_rows(path):
        if not isinstance(row.get("scores"), dict) or type(row.get("chosen")) is not int:
            raise DataError(f"{path}:{number}: a bank's row has `scores` (prompt -> judge -> draws) and `chosen`; see docs/rim.md")
        if wrong := _misshapen(row["scores"]):
            raise DataError(
                f"{path}:{number}: the scores of {wrong} are not a list of draws for each of two or more responses; correct the row"
            )
        key = f"{row.get('subset', '')}/{row.get('id', number)}"
        if key in seen:
            raise DataError(f"{path}:{number}: the row {key} is there twice; remove one")
        seen.add(key)
        rows.append((key, row))
    if not rows:
        raise DataError(f"{path}: the file has no rows")
    prompts = sorted({prompt for _, row in rows for prompt in row["scores"]})
    judges = {p: tuple(sorted({j for _, row in rows for j in row["scores"].get(p, {})})) for p in prompts}
    tables = {p: _table(path, rows, p, judges[p]) for p in prompts}
    digests = tuple(digest([key, row["scores"]], 12) for key, row in rows)
    return Bank(tuple(key for key, _ in rows), judges, tables, digest(list(digests), 16), digests)


def _misshapen(scores: dict[str, Any]) -> str | None:
    """Where the scores of a row are not prompt -> judge -> [[score of each draw] of each of two or more responses]; None when they are."""
    for prompt, judges in scores.items():
        if not isinstance(judges, dict):
            return repr(prompt)
        for judge, cell in judges.items():
            if cell is not None and not (isinstance(cell, list) and len(cell) > 1 and all(isinstance(draws, list) for draws in cell)):
                return f"{judge!r} under {prompt!r}"
    return None


def _table(path: Path, rows: list[tuple[str, dict[str, Any]]], prompt: str, judges: tuple[str, ...]) -> Array:
    cells = [[row["scores"].get(prompt, {}).get(judge) for judge in judges] for _, row in rows]
    some = [cell for line in cells for cell in line if cell]
    responses, draws = max(map(len, some), default=0), max((len(d) for cell in some for d in cell), default=0)
    if not draws:
        raise DataError(f"{path}: no judge scored anything under the prompt {prompt!r}; take it out or give its scores")
    table = np.full((len(rows), responses, len(judges), draws), np.nan)
    for i, (line, (key, row)) in enumerate(zip(cells, rows, strict=True)):
        order = [row["chosen"], *(a for a in range(responses) if a != row["chosen"])]
        for j, cell in enumerate(line):
            if cell is None:
                continue
            if len(cell) != responses or not 0 <= row["chosen"] < responses:
                raise DataError(f"{path}: row {key} has {len(cell)} responses for {judges[j]} where others have {responses}; correct it")
            for to, a in enumerate(order):
                for d, score in enumerate(cell[a]):
                    if score is not None:
                        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                            raise DataError(f"{path}: row {key} has the score {score!r} of {judges[j]}; a score is a finite number or null")
                        table[i, to, j, d] = score
    return table
