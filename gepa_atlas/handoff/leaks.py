"""Whether guidance tells the student the answer, so that a lesson's delta is not the teaching's."""

from __future__ import annotations

from gepa_atlas.answers import given_away
from gepa_atlas.handoff.prompts import written
from gepa_atlas.types import Example, Guidance


def leaks(guidance: Guidance, task: Example, attempt: str | None, protocol: str) -> bool:
    """Guidance made for one task leaks where it states an accepted answer that neither question nor attempt has. Guidance that is the same
    for all tasks (`playbook`) names labels and numbers by right; it leaks where it demonstrates this very task."""
    if any(demo.example_id == task.id or _same(demo.question, task.question) for demo in guidance.demos):
        return True
    seen = (task.question, task.context, attempt or "")
    return protocol != "playbook" and bool(given_away(written(guidance), task.answers, seen))


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()
