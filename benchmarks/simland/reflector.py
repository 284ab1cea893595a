"""The simulated reflection model: a text function with the failings of a real one.

It finds the current rules and the symptoms in whatever prompt an optimizer's template builds, and answers with a whole new
instruction in a code fence, or with item edits as JSON where the prompt asks for edits. Its failings:
- insight: a rule is seen from n symptom lines with probability 1 - (1 - p)^n, in a paraphrase of random fidelity;
- overload: of m symptom lines only `attention` are read, and what is then written is vaguer;
- blind spots: a given set of current rules never leads to some ideas, so the same context gives the same ideas;
- decoys: with probability q it adds a plausible rule that does not help; it sometimes misreads a symptom into a wrong rule;
- forgetting: a whole rewrite loses or rewords rules, the more the longer the list; an item edit touches nothing else.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.simland.grammar import Sentence
from benchmarks.simland.hashing import generator, key64
from benchmarks.simland.world import TEMPLATES_PER_WORLD, World

_TRIED = re.compile(r"(rejected|already tried|tried before|did not help|not kept|do not repeat|failed edits|have been tried)", re.I)
_HEADING = re.compile(r"^\s*(#|<[a-z/]|\*\*|```|---|===|[A-Z][^.]*:\s*$)")
_EDITS = re.compile(r"(\"(?:op|edits|action)\"|item[- ]wise|list of edits|JSON (?:list|array|object))", re.I)
_SHORTEN = re.compile(r"\b(shorten|shorter|compress|condense|fewer words)\b", re.I)
FLUFF = ("Be careful and polite at all times.", "Think before you answer and check your work.", "Quality matters more than speed here.")


@dataclass
class Reading:
    """What the model took in of a prompt."""

    rules: list[Sentence]  # of the current instruction, in order, one per item
    symptoms: list[tuple[str, str]]  # (kind, word) of the lines that were read
    overloaded: bool
    tried: set[int] = field(default_factory=set)
    fluff: list[str] = field(default_factory=list)
    module: int = -1


@dataclass
class Change:
    """What the model wants to do: add (item, template), drop items, reword (item, template)."""

    add: list[tuple[int, int]] = field(default_factory=list)
    drop: set[int] = field(default_factory=set)
    reword: dict[int, int] = field(default_factory=dict)


class Reflector:
    """`reflector(prompt, call)` is a function of the world, the prompt's text and the number of this repeat of it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, prompt: str, call: int = 0) -> str:
        rng = generator("reflect", self.world.key, key64(prompt), call)
        reading = self.read(prompt, rng)
        change = self.think(reading, rng)
        if not reading.symptoms and _SHORTEN.search(prompt):
            change = self._shorten(reading, rng)
        if _EDITS.search(prompt):
            return self._edits(reading, change)
        return self._rewrite(reading, change, rng)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, prompt: str, rng: np.random.Generator) -> Reading:
        grammar, text = self.world.grammar, prompt.replace("\\n", "\n")
        rules: dict[int, Sentence] = {}
        tried: set[int] = set()
        fluff: list[str] = []
        in_tried = False
        for line in text.splitlines():
            sentences = grammar.read(line)
            if not sentences:
                if _TRIED.search(line):
                    in_tried = True
                elif _HEADING.match(line):
                    in_tried = False
                fluff += [f for f in FLUFF if f in line and f not in fluff]
            for s in sentences:
                if in_tried:
                    tried.add(s.item)
                elif s.item not in rules:
                    rules[s.item] = s
        module = self._module(text)
        names = self.world.components
        lines = [(kind, word) for kind, word, tag in grammar.symptoms(text) if module < 0 or tag in ("", names[module])]
        attention = self.world.constants.whole("attention")
        if len(lines) > attention:
            picked = sorted(map(int, rng.choice(len(lines), attention, replace=False)))
            return Reading(list(rules.values()), [lines[i] for i in picked], True, tried - set(rules), fluff, module)
        return Reading(list(rules.values()), list(lines), False, tried - set(rules), fluff, module)

    def _module(self, text: str) -> int:
        """The component a prompt says it is about, -1 when it does not say."""
        names = self.world.components
        if len(names) == 1:
            return 0
        said = re.search(r"component\W{1,4}(" + "|".join(names) + r")\b", text)
        return names.index(said.group(1)) if said else -1

    # -- thinking -----------------------------------------------------------------------------------------------------

    def think(self, reading: Reading, rng: np.random.Generator) -> Change:
        world, c, items = self.world, self.world.constants, self.world.grammar.items
        have = {s.item: s for s in reading.rules}
        context = generator("context", world.key, *sorted(have))
        blind = context.random(len(items)) < c["blind"]
        habits = list(map(int, context.permutation([it.index for it in items if it.kind in ("decoy", "key")])))
        change = Change()
        counts: dict[tuple[str, str], int] = {}
        for symptom in reading.symptoms:
            counts[symptom] = counts.get(symptom, 0) + 1
        for (kind, word), count in counts.items():
            if rng.random() > 1 - (1 - c["insight"]) ** count:
                continue
            if kind == "missing":
                self._answer_missing(word, have, blind, reading.overloaded, change, rng)
            else:
                self._answer_overdone(word, have, change, rng)
        if rng.random() < c["decoy_rate"]:
            fresh = [i for i in habits if i not in have]
            keys = [i for i in fresh if items[i].kind == "key" and c["key_gain"] and rng.random() < 0.3]
            if keys or fresh:
                change.add.append(((keys or fresh)[0], self._template(rng, False)))
        if reading.module >= 0:
            change.add = [(i, t) for i, t in change.add if items[i].module == reading.module]
        change.add = [(i, t) for i, t in dict(change.add).items() if i not in reading.tried or rng.random() < 0.2]
        return change

    def _answer_missing(
        self, condition: str, have: dict[int, Sentence], blind: npt.NDArray[np.bool_], overloaded: bool, change: Change, rng: np.random.Generator
    ) -> None:
        items, c = self.world.grammar.items, self.world.constants
        versions = self.world.grammar.with_condition(condition)
        template = self._template(rng, overloaded)
        present = [i for i in versions if i in have and items[i].kind != "wrong"]
        wrong = [i for i in versions if items[i].kind == "wrong"]
        plain = [i for i in versions if items[i].kind != "wrong" and not items[i].scope]
        scoped = [i for i in versions if items[i].scope]
        if present:
            change.reword[present[0]] = template
        elif plain and not blind[plain[0]]:
            if wrong and wrong[0] not in have and rng.random() < c["decoy_rate"] / 3:
                change.add.append((wrong[0], template))
            else:
                change.add.append((scoped[0] if scoped and rng.random() < 0.4 else plain[0], template))
        change.drop |= {i for i in wrong if i in have}

    def _answer_overdone(self, action: str, have: dict[int, Sentence], change: Change, rng: np.random.Generator) -> None:
        items = self.world.grammar.items
        for i in self.world.grammar.with_action(action):
            if i not in have:
                continue
            change.drop.add(i)
            narrower = [j for j in self.world.grammar.with_condition(items[i].condition) if items[j].scope and items[j].action == action]
            if narrower and not items[i].scope and rng.random() < 0.5:
                change.add.append((narrower[0], self._template(rng, False)))

    def _template(self, rng: np.random.Generator, vague: bool) -> int:
        """A paraphrase at random; an overloaded reader writes the worse of two."""
        one, other = map(int, rng.integers(0, TEMPLATES_PER_WORLD, 2))
        return min(one, other, key=lambda t: self.world.grammar.fidelities[t]) if vague else one

    def _shorten(self, reading: Reading, rng: np.random.Generator) -> Change:
        dropped = {s.item for s in reading.rules if rng.random() < 0.25}
        return Change(drop=dropped)

    # -- writing ------------------------------------------------------------------------------------------------------

    def _rewrite(self, reading: Reading, change: Change, rng: np.random.Generator) -> str:
        world, c = self.world, self.world.constants
        lines: list[str] = []
        forget = c["forget"] * max(1.0, len(reading.rules) / 8)
        for s in reading.rules:
            lost, other = rng.random() < forget, rng.random() < c["reword"]
            if s.item in change.drop or lost:
                continue
            template = change.reword.get(s.item, self._template(rng, reading.overloaded) if other else None)
            lines.append(s.text if template is None else world.grammar.write(s.item, template))
        lines += [world.grammar.write(i, t) for i, t in change.add]
        fluff = list(reading.fluff)
        if rng.random() < 0.15:
            fluff += [f for f in FLUFF if f not in fluff][:1]
        text = "\n".join([" ".join([world.intro, *fluff]), *(f"- {line}" for line in lines)])
        return f"Here is the new instruction.\n```\n{text}\n```"

    def _edits(self, reading: Reading, change: Change) -> str:
        write, old = self.world.grammar.write, {s.item: s.text for s in reading.rules}
        edits = [{"op": "drop", "old": old[i], "new": ""} for i in sorted(change.drop)]
        edits += [{"op": "change", "old": old[i], "new": write(i, t)} for i, t in change.reword.items() if i not in change.drop]
        edits += [{"op": "add", "old": "", "new": write(i, t)} for i, t in change.add]
        return json.dumps({"edits": edits})
