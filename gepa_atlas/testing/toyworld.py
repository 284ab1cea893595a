"""ToyWorld: a simulated student with a known optimum. Text in, text out, no model at all.

A world is a function of its settings. It has K latent rules, each a sentence of invented words ("When a ticket names vorn,
cite quell."), decoys that look the same, and kinds of tickets that need a demonstration. A question names words; it needs the
rules about these words, and the gold answer is their citations in order. The student knows a rule when a sentence of its
guidance has both of the rule's words. Its chance to answer correctly is a logistic landscape (after section 4b of the
benchmark notes, simplified):

    p = sigmoid((base - difficulty - effect * weight of the missing rules - harm * decoys that speak of this ticket
                 - demo_effect * [kind not demonstrated] - length_cost * characters / 100) / noise)

`noise: 0` is the limit: right exactly where the bracket is positive. The answer is a function of (world, guidance, question,
sample), so there is nothing to seed and nothing to save, and `truth` is analytic: there is no noise in it.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from gepa_atlas.evolve.rng import rng
from gepa_atlas.ports import ChatRequest, Completion, Endpoint
from gepa_atlas.settings import Settings, load
from gepa_atlas.testing.provider import FakeProvider, ProviderSettings, uniform
from gepa_atlas.types import Attempt, Demo, Example, Guidance, Question, Split, Task, Usage, digest

SEED_GUIDANCE = "Read the ticket and reply."  # poor on purpose: it knows no rule
_DOLLARS_PER_TOKEN = 1e-6
_SENTENCE = re.compile(r"[.;!?\n]")
_WORD = re.compile(r"\w+")


class WorldSettings(Settings):
    """Everything that makes a world; `examples` alone does not change answers. Units of the landscape are logits."""

    seed: int = 0
    rules: int = Field(default=6, ge=1, le=40)
    decoys: int = Field(default=4, ge=0, le=40)
    kinds: int = Field(default=0, ge=0, le=12)  # kinds of tickets, each in need of a demonstration of its kind; 0: none needs one
    examples: int = Field(default=120, ge=5)  # 30 % train, 30 % val, 40 % test
    noise: float = Field(default=0.5, ge=0.0)
    base: float = 3.0
    spread: float = Field(default=0.5, ge=0.0)  # difficulty of a question is uniform in [-spread, spread]
    effect: float = 4.5  # of a missing rule; 0 is a flat world, in which guidance cannot help
    demo_effect: float = 4.0
    harm: float = 1.5
    length_cost: float = Field(default=0.05, ge=0.0)  # for each 100 characters of guidance


@dataclass(frozen=True, slots=True)
class Rule:
    """When a ticket names `word`, the answer cites `cite`. A decoy is a rule that no gold answer follows."""

    word: str
    cite: str
    weight: float = 1.0

    @property
    def sentence(self) -> str:
        return f"When a ticket names {self.word}, cite {self.cite}."


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best guidance there is for the held-out set, and its expected success."""

    text: str
    demos: tuple[Demo, ...]
    value: float


