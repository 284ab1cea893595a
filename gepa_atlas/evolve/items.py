"""What candidates are made of: lines of their texts, demonstrations, settings. Candidates that share an item share what is known of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt

from gepa_atlas import pieces as p
from gepa_atlas.evolve.topics import Topics
from gepa_atlas.texts import words
from gepa_atlas.types import Candidate, Demo

Item = tuple[str, str]
"""(component, bare text of a line), (DEMO, example id), SHOWN, ("setting:NAME", value) or ("whole:COMPONENT", its text)."""

DEMO = "demo:"
SHOWN: Item = ("shown:", "any")  # what a candidate has that shows demonstrations, whichever they are; only a `Catalogue` knows of it
_WHOLE, _SETTING = "whole:", "setting:"
_TELLING = 0.4  # a word that more of the questions have tells nothing of what an item is about
_COMMON, _FEW = 0.2, 3  # a word is one of wording when more than this share of the items have it, and more than so many
_GROWN = 1.1  # times as many items after which it is found anew what all of them are about
_PLACEHOLDER = re.compile(r"\{[A-Za-z_]\w*\}")


def items_of(candidate: Candidate, whole: AbstractSet[str] = frozenset()) -> tuple[Item, ...]:
    """The distinct items, in order; components in `whole` (code, JSON) are one item each."""
    found: dict[Item, None] = {}
    for name, text in candidate.texts:
        if name in whole:
            found[f"{_WHOLE}{name}", text] = None
        for line in () if name in whole else p.texts(text):
            if line:
                found[name, line.casefold()] = None
    for demo in candidate.demos:
        found[DEMO, demo.example_id] = None
    for name, value in candidate.settings:
        found[f"{_SETTING}{name}", repr(value)] = None
    return tuple(found)


def is_line(item: Item) -> bool:
    return ":" not in item[0]


def _fixed(item: Item) -> bool:
    """A line with a placeholder stays; so do settings and whole components, which operators change, but which nothing is composed of; and
    SHOWN goes with the last demonstration."""
    return item == SHOWN or item[0].startswith((_SETTING, _WHOLE)) or bool(is_line(item) and _PLACEHOLDER.search(item[1]))


class Catalogue:
    """Every item ever seen, numbered; the items of each entry; and which items are about which examples, or say nearly the same."""

    def __init__(self, questions: Sequence[str] = (), n_val: int = 0, whole: AbstractSet[str] = frozenset()) -> None:
        self.whole = whole
        self.index: dict[Item, int] = {}
        self.items: list[Item] = []
        self.text: list[str] = []  # as first written
        self.rows: list[tuple[int, ...]] = []  # items of each entry
        self._rows: dict[str, tuple[int, ...]] = {}  # by candidate id: taking texts apart is most of the work
        self.fixed: list[bool] = []  # whether nothing is composed with or without it
        self.topics = Topics()  # of items that say nearly the same
        self.demos: dict[str, Demo] = {}  # by example id
        self.most_demos = 0  # that any entry has
        self._n_val = n_val
        self._telling = _telling(questions)
        self._words: list[tuple[str, ...]] = []  # of each item
        self._with: dict[str, list[int]] = {}  # items that have a word
        self._found = 0  # items when it was last found what all of them are about
        self._match = np.zeros((64, len(questions)), dtype=bool)
        self._share = np.zeros(64)

    def __len__(self) -> int:
        return len(self.items)

    def matches(self) -> npt.NDArray[np.bool_]:
        """items x examples: whether they share a telling word."""
        return self._match[: len(self.items)]

    @property
    def share(self) -> npt.NDArray[np.float64]:
        """Of each item, the share of val examples that it is about."""
        return self._share[: len(self.items)]

    def enter(self, candidate: Candidate) -> tuple[int, ...]:
        """Numbers of a new entry's items."""
        self.rows.append(self.row(candidate))
        self.demos |= {demo.example_id: demo for demo in candidate.demos}
        self.most_demos = max(self.most_demos, len(candidate.demos))
        return self.rows[-1]

    def row(self, candidate: Candidate) -> tuple[int, ...]:
        """Numbers of the candidate's items, new ones numbered on the way."""
        known = self._rows.get(candidate.id)
        if known is not None:
            return known
        items = (*items_of(candidate, self.whole), *((SHOWN,) if candidate.demos else ()))
        row = self._rows[candidate.id] = tuple(map(self._number, items))
        if len(self.text) < len(self.items):
            written = {(name, line.casefold()): line for name, text in candidate.texts for line in p.texts(text)}
            self.text += [written.get(item, item[1]) for item in self.items[len(self.text) :]]
        return row

    def _number(self, item: Item) -> int:
        at = self.index.get(item)
        if at is None:
            at = self.index[item] = len(self.items)
            self.items.append(item)
            self.fixed.append(_fixed(item))
            bag = dict.fromkeys(content(item[1])) if is_line(item) else {}
            self.topics.enter([(item[0], word) for word in bag or (item[1],)])
            self._words.append(tuple(bag))
            for word in bag:
                self._with.setdefault(word, []).append(at)
            if at >= len(self._match):
                self._match = np.vstack([self._match, np.zeros_like(self._match)])
                self._share = np.append(self._share, np.zeros_like(self._share))
            self._find(at)
        return at

    def items_with(self, word: str) -> Sequence[int]:
        """Items that have the word; none where so many have it that it is one of wording, and tells nothing of what an item is about."""
        found = self._with.get(word, ())
        return found if len(found) <= max(_FEW, _COMMON * len(self.items)) else ()

    def find_again(self) -> None:
        """What every item is about, where many more of them are known than when this was last asked: which words are wording may be new."""
        if len(self.items) >= _GROWN * self._found:
            self._found = len(self.items)
            for at in range(self._found):
                self._find(at)

    def _find(self, at: int) -> None:
        """Which examples the item is about."""
        self._match[at] = False
        for word in self._words[at]:
            if word in self._telling and self.items_with(word):
                self._match[at, self._telling[word]] = True
        if self._n_val:
            self._share[at] = float(self._match[at, : self._n_val].mean())


def content(text: str) -> list[str]:
    return [w for w in words(text) if w[0].isalnum()]


def _telling(questions: Sequence[str]) -> dict[str, list[int]]:
    """Words that some questions have and most do not, with the examples that have them: at least two, at most two in five."""
    found: dict[str, list[int]] = {}
    for at, question in enumerate(questions):
        for word in set(content(question)):
            found.setdefault(word, []).append(at)
    return {word: where for word, where in found.items() if 2 <= len(where) <= _TELLING * len(questions)}
