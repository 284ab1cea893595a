"""demos: add, drop, swap, reorder demonstrations, or replace the whole set.

Demonstrations are gold-labelled train examples: a student at 0 % has no successes of its own to learn from.
The engine teaches no candidate on an example it demonstrates, so any pool example may be drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from pydantic import PositiveInt

from gepa_atlas.ports import Brief
from gepa_atlas.propose.drafts import Change, first_sound, fits, pick
from gepa_atlas.propose.evidence import alike, failing, solved
from gepa_atlas.settings import Settings
from gepa_atlas.types import Candidate, Demo, Draft


class DemosOptions(Settings):
    max_demos: PositiveInt = 32  # of short questions more are better up to here, on most tasks of a small model
    first_set: tuple[PositiveInt, PositiveInt] = (8, 32)  # sizes of the first set a candidate gets
    max_chars: int = 6_000  # of a set of up to 8, half of that of a larger one: both fit a context of 2,048 tokens
    near: float = 0.8  # two demonstrations more alike than this are not shown together
    variety: float = 2.0  # how strongly a set prefers questions unlike those it has; 0 is not at all
    shortlist: int = 24  # how many pool examples are compared for one choice


class Demos:
    name = "demos"

    def __init__(self, options: DemosOptions | None = None) -> None:
        self._options = options or DemosOptions()

    async def propose(self, brief: Brief) -> Draft:
        if not brief.pool:
            return Draft(None, "there are no train examples with a gold answer to demonstrate")
        chooser = Chooser(brief, self._options)
        return first_sound(brief, lambda: self._change(brief, chooser), "no other demonstration set within the limits was found")

    def _change(self, brief: Brief, chooser: Chooser) -> Change | None:
        parent = brief.parents[0]
        moves: list[tuple[float, Callable[[], tuple[Sequence[Demo] | None, str]]]] = []
        n = len(parent.demos)
        if n == 0:
            moves.append((1.0, lambda: (chooser.fresh(), "a first set of demonstrations")))
        else:
            if n < self._options.max_demos:
                moves.append((2.5, lambda: (self._added(parent, chooser), "one demonstration more")))
            moves += [
                (2.5, lambda: (self._swapped(parent, chooser), "one demonstration exchanged")),
                (2.0, lambda: (chooser.fresh(), "another set of demonstrations")),
                (1.0, lambda: (_dropped(parent, brief), "one demonstration less")),
            ]
            if n > 1:
                moves.append((2.0, lambda: (_shuffled(parent, brief), "demonstrations in another order")))
        move = pick(brief.rng, [m for _, m in moves], [w for w, _ in moves])
        demos, note = move()
        if demos is None or not fits(demos, self._options.max_chars):
            return None
        return parent.child(self.name, demos=tuple(demos)), f"{note} ({n} to {len(demos)}): {', '.join(d.example_id for d in demos)}"

    def _added(self, parent: Candidate, chooser: Chooser) -> Sequence[Demo] | None:
        new = chooser.one(parent.demos)
        if new is None:
            return None
        at = int(chooser.brief.rng.integers(len(parent.demos) + 1))
        return (*parent.demos[:at], new, *parent.demos[at:])

    def _swapped(self, parent: Candidate, chooser: Chooser) -> Sequence[Demo] | None:
        at = int(chooser.brief.rng.integers(len(parent.demos)))
        rest = (*parent.demos[:at], *parent.demos[at + 1 :])
        new = chooser.one(rest, without=parent.demos[at])
        return None if new is None else (*rest[:at], new, *rest[at:])


class Chooser:
    """Draws demonstrations from the pool by what the brief knows of them."""

    def __init__(self, brief: Brief, options: DemosOptions) -> None:
        self.brief = brief
        self._options = options
        self._failed = [x.example.question for x in failing(brief.lessons)][:12]
        self._weights = self._evidence()

    def _evidence(self) -> np.ndarray:
        """Failed examples and demonstrations of good candidates weigh more; solved ones and those of rejected children less."""
        bad = {x.example.id for x in failing(self.brief.lessons)}
        weight = {x.example.id: 0.7 for x in solved(self.brief.lessons)} | dict.fromkeys(bad, 3.0)
        for name, times in Counter(d.example_id for m in self.brief.mates for d in m.demos).items():
            weight[name] = weight.get(name, 1.0) * (1.0 + min(2, times))
        own = {d.example_id for p in self.brief.parents for d in p.demos}
        for name, times in Counter(d.example_id for r in self.brief.rejected for d in r.demos).items():
            if name not in own:
                weight[name] = weight.get(name, 1.0) * 0.6 ** min(3, times)
        return np.array([weight.get(d.example_id, 1.0) for d in self.brief.pool])

    def one(self, beside: Sequence[Demo], without: Demo | None = None) -> Demo | None:
        """A demonstration that goes with these, or None. Answers that the set lacks and neighbours of failed questions come first."""
        have = {d.example_id for d in beside} | ({without.example_id} if without else set())
        near = {at: max((alike(self.brief.pool[at].question, d.question) for d in beside), default=0.0) for at in self._draw(have)}
        sound = [at for at, most in near.items() if most < self._options.near]
        if not sound:
            return None
        shown = Counter(d.answer for d in beside)
        few = self._few_answers
        score = []
        for at in sound:
            demo = self.brief.pool[at]
            wanted = max((alike(demo.question, q) for q in self._failed), default=0.0)
            score.append((1.0 + 2.0 * wanted) * (1.0 - near[at]) ** self._options.variety * (0.5 ** shown[demo.answer] if few else 1.0))
        return self.brief.pool[pick(self.brief.rng, sound, score)]

    def fresh(self) -> list[Demo] | None:
        """A whole new set, of a size within `first_set` at first; later, half to twice that of a set that did well."""
        rng, options = self.brief.rng, self._options
        good = [len(c.demos) for c in (*self.brief.parents, *self.brief.mates) if c.demos]
        like = pick(rng, good) if good else 0
        low, high = (like / 2, like * 2) if like else options.first_set
        low, high = min(low, options.max_demos), min(high, options.max_demos)
        size = max(1, round(low * (high / low) ** rng.random()))
        chosen: list[Demo] = []
        while len(chosen) < size:
            new = self.one(chosen)
            if new is None or not fits([*chosen, new], options.max_chars):
                break
            chosen.append(new)
        order = rng.permutation(len(chosen))
        return [chosen[i] for i in order] or None

    def _draw(self, without: set[str]) -> list[int]:
        """Positions of a shortlist, drawn without replacement by weight (exponential race: one pass over the pool)."""
        race = self.brief.rng.exponential(size=len(self._weights)) / self._weights
        first = np.argsort(race, kind="stable")[: self._options.shortlist + len(without)]
        return [int(at) for at in first if self.brief.pool[at].example_id not in without][: self._options.shortlist]

    @cached_property
    def _few_answers(self) -> bool:
        """True when answers are labels: then a set should show each of them."""
        return len({d.answer for d in self.brief.pool}) * 3 <= len(self.brief.pool)


def _dropped(parent: Candidate, brief: Brief) -> Sequence[Demo]:
    gone = int(brief.rng.integers(len(parent.demos)))
    return (*parent.demos[:gone], *parent.demos[gone + 1 :])


def _shuffled(parent: Candidate, brief: Brief) -> Sequence[Demo]:
    return [parent.demos[i] for i in brief.rng.permutation(len(parent.demos))]
