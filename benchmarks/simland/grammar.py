"""The language of a world: opaque rule sentences, their paraphrases, the symptoms a trace can show, and the parser of both.

An item is one (condition, action) pair: a latent rule, a decoy, a rule with a wrong action, or the judge's master key. All look alike:
"When the ticket names a vorn, cite its quell first." How well the student follows a sentence (its fidelity) depends on the
paraphrase, and which paraphrase is the good one is drawn per world. Symptoms name the condition only, never the action.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

RULE_TEMPLATES = (
    "When the {n} names a {c}, cite its {a} first.",
    "For any {n} with a {c}, always give the {a}.",
    "If a {c} appears in the {n}, state the {a} before anything else.",
    "Treat a {c} in the {n} by naming the {a}.",
    "A {c} calls for the {a}.",
    "Remember the {a} whenever a {c} is present.",
    "Mention the {a} for every {n} of the {c} kind.",
    "Do not close a {n} holding a {c} without its {a}.",
    "The {c} and the {a} belong together in each {n}.",
    "Handle the {c} with the {a} in mind.",
)
MISSING_TEMPLATES = (
    "The reply did not deal with the {c}.",
    "Something was left undone about the {c}.",
    "The {c} was answered without what it calls for.",
)
OVERDONE_TEMPLATES = ("The {a} was brought up where nobody needed it.", "The reply lost its way over the {a}.")
NOUNS = ("ticket", "order", "filing", "manifest", "claim", "permit", "invoice", "docket")
ONSETS = "b bl br d dr f fl g gl gr k kr l m n p pl pr qu s sk sl st t tr v vr z".split()  # noqa: SIM905
VOWELS = "aeiou"
CODAS = "b d g k l lm m n nd nt p rk rn rt sk st x".split()  # noqa: SIM905
_BULLET = re.compile(r"^[\s\-*•>#\"'`,]*(?:[(\[]?\d+[\"']?[.):\]]\s*)?[\s\-*•\"'`]*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[a-z]+")

Kind = Literal["rule", "decoy", "wrong", "key"]
Symptom = tuple[Literal["missing", "overdone"], str, str]
"""(kind, the condition or the action it names, the module tag or '')"""


def nonces(rng: np.random.Generator, count: int) -> list[str]:
    """`count` distinct made-up words of five letters or more."""
    words: list[str] = []
    seen: set[str] = set()
    while len(words) < count:
        parts = [str(rng.choice(ONSETS)), str(rng.choice(list(VOWELS))), str(rng.choice(CODAS))]
        if rng.random() < 0.5 or len("".join(parts)) < 5:
            parts += [str(rng.choice(list(VOWELS))), str(rng.choice(CODAS))]
        word = "".join(parts)
        if word not in seen and len(word) >= 5:
            seen.add(word)
            words.append(word)
    return words


@dataclass(frozen=True)
class Item:
    """One (condition, action) pair. `rule` is the latent rule it serves or spoils, -1 for none; `scope` a slice name or ''."""

    index: int
    kind: Kind
    condition: str
    action: str
    rule: int = -1
    module: int = 0
    scope: str = ""


@dataclass(frozen=True)
class Sentence:
    """A parsed rule sentence: which item, how faithfully said."""

    item: int
    fidelity: float
    text: str


@dataclass
class Grammar:
    """Writes and reads the sentences of one world. `fidelities` holds one number per template of `templates`."""

    noun: str
    items: tuple[Item, ...]
    templates: tuple[str, ...]
    fidelities: tuple[float, ...]
    modules: tuple[str, ...]
    _pairs: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _conditions: dict[str, list[int]] = field(default_factory=dict)
    _actions: dict[str, list[int]] = field(default_factory=dict)
    _forms: dict[str, float] = field(default_factory=dict)
    _cache: dict[str, tuple[Sentence, ...]] = field(default_factory=dict)
    _taken: dict[str, tuple[list[Symptom], tuple[Sentence, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in self.items:
            self._pairs[item.condition, item.action, item.scope] = item.index
            self._conditions.setdefault(item.condition, []).append(item.index)
            self._actions.setdefault(item.action, []).append(item.index)
        for template, fidelity in zip(self.templates, self.fidelities, strict=True):
            self._forms[self._form(template.format(n=self.noun, c="CC", a="AA"))] = fidelity
        self.scopes = sorted({i.scope for i in self.items if i.scope})
        self._missing = _symptom_pattern(MISSING_TEMPLATES, "c")
        self._overdone = _symptom_pattern(OVERDONE_TEMPLATES, "a")

    @staticmethod
    def _form(text: str) -> str:
        return " ".join(text.lower().rstrip(".!? ").split())

    def write(self, item: int, template: int) -> str:
        """The sentence for an item in one of this world's paraphrases."""
        it = self.items[item]
        text = self.templates[template].format(n=self.noun, c=it.condition, a=it.action)
        return f"In {it.scope} cases: {text[0].lower()}{text[1:]}" if it.scope else text

    def read(self, text: str) -> tuple[Sentence, ...]:
        """Every rule sentence in a text, in order. Unknown wording of a known pair counts at a third of full fidelity."""
        known = self._cache.get(text)
        if known is None:
            found = [s for line in _SENTENCE.split(text) if (s := self._read_sentence(line)) is not None]
            known = self._cache[text] = tuple(found)
        return known

    def take(self, line: str) -> tuple[list[Symptom], tuple[Sentence, ...]]:
        """Symptoms and rule sentences of one line, remembered."""
        known = self._taken.get(line)
        if known is None:
            known = self._taken[line] = (self.symptoms(line), self.read(line))
        return known

    def _read_sentence(self, line: str) -> Sentence | None:
        bare = _clean(line)
        scope = ""
        for name in self.scopes:
            head = f"in {name} cases: "
            if bare.lower().startswith(head):
                scope, bare = name, bare[len(head) :]
        words = _WORD.findall(bare.lower())
        condition = next((w for w in words if w in self._conditions), None)
        action = next((w for w in words if w in self._actions), None)
        if condition is None or action is None:
            return None
        item = self._pairs.get((condition, action, scope))
        if item is None:
            return None
        form = self._form(bare.lower().replace(condition, "cc", 1).replace(action, "aa", 1))
        return Sentence(item, self._forms.get(form, 0.33), _clean(line))

    def missing(self, condition: str, u: float, module: int) -> str:
        """The trace line that shows a missing rule; `u` in [0, 1) picks the wording."""
        return self._tag(module) + MISSING_TEMPLATES[int(u * len(MISSING_TEMPLATES))].format(c=condition)

    def overdone(self, action: str, u: float, module: int) -> str:
        """The trace line that shows a rule doing harm."""
        return self._tag(module) + OVERDONE_TEMPLATES[int(u * len(OVERDONE_TEMPLATES))].format(a=action)

    def _tag(self, module: int) -> str:
        return f"[{self.modules[module]}] " if len(self.modules) > 1 else ""

    def symptoms(self, text: str) -> list[Symptom]:
        """Every symptom in a text, in order."""
        found: list[tuple[int, Literal["missing", "overdone"], str, str]] = []
        for m in self._missing.finditer(text):
            found.append((m.start(), "missing", _last_group(m), m.group(1) or ""))
        for m in self._overdone.finditer(text):
            found.append((m.start(), "overdone", _last_group(m), m.group(1) or ""))
        return [(kind, word, tag) for _, kind, word, tag in sorted(found)]

    def with_condition(self, condition: str) -> list[int]:
        return self._conditions.get(condition, [])

    def with_action(self, action: str) -> list[int]:
        return self._actions.get(action, [])


def _clean(line: str) -> str:
    """A sentence without bullet, number, quotes and the comma of a JSON list."""
    return _BULLET.sub("", line).strip().rstrip(",").strip("\"'`* ")


def _symptom_pattern(templates: tuple[str, ...], slot: str) -> re.Pattern[str]:
    forms = [re.escape(t).replace(r"\{" + slot + r"\}", "([a-z]+)") for t in templates]
    return re.compile(r"(?:\[([a-z]+)\] )?(?:" + "|".join(forms) + ")")


def _last_group(match: re.Match[str]) -> str:
    return next(g for g in match.groups()[1:] if g is not None)


def count_words(text: str) -> int:
    return len(text.split())
