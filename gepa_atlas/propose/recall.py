"""recall: put in items that paid in earlier runs on a similar task, take out those that hurt there. They come from the skill library."""

from __future__ import annotations

from pydantic import Field

from gepa_atlas import pieces as p
from gepa_atlas.ports import Brief
from gepa_atlas.propose.drafts import Change, clip, editable, first_sound, pick
from gepa_atlas.propose.fragments import Credit, items_of
from gepa_atlas.settings import Settings
from gepa_atlas.types import Component, Draft


class RecalledItem(Settings):
    """One item of the library. `worth` is the lower bound of its effect in reward, weighed by how much it has to do with this task."""

    component: str
    text: str = Field(min_length=1)
    worth: float = Field(gt=0, allow_inf_nan=False)


class RecallOptions(Settings):
    items: tuple[RecalledItem, ...] = ()
    harmful: tuple[str, ...] = ()  # texts that hurt in earlier runs: taken out where a candidate has them
    at_once: int = Field(default=3, ge=1)  # items put in together, at most
    max_items: int = Field(default=40, ge=1)  # of a component


class Recall:
    name = "recall"

    def __init__(self, options: RecallOptions | None = None) -> None:
        self._options = options or RecallOptions()

    async def propose(self, brief: Brief) -> Draft:
        if not self._options.items and not self._options.harmful:
            return Draft(None, "nothing was remembered; `optimize --warm-start` fills this operator")
        return first_sound(brief, lambda: self._change(brief), "everything that is remembered of such tasks was tried")

    def _change(self, brief: Brief) -> Change | None:
        components = editable(brief)
        if not components:
            return None
        component = pick(brief.rng, components)
        items = p.split(brief.parents[0].text(component.name))
        items, notes = self._without_harm(items, component)
        items, added = self._with_more(brief, items, component)
        notes += added
        return (brief.parents[0].child(self.name, texts={component.name: p.join(items)}), "; ".join(notes)) if notes else None

    def _without_harm(self, items: tuple[p.Piece, ...], component: Component) -> tuple[tuple[p.Piece, ...], list[str]]:
        harmful = {text.casefold() for text in self._options.harmful}
        gone = [at for at in p.free(items, component.placeholders) if p.bare(items[at].text).casefold() in harmful]
        return p.drop(items, gone), [f"took out {clip(items[at].text, 80)!r}, which hurt before" for at in gone]

    def _with_more(self, brief: Brief, items: tuple[p.Piece, ...], component: Component) -> tuple[tuple[p.Piece, ...], list[str]]:
        notes = []
        credit = Credit(brief, component.name)
        for _ in range(int(brief.rng.integers(1, self._options.at_once + 1))):
            have = items_of(p.join(items))
            new = [i for i in self._options.items if i.component == component.name and not items_of(i.text) <= have]
            if not new or len(items) >= self._options.max_items:
                break
            item = pick(brief.rng, new, [i.worth * credit.for_adding(items_of(i.text)) for i in new])
            items = p.insert(items, len(items), item.text)
            notes.append(f"recalled {clip(item.text, 80)!r}")
        return items, notes
