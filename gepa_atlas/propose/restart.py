"""restart: a candidate from nowhere: a few fresh fragments around what must stay, and a fresh set of demonstrations. For plateaus."""

from __future__ import annotations

from gepa_atlas import pieces as p
from gepa_atlas.ports import Brief
from gepa_atlas.propose.demos import Chooser, DemosOptions
from gepa_atlas.propose.drafts import Change, editable, first_sound
from gepa_atlas.propose.edit import EditOptions, Sheet
from gepa_atlas.propose.fragments import Fragments
from gepa_atlas.settings import Settings
from gepa_atlas.types import Draft


class RestartOptions(Settings):
    demos: DemosOptions = DemosOptions()
    edit: EditOptions = EditOptions()
    lines: tuple[int, int] = (1, 4)  # fresh fragments in each component


class Restart:
    name = "restart"

    def __init__(self, options: RestartOptions | None = None) -> None:
        self._options = options or RestartOptions()
        self._fragments = Fragments(self._options.edit)

    async def propose(self, brief: Brief) -> Draft:
        return first_sound(brief, lambda: self._change(brief), "no fresh start within the limits was found")

    def _change(self, brief: Brief) -> Change | None:
        parent, texts = brief.parents[0], {}
        for component in editable(brief):
            sheet = Sheet(brief, component, self._fragments.weighed(brief, component.name), self._options.edit.max_items)
            sheet.items = p.drop(sheet.items, p.free(sheet.items, component.placeholders))
            low, high = self._options.lines
            for _ in range(int(brief.rng.integers(low, high + 1))):
                sheet.add()
            texts[component.name] = p.join(sheet.items)
        demos = Chooser(brief, self._options.demos).fresh() if brief.pool and brief.rng.random() < 0.8 else None
        child = parent.child(self.name, texts=texts, demos=tuple(demos or ()))
        return child, f"a fresh start with {len(child.demos)} demonstrations"
