"""How the simulated reflection model reads: any prompt, as plain text or with JSON in it, becomes rules, symptoms and what is asked for.

Nothing here knows a template. A line is a rule if the world's grammar reads it as one; it is current unless the section or JSON key
above it speaks of rejected attempts or of other versions; it has a number if the prompt numbers it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from benchmarks.simland.grammar import Grammar, Sentence

_TRIED = re.compile(r"(reject|already tried|tried.before|did not help|not kept|do not repeat|failed.edits|have been tried)", re.I)
_OTHERS = re.compile(r"(other_|others|mates|better_version|good_version|siblings|differ)", re.I)
_HEADING = re.compile(r"^\s*(#|<[a-z/]|\*\*|```|---|===|BEGIN|END|[A-Z][^.]*:\s*$)")
_NUMBER = re.compile(r"^\s*(?:\[(\d+)\]|(\d+)[.):])\s")
FLUFF = ("Be careful and polite at all times.", "Think before you answer and check your work.", "Quality matters more than speed here.")
Role = Literal["current", "tried", "tried_drop", "other", "other_drop"]
Form = Literal["text", "texts", "edits", "clusters"]


class Line(NamedTuple):
    """A line of the prompt with what its surroundings say of it."""

    text: str
    role: Role = "current"
    component: str = ""
    number: int = 0
    lesson: int = 0


@dataclass(frozen=True)
class Symptom:
    kind: Literal["missing", "overdone"]
    word: str
    tag: str
    lesson: int
    text: str


@dataclass(frozen=True)
class Placed:
    """A rule of the current instruction, with the component and the item number the prompt gave it ('' and 0 when none)."""

    sentence: Sentence
    component: str
    number: int


@dataclass
class Reading:
    """What is in a prompt. `rules` are those of the current instruction, one per item, in order."""

    form: Form
    rules: list[Placed] = field(default_factory=list)
    symptoms: list[Symptom] = field(default_factory=list)
    tried: set[int] = field(default_factory=set)
    tried_drop: set[int] = field(default_factory=set)
    others: list[Sentence] = field(default_factory=list)
    fluff: list[tuple[str, str]] = field(default_factory=list)  # (component, line)
    components: list[str] = field(default_factory=list)  # those the prompt is about
    max_edits: int = 99


def read(prompt: str, grammar: Grammar, components: Sequence[str]) -> Reading:
    """Take a prompt in."""
    asked, lines = _lines(prompt, components)
    reading = Reading(_form(asked))
    limit = re.search(r"at most (\d+) edits", asked)
    if limit:
        reading.max_edits = int(limit.group(1))
    seen: set[int] = set()
    for line in lines:
        if line.component and line.component not in reading.components:
            reading.components.append(line.component)
        symptoms, sentences = grammar.take(line.text)
        for kind, word, tag in symptoms:
            reading.symptoms.append(Symptom(kind, word, tag, line.lesson, line.text))
        for s in sentences:
            if line.role == "tried":
                reading.tried.add(s.item)
            elif line.role == "tried_drop":
                reading.tried_drop.add(s.item)
            elif line.role == "other":
                reading.others.append(s)
            elif line.role == "current" and s.item not in seen:
                seen.add(s.item)
                reading.rules.append(Placed(s, line.component, line.number))
        if line.role == "current":
            reading.fluff += [(line.component, f) for f in FLUFF if f in line.text and (line.component, f) not in reading.fluff]
    if not reading.components:
        reading.components = _named(asked, components)
    reading.others = [s for s in reading.others if s.item not in seen]
    reading.tried -= seen
    return reading


def _named(text: str, components: Sequence[str]) -> list[str]:
    """The component a plain prompt says it is about; all of them, unsaid, when there is only one."""
    if len(components) == 1:
        return list(components)
    said = re.search(r"component\W{1,4}(" + "|".join(components) + r")\b", text)
    return [said.group(1)] if said else []


def _form(asked: str) -> Form:
    for form, mark in (("clusters", '"clusters"'), ("texts", '"texts"'), ("edits", '"op"')):
        if mark in asked:
            return form  # type: ignore[return-value]
    return "text"


def _lines(prompt: str, components: Sequence[str]) -> tuple[str, list[Line]]:
    """The prompt outside of JSON, and every line of it with its surroundings."""
    decoder, outside, lines, at = json.JSONDecoder(), [], [], 0
    for match in re.finditer(r"^[ \t]*(\{)", prompt, re.M):
        start = match.start(1)
        if start < at:
            continue
        try:
            value, end = decoder.raw_decode(prompt, start)
        except ValueError:
            continue
        outside.append(prompt[at:start])
        lines += list(_walk(value, Line(""), components))
        at = end
    outside.append(prompt[at:])
    plain = "\n".join(outside)
    return plain, [*lines, *_plain(plain)]


def _walk(node: Any, around: Line, components: Sequence[str], number: int = 0) -> Iterator[Line]:
    if isinstance(node, str):
        for text in node.splitlines():
            yield Line(text, around.role, around.component, number, around.lesson)
    elif isinstance(node, list):
        for i, part in enumerate(node, 1):
            yield from _walk(part, around, components, i)
    elif isinstance(node, dict):
        for key in ("component", "name"):
            if node.get(key) in components:
                around = around._replace(component=node[key])
        if isinstance(node.get("lesson"), int):
            around = around._replace(lesson=node["lesson"])
        for key, part in node.items():
            role, inside = _role(key, around.role), around
            if role != around.role:
                inside = inside._replace(role=role)
            if key in components and not isinstance(node.get("component"), str):
                inside = inside._replace(component=key)
            yield from _walk(part, inside, components, int(key) if key.isdigit() else 0)


@lru_cache(4096)
def _role(key: str, role: Role) -> Role:
    if role in ("tried", "other") and re.search(r"drop|remov|lost", key):
        return "tried_drop" if role == "tried" else "other_drop"
    if _TRIED.search(key):
        return "tried"
    return "other" if _OTHERS.search(key) else role


def _plain(text: str) -> Iterator[Line]:
    role: Role = "current"
    for line in text.replace("\\n", "\n").splitlines():
        number, tried, heading = _marks(line)
        role = "tried" if tried and not number else "current" if heading else role
        yield Line(line, role, "", number)


@lru_cache(4096)
def _marks(line: str) -> tuple[int, bool, bool]:
    """The number a plain line begins with (0 for none), whether it speaks of rejected attempts, whether it begins a section."""
    number = _NUMBER.match(line)
    return int(number.group(1) or number.group(2)) if number else 0, bool(_TRIED.search(line)), bool(_HEADING.match(line))
