"""What a parent's lessons say: where it fails, and whether the content was there and only the form was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gepa_atlas.texts import shingles, words
from gepa_atlas.types import Lesson

SOLVED = 0.999


def failing(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Scored lessons below full reward, the worst first, in a stable order."""
    scored = [x for x in lessons if x.after.value is not None and x.after.value < SOLVED]
    return sorted(scored, key=lambda x: (x.after.value or 0.0, x.example.id, x.sample))


def solved(lessons: Sequence[Lesson]) -> list[Lesson]:
    return sorted((x for x in lessons if (x.after.value or 0.0) >= SOLVED), key=lambda x: (x.example.id, x.sample))


def form_share(lessons: Sequence[Lesson]) -> float | None:
    """Of the failing lessons with gold: the share whose answer contains the gold words, so that only the form is wrong."""
    judged = [(x.second.output, x.example.answers) for x in failing(lessons) if x.second.output is not None and x.example.answers]
    if not judged:
        return None
    return sum(any(_within(words(a), words(output)) for a in answers) for output, answers in judged) / len(judged)


def _within(inner: list[str], outer: list[str]) -> bool:
    n = len(inner)
    return 0 < n < len(outer) and any(outer[i : i + n] == inner for i in range(len(outer) - n + 1))


@lru_cache(maxsize=8192)
def grams(text: str) -> frozenset[tuple[str, ...]]:
    """Word bigrams of a text, remembered: a search compares the same questions again and again."""
    return shingles(text[:2000], 2)


def alike(a: str, b: str) -> float:
    """Jaccard similarity of word bigrams."""
    left, right = grams(a), grams(b)
    return len(left & right) / max(1, len(left | right))
