"""What judges took and said in detail, by judge, without passing a notebook through every call: `with metering() as notes: ...`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from gepa_atlas.types import Usage


@dataclass(frozen=True, slots=True)
class Sample:
    """One draw of a model judge, as ATLAS records it."""

    score: float
    rationale: str
    principles: tuple[str, ...] = ()
    uncertainty: float | None = None
    temperature: float | None = None


@dataclass(slots=True)
class Note:
    """Of one judge: what the answers it used had cost, its draws, and why more was asked."""

    usage: Usage = Usage()
    samples: list[Sample] = field(default_factory=list)
    escalated: str | None = None


_notes: ContextVar[dict[str, Note] | None] = ContextVar("judge_notes", default=None)


@contextmanager
def metering() -> Iterator[dict[str, Note]]:
    """Notes by judge name on everything judged inside, in this task and the tasks it starts."""
    notes: dict[str, Note] = {}
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def add(judge: str, usage: Usage) -> None:
    if (note := _note(judge)) is not None:
        note.usage = note.usage + usage


def sample(judge: str, drawn: Sample) -> None:
    if (note := _note(judge)) is not None:
        note.samples.append(drawn)


def escalated(judge: str, why: str) -> None:
    if (note := _note(judge)) is not None:
        note.escalated = why


def _note(judge: str) -> Note | None:
    notes = _notes.get()
    return None if notes is None else notes.setdefault(judge, Note())
