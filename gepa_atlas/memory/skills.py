"""The skill library: what each guidance item was worth, from pairs of candidates of one run that differ in that item alone.

On an example that both were taught, the reward with the item less the reward without it is a counterfactual. An effect is their mean
over examples, with its 95 % interval; an item is verified (or harmful) when the interval is on one side of 0 and the sign-flip test
over examples survives Benjamini-Hochberg at 5 % among all items of the operation that were tried on at least `ENOUGH` examples.

What is not claimed: the search measures what looks good more often, so effects of items it kept are somewhat flattered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa

from gepa_atlas import pieces
from gepa_atlas.errors import ConfigError
from gepa_atlas.evolve.items import DEMO, Item, items_of
from gepa_atlas.evolve.stats import mean_interval
from gepa_atlas.memory import schema as s
from gepa_atlas.memory.drift import benjamini_hochberg, sign_flip
from gepa_atlas.memory.rows import Trace
from gepa_atlas.memory.store import Memory
from gepa_atlas.texts import words
from gepa_atlas.types import Candidate, digest

ENOUGH = 5  # examples an item must have been tried on
ERROR_RATE = 0.05
Finding = Literal["verified", "harmful", "unclear"]


@dataclass(frozen=True)
class Skill:
    """A guidance item in one operation. `effect` is in reward, `low` to `high` its 95 % interval; helped and hurt count examples."""

    item_id: str
    operation: str
    component: str
    text: str
    finding: Finding
    effect: float
    low: float
    high: float
    examples: int
    helped: int
    hurt: int
    pairs: int
    runs: int
    by_example: tuple[tuple[str, float], ...] = field(default=(), repr=False)  # worst first

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"by_example": [list(one) for one in self.by_example]}


# -- what one run says ------------------------------------------------------------------------------------------------


def evidence_of(
    run_id: str, operation: str, candidates: Sequence[Candidate], traces: Iterable[Trace]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `items` and `evidence` for one run."""
    written = {item_id(item): (item, text) for candidate in candidates for item, text in _written(candidate)}
    found = differences(candidates, ((t.candidate_id, t.example_id, t.after) for t in traces))
    rows = [
        {
            "run_id": run_id, "item_id": item_id(item), "example_id": example, "operation": operation,
            "difference": float(np.mean(values)), "pairs": len(values),
        }
        for (item, example), values in sorted(found.items())
    ]  # fmt: skip
    used = {row["item_id"] for row in rows}
    items = [{"item_id": id_, "component": item[0], "text": text} for id_, (item, text) in written.items() if id_ in used]
    return items, rows


def differences(candidates: Sequence[Candidate], scored: Iterable[tuple[str, str, float | None]]) -> dict[tuple[Item, str], list[float]]:
    """(item, example id) -> reward with the item less reward without it, one for each pair of candidates. Samples are averaged first."""
    sets = {candidate.id: frozenset(items_of(candidate)) for candidate in candidates}
    rewards: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for candidate_id, example, after in scored:
        if after is not None and candidate_id in sets:
            rewards[candidate_id][example].append(after)
    means = {name: {e: float(np.mean(v)) for e, v in cells.items()} for name, cells in rewards.items()}
    having: dict[frozenset[Item], list[str]] = defaultdict(list)
    for name in means:
        having[sets[name]].append(name)
    found: dict[tuple[Item, str], list[float]] = defaultdict(list)
    for name, taught in means.items():
        for item in sorted(sets[name]):
            for other in having.get(sets[name] - {item}, ()):
                for example in taught.keys() & means[other].keys():
                    found[item, example].append(taught[example] - means[other][example])
    return found


def item_id(item: Item) -> str:
    return digest(list(item), 20)


def _written(candidate: Candidate) -> Iterable[tuple[Item, str]]:
    """Items with what they say as it was written: a line, or a demonstration's question and answer."""
    lines = {(name, line.casefold()): line for name, text in candidate.texts for line in pieces.texts(text)}
    shown = {demo.example_id: f"{demo.question} -> {demo.answer}" for demo in candidate.demos}
    for item in items_of(candidate):
        yield item, shown.get(item[1], item[1]) if item[0] == DEMO else lines.get(item, item[1])


# -- what all runs say ------------------------------------------------------------------------------------------------


def library(memory: Memory, operation: str | None = None) -> list[Skill]:
    """Every item that some pair of candidates has tried, by operation: verified first, then by the lower bound of its effect."""
    e, i = s.evidence.c, s.items.c
    query = sa.select(e.operation, e.item_id, e.run_id, e.example_id, e.difference, e.pairs, i.component, i.text)
    query = query.select_from(s.evidence.join(s.items, i.item_id == e.item_id))
    if operation is not None:
        query = query.where(e.operation == operation)
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in memory.rows(query):
        found[row["operation"]][row["item_id"]].append(row)
    skills = [skill for name in sorted(found) for skill in _judged(found[name])]
    rank = {"verified": 0, "unclear": 1, "harmful": 2}
    return sorted(skills, key=lambda k: (rank[k.finding], -k.low, k.item_id))


def _judged(items: dict[str, list[dict[str, Any]]]) -> Iterable[Skill]:
    """The items of one operation."""
    clusters: dict[str, dict[str, list[float]]] = {}
    for name in sorted(items):
        by_example: dict[str, list[float]] = defaultdict(list)
        for row in items[name]:
            by_example[row["example_id"]].append(row["difference"])
        clusters[name] = by_example
    values = {name: np.array([np.mean(v) for _, v in sorted(cells.items())]) for name, cells in clusters.items()}
    tried = [name for name, v in values.items() if len(v) >= ENOUGH]
    sure = dict(zip(tried, benjamini_hochberg([sign_flip(values[name]) for name in tried], ERROR_RATE), strict=True))
    for name, rows in items.items():
        v = values[name]
        low, high = mean_interval(v) or (-1.0, 1.0)
        finding: Finding = "unclear"
        if sure.get(name):
            finding = "verified" if low > 0 else "harmful" if high < 0 else "unclear"
        ordered = sorted(zip(sorted(clusters[name]), map(float, v), strict=True), key=lambda pair: (pair[1], pair[0]))
        yield Skill(
            name, rows[0]["operation"], rows[0]["component"], rows[0]["text"], finding, float(v.mean()), low, high, len(v),
            int((v > 0).sum()), int((v < 0).sum()), sum(r["pairs"] for r in rows), len({r["run_id"] for r in rows}), tuple(ordered),
        )  # fmt: skip


def search(skills: Sequence[Skill], text: str) -> list[Skill]:
    """Skills that share words with `text`, best match first: each shared word counts by its rarity in the library."""
    bags = [frozenset(words(skill.text)) for skill in skills]
    asked = frozenset(w for w in words(text) if w[0].isalnum())
    rare = {w: np.log(1 + len(skills) / max(1, sum(w in bag for bag in bags))) for w in asked}
    scores = [sum(rare[w] for w in asked & bag) for bag in bags]
    order = sorted(range(len(skills)), key=lambda at: (-scores[at], at))
    return [skills[at] for at in order if scores[at] > 0]


def named(skills: Sequence[Skill], id_: str) -> list[Skill]:
    """The item in each operation it was tried in; the beginning of an id will do. ConfigError where it is none, or several."""
    found = [skill for skill in skills if skill.item_id.startswith(id_)] if id_ else []
    if not found:
        raise ConfigError(f"{id_}: there is no such item; `gepa-atlas skills list --all` shows those there are")
    if len({skill.item_id for skill in found}) > 1:
        raise ConfigError(f"{id_}: is the beginning of several items; give more of it")
    return found
