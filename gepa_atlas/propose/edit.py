"""edit: add, drop, replace or move an item of a component. Fragments come from the user, from the train answers' form, and from a bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gepa_atlas import pieces as p
from gepa_atlas.ports import Brief
from gepa_atlas.propose.bank import kind_of
from gepa_atlas.propose.drafts import Change, clip, editable, first_sound, pick
from gepa_atlas.propose.fragments import Credit, FragmentOptions, Fragments, items_of
from gepa_atlas.types import Component, Draft

_KINDS = ("add", "replace", "drop", "move")
_SINGLE, _BOLD = (4.0, 3.0, 2.0, 1.0), (5.0, 2.0, 2.0, 0.0)  # how often each, as the only edit and as one of several


class EditOptions(FragmentOptions):
    max_items: int = 40  # of a component; the length is capped by its contract
    bold: float = 0.6  # share of proposals that make several edits at once


class Edit:
    name = "edit"

    def __init__(self, options: EditOptions | None = None) -> None:
        self._options = options or EditOptions()
        self._fragments = Fragments(self._options)

    async def propose(self, brief: Brief) -> Draft:
        components = editable(brief)
        if not components:
            return Draft(None, "the candidate has no text that may be edited")
        return first_sound(brief, lambda: self._change(brief, components), "no edit within the limits was found")

    def _change(self, brief: Brief, components: Sequence[Component]) -> Change | None:
        rng, parent = brief.rng, brief.parents[0]
        component = pick(rng, components)
        sheet = Sheet(brief, component, self._fragments.weighed(brief, component.name), self._options.max_items)
        bare = len(p.free(sheet.items, component.placeholders)) < 2
        bold = rng.random() < (max(0.8, self._options.bold) if bare and self._options.bold else self._options.bold)
        notes = []
        for _ in range(int(rng.integers(2, 5)) if bold else 1):
            note = sheet.step("add" if bold and bare else pick(rng, _KINDS, _BOLD if bold else _SINGLE))
            if note is not None:
                notes.append(note)
        text = p.join(sheet.items)
        if not notes or text == parent.text(component.name):
            return None
        return parent.child(self.name, texts={component.name: text}), f"{component.name}: {'; '.join(notes)}"


class Sheet:
    """A component's items on the way from parent to child."""

    def __init__(self, brief: Brief, component: Component, weights: Mapping[str, float], max_items: int) -> None:
        self.items = p.split(brief.parents[0].text(component.name))
        self._rng, self._placeholders, self._max_items = brief.rng, component.placeholders, max_items
        self._weights = dict(weights)
        self._credit = Credit(brief, component.name)

    def step(self, kind: str) -> str | None:
        """One edit; what it was, or None when this kind is not possible here."""
        free = p.free(self.items, self._placeholders)
        if kind == "move":
            return self._move() if len(self.items) > 1 else None
        if kind == "drop":
            return self._drop(free) if free else None
        return self._replace(free) if kind == "replace" and free else self.add()

    def add(self) -> str | None:
        """A fragment more, or None when there is none left or no room."""
        new = self._draw() if len(self.items) < self._max_items else None
        if new is None:
            return None
        self.items = p.insert(self.items, self._place(new), new)
        return f"added {_quoted(new)}"

    def _replace(self, free: Sequence[int]) -> str | None:
        new = self._draw()
        if new is None:
            return None
        at = self._weak(_same_kind(self.items, free, new) or free)
        old, self.items = self.items[at].text, p.swap_in(self.items, at, new)
        self._spent(old)
        return f"replaced {_quoted(old)} by {_quoted(new)}"

    def _drop(self, free: Sequence[int]) -> str:
        at = self._weak(free)
        old, self.items = self.items[at].text, p.drop(self.items, [at])
        self._spent(old)
        return f"dropped {_quoted(old)}"

    def _move(self) -> str:
        at, to = (int(i) for i in self._rng.choice(len(self.items), 2, replace=False))
        moved, order = self.items[at].text, [i for i in range(len(self.items)) if i != at]
        order.insert(to, at)
        self.items = p.reordered(self.items, order)
        return f"moved {_quoted(moved)}"

    def _draw(self) -> str | None:
        """A line that the items lack, by weight."""
        have = items_of(p.join(self.items))
        lines = [line for line in self._weights if not items_of(line) <= have]
        return pick(self._rng, lines, [self._weights[line] for line in lines]) if lines else None

    def _weak(self, free: Sequence[int]) -> int:
        """A position to give up, by what others say of its item."""
        return pick(self._rng, free, [self._credit.for_dropping(p.bare(self.items[at].text).casefold()) for at in free])

    def _spent(self, old: str) -> None:
        """What this change took out, it does not put back."""
        gone = items_of(old)
        self._weights = {line: weight for line, weight in self._weights.items() if not gone & items_of(line)}

    def _place(self, line: str) -> int:
        """A role goes first, a task statement near the top, the rest mostly to the end."""
        kind = kind_of().get(line)
        if kind == "role":
            return 0
        if kind == "task":
            return min(len(self.items), int(self._rng.integers(2)))
        return len(self.items) if self._rng.random() < 0.7 else int(self._rng.integers(len(self.items) + 1))


def _same_kind(items: Sequence[p.Piece], free: Sequence[int], fragment: str) -> list[int]:
    kind = kind_of().get(fragment)
    return [at for at in free if kind is not None and kind_of().get(p.bare(items[at].text)) == kind]


def _quoted(text: str) -> str:
    return f"“{clip(p.bare(text), 80)}”"
