"""What a run will take, from what a few calls took: calls, tokens, dollars, minutes. What is unknown is said to be unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gepa_atlas.check.trial import Meter, Trial
from gepa_atlas.config import Loaded
from gepa_atlas.loop import Experiment
from gepa_atlas.propose.registry import NEEDS_MODEL
from gepa_atlas.types import Role, Usage

_READ_TOKENS = 400  # of one lesson in a reflection prompt, where none was measured


@dataclass(frozen=True)
class Estimate:
    """Means over what was measured, times how often the run does it. None is unknown."""

    calls: dict[Role, int]
    tokens: int | None
    dollars: float | None
    minutes: tuple[float, float] | None  # with all the concurrency the run is given; with as much as the check had
    unknown: tuple[str, ...] = field(default=())
    growth: int = 0  # tokens more for every 100 tokens by which evolved texts are longer than the seed

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {n: getattr(self, n) for n in ("tokens", "dollars")}
        minutes = None if self.minutes is None else [round(m, 2) for m in self.minutes]
        return {"calls": dict(self.calls), **row, "minutes": minutes, "unknown": list(self.unknown), "growth": self.growth}

    def lines(self) -> list[str]:
        calls = ", ".join(f"{n} of the {'agent' if role == 'student' else role}" for role, n in self.calls.items() if n)
        more = f", and {_round(self.growth):,} more for every 100 tokens by which prompts grow beyond the seed"
        tokens = "unknown" if self.tokens is None else f"about {_round(self.tokens):,}{more}"
        dollars = "unknown" if self.dollars is None else f"about ${self.dollars:.2f}"
        lines = [f"calls    up to {calls}", f"tokens   {tokens}", f"dollars  {dollars}", f"minutes  {_minutes(self.minutes)}"]
        return [*lines, *(f"unknown  {why}" for why in self.unknown)]


def estimate(loaded: Loaded, experiment: Experiment, meter: Meter, trial: Trial) -> Estimate:
    calls = planned_calls(loaded, experiment, meter, trial)
    per_call = {role: _per_call(meter, role) for role in calls}
    unknown: list[str] = []
    tokens: float | None = 0.0
    dollars: float | None = 0.0
    for role, n in calls.items():
        usage = per_call[role]
        if usage is None:
            unknown.append(f"{role}: no call was measured")
            tokens = dollars = None
            continue
        if usage.tokens is None:
            unknown.append(f"{role}: it does not report tokens")
        if usage.dollars is None:
            unknown.append(f"{role}: it has no price (give it one: price, or dollars_per_call)")
        tokens = None if tokens is None or usage.tokens is None else tokens + n * _tokens(role, usage, trial)
        dollars = None if dollars is None or usage.dollars is None else dollars + n * usage.dollars * _scale(role, usage, trial)
    growth = 100 * calls.get("teacher", _lessons(experiment))
    whole = None if tokens is None else round(tokens)
    return Estimate(calls, whole, dollars, _time(loaded, experiment, calls, per_call, trial), tuple(unknown), growth)


def planned_calls(loaded: Loaded, experiment: Experiment, meter: Meter, trial: Trial) -> dict[Role, int]:
    """Upper bounds by role: every rollout is spent, each judged once; half of the search goes into new children."""
    plan, data, k = experiment.plan, experiment.dataset, experiment.plan.student_calls
    runs, lessons = plan.rollouts or 0, _lessons(experiment)
    baselines = runs - k * lessons
    calls: dict[Role, int] = {"student": runs}
    if loaded.config.agents.teacher is not None and experiment.protocol.name != "playbook":
        calls["teacher"] = lessons
    judged = sum(lesson.before.value is not None for lesson in trial.lessons)
    judged += sum(lesson.after.value is not None for lesson in (*trial.lessons, *trial.repeats))
    judged += len(trial.told) + 2 * len(trial.gold)
    if meter.count("judge") and judged:
        calls["judge"] = round((baselines + lessons) * meter.count("judge") / judged)
    models = sum(name in NEEDS_MODEL for name in experiment.proposers)
    if models and loaded.config.reflection_lm is not None:
        search = max(0, lessons - 2 * len(data.test))
        children = search / (plan.minibatch * k)
        calls["reflection"] = round(children * models / len(experiment.proposers))
    return calls


def _lessons(experiment: Experiment) -> int:
    """Second attempts that the rollouts are enough for, when every val and test example has its baseline."""
    plan, data, k = experiment.plan, experiment.dataset, experiment.plan.student_calls
    runs = plan.rollouts or 0
    return (runs - min(len(data.val) + len(data.test), runs // (k + 1))) // k


def _per_call(meter: Meter, role: Role) -> Usage | None:
    n, total = meter.count(role), meter.usage.get(role)
    if not n or total is None:
        return None

    def mean(value: Any) -> Any:
        return None if value is None else value / n

    return Usage(mean(total.input_tokens), mean(total.output_tokens), mean(total.dollars), total.seconds / n, 1)


def _tokens(role: Role, usage: Usage, trial: Trial) -> float:
    return (usage.tokens or 0) * _scale(role, usage, trial)


def _scale(role: Role, usage: Usage, trial: Trial) -> float:
    """A reflection reads some lessons and writes texts: larger than the one short request it was tried with."""
    if role != "reflection" or not usage.tokens:
        return 1.0
    lesson = trial.lessons[0]
    shown = sum(len(text or "") for text in (lesson.example.question, lesson.guidance.text, lesson.second.output)) / 4
    return (6 * max(_READ_TOKENS, shown) + 500) / usage.tokens


def _time(
    loaded: Loaded, experiment: Experiment, calls: dict[Role, int], per_call: dict[Role, Usage | None], trial: Trial
) -> tuple[float, float] | None:
    if any(usage is None for usage in per_call.values()):
        return None
    work = sum(n * usage.seconds for role, n in calls.items() if (usage := per_call[role]) is not None)
    plan = experiment.plan
    lanes = min(loaded.config.concurrency, experiment.student.endpoint.max_concurrency, plan.width * plan.minibatch)
    fast = work / lanes / 60
    slow = work / 60
    if trial.runs and trial.seconds:
        slow = calls["student"] * trial.seconds / trial.runs / 60
    return (min(fast, slow), max(fast, slow))


def _minutes(span: tuple[float, float] | None) -> str:
    if span is None:
        return "unknown"
    if span[1] < 1:
        return "under 1"
    low, high = (f"{m:.0f}" if m >= 2 else f"{m:.1f}" for m in span)
    return f"about {low}" if low == high else f"about {low} to {high}, by how well the endpoints answer at once"


def _round(n: int) -> int:
    digits = max(0, len(str(n)) - 2)
    return round(n, -digits)
