"""diagnose: a language model sorts all readable failures into a few clusters, then edits are proposed against one of them.

The first call is the same for every slot that sees the same lessons, so the ledger answers it once it is paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gepa_atlas.errors import BudgetExhausted, CallError
from gepa_atlas.ports import Brief, ChatModel
from gepa_atlas.propose import reading
from gepa_atlas.propose.drafts import clip, pick
from gepa_atlas.propose.evidence import failing, solved
from gepa_atlas.propose.reflect import ReflectOptions, minibatch, reflect
from gepa_atlas.types import Draft, Lesson


class DiagnoseOptions(ReflectOptions):
    max_lessons: int = 60  # read for the diagnosis
    max_clusters: int = 5


@dataclass(frozen=True, slots=True)
class Cluster:
    """Failures with one cause."""

    cause: str
    remedy: str
    lessons: tuple[Lesson, ...]


class Diagnose:
    name = "diagnose"

    def __init__(self, model: ChatModel, options: DiagnoseOptions | None = None) -> None:
        self._model = model
        self._options = options or DiagnoseOptions()

    async def propose(self, brief: Brief) -> Draft:
        options = self._options
        bad = failing(brief.lessons)
        if not bad:
            return Draft(None, "the parent fails at none of the lessons that may be read: there is nothing to diagnose")
        good = solved(brief.lessons)[: max(1, options.max_lessons // 5)]
        corpus = [*bad[: options.max_lessons - len(good)], *good]
        clusters = await self._clusters(brief, corpus)
        if isinstance(clusters, str):
            return Draft(None, clusters)
        chosen = pick(brief.rng, clusters, [float(len(c.lessons)) for c in clusters])
        order = brief.rng.permutation(len(chosen.lessons))
        shown = [chosen.lessons[at] for at in order[: options.minibatch]] or minibatch(brief, options.minibatch)
        focus = f"{chosen.cause} Remedy: {chosen.remedy}"
        why = f"against {len(chosen.lessons)} of {len(bad)} failures: {chosen.cause}"
        return await reflect(brief, self._model, options, self.name, shown, focus, why)

    async def _clusters(self, brief: Brief, corpus: Sequence[Lesson]) -> list[Cluster] | str:
        data = {
            "instructions": reading.shown_candidate(brief),
            "lessons": [reading.shown_lesson(x, at, self._options.show_answers) for at, x in enumerate(corpus, 1)],
        }
        asked = reading.request(
            "diagnose",
            data,
            {"max_clusters": str(self._options.max_clusters)},
            _SCHEMA,
            max_tokens=self._options.max_tokens,
            temperature=0.0,
            seed=0,
        )
        try:
            completion = await self._model.complete(asked)
        except CallError as error:
            return f"the reflection model failed: {error.kind}: {clip(str(error), 200)}"
        except BudgetExhausted as error:
            return f"the reflection model was not asked: {error}"
        answer = reading.parse(completion.text, completion.finish)
        return (
            answer if isinstance(answer, str) else clusters_of(answer, corpus)[: self._options.max_clusters] or "no cluster could be read"
        )


def clusters_of(answer: dict[str, Any], corpus: Sequence[Lesson]) -> list[Cluster]:
    """The clusters that name a cause and at least one failing lesson; whatever else was answered is dropped."""
    rows = answer.get("clusters")
    found = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        cause, numbers, remedy = row.get("cause"), row.get("lessons"), row.get("remedy")
        if not isinstance(cause, str) or not cause.strip() or not isinstance(numbers, list):
            continue
        named = dict.fromkeys(n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= len(corpus))
        shown = tuple(x for x in (corpus[n - 1] for n in named) if x in failing([x]))
        if shown:
            found.append(Cluster(clip(cause.strip(), 400), clip(remedy.strip(), 400) if isinstance(remedy, str) else "", shown))
    return found


_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "clusters": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "cause": {"type": "string"},
                    "lessons": {"type": "array", "items": {"type": "integer"}},
                    "remedy": {"type": "string"},
                },
                "required": ["cause", "lessons", "remedy"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["clusters"],
    "additionalProperties": False,
}
