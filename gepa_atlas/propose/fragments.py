"""Which lines an edit may draw, and how likely each: by source, by what became of candidates that have it, by what the failures need."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gepa_atlas import pieces as p
from gepa_atlas.ports import Brief
from gepa_atlas.propose.bank import bank, kind_of
from gepa_atlas.propose.evidence import failing, form_share
from gepa_atlas.propose.shape import fragments_of
from gepa_atlas.settings import Settings
from gepa_atlas.texts import words
from gepa_atlas.types import Candidate, Demo

OWN_SHARE = 0.75  # of draws, when the user gave fragments and there are others
READ_SHARE = 0.5  # of the other draws, when there are lines read off the train answers
GOOD, BAD = 1.7, 0.6  # factors for each good candidate that has a line, and each rejected one


class FragmentOptions(Settings):
    fragments: tuple[str, ...] | dict[str, tuple[str, ...]] = ()  # your own lines, for all components or by component name
    builtin: bool = True  # also use the bank that is shipped; with fragments of your own, in one draw of four
    from_data: bool = True  # also use lines read off the train answers: labels, form, length, case


class Fragments:
    """The lines of a configuration, weighed for one brief at a time."""

    def __init__(self, options: FragmentOptions) -> None:
        self._options = options
        self._read: tuple[tuple[Demo, ...], tuple[str, ...]] = ((), ())  # the last pool and what was read off it

    def weighed(self, brief: Brief, component: str) -> dict[str, float]:
        """Every line for a component with its weight; the parent's own lines are among them."""
        own = self._options.fragments
        mine = own.get(component, ()) if isinstance(own, dict) else own
        read = self._shape(brief.pool)
        shipped = [f for lines in bank().values() for f in lines] if self._options.builtin else []
        left = 1.0 - OWN_SHARE if mine else 1.0
        weights = _even(shipped, left * (1.0 - READ_SHARE if read else 1.0))
        weights |= _even(read, left * (READ_SHARE if shipped else 1.0))
        weights |= _even(mine, OWN_SHARE)
        credit = Credit(brief, component)
        form = form_share(brief.lessons)
        asked = _asked(brief)
        for line in weights:
            if form is not None and kind_of().get(line) in ("format", "constraint"):
                weights[line] *= 1.0 + 3.0 * form
            if asked and not asked.isdisjoint(words(line)):
                weights[line] *= 3.0
            weights[line] *= credit.for_adding(items_of(line))
        return weights

    def _shape(self, pool: tuple[Demo, ...]) -> tuple[str, ...]:
        if self._options.from_data and pool is not self._read[0]:
            self._read = (pool, fragments_of(pool))
        return self._read[1]


class Credit:
    """What good and rejected candidates say about a line: those that have it, where the parent lacks it, and the reverse."""

    def __init__(self, brief: Brief, component: str) -> None:
        self._good = [_lines(c, component) for c in brief.mates]
        self._bad = [_lines(c, component) for c in brief.rejected]

    def for_adding(self, items: frozenset[str]) -> float:
        return _factor(sum(items <= have for have in self._good), sum(items <= have for have in self._bad))

    def for_dropping(self, item: str) -> float:
        return _factor(sum(item not in have for have in self._good), sum(item not in have for have in self._bad))


def _factor(good: int, bad: int) -> float:
    return float(GOOD ** min(3, good) * BAD ** min(4, bad))


def _even(lines: Sequence[str], share: float) -> dict[str, float]:
    return dict.fromkeys(lines, share / max(1, len(lines)))


def _lines(candidate: Candidate, component: str) -> frozenset[str]:
    return items_of(dict(candidate.texts).get(component, ""))


def _asked(brief: Brief) -> frozenset[str]:
    """Words of failed questions that most questions of the pool do not have: a line that speaks of them may be what is missing."""
    failed = failing(brief.lessons)
    if not failed or len(brief.pool) < 10:
        return frozenset()
    common = [_words(d.question) for d in brief.pool[:50]]
    said = frozenset().union(*(_words(x.example.question) for x in failed))
    return frozenset(w for w in said if w.isalnum() and sum(w in c for c in common) <= 0.3 * len(common))


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[str]:
    return frozenset(words(text[:2000]))


@lru_cache(maxsize=4096)
def items_of(text: str) -> frozenset[str]:
    """The items of a line or a text, in one case: a line of several sentences is in a text when all of them are."""
    return frozenset(t.casefold() for t in p.texts(text))
