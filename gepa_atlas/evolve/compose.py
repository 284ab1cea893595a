"""compose: the candidate that a sample of the items' worth asks for. Takes up what paid elsewhere, leaves out what did not pay here.

No model is asked and no lesson is read: it is a decision over what the search has already measured, made like any Thompson choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from gepa_atlas import pieces as p
from gepa_atlas.evolve.belief import Draw
from gepa_atlas.evolve.gaussian import Floats
from gepa_atlas.evolve.items import DEMO, SHOWN, Catalogue, is_line
from gepa_atlas.types import Candidate

_PRICE = 0.005  # worth below which an item is not taken up, or is left out again: length never grows for nothing


@dataclass(frozen=True)
class _Change:
    """One item more, one less, or one in the place of another that says nearly the same."""

    gain: float
    add: int | None = None
    drop: int | None = None


def compose(base: Candidate, draw: Draw, catalogue: Catalogue, most: int) -> Candidate | None:
    """`base` with at most `most` changes, the most promising of the draw; None when the draw wants none."""
    wanted = sorted(_changes(base, draw, catalogue), key=lambda c: (-c.gain, c.add or 0))
    added: dict[int, int] = {}  # by topic
    gone: set[int] = set()
    for change in wanted:
        if len(added) + len(gone) >= most:
            break
        if change.drop in gone or (change.add is not None and catalogue.topics.of[change.add] in added):
            continue
        if change.add is not None:
            added[catalogue.topics.of[change.add]] = change.add
        if change.drop is not None:
            gone.add(change.drop)
    return written(base, catalogue, list(added.values()), gone) if added or gone else None


def _changes(base: Candidate, draw: Draw, catalogue: Catalogue) -> Iterator[_Change]:
    seed, worth = set(catalogue.rows[0]), _worth(base, draw, catalogue)
    have = {catalogue.topics.of[item]: item for item in catalogue.row(base)}
    room = len(base.demos) < catalogue.most_demos
    for item in have.values():
        if not catalogue.fixed[item] and worth[item] < (0.0 if item in seed else _PRICE):
            yield _Change(_PRICE - float(worth[item]), None, item)
    for item in map(int, np.flatnonzero(worth == worth)):  # those that are not forgotten
        twin = have.get(catalogue.topics.of[item])
        if item == twin or catalogue.fixed[item] or (twin is None and not room and not is_line(catalogue.items[item])):
            continue
        gain = float(worth[item]) - (_PRICE if twin is None else float(worth[twin]))
        if gain > 0 and (twin is None or not catalogue.fixed[twin]):
            yield _Change(gain, item, twin)


def _worth(base: Candidate, draw: Draw, catalogue: Catalogue) -> Floats:
    """The draw's worth of every item, where the best demonstration of `base` takes with it what it is worth to show any."""
    worth = draw.worth.copy()
    shown = [item for item in catalogue.row(base) if catalogue.items[item][0] == DEMO]
    if shown:
        worth[max(shown, key=lambda item: worth[item])] += worth[catalogue.index[SHOWN]]
    return worth


def written(base: Candidate, catalogue: Catalogue, added: Sequence[int], gone: AbstractSet[int]) -> Candidate | None:
    """`base` with these items more, at the end of their component, and those less; None when nothing would be left."""
    texts = {}
    for name, text in base.texts:
        if name in catalogue.whole:
            continue
        pieces = p.split(text)
        out = {catalogue.items[i][1] for i in gone if catalogue.items[i][0] == name}
        if out:
            pieces = p.drop(pieces, [at for at, piece in enumerate(pieces) if p.bare(piece.text).casefold() in out])
        for item in added:
            if catalogue.items[item][0] == name:
                pieces = p.insert(pieces, len(pieces), catalogue.text[item])
        texts[name] = p.join(pieces)
    lost = {catalogue.items[i][1] for i in gone if catalogue.items[i][0] == DEMO}
    demos = [d for d in base.demos if d.example_id not in lost]
    demos += [catalogue.demos[catalogue.items[i][1]] for i in added if catalogue.items[i][0] == DEMO]
    child = base.child("compose", texts=texts, demos=tuple(demos[: catalogue.most_demos]))
    return child if any(t.strip() for _, t in child.texts) or child.demos else None
