"""What judges complain about, as evidence on items. A reward says that a lesson failed; its rationale often says of what.

Where complaints that share a word with a line are rarer in lessons with that line than in lessons with none of its topic, the line does
what it is for. There are as few rewards that tell of one line as there are examples it is about, and each of them has the noise of all
the others in it; a complaint has not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gepa_atlas.evolve.gaussian import Floats, Ints
from gepa_atlas.evolve.items import Catalogue, content

_LIKE = 3.0  # lessons' worth of belief that an item changes nothing
_OFTEN = 0.4  # a word that more of the lessons have in their rationales is one of how judges speak


class Evidence(NamedTuple):
    """Of some items: by how much what complaints about it take of a lesson's reward falls with the item, and the variance of that."""

    items: Ints
    fall: Floats
    var: Floats


_NOTHING = Evidence(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0))


class Complaints:
    """The lessons that were read, with the words of their rationales where they lost something of the reward."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._noted: set[tuple[int, str]] = set()
        self._entries: list[int] = []
        self._lost: list[float] = []
        self._where: dict[str, list[int]] = {}  # lessons that complain with a word

    def note(self, entry: int, example: str, lost: float, rationale: str) -> None:
        """The lesson of an entry on an example, noted once: what it lost of the reward, in [0, 1], and what was said."""
        if (entry, example) in self._noted:
            return
        self._noted.add((entry, example))
        if lost > 0:
            for word in set(content(rationale)):
                self._where.setdefault(word, []).append(len(self._entries))
        self._entries.append(entry)
        self._lost.append(lost)

    def evidence(self) -> Evidence:
        """On every item that some complaints are about."""
        count = len(self._entries)
        about: dict[int, list[int]] = {}  # lessons that complain about what an item names
        for word, where in self._where.items():
            if 2 <= len(where) <= _OFTEN * count:
                for item in self._catalogue.items_with(word):
                    about.setdefault(item, []).extend(where)
        if not about:
            return _NOTHING
        rows, topics, lost = self._rows(), np.array(self._catalogue.topics.of), np.array(self._lost)
        none: dict[int, npt.NDArray[np.bool_]] = {}  # by topic: the lessons with nothing of it
        found = []
        for item, lessons in sorted(about.items()):
            if (topic := int(topics[item])) not in none:
                none[topic] = np.logical_not(rows[:, topics == topic].any(axis=1))
            at = np.unique(lessons)
            found.append((item, *_fall(at, lost[at], rows[:, item], none[topic])))
        items, fall, var = zip(*found, strict=True)
        return Evidence(np.array(items, dtype=np.int64), np.array(fall), np.array(var))

    def _rows(self) -> npt.NDArray[np.bool_]:
        """Which items were there: lessons x items."""
        rows = np.zeros((len(self._catalogue.rows), len(self._catalogue)), dtype=bool)
        for at, row in enumerate(self._catalogue.rows):
            rows[at, list(row)] = True
        return rows[np.array(self._entries, dtype=np.int64)]


def _fall(at: Ints, cost: Floats, there: npt.NDArray[np.bool_], none: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Complaints cost `cost` in the lessons `at`, and nothing in the others. Their mean where there is nothing of the topic less that where
    the item is there, both drawn to the mean of all; and its variance."""
    usual = float(cost.sum()) / len(there)
    spread = float((cost**2).sum()) / len(there) - usual**2 + 0.5 / len(there)
    within, without = there.sum() + _LIKE, none.sum() + _LIKE
    fall = (cost[none[at]].sum() + _LIKE * usual) / without - (cost[there[at]].sum() + _LIKE * usual) / within
    return float(fall), spread * float(1 / within + 1 / without)


__all__ = ["Complaints", "Evidence"]