class ToyWorld:
    """A world with its rules, questions and landscape. Pure: no state, no clock."""

    def __init__(self, settings: WorldSettings | None = None) -> None:
        self.settings = s = settings or WorldSettings()
        self._read = functools.lru_cache(1024)(self._read_once)  # each guidance is tried on many questions
        draw = rng(s.seed, "toyworld")
        names = _nonces(s.seed, 2 * s.rules + 2 * s.decoys + s.kinds + 4)
        take = iter(names)
        weights = draw.uniform(0.8, 1.2, s.rules)
        self.rules = tuple(Rule(next(take), next(take), float(w)) for w in weights)
        self.decoys = tuple(self._decoy(i, next(take), next(take)) for i in range(s.decoys))
        self.kinds = tuple(next(take) for _ in range(s.kinds))
        self._noise_words = tuple(take)
        self._by_word = {rule.word: rule for rule in self.rules}
        dull = [d.word for d in self.decoys if d.word not in self._by_word]
        self._dull = (*dull, *self._noise_words)
        order = draw.permutation(s.rules + s.decoys)
        both = [r.sentence for r in (*self.rules, *self.decoys)]
        self._fragments = tuple(both[i] for i in order)
        self._examples = tuple(self._example(i) for i in range(s.examples))
        self._test = tuple(e.question for e in self._examples if e.split == "test")

    def _decoy(self, index: int, word: str, cite: str) -> Rule:
        """Every other decoy contradicts a rule; the rest speak of words that ask for nothing."""
        return Rule(self.rules[index % len(self.rules)].word if index % 2 else word, cite)

    def _example(self, index: int) -> Example:
        s = self.settings
        draw = rng(s.seed, "toyworld", "example", index)
        prevalence = 1.0 / (1.0 + 0.25 * np.arange(s.rules))  # some rules are needed more often than others
        count = min(s.rules, 1 + int(draw.random() < 0.4))
        needed = draw.choice(s.rules, size=count, replace=False, p=prevalence / prevalence.sum())
        named = [self.rules[i].word for i in needed]
        named += [str(w) for w in draw.choice(self._dull, size=min(2, len(self._dull)), replace=False)]
        words = [named[i] for i in draw.permutation(len(named))]
        kind = f", of kind {self.kinds[index % len(self.kinds)]}," if self.kinds else ""
        question = f"Ticket {index + 1}{kind} names {', '.join(words)}. What is cited?"
        share = (index + 0.5) / s.examples
        split: Split = "train" if share < 0.3 else "val" if share < 0.6 else "test"
        return Example(f"toy-{index + 1:04d}", question, (self.gold(question),), split=split)

    # -- what a user of the world asks ------------------------------------------------------------------------------

    def examples(self) -> list[Example]:
        return list(self._examples)

    def fragments(self) -> list[str]:
        """Sentences that an `edit` operator may add or drop: rules and decoys, shuffled."""
        return list(self._fragments)

    def gold(self, question: str) -> str:
        return " ".join(rule.cite for rule in self._needed(question)) or "nothing"

    def truth(self, text: str, demos: Sequence[Demo] = (), questions: Sequence[str] | None = None) -> float:
        """Expected success of this guidance on the held-out (test) questions, or on those given. Analytic, in [0, 1]."""
        asked = self._test if questions is None else questions
        knows = self._read(text, tuple(demos))
        return math.fsum(self._chance(knows, q) for q in asked) / len(asked)

    def optimum(self) -> Optimum:
        """Coordinate ascent over sentences and one demonstration a kind, started from all rules and all demonstrations."""
        demos = {self._kind(e.question): Demo.of(e) for e in reversed(self._examples) if self.kinds and e.split == "train"}
        pieces: list[str | Demo] = [*self.fragments(), *demos.values()]
        true = {rule.sentence for rule in self.rules}
        chosen = {i for i, piece in enumerate(pieces) if isinstance(piece, Demo) or piece in true}

        def value(which: set[int]) -> float:
            return self.truth(*_assemble(pieces, which))

        best, improved = value(chosen), True
        while improved:
            improved = False
            for i in range(len(pieces)):
                changed = value(chosen ^ {i})
                if changed > best + 1e-12:
                    chosen, best, improved = chosen ^ {i}, changed, True
        return Optimum(*_assemble(pieces, chosen), best)

    # -- the student ------------------------------------------------------------------------------------------------

    def chance(self, guidance: Guidance, question: str) -> float:
        """Probability that the student answers this question correctly under this guidance."""
        return self._chance(self._read(guidance.text, guidance.demos), question)

    def answer(self, guidance: Guidance, question: str, sample: int = 0) -> str:
        """What the student says: the gold answer with probability `chance`, else a wrong one that shows what is missing."""
        s = self.settings
        gold = self.gold(question)
        draw = uniform("answer", s.seed, digest(guidance.to_json()), question, sample)
        known = self._read(guidance.text, guidance.demos)
        if draw < self._chance(known, question):
            return gold
        said = [r.cite for r in self._needed(question) if r in known.rules]
        said += [d.cite for d in self.decoys if d in known.rules and d.word in _WORD.findall(question)]
        wrong = " ".join(said) or "nothing"
        slip = self._noise_words[int(uniform("slip", s.seed, question, sample) * len(self._noise_words))]
        return wrong if wrong != gold else f"{gold} {slip}"

    @property
    def identity(self) -> str:
        return f"toyworld:{digest(self.settings.model_dump(mode='json', exclude={'examples'}), 16)}"

    def _needed(self, question: str) -> list[Rule]:
        seen = dict.fromkeys(w for w in _WORD.findall(question) if w in self._by_word)
        return [self._by_word[w] for w in seen]

    def _kind(self, question: str) -> str | None:
        return next((w for w in _WORD.findall(question) if w in self.kinds), None)

    def _read_once(self, text: str, demos: tuple[Demo, ...]) -> _Known:
        """What the student takes from a guidance: the rules whose two words share a sentence, and the kinds shown correctly."""
        sentences = [set(_WORD.findall(part)) for part in _SENTENCE.split(text)]
        rules = frozenset(r for r in (*self.rules, *self.decoys) if any(r.word in s and r.cite in s for s in sentences))
        shown = frozenset(k for d in demos if d.answer == self.gold(d.question) and (k := self._kind(d.question)))
        return _Known(rules, shown, len(text) + sum(len(d.question) + len(d.answer) for d in demos))

    def _chance(self, known: _Known, question: str) -> float:
        s = self.settings
        named = set(_WORD.findall(question))
        missing = math.fsum(r.weight for r in self._needed(question) if r not in known.rules)
        misled = sum(1 for d in self.decoys if d in known.rules and d.word in named)
        kind = self._kind(question)
        undemonstrated = kind is not None and kind not in known.kinds
        difficulty = s.spread * (2.0 * uniform("difficulty", s.seed, question) - 1.0)
        logit = s.base - difficulty - s.effect * missing - s.harm * misled
        logit -= s.demo_effect * undemonstrated + s.length_cost * known.characters / 100.0
        if s.noise == 0.0:
            return 1.0 if logit > 0.0 else 0.0
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, logit / s.noise))))


