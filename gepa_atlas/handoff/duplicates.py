"""Exact and near duplicates of texts: Jaccard similarity of word 5-grams, found by MinHash and then measured."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gepa_atlas.texts import shingles

_HASHES = 64
_RECALL = 0.995  # share of pairs at the threshold that share a band
_CROWD = 50  # texts of one band that are compared each with each; beyond them, each with the first


def normal(text: str) -> str:
    """One spelling for texts that differ in case and white space only."""
    return " ".join(text.split()).casefold()


def near(texts: Iterable[tuple[str, str]], threshold: float) -> Iterator[tuple[str, str]]:
    """Pairs of ids whose texts are at least `threshold` similar (0 to 1), in order of appearance, each once."""
    grams = {name: shingles(text, 5) for name, text in texts}
    rows = _rows(threshold)
    bands: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    for name, found in grams.items():
        if found:
            signature = _signature(found)
            for at in range(0, _HASHES, rows):
                bands[at, signature[at : at + rows].tobytes()].append(name)
    seen: set[tuple[str, str]] = set()
    for names in bands.values():
        pairs = combinations(names, 2) if len(names) <= _CROWD else ((names[0], other) for other in names[1:])
        for one, other in pairs:
            if (one, other) not in seen:
                seen.add((one, other))
                a, b = grams[one], grams[other]
                if len(a & b) >= threshold * len(a | b):
                    yield one, other


def _rows(threshold: float) -> int:
    """The longest band with which a pair at the threshold is still found."""
    return next(r for r in (16, 8, 4, 2, 1) if r == 1 or 1 - (1 - threshold**r) ** (_HASHES // r) >= _RECALL)


def _signature(found: frozenset[tuple[str, ...]]) -> NDArray[np.uint64]:
    """The least value of each of `_HASHES` multiply-shift hashes over the grams."""
    raw = b"".join(hashlib.blake2b("\x1f".join(gram).encode("utf-8", "surrogatepass"), digest_size=8).digest() for gram in found)
    values = np.frombuffer(raw, np.uint64)
    least: NDArray[np.uint64] = (values[:, None] * _FACTORS[None, :] + _SHIFTS[None, :]).min(axis=0)
    return least


_random = np.random.default_rng(20261127)
_FACTORS = _random.integers(1, 2**63, _HASHES, dtype=np.uint64) | np.uint64(1)
_SHIFTS = _random.integers(0, 2**63, _HASHES, dtype=np.uint64)
