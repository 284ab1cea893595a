"""What a lesson counts for in the search: from (before, after, lengths) to one number, or None when either side is unscored.

delta       after - before: the default. With one shared baseline it ranks candidates as the after-reward does.
asymmetric  a loss weighs `lambda` (>= 2) times a gain: the ranking turns away from prompts that harm.
headroom    the share of what was left to win that was won; of what was there to lose that was lost. In [-1, 1].
atlas_r1 .. atlas_r4   ATLAS's formulas of September 2025, as its history has them (27c08d8, e2c00bc, 583f61f, f1086d5).

ATLAS counted L in tokens of the teaching; here, and in R4 for both answers, a token is a run of non-space characters:
a formula that ranks prompts must not depend on which tokenizer is installed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from gepa_atlas.errors import ConfigError
from gepa_atlas.types import Lesson

Gain = Callable[[Lesson], float | None]
Formula = Callable[[float, float, Lesson, Mapping[str, float]], float]


def _delta(before: float, after: float, lesson: Lesson, p: Mapping[str, float]) -> float:
    return after - before


def _asymmetric(before: float, after: float, lesson: Lesson, p: Mapping[str, float]) -> float:
    change = after - before
    return change if change >= 0 else p["lambda"] * change


def _headroom(before: float, after: float, lesson: Lesson, p: Mapping[str, float]) -> float:
    if after >= before:
        return (after - before) / (1.0 - before) if before < 1.0 else 0.0
    return (after - before) / before


def _brevity(lesson: Lesson, p: Mapping[str, float]) -> float:
    """1 + lambda * 100 / (100 + L), L the tokens of the guidance."""
    return 1.0 + p["lambda"] * 100.0 / (100.0 + len(lesson.guidance.text.split()))


def _r1(before: float, after: float, lesson: Lesson, p: Mapping[str, float]) -> float:
    change = after - before
    return change * _brevity(lesson, p) if change >= 0 else -2.0 * -change


def _r2(before: float, after: float, lesson: Lesson, p: Mapping[str, float], degraded: float = -2.0) -> float:
    was, now = before >= p["threshold"], after >= p["threshold"]
    if was and not now:
        return degraded
    if now:
        return (0.5 if was else 1.0) * _brevity(lesson, p)
    return 0.0


def _r3(before: float, after: float, lesson: Lesson, p: Mapping[str, float]) -> float:
    return _r2(before, after, lesson, p, degraded=0.0)


def _r4(before: float, after: float, lesson: Lesson, p: Mapping[str, float]) -> float:
    was, now = before >= p["threshold"], after >= p["threshold"]
    base, second = (len((attempt.output or "").split()) for attempt in (lesson.baseline, lesson.second))
    efficiency = max(0.0, (base - second) / base) if base else 0.0
    if now:
        return efficiency + (0.0 if was else 1.0)
    return -1.0 if was else 0.0


# name -> formula, defaults of its parameters, lowest allowed value of each
_FORMULAS: dict[str, tuple[Formula, dict[str, float], dict[str, float]]] = {
    "delta": (_delta, {}, {}),
    "asymmetric": (_asymmetric, {"lambda": 2.0}, {"lambda": 2.0}),
    "headroom": (_headroom, {}, {}),
    "atlas_r1": (_r1, {"lambda": 1.0}, {"lambda": 0.0}),
    "atlas_r2": (_r2, {"lambda": 1.0, "threshold": 1.0}, {"lambda": 0.0, "threshold": 0.0}),
    "atlas_r3": (_r3, {"lambda": 1.0, "threshold": 1.0}, {"lambda": 0.0, "threshold": 0.0}),
    "atlas_r4": (_r4, {"threshold": 1.0}, {"threshold": 0.0}),
}

GAINS: tuple[str, ...] = tuple(_FORMULAS)


def gain(name: str = "delta", params: Mapping[str, float] | None = None) -> Gain:
    """The gain of that name. Raises ConfigError for an unknown name or parameter, or a value below what the formula means."""
    if name not in _FORMULAS:
        raise ConfigError(f"gain: unknown name {name!r}; {_hint(name, GAINS)}")
    formula, defaults, lowest = _FORMULAS[name]
    for key, value in (params or {}).items():
        if key not in defaults:
            raise ConfigError(f"gain.{key}: {name!r} has no such parameter; {_hint(key, tuple(defaults))}")
        if not lowest[key] <= value < float("inf"):
            raise ConfigError(f"gain.{key}: {value} is below {lowest[key]}, the least that {name!r} allows; raise it or take another gain")
    settled = defaults | dict(params or {})

    def score(lesson: Lesson) -> float | None:
        before, after = lesson.before.value, lesson.after.value
        return None if before is None or after is None else formula(before, after, lesson, settled)

    return score


def _hint(given: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(given, known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
