"""ablate: drop items and demonstrations, to be shorter without being worse."""

from __future__ import annotations

from gepa_atlas import pieces as p
from gepa_atlas.ports import Brief
from gepa_atlas.propose.drafts import Change, clip, editable, first_sound, pick
from gepa_atlas.settings import Settings
from gepa_atlas.types import Draft


class AblateOptions(Settings):
    bold: float = 0.35  # share of proposals that drop a run of items or several demonstrations at once


class Ablate:
    name = "ablate"

    def __init__(self, options: AblateOptions | None = None) -> None:
        self._options = options or AblateOptions()

    async def propose(self, brief: Brief) -> Draft:
        return first_sound(brief, lambda: self._change(brief), "there is nothing left to drop")

    def _change(self, brief: Brief) -> Change | None:
        parent, rng = brief.parents[0], brief.rng
        spots: list[tuple[str, int]] = []  # component (empty for demonstrations) and how many things may go
        for component in editable(brief):
            spots.append((component.name, len(p.free(p.split(parent.text(component.name)), component.placeholders))))
        spots = [(name, n) for name, n in [*spots, ("", len(parent.demos))] if n > 0]
        if not spots:
            return None
        name, n = pick(rng, spots, [float(count) for _, count in spots])
        many = int(rng.integers(2, max(3, n // 2 + 1))) if n > 2 and rng.random() < self._options.bold else 1
        start = int(rng.integers(n - many + 1))
        if not name:
            kept = [d for at, d in enumerate(parent.demos) if not start <= at < start + many]
            return parent.child(self.name, demos=tuple(kept)), f"dropped {many} of {n} demonstrations"
        placeholders = next(c.placeholders for c in brief.components if c.name == name)
        items = p.split(parent.text(name))
        gone = p.free(items, placeholders)[start : start + many]
        note = f"{name}: dropped {'; '.join(f'“{clip(p.bare(items[at].text), 60)}”' for at in gone)}"
        return parent.child(self.name, texts={name: p.join(p.drop(items, gone))}), note
