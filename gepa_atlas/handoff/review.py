"""Which lessons people have let pass: states of a review, in the traces themselves or in a memory.

`quarantined` never leaves, whatever the configuration says. With `review: approved` or `golden`, what nobody has reviewed stays too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from gepa_atlas.errors import ConfigError
from gepa_atlas.handoff.config import ExportConfig
from gepa_atlas.handoff.lines import Line, Placed
from gepa_atlas.handoff.source import Source
from gepa_atlas.types import digest

_STATES = {"golden": ("golden",), "approved": ("golden", "approved")}
_ASKED = 500  # lessons of one question to the memory


def state_of(line: Line) -> str:
    """Empty: it was never reviewed."""
    state = line.get("review_status")
    return state if isinstance(state, str) else ""


def refused(line: Line, config: ExportConfig) -> str | None:
    """Why the review keeps a lesson at home."""
    state = state_of(line)
    if state == "quarantined":
        return "review_quarantined"
    if config.review != "off" and state not in _STATES[config.review]:
        return f"review_not_{config.review}"
    return None


def from_memory(source: Source, address: str) -> Source:
    """The source with the states that the memory at `address` has of its lessons. Raises ConfigError for sessions."""
    if source.kind == "sessions":
        raise ConfigError(
            "handoff.memory: has the states of lessons of a run; sessions carry theirs, so export them with `gepa-atlas traces export`"
        )
    return replace(source, lessons=lambda: _with_states(source.lessons, str(source.run.get("run_id", "")), address))


def digest_of(source: Source) -> str:
    """Hash of every lesson's state: what an export depends on beside its files."""
    return digest([state_of(found.line) for found in source.lessons()])


def _with_states(lessons: Callable[[], Iterator[Placed]], run_id: str, address: str) -> Iterator[Placed]:
    from gepa_atlas.memory.rows import trace_id
    from gepa_atlas.memory.store import Memory

    found = lessons()
    with Memory.open(address, create=False) as memory:
        while some := list(islice(found, _ASKED)):
            names = [
                trace_id(str(p.line.get("run_id") or run_id), p.line["candidate"], p.line["example"]["id"], p.line["sample"]) for p in some
            ]
            known = memory.states(names)
            for placed, name in zip(some, names, strict=True):
                yield Placed(placed.place, placed.line | {"review_status": known.get(name, "")})
