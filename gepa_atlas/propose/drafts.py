"""What every operator shares: a child that is new and sound, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from gepa_atlas.ports import Brief
from gepa_atlas.texts import broken_contract
from gepa_atlas.types import Candidate, Component, Demo, Draft

TRIES = 12
_FEW = 8  # so many demonstrations may take all of the room; more of them half of it, since each is paid for with every question
T = TypeVar("T")
Change = tuple[Candidate, str]  # a child and one line on what was changed


def first_sound(brief: Brief, change: Callable[[], Change | None], nothing: str, tries: int = TRIES) -> Draft:
    """The first of `tries` changes that is not known, empty or broken. `change` draws from `brief.rng`; None is "no idea this time"."""
    reason = nothing
    for _ in range(tries):
        made = change()
        if made is None:
            continue
        problem = objection(brief, made[0])
        if problem is None:
            return Draft(made[0], clip(made[1], 300))
        reason = problem
    return Draft(None, reason)


def objection(brief: Brief, child: Candidate) -> str | None:
    """Why this child is not worth a rollout, or None."""
    if child.id in {p.id for p in brief.parents}:
        return "the change came out equal to its parent"
    if child.id in {r.id for r in brief.rejected}:
        return "the change was tried before and rejected"
    if child.id in {m.id for m in brief.mates}:
        return "the change came out equal to a candidate of the archive"
    if not child.demos and not any(text.strip() for _, text in child.texts):
        return "nothing would be left of the candidate"
    return broken_contract(child, brief.components)


def editable(brief: Brief) -> list[Component]:
    """Components the parent really has, in the order of the brief."""
    have = dict(brief.parents[0].texts)
    return [c for c in brief.components if c.name in have]


def pick(rng: np.random.Generator, items: Sequence[T], weights: Sequence[float] | None = None) -> T:
    """One of `items`, by weight when weights are given."""
    if weights is None:
        return items[int(rng.integers(len(items)))]
    edges = np.cumsum(np.asarray(weights, dtype=float))
    return items[min(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")), len(items) - 1)]


def chars(demo: Demo) -> int:
    return len(demo.question) + len(demo.answer) + len(demo.context)


def fits(demos: Sequence[Demo], max_chars: int) -> bool:
    return sum(map(chars, demos)) <= max_chars / (1 if len(demos) <= _FEW else 2)


def clip(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, with a mark where it was cut."""
    return text if len(text) <= limit else text[: max(0, limit - 8)] + "… [cut]"
