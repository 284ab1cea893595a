"""A prompt as a list of items: lines, and the sentences of a prose line. Edits name an item; the rest stays to the letter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

_FENCE = re.compile(r"^\s*(```|~~~)")
_SENTENCE = re.compile(r"(?<=[^\d\s.][.!?])(\s+)(?=[\"'(\[{<]*[A-Z{])")
_STRUCTURE = re.compile(r"^\s*([-*•#>|]|\d+[.)]|```|~~~)")
_BULLET = re.compile(r"^\s*([-*•])\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """An item, and the white space between it and the next one."""

    text: str
    gap: str = "\n"


def split(text: str) -> tuple[Piece, ...]:
    """The items of a text, in order. A fenced block is one item; blank lines belong to the gap before them."""
    found: list[Piece] = []
    for block in _blocks(text):
        if not block.strip():
            if found:
                found[-1] = replace(found[-1], gap=found[-1].gap + block)
            continue
        found += _items(block)
    return tuple(found)


@lru_cache(4096)  # of a child, all lines but one or two are known
def _items(block: str) -> tuple[Piece, ...]:
    """The sentences of a line, or a fenced block."""
    body = block.rstrip()
    parts = [body] if _FENCE.match(body) else _SENTENCE.split(body)
    return tuple(Piece(part, gap) for part, gap in zip(parts[::2], [*parts[1::2], block[len(body) :]], strict=True))


def _blocks(text: str) -> Iterable[str]:
    """Lines with their ends, a fenced block as one."""
    lines = text.splitlines(keepends=True)
    start = 0
    while start < len(lines):
        end = start + 1
        fence = _FENCE.match(lines[start])
        if fence:
            while end < len(lines) and not lines[end].lstrip().startswith(fence[1]):
                end += 1
            end = min(end + 1, len(lines))
        yield "".join(lines[start:end])
        start = end


def join(pieces: Sequence[Piece]) -> str:
    """The text again, without white space at its end. Items that lost their gap stay apart."""
    return "".join(p.text + (p.gap or "\n") for p in pieces).rstrip()


def texts(text: str) -> list[str]:
    """The bare items, without bullet and outer space: what is compared."""
    return [bare(p.text) for p in split(text)]


@lru_cache(4096)
def bare(item: str) -> str:
    return _BULLET.sub("", item).strip()


def dressed(pieces: Sequence[Piece], item: str) -> str:
    """`item` with the bullet that most of these items have, unless it has structure of its own."""
    marks = [mark for p in pieces if (mark := _mark(p.text))]
    if len(marks) * 2 <= len(pieces) or len(pieces) < 2 or "\n" in item or _mark(item):
        return item
    return max(set(marks), key=lambda m: (marks.count(m), m)) + item


@lru_cache(4096)
def _mark(item: str) -> str:
    """Its bullet with the space around it; empty where it has none."""
    found = _BULLET.match(item)
    return found[0] if found else ""


def insert(pieces: Sequence[Piece], at: int, item: str) -> tuple[Piece, ...]:
    """`item` on a line of its own before item `at`; `at == len(pieces)` is the end."""
    before, after = list(pieces[:at]), pieces[at:]
    if before and "\n" not in before[-1].gap:
        before[-1] = replace(before[-1], gap="\n")
    if before and after and before[-1].gap.count("\n") > 1:  # join the paragraph above; keep the blank line below
        return (*before[:-1], replace(before[-1], gap="\n"), Piece(dressed(pieces, item), before[-1].gap), *after)
    return (*before, Piece(dressed(pieces, item), "\n"), *after)


def drop(pieces: Sequence[Piece], gone: Iterable[int]) -> tuple[Piece, ...]:
    """Without the items at these positions; a line break between two kept items survives."""
    lost = set(gone)
    kept: list[Piece] = []
    for at, piece in enumerate(pieces):
        if at not in lost:
            kept.append(piece)
        elif kept and piece.gap.count("\n") > kept[-1].gap.count("\n"):
            kept[-1] = replace(kept[-1], gap=piece.gap)
    return tuple(kept)


def swap_in(pieces: Sequence[Piece], at: int, item: str) -> tuple[Piece, ...]:
    """With another text at position `at`."""
    return (*pieces[:at], replace(pieces[at], text=dressed(pieces, item)), *pieces[at + 1 :])


def reordered(pieces: Sequence[Piece], order: Sequence[int]) -> tuple[Piece, ...]:
    """The items in another order, the gaps where they were; an item with structure of its own stays on its own line."""
    moved = [Piece(pieces[at].text, gap.gap or "\n") for at, gap in zip(order, pieces, strict=True)]
    for at, (here, after) in enumerate(pairwise(moved)):
        if "\n" not in here.gap and (_STRUCTURE.match(here.text) or _STRUCTURE.match(after.text)):
            moved[at] = replace(here, gap="\n")
    return tuple(moved)


def locked(piece: Piece, placeholders: Sequence[str]) -> bool:
    """True for an item that carries a required placeholder: it can move, not go."""
    return any("{" + name + "}" in piece.text for name in placeholders)


def free(pieces: Sequence[Piece], placeholders: Sequence[str]) -> list[int]:
    """Positions of items that may be dropped or replaced."""
    return [at for at, piece in enumerate(pieces) if not locked(piece, placeholders)]
