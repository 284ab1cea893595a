"""What a new run starts from: the winner of an earlier run as one more seed, and items of the skill library for the operator `recall`.

`--warm-start RUN` names the run; `auto` takes those of the store whose questions are most like the new ones. Tasks are compared by text
statistics alone: the cosine of the shares of questions that have a word. No network, no model.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from gepa_atlas.errors import ConfigError
from gepa_atlas.memory import schema as s
from gepa_atlas.memory.rows import SHOWN
from gepa_atlas.memory.skills import library
from gepa_atlas.memory.store import Memory
from gepa_atlas.texts import words
from gepa_atlas.types import Candidate, Example

SIMILAR = 0.5  # cosine from which on two tasks are taken for alike
_QUESTIONS = 400  # of an operation that are read for its statistics
_ITEMS = 40  # recalled at most
_SEEDS = 2  # winners of earlier runs that are tried, at most


@dataclass(frozen=True)
class WarmStart:
    """What a run was given, as its configuration records it. similarity: of the tasks in [0, 1]."""

    runs: tuple[str, ...]
    operations: tuple[str, ...]
    similarity: float
    seeds: tuple[Candidate, ...]
    items: tuple[dict[str, Any], ...]  # options of `recall`
    harmful: tuple[str, ...]
    asked: int  # held-out examples of the new run that those runs have asked
    searched: int  # those of them that they searched on


def warm_start(memory: Memory, examples: Sequence[Example], run_id: str | None) -> WarmStart:
    """From one run, or with None from the most similar operations. Demonstrations are kept only where the new train split has them, so
    that nothing held out is shown."""
    questions = [x.question for x in examples]
    if run_id is not None:
        near = [(_operation_of(memory, run_id), 1.0)]  # named, so what it learned counts in full, however unlike the tasks are
        likeness = cosine(shares(questions), _shares_of(memory, near[0][0]))
        found = _verdicts(memory, sa.and_(s.runs.c.run_id == run_id))
    else:
        near = similar(memory, questions)
        likeness = max((like for _, like in near), default=0.0)
        found = _verdicts(memory, s.runs.c.operation.in_([name for name, _ in near]))
    skills = [(skill, likeness) for name, likeness in near for skill in library(memory, name)]
    vocabulary = Counter(w for x in examples for w in set(words(f"{x.question} {x.context}")))
    items: list[dict[str, Any]] = [
        {"component": skill.component, "text": skill.text, "worth": skill.low * like * _relevance(skill.text, vocabulary)}
        for skill, like in skills
        if skill.finding == "verified" and ":" not in skill.component
    ]
    items = sorted((item for item in items if item["worth"] > 0), key=lambda item: (-item["worth"], item["text"]))[:_ITEMS]
    harmful = tuple(sorted({skill.text for skill, _ in skills if skill.finding == "harmful" and ":" not in skill.component}))
    seeds = dict.fromkeys(_kept(Candidate.from_json(row["body"]["winner"]), examples) for row in found[:_SEEDS])
    runs = tuple(row["run_id"] for row in found[:_SEEDS]) or ((run_id,) if run_id else ())
    names = tuple(name for name, _ in near)
    asked, searched = _asked(memory, names, examples)
    return WarmStart(runs, names, likeness, tuple(seeds), tuple(items), harmful, asked, searched)


def similar(memory: Memory, questions: Sequence[str]) -> list[tuple[str, float]]:
    """Operations whose questions are like these, most alike first, with the cosine; those below SIMILAR are left out."""
    new = shares(questions)
    names = sorted(row["operation"] for row in memory.rows(sa.select(s.traces.c.operation).distinct()))
    found = [(name, cosine(new, _shares_of(memory, name))) for name in names]
    return sorted([(name, likeness) for name, likeness in found if likeness >= SIMILAR], key=lambda pair: (-pair[1], pair[0]))


def _shares_of(memory: Memory, operation: str) -> dict[str, float]:
    t = s.traces.c
    newest = sa.select(t.question).where(t.operation == operation).order_by(t.created.desc(), t.seq.desc()).limit(10 * _QUESTIONS)
    return shares(list(dict.fromkeys(row["question"] for row in memory.rows(newest)))[:_QUESTIONS])


def shares(questions: Iterable[str]) -> dict[str, float]:
    """Share of the questions that have each word or pair of words, numbers as one word."""
    counts: Counter[str] = Counter()
    total = 0
    for question in questions:
        total += 1
        said = ["0" if w.isdigit() else w for w in words(question)]
        counts.update({*said, *(f"{a} {b}" for a, b in pairwise(said))})
    return {w: n / total for w, n in counts.items()}


def cosine(a: dict[str, float], b: dict[str, float]) -> float:
    both = math.fsum(a[w] * b[w] for w in a.keys() & b.keys())
    sizes = math.fsum(v * v for v in a.values()) * math.fsum(v * v for v in b.values())
    return both / math.sqrt(sizes) if sizes > 0 else 0.0


def _relevance(text: str, vocabulary: Counter[str]) -> float:
    """Share of the item's words that the new questions know, between one half (it may be about form) and 1."""
    said = {w for w in words(text) if w[0].isalnum()}
    return 0.5 + 0.5 * sum(w in vocabulary for w in said) / max(1, len(said))


def _verdicts(memory: Memory, where: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
    """Runs that shipped something, the surest gain first."""
    v = s.verdicts.c
    query = (
        sa.select(v.run_id, v.gain_low, v.body)
        .select_from(s.verdicts.join(s.runs, s.runs.c.run_id == v.run_id))
        .where(where, v.ruling == "ship")
        .order_by(v.gain_low.desc(), v.run_id)
        .limit(_SEEDS)
    )
    return [{**row, "body": json.loads(row["body"])} for row in memory.rows(query)]


def _kept(winner: Candidate, examples: Sequence[Example]) -> Candidate:
    train = {(x.id, x.question) for x in examples if x.split == "train"}
    demos = tuple(d for d in winner.demos if (d.example_id, d.question) in train)
    return Candidate(winner.texts, demos, winner.settings, (), "recalled")


def _asked(memory: Memory, operations: Sequence[str], examples: Sequence[Example]) -> tuple[int, int]:
    """How many held-out questions those operations have asked, and how many of them in their search: neither are fresh any more."""
    t = s.traces.c
    held_out = {x.question[:SHOWN] for x in examples if x.split == "test"}
    query = sa.select(t.question, t.split).where(t.operation.in_(operations)).distinct()
    known = [row for row in memory.rows(query) if row["question"] in held_out]
    return len({row["question"] for row in known}), len({row["question"] for row in known if row["split"] in ("train", "val")})


def _operation_of(memory: Memory, run_id: str) -> str:
    found = list(memory.rows(sa.select(s.runs.c.operation).where(s.runs.c.run_id == run_id)))
    if not found:
        raise ConfigError(f"run {run_id} is not in this memory; `gepa-atlas traces import RUN` adds it")
    return str(found[0]["operation"])
