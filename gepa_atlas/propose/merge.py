"""merge: a child of two candidates. Each component is taken from one of them or joined item by item; demonstrations cross over."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import PositiveInt

from gepa_atlas import pieces as p
from gepa_atlas.ports import Brief
from gepa_atlas.propose.drafts import Change, editable, first_sound, fits, pick
from gepa_atlas.propose.evidence import alike
from gepa_atlas.settings import Settings
from gepa_atlas.types import Candidate, Demo, Draft, Scalar


class MergeOptions(Settings):
    max_demos: PositiveInt = 32
    max_chars: int = 6_000  # of a set of up to 8 demonstrations, half of that of a larger one
    max_items: int = 40  # of a component


class Merge:
    name = "merge"

    def __init__(self, options: MergeOptions | None = None) -> None:
        self._options = options or MergeOptions()

    async def propose(self, brief: Brief) -> Draft:
        mine = brief.parents[0]
        others = {c.id: c for c in (*brief.parents[1:], *brief.mates) if c.id != mine.id}
        if not others:
            return Draft(None, "there is no second candidate to merge with")
        abroad = [c for c in others.values() if c.id not in mine.parents and mine.id not in c.parents]
        return first_sound(
            brief, lambda: self._change(brief, abroad or list(others.values())), "every merge came out equal to a known candidate"
        )

    def _change(self, brief: Brief, others: Sequence[Candidate]) -> Change | None:
        mine, rng = brief.parents[0], brief.rng
        other = pick(rng, others)
        theirs = dict(other.texts)
        shared = set(mine.parents) & {other.id, *other.parents}
        ancestor = next((c for c in (*brief.parents, *brief.mates, *brief.rejected) if c.id in shared and c.id != mine.id), None)
        texts, taken = {}, []
        for component in editable(brief):
            name = component.name
            if name not in theirs or theirs[name] == mine.text(name):
                continue
            how = pick(rng, ("mine", "theirs", "both"), (1.0, 1.0, 2.0))
            if how != "mine":
                base = dict(ancestor.texts).get(name) if ancestor else None
                joined = self._joined(mine.text(name), theirs[name], base, component.placeholders)
                texts[name] = theirs[name] if how == "theirs" else joined
                taken.append(f"{name} of {how}")
        demos = self._demos(brief, mine, other)
        if demos != mine.demos:
            taken.append(f"{len(demos)} demonstrations of {len(mine.demos)} and {len(other.demos)}")
        settings: dict[str, Scalar] = {k: v for k, v in other.settings if dict(mine.settings).get(k) != v and rng.random() < 0.5}
        if not (taken or settings):
            return None
        child = mine.child(self.name, texts=texts, demos=demos, settings=settings, also=(other.id,))
        return child, f"merged with {other.id}: {', '.join([*taken, *settings])}"

    def _joined(self, mine: str, theirs: str, base: str | None, placeholders: Sequence[str]) -> str:
        """My items plus theirs that I lack; with a common ancestor, also without those that they dropped since."""
        items = p.split(mine)
        other = {t.casefold() for t in p.texts(theirs)}
        if base is not None:
            lost = {t.casefold() for t in p.texts(base)} - other
            items = p.drop(items, [at for at in p.free(items, placeholders) if p.bare(items[at].text).casefold() in lost])
        have = {p.bare(i.text).casefold() for i in items} | ({t.casefold() for t in p.texts(base)} if base is not None else set())
        for item in p.split(theirs):
            new = p.bare(item.text)
            if new.casefold() not in have and len(items) < self._options.max_items and not p.locked(item, placeholders):
                items = p.insert(items, len(items), new)
                have.add(new.casefold())
        return p.join(items)

    def _demos(self, brief: Brief, mine: Candidate, other: Candidate) -> tuple[Demo, ...]:
        """Mine, theirs, or a draw from both of a size between theirs and mine, up to the limits."""
        if mine.demos == other.demos:
            return mine.demos
        how = pick(brief.rng, ("mine", "theirs", "cross"), (1.0, 1.0, 2.0))
        if how != "cross":
            return mine.demos if how == "mine" else other.demos
        both = list({d.example_id: d for d in (*mine.demos, *other.demos)}.values())
        low, high = sorted((len(mine.demos), len(other.demos)))
        top = min(high + 2, len(both), self._options.max_demos)
        size = int(brief.rng.integers(min(low, top), top + 1))
        chosen: list[Demo] = []
        for at in brief.rng.permutation(len(both)):
            new = both[at]
            if (
                len(chosen) < size
                and fits([*chosen, new], self._options.max_chars)
                and all(alike(new.question, d.question) < 0.8 for d in chosen)
            ):
                chosen.append(new)
        return tuple(chosen)
