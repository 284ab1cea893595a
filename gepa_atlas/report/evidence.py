"""Evidence: the record of a run with what it rests on, and the figures a report reads off it. Whoever ran the search fills it."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gepa_atlas.evolve.archive import non_dominated
from gepa_atlas.evolve.engine import Standing
from gepa_atlas.report.ledger import Slot
from gepa_atlas.report.record import RunRecord
from gepa_atlas.types import Lesson, Reward, SlotKind, Status

BASELINE = "baseline"
_APART = 0.5  # judges that are this far apart on one answer disagree


@dataclass(frozen=True, slots=True)
class Credit:
    """What an operator brought: children tried, kept and best when they came; rollouts; faded gain per 100 rollouts (the bandit's)."""

    name: str
    tried: int
    kept: int
    improved: int
    rollouts: int
    worth: float | None  # None for what the bandit does not choose: composed children


@dataclass(frozen=True)
class Evidence:
    """A finished run with everything its report shows."""

    record: RunRecord
    lessons: tuple[Lesson, ...]  # in the order they were told
    slots: tuple[Slot, ...] = ()
    course: tuple[Standing, ...] = ()
    credit: tuple[Credit, ...] = ()
    started: float | None = None  # Unix seconds

    @property
    def seed_id(self) -> str:
        return self.record.seed.id

    @property
    def challenger_id(self) -> str:
        return self.record.challenger.id


def credits(slots: Iterable[Slot], gained: Mapping[str, float], spent: Mapping[str, float]) -> tuple[Credit, ...]:
    """Credit by operator; `gained` and `spent` are the bandit's, by operator."""
    tried: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    improved: Counter[str] = Counter()
    rollouts: Counter[str] = Counter()
    for slot in slots:
        made = slot.decision
        if made.kind is SlotKind.CHILD:
            tried[made.operator] += 1
            kept[made.operator] += made.status is not Status.NOT_ADDED
            improved[made.operator] += made.status is Status.IMPROVED
            rollouts[made.operator] += made.rollouts
    names = sorted(tried.keys() | gained.keys(), key=lambda name: (-kept[name], name))
    worth = {name: 100 * gained[name] / spent[name] for name in gained if spent[name]}
    return tuple(Credit(n, tried[n], kept[n], improved[n], rollouts[n], worth.get(n)) for n in names)


# -- candidates against each other ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate in four objectives, over its scored lessons of the search: more gain, less harm, fewer tokens, fewer dollars."""

    candidate: str
    gain: float
    harm: float
    tokens: float | None
    dollars: float | None
    lessons: int
    front: bool = False


def points(evidence: Evidence) -> list[Point]:
    """Every measured candidate, those that no other one beats in every objective marked. Thinly measured ones cannot be on the front:
    a lucky look at six examples would hide what was measured on all."""
    prices: dict[str, list[float | None]] = defaultdict(list)
    for lesson in evidence.lessons:
        if lesson.delta is not None and lesson.example.split != "test":
            prices[lesson.candidate_id].append(lesson.second.usage.dollars)
    found = []
    for member in evidence.record.population:
        card = member.card
        if card is None or card.delta is None or card.harm_rate is None:
            continue
        found.append(Point(card.candidate_id, card.delta, card.harm_rate, card.tokens, _mean(prices[card.candidate_id]), card.scored))
    if not found:
        return []
    enough = max(p.lessons for p in found) / 2
    field_ = np.array([[p.gain, -p.harm, -_or(p.tokens), -_or(p.dollars)] for p in found])
    eligible = np.array([p.lessons >= enough for p in found])
    front = np.zeros(len(found), dtype=bool)
    front[eligible] = non_dominated(field_[eligible])
    return [Point(p.candidate, p.gain, p.harm, p.tokens, p.dollars, p.lessons, bool(on)) for p, on in zip(found, front, strict=True)]


def _or(value: float | None) -> float:
    """What is not known counts for nothing between candidates: it is not known of any."""
    return 0.0 if value is None else value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


# -- judges -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judge:
    """One judge over every judged answer: how often it scored, its mean, and the noise it reports of itself."""

    name: str
    scored: int
    missing: int
    mean: float | None
    noise: float | None  # mean standard error by its own account; None where it has none


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two judges on the answers that both scored."""

    one: str
    other: str
    answers: int
    apart: float  # mean absolute difference
    correlation: float | None  # None when one of them never varies
    disagreed: float  # share of answers on which they are `_APART` or more apart


@dataclass(frozen=True)
class Panel:
    judges: tuple[Judge, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    repeats: int = 0  # cells that were run more than once
    repeat_error: float | None = None  # standard deviation of a reward between runs of one cell: agent and judges together
    answers: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)  # why there is no score, by reason


def judged(lessons: Iterable[Lesson]) -> Iterable[tuple[str, Reward]]:
    """(answer key, reward) of every distinct judged answer: a baseline is judged once, however many lessons rest on it."""
    seen: set[tuple[str, str]] = set()
    for lesson in lessons:
        if (lesson.example.id, BASELINE) not in seen:
            seen.add((lesson.example.id, BASELINE))
            yield lesson.example.id, lesson.before
        yield lesson.example.id, lesson.after


def panel(lessons: Sequence[Lesson]) -> Panel:
    """How the judges of a run agree, and how much a reward moves when nothing changed."""
    columns: dict[str, list[float]] = defaultdict(list)
    noise: dict[str, list[float]] = defaultdict(list)
    reasons: Counter[str] = Counter()
    rows = 0
    for rows, (_, reward) in enumerate(judged(lessons), 1):
        if reward.missing is not None:
            reasons[reward.missing.kind] += 1
        for part in reward.parts:
            column = columns[part.judge]
            column += [math.nan] * (rows - 1 - len(column))
            column.append(math.nan if part.value is None else part.value)
            if part.uncertainty is not None:
                noise[part.judge].append(part.uncertainty)
    table = {name: np.array(column + [math.nan] * (rows - len(column))) for name, column in sorted(columns.items())}
    judges = tuple(_judge(name, column, noise[name]) for name, column in table.items())
    pairs = tuple(p for a, b in itertools.combinations(table, 2) if (p := _agreement(a, table[a], b, table[b])) is not None)
    repeats, error = _repeats(lessons)
    return Panel(judges, pairs, repeats, error, rows, dict(reasons.most_common()))


def disagree(reward: Reward) -> bool:
    """Whether two judges are far apart on this answer."""
    values = [part.value for part in reward.parts if part.value is not None]
    return len(values) > 1 and max(values) - min(values) >= _APART


def _judge(name: str, column: np.ndarray, noise: Sequence[float]) -> Judge:
    known = column[~np.isnan(column)]
    return Judge(
        name,
        len(known),
        int(np.isnan(column).sum()),
        float(known.mean()) if len(known) else None,
        float(np.mean(noise)) if noise else None,
    )


def _agreement(one: str, a: np.ndarray, other: str, b: np.ndarray) -> Agreement | None:
    both = ~np.isnan(a) & ~np.isnan(b)
    if not both.any():
        return None
    a, b = a[both], b[both]
    gap = np.abs(a - b)
    varies = len(a) > 2 and a.std() > 0 and b.std() > 0
    correlation = float(np.corrcoef(a, b)[0, 1]) if varies else None
    return Agreement(one, other, len(a), float(gap.mean()), correlation, float((gap >= _APART).mean()))


def _repeats(lessons: Sequence[Lesson]) -> tuple[int, float | None]:
    cells: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for lesson in lessons:
        if lesson.after.value is not None:
            cells[(lesson.candidate_id, lesson.example.id)][lesson.sample] = lesson.after.value
    again = [list(samples.values()) for samples in cells.values() if len(samples) > 1]
    if not again:
        return 0, None
    spread = sum(float(np.var(values, ddof=1)) * (len(values) - 1) for values in again)
    return len(again), math.sqrt(spread / sum(len(values) - 1 for values in again))


def costs(evidence: Evidence) -> list[dict[str, Any]]:
    """Spend by role and, where there are several, by judge; None is unknown."""
    record = evidence.record
    rows: list[dict[str, Any]] = [{"who": role, "usage": usage} for role, usage in sorted(record.spend.items())]
    if len(record.judging) > 1:
        rows += [{"who": f"judge {name}", "usage": usage} for name, usage in sorted(record.judging.items())]
    return rows