@dataclass(frozen=True, slots=True)
class _Known:
    rules: frozenset[Rule]
    kinds: frozenset[str]
    characters: int


def _assemble(pieces: Sequence[str | Demo], which: set[int]) -> tuple[str, tuple[Demo, ...]]:
    chosen = [piece for i, piece in enumerate(pieces) if i in which]
    return "\n".join(p for p in chosen if isinstance(p, str)), tuple(p for p in chosen if isinstance(p, Demo))


def _nonces(seed: int, count: int) -> list[str]:
    """`count` different invented words, none of which is in the sentences around them."""
    draw = rng(seed, "toyworld", "words")
    taken = {"when", "ticket", "names", "cite", "kind", "what", "cited", "nothing", "read", "the", "and", "reply"}
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [draw.choice(list(letters)) for letters in ("bdfgklmnprstvz", "aeiou", "lmnrst", "aeiou", "bdgkmnpqtx")]
        word = "".join(str(p) for p in parts)
        if word not in taken:
            found[word] = None
    return list(found)


# -- behind the ports -------------------------------------------------------------------------------------------------


class ToyAgentSettings(ProviderSettings):
    world: WorldSettings = WorldSettings()


class ToyAgent:
    """The student behind the Agent port. Identity is the world; latency, faults and the book are not part of it."""

    def __init__(self, settings: ToyAgentSettings) -> None:
        self.world = ToyWorld(settings.world)
        self.provider = FakeProvider(settings)

    @property
    def identity(self) -> str:
        return self.world.identity

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("toyworld", self.provider.settings.max_concurrency)

    async def run(self, task: Task) -> Attempt:
        def answer(seconds: float) -> Attempt:
            output = self.world.answer(task.guidance, _asked(task.question), task.sample)
            return Attempt(output, _usage(task.guidance.text + task.question.text, output, seconds))

        return await self.provider.serve(call_digest(self.identity, task), answer)


