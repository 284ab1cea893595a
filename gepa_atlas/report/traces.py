"""traces.jsonl: every lesson of a run, one JSON object a line, in the order in which the search was told of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gepa_atlas.store.exports import write_jsonl
from gepa_atlas.types import Lesson


def trace_rows(lessons: Iterable[Lesson]) -> Iterator[dict[str, Any]]:
    """`Lesson.to_json` of each lesson; a cell (candidate, example, sample) that was told twice is one line."""
    seen: set[tuple[str, str, int]] = set()
    for lesson in lessons:
        if lesson.cell not in seen:
            seen.add(lesson.cell)
            yield lesson.to_json()


def write_traces(lessons: Iterable[Lesson], path: Path) -> None:
    """Write traces whole or not at all, without secrets. ConfigError or StoreFull when the path refuses."""
    write_jsonl(path, trace_rows(lessons))
