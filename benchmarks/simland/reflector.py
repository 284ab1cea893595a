"""The simulated reflection model: a text function with the failings of a real one.

It finds the current rules and the symptoms in whatever prompt an optimizer's template builds (`reading`), and answers in the form
asked for: a whole new instruction in a code fence or as JSON, item edits, or clusters of failures. Its failings:
- insight: a rule is seen from n symptom lines with probability 1 - (1 - p)^n, in a paraphrase of random fidelity;
- overload: of m symptom lines only `attention` are read (four times as many when it is only asked to sort them), and what is then
  written is vaguer;
- blind spots: a given set of current rules never leads to some ideas, so the same context gives the same ideas;
- decoys: with probability q it adds a plausible rule that does not help; it sometimes misreads a symptom into a wrong rule;
- forgetting: a whole rewrite loses or rewords rules, the more the longer the list; an item edit touches nothing else. What it never
  loses is a defect of the seed that no trace speaks against: it looks like a demand.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.simland.hashing import generator, key64
from benchmarks.simland.reading import FLUFF, Reading, Symptom, read
from benchmarks.simland.world import TEMPLATES_PER_WORLD, World

_SHORTEN = re.compile(r"\b(shorten|shorter|compress|condense|fewer words)\b", re.I)
Bools = npt.NDArray[np.bool_]


@dataclass
class Change:
    """What the model wants to do: add {item: sentence}, drop items, reword {item: sentence}."""

    add: dict[int, str] = field(default_factory=dict)
    drop: set[int] = field(default_factory=set)
    reword: dict[int, str] = field(default_factory=dict)


class Reflector:
    """`reflector(prompt, call)` is a function of the world, the prompt's text and the number of this repeat of it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, prompt: str, call: int = 0) -> str:
        rng = generator("reflect", self.world.key, key64(prompt), call)
        reading = read(prompt, self.world.grammar, self.world.components)
        if reading.form == "clusters":
            return self._clusters(reading, rng)
        attended, overloaded = self._attend(reading.symptoms, self.world.constants.whole("attention"), rng)
        if not reading.symptoms and _SHORTEN.search(prompt):
            change = Change(drop={p.sentence.item for p in reading.rules if rng.random() < 0.25})
        else:
            change = self._think(reading, attended, overloaded, rng)
        if reading.form == "edits":
            return self._edits(reading, change)
        return self._rewrite(reading, change, overloaded, rng)

    # -- thinking -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _attend(symptoms: list[Symptom], limit: int, rng: np.random.Generator) -> tuple[list[Symptom], bool]:
        if len(symptoms) <= limit:
            return symptoms, False
        picked = sorted(map(int, rng.choice(len(symptoms), limit, replace=False)))
        return [symptoms[i] for i in picked], True

    def _think(self, reading: Reading, symptoms: list[Symptom], overloaded: bool, rng: np.random.Generator) -> Change:
        world, c, items = self.world, self.world.constants, self.world.grammar.items
        have = {p.sentence.item for p in reading.rules}
        context = generator("context", world.key, *sorted(have))
        blind = context.random(len(items)) < c["blind"]
        habits = list(map(int, context.permutation([it.index for it in items if it.kind in ("decoy", "key")])))
        change = Change()
        counts: dict[tuple[str, str], int] = {}
        for s in symptoms:
            counts[s.kind, s.word] = counts.get((s.kind, s.word), 0) + 1
        for (kind, word), count in sorted(counts.items(), key=lambda kv: -kv[1]):  # what shows most is thought of first
            if rng.random() > 1 - (1 - c["insight"]) ** count:
                continue
            if kind == "missing":
                self._answer_missing(word, have, blind, overloaded, change, rng)
            else:
                self._answer_overdone(word, have, change, rng)
        if reading.others and rng.random() < c["insight"] / 2:
            borrowed = reading.others[int(rng.integers(len(reading.others)))]
            change.add.setdefault(borrowed.item, borrowed.text)
        if rng.random() < c["decoy_rate"]:
            fresh = [i for i in habits if i not in have]
            keys = [i for i in fresh if items[i].kind == "key" and c["key_gain"] and rng.random() < 0.3]
            if keys or fresh:
                change.add.setdefault((keys or fresh)[0], self._say((keys or fresh)[0], rng))
        change.add = {i: t for i, t in change.add.items() if i not in reading.tried or rng.random() < 0.2}
        change.drop = {i for i in change.drop if i not in reading.tried_drop or rng.random() < 0.2}
        return change

    def _answer_missing(
        self, condition: str, have: set[int], blind: Bools, overloaded: bool, change: Change, rng: np.random.Generator
    ) -> None:
        items, c = self.world.grammar.items, self.world.constants
        versions = self.world.grammar.with_condition(condition)
        present = [i for i in versions if i in have and items[i].kind != "wrong"]
        wrong = [i for i in versions if items[i].kind == "wrong"]
        plain = [i for i in versions if items[i].kind != "wrong" and not items[i].scope]
        scoped = [i for i in versions if items[i].scope]
        if present:
            change.reword[present[0]] = self._say(present[0], rng, overloaded)
        elif plain and not blind[plain[0]]:
            misread = wrong and wrong[0] not in have and rng.random() < c["decoy_rate"] / 3
            new = wrong[0] if misread else scoped[0] if scoped and rng.random() < 0.4 else plain[0]
            change.add[new] = self._say(new, rng, overloaded)
        change.drop |= {i for i in wrong if i in have and self.world.shown[i]}

    def _answer_overdone(self, action: str, have: set[int], change: Change, rng: np.random.Generator) -> None:
        items = self.world.grammar.items
        for i in self.world.grammar.with_action(action):
            if i not in have:
                continue
            change.drop.add(i)
            narrower = [j for j in self.world.grammar.with_condition(items[i].condition) if items[j].scope and items[j].action == action]
            if narrower and not items[i].scope and rng.random() < 0.5:
                change.add[narrower[0]] = self._say(narrower[0], rng)

    def _say(self, item: int, rng: np.random.Generator, vague: bool = False) -> str:
        """A paraphrase at random; an overloaded reader writes the worse of two."""
        fidelities = self.world.grammar.fidelities
        one, other = map(int, rng.integers(0, TEMPLATES_PER_WORLD, 2))
        return self.world.grammar.write(item, min(one, other, key=lambda t: fidelities[t]) if vague else one)

    # -- writing ------------------------------------------------------------------------------------------------------

    def _rewrite(self, reading: Reading, change: Change, overloaded: bool, rng: np.random.Generator) -> str:
        """Every component the prompt is about, written anew."""
        names = reading.components if reading.form == "texts" else reading.components[:1]
        texts = {name: self._text(reading, name, change, overloaded, rng) for name in names or [""]}
        if reading.form == "texts":
            return json.dumps({"diagnosis": "Some rules were missing or harmful.", "texts": texts})
        return f"Here is the new instruction.\n```\n{next(iter(texts.values()))}\n```"

    def _text(self, reading: Reading, name: str, change: Change, overloaded: bool, rng: np.random.Generator) -> str:
        c, several = self.world.constants, len(reading.components) > 1
        forget = c["forget"] * max(1.0, len(reading.rules) / 6)
        if rng.random() < c["collapse"] * (len(reading.rules) / 10) ** 2:
            forget = 0.5
        lines: list[str] = []
        for placed in reading.rules:
            if several and placed.component != name:
                continue
            item = placed.sentence.item
            lost, other = rng.random() < forget, rng.random() < c["reword"]
            kept = not self.world.shown[item]  # a defect no trace has spoken against looks like a demand and is copied
            if item not in change.drop and (kept or not lost):
                lines.append(change.reword.get(item, self._say(item, rng, overloaded) if other and not kept else placed.sentence.text))
        lines += [text for item, text in change.add.items() if not several or self._home(item) == name]
        fluff = [f for component, f in reading.fluff if not several or component == name]
        if rng.random() < 0.15:
            fluff += [f for f in FLUFF if f not in fluff][:1]
        return "\n".join([" ".join([self.world.intro, *fluff]), *(f"- {line}" for line in lines)])

    def _home(self, item: int) -> str:
        return str(self.world.components[self.world.grammar.items[item].module])

    def _edits(self, reading: Reading, change: Change) -> str:
        """Drops, then rewordings, then additions of what showed most, within the limit the prompt gives."""
        placed = {p.sentence.item: p for p in reading.rules if p.number}
        edits: list[dict[str, Any]] = []

        def edit(item: int, op: str, number: int | None, text: str) -> None:
            known = placed[item].component if item in placed else ""
            edits.append({"component": known or self._home(item), "op": op, "item": number, "text": text})

        for item in sorted(change.drop & placed.keys()):
            edit(item, "drop", placed[item].number, "")
        for item, text in change.reword.items():
            if item in placed and item not in change.drop:
                edit(item, "replace", placed[item].number, text)
        for item, text in change.add.items():
            edit(item, "add", None, text)
        said = "Some rules were missing or harmful." if edits else "Nothing to change."
        return json.dumps({"diagnosis": said, "edits": edits[: reading.max_edits]})

    def _clusters(self, reading: Reading, rng: np.random.Generator) -> str:
        """Symptoms sorted by what they name, the most frequent first."""
        attended, _ = self._attend(reading.symptoms, 4 * self.world.constants.whole("attention"), rng)
        groups: dict[tuple[str, str], list[Symptom]] = {}
        for s in attended:
            groups.setdefault((s.kind, s.word), []).append(s)
        ordered = sorted(groups.values(), key=lambda g: -len(g))
        rows = [
            {
                "cause": g[0].text.partition(".")[0] + ".",
                "lessons": sorted({s.lesson for s in g}),
                "remedy": "Say what this case calls for.",
            }
            for g in ordered[:8]
        ]
        return json.dumps({"clusters": rows})