class ToyModel:
    """The same student behind the ChatModel port: the last user turn is the question, turns before it are demonstrations."""

    def __init__(self, settings: ToyAgentSettings) -> None:
        self.world = ToyWorld(settings.world)
        self.provider = FakeProvider(settings)

    @property
    def identity(self) -> str:
        return f"{self.world.identity}:chat"

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("toyworld", self.provider.settings.max_concurrency)

    async def complete(self, request: ChatRequest) -> Completion:
        guidance, question = _from_chat(request)

        def answer(seconds: float) -> Completion:
            text = self.world.answer(guidance, question, request.sample)
            return Completion(text, _usage(guidance.text + question, text, seconds))

        return await self.provider.serve(digest({"identity": self.identity, "request": request.to_json()}), answer)


def call_digest(identity: str, task: Task) -> str:
    """How the provider's book names a student call: as the run's ledger does, so that the two can be compared."""
    return digest({"role": "student", "identity": identity, "request": task.to_json(), "sample": task.sample})


def _asked(question: Question) -> str:
    return f"{question.context}\n{question.text}" if question.context else question.text


def _from_chat(request: ChatRequest) -> tuple[Guidance, str]:
    if request.prompt is not None:
        before, _, question = request.prompt.rpartition("\n")
        return Guidance(before), question
    *before_turns, last = request.messages
    demos, text = [], []
    for i, turn in enumerate(before_turns):
        after = before_turns[i + 1] if i + 1 < len(before_turns) else None
        if turn.role == "system":
            text.append(turn.content)
        elif turn.role == "user" and after is not None and after.role == "assistant":
            demos.append(Demo(f"turn-{i}", turn.content, after.content))
    head, _, question = last.content.rpartition("\n")  # guidance may be a prefix of the user turn
    return Guidance("\n".join([*text, head] if head else text), tuple(demos)), question


def _usage(prompt: str, output: str, seconds: float) -> Usage:
    """Words as tokens, and a price, so that budgets have something to count."""
    tokens = len(prompt.split()), len(output.split())
    return Usage(*tokens, sum(tokens) * _DOLLARS_PER_TOKEN, seconds, 1)


def toy_agent(params: Mapping[str, Any]) -> ToyAgent:
    """An agent from `params`: world {...}, latency, latency_seed, stragglers, faults {rate, seed, kinds}, ledger, max_concurrency."""
    return ToyAgent(load(ToyAgentSettings, params, "toyworld"))


def toy_model(params: Mapping[str, Any]) -> ToyModel:
    """The same student as a ChatModel; the same parameters."""
    return ToyModel(load(ToyAgentSettings, params, "toyworld"))


def toy_world(params: Mapping[str, Any]) -> ToyWorld:
    return ToyWorld(load(WorldSettings, params, "world"))


def toy_examples(params: Mapping[str, Any]) -> list[Example]:
    """The examples of the world with these parameters (those of `world`), splits fixed."""
    return toy_world(params).examples()


def toy_fragments(params: Mapping[str, Any]) -> list[str]:
    """Rules and decoys of the world with these parameters, shuffled: what the `edit` operator may try."""
    return toy_world(params).fragments()


__all__ = [
    "SEED_GUIDANCE", "Optimum", "Rule", "ToyAgent", "ToyAgentSettings", "ToyModel", "ToyWorld", "WorldSettings", "call_digest",
    "toy_agent", "toy_examples", "toy_fragments", "toy_model", "toy_world",
]  # fmt: skip
