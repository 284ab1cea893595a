"""Which items say nearly the same: a topic is known by its first item."""

from __future__ import annotations

from collections.abc import Collection, Hashable

import numpy as np

ALIKE = 0.5  # share of their words, each weighed by its rarity among all items, with which two items say the same


class Topics:
    """Numbered from 0 in order of entry, like the items. Words of different components are different words."""

    def __init__(self) -> None:
        self.of: list[int] = []  # topic of each item: the number of its first item
        self._words: dict[Hashable, int] = {}
        self._seen = np.zeros(256)  # number of items that have each word
        self._pairs = np.zeros((2, 256), dtype=np.int64)  # (topic, word) for every word of every topic's first item
        self._n_pairs = 0

    def enter(self, words: Collection[Hashable]) -> int:
        """The topic of one item more: the first with which it shares `ALIKE` of the weight of the words of both, or its own."""
        at = len(self.of)
        mine = np.array([self._words.setdefault(w, len(self._words)) for w in words], dtype=np.int64)
        while len(self._words) > len(self._seen):
            self._seen = np.append(self._seen, np.zeros_like(self._seen))
        self._seen[mine] += 1
        topics, theirs = self._pairs[:, : self._n_pairs]
        weight = np.log1p((at + 1) / np.maximum(self._seen, 1.0))
        shared = np.zeros_like(weight)
        shared[mine] = weight[mine]
        both = np.bincount(topics, shared[theirs], at)
        either = shared.sum() + np.bincount(topics, weight[theirs], at) - both
        same = np.flatnonzero((both > 0) & (both >= ALIKE * either))
        if len(same):
            self.of.append(int(same[0]))
        else:
            self.of.append(at)
            self._note(at, mine)
        return self.of[-1]

    def _note(self, topic: int, words: np.ndarray) -> None:
        end = self._n_pairs + len(words)
        while end > self._pairs.shape[1]:
            self._pairs = np.hstack([self._pairs, np.zeros_like(self._pairs)])
        self._pairs[0, self._n_pairs : end], self._pairs[1, self._n_pairs : end] = topic, words
        self._n_pairs = end
