"""What judges took and said in detail, by judge, without passing a notebook through every call: `with metering() as notes: ...`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from gepa_atlas.ports import ChatRequest
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
    asked: set[int] = field(default_factory=set)  # hashes of the requests that are in `usage`: an answer that is used again costs nothing


class Notes(dict[str, Note]):
    """By judge. `sums_only`: usage without samples, for a whole run."""

    sums_only = False

    def usage(self) -> dict[str, Usage]:
        """Of the judges that made a call."""
        return {name: note.usage for name, note in sorted(self.items()) if note.usage.calls}


_notes: ContextVar[Notes | None] = ContextVar("judge_notes", default=None)


@contextmanager
def metering(*, sums_only: bool = False) -> Iterator[Notes]:
    """Notes by judge name on everything judged inside, in this task and the tasks it starts."""
    notes = Notes()
    notes.sums_only = sums_only
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def add(judge: str, request: ChatRequest, usage: Usage) -> None:
    """What the answer to a request had cost, once however often it is used."""
    if (note := _note(judge)) is not None and (key := hash(request)) not in note.asked:
        note.asked.add(key)
        note.usage = note.usage + usage


def sample(judge: str, drawn: Sample) -> None:
    notes = _notes.get()
    if notes is not None and not notes.sums_only:
        notes.setdefault(judge, Note()).samples.append(drawn)


def escalated(judge: str, why: str) -> None:
    if (note := _note(judge)) is not None:
        note.escalated = why


def _note(judge: str) -> Note | None:
    notes = _notes.get()
    return None if notes is None else notes.setdefault(judge, Note())
