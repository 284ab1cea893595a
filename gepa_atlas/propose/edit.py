"""edit: add, drop, replace or move an item of a component. Fragments come from the user, from the train answers' form, and from a bank."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from gepa_atlas.ports import Brief
from gepa_atlas.propose import pieces as p
from gepa_atlas.propose.bank import bank, kind_of
from gepa_atlas.propose.drafts import Change, clip, editable, first_sound, pick
from gepa_atlas.propose.evidence import form_share
from gepa_atlas.propose.shape import fragments_of
from gepa_atlas.settings import Settings
from gepa_atlas.types import Component, Demo, Draft


class EditOptions(Settings):
    fragments: tuple[str, ...] | dict[str, tuple[str, ...]] = ()  # your own lines, for all components or by component name
    builtin: bool = True  # also use the bank that is shipped; with fragments of your own, one draw in four
    from_data: bool = True  # also use lines read off the train answers: labels, form, length, case
    max_items: int = 40  # of a component; the length is capped by its contract
    bold: float = 0.3  # share of proposals that make two to four edits at once


class Edit:
    name = "edit"

    def __init__(self, options: EditOptions | None = None) -> None:
        self._options = options or EditOptions()
        self._read: tuple[tuple[Demo, ...], tuple[str, ...]] = ((), ())  # the last pool and what was read off it

    async def propose(self, brief: Brief) -> Draft:
        components = editable(brief)
        if not components:
            return Draft(None, "the candidate has no text that may be edited")
        return first_sound(brief, lambda: self._change(brief, components), "no edit within the limits was found")

    def _change(self, brief: Brief, components: Sequence[Component]) -> Change | None:
        component = pick(brief.rng, components)
        parent = brief.parents[0]
        items = p.split(parent.text(component.name))
        bare = len(p.free(items, component.placeholders)) < 2
        bold = brief.rng.random() < (0.7 if bare else self._options.bold)
        notes = []
        for _ in range(int(brief.rng.integers(2, 5)) if bold else 1):
            step = self._step(brief, component, items, adding=bold and bare)
            if step is not None:
                items, note = step
                notes.append(note)
        text = p.join(items)
        if not notes or text == parent.text(component.name):
            return None
        return parent.child(self.name, texts={component.name: text}), f"{component.name}: {'; '.join(notes)}"

    def _step(self, brief: Brief, component: Component, items: tuple[p.Piece, ...], adding: bool) -> tuple[tuple[p.Piece, ...], str] | None:
        """One edit of the items and what it was, or None when the chosen kind of edit is not possible."""
        rng = brief.rng
        free = p.free(items, component.placeholders)
        kind = "add" if adding or not free else pick(rng, ("add", "replace", "drop", "move"), (4.0, 3.0, 2.0, 1.0))
        if kind == "drop":
            at = pick(rng, free)
            return p.drop(items, [at]), f"dropped {_quoted(items[at].text)}"
        if kind == "move":
            if len(items) < 2:
                return None
            at, to = (int(i) for i in rng.choice(len(items), 2, replace=False))
            order = [i for i in range(len(items)) if i != at]
            order.insert(to, at)
            return p.reordered(items, order), f"moved {_quoted(items[at].text)}"
        fragment = self._fragment(brief, component.name, [p.bare(i.text) for i in items])
        if fragment is None or (kind == "add" and len(items) >= self._options.max_items):
            return None
        if kind == "replace":
            at = pick(rng, _same_kind(items, free, fragment) or free)
            return p.swap_in(items, at, fragment), f"replaced {_quoted(items[at].text)} by {_quoted(fragment)}"
        return p.insert(items, _place(brief, items, fragment), fragment), f"added {_quoted(fragment)}"

    def _shape(self, pool: tuple[Demo, ...]) -> tuple[str, ...]:
        if self._options.from_data and pool is not self._read[0]:
            self._read = (pool, fragments_of(pool))
        return self._read[1]

    def added(self, brief: Brief, component: str, items: tuple[p.Piece, ...]) -> tuple[p.Piece, ...]:
        """The items with one fragment more, or as they are when there is none left."""
        fragment = self._fragment(brief, component, [p.bare(i.text) for i in items])
        return items if fragment is None else p.insert(items, _place(brief, items, fragment), fragment)

    def _fragment(self, brief: Brief, component: str, have: Sequence[str]) -> str | None:
        """A fragment the text lacks. Lines about form are preferred when the parent's failures are failures of form."""
        taken = {h.casefold() for h in have}
        own = self._options.fragments
        listed = own.get(component, ()) if isinstance(own, dict) else own
        mine = [f for f in listed if not _items(f) <= taken]
        read = [f for f in self._shape(brief.pool) if not _items(f) <= taken]
        if mine and (brief.rng.random() < 0.75 or not (read or self._options.builtin)):
            return pick(brief.rng, mine)
        shipped = [f for lines in bank().values() for f in lines if not _items(f) <= taken] if self._options.builtin else []
        if not (read or shipped):
            return pick(brief.rng, mine) if mine else None
        if read and (not shipped or brief.rng.random() < 0.5):
            return pick(brief.rng, read)
        form = form_share(brief.lessons)
        boost = 1.0 if form is None else 1.0 + 3.0 * form
        weights = [boost if kind_of()[f] in ("format", "constraint") else 1.0 for f in shipped]
        return pick(brief.rng, shipped, weights)


@lru_cache(maxsize=4096)
def _items(fragment: str) -> frozenset[str]:
    """A fragment may be several sentences; it is in a text when all of them are."""
    return frozenset(t.casefold() for t in p.texts(fragment))


def _same_kind(items: Sequence[p.Piece], free: Sequence[int], fragment: str) -> list[int]:
    kind = kind_of().get(fragment)
    return [at for at in free if kind is not None and kind_of().get(p.bare(items[at].text)) == kind]


def _place(brief: Brief, items: Sequence[p.Piece], fragment: str) -> int:
    """A role goes first, a task statement near the top, the rest mostly to the end."""
    kind = kind_of().get(fragment)
    if kind == "role":
        return 0
    if kind == "task":
        return min(len(items), int(brief.rng.integers(2)))
    return len(items) if brief.rng.random() < 0.7 else int(brief.rng.integers(len(items) + 1))


def _quoted(text: str) -> str:
    return f"“{clip(p.bare(text), 80)}”"
