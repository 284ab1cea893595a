"""What a trial says: do the endpoints answer, do the judges tell right from wrong, how noisy is it, and can a prompt help at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gepa_atlas.check.rows import Row, State
from gepa_atlas.check.trial import Trial
from gepa_atlas.evolve.stats import wilson
from gepa_atlas.loop import Experiment
from gepa_atlas.types import Failure, Lesson, Reward

FULL = 0.98  # a mean reward from here on leaves no room worth a search


def trial_rows(experiment: Experiment, trial: Trial) -> list[Row]:
    lesson = trial.lessons[0]
    rows = [_lesson(lesson), *_reflection(trial)]
    if lesson.failure is not None:
        return rows
    if trial.skipped:
        return [*rows, Row("sample", "yellow", trial.skipped)]
    if not trial.repeats:
        return rows
    return [*rows, *_failures(trial), *_judges(trial), *agreement(trial), _noise(trial), headroom(trial)]


_STUDENT_FIX = {
    "unreachable": "start the agent, or correct its address in agents.student",
    "timeout": "raise timeout in agents.student, or see why the agent takes so long",
    "rate_limited": "wait, or lower max_concurrency and requests_per_minute in agents.student",
    "auth_refused": "correct the key: the variable that agents.student names",
    "not_found": "correct the address (base_url of most servers ends in /v1) or the model's name in agents.student",
    "garbled": "correct response_field and response_format in agents.student, or the agent",
    "too_large": "raise max_bytes in agents.student, or ask for a shorter answer",
    "agent_crashed": "mend the agent, or correct agents.student",
}


def _lesson(lesson: Lesson) -> Row:
    failure = lesson.failure
    if failure is None:
        took = lesson.baseline.usage.seconds + lesson.teacher_usage.seconds + lesson.second.usage.seconds
        return Row("lesson", "green", f"agent, judges and protocol work together on example {lesson.example.id!r} ({took:.1f} s)")
    who, fix = "agent", _STUDENT_FIX.get(failure.kind, "correct agents.student")
    if lesson.baseline.error is None and lesson.second.error is None:
        who, fix = "judges", "correct rim.judges"
    elif lesson.baseline.error is None and "the teacher" in failure.reason:
        who, fix = "teacher", "correct agents.teacher"
    return Row("lesson", "red", f"{who}, on example {lesson.example.id!r}: {failure.kind}: {failure.reason}", fix)


def _reflection(trial: Trial) -> list[Row]:
    if isinstance(trial.reflection, Failure):
        said = f"the reflection model does not answer: {trial.reflection.kind}: {trial.reflection.reason}"
        return [Row("reflection", "red", said, "correct reflection_lm")]
    return [Row("reflection", "green", f"the reflection model answers: {trial.reflection!r}")] if trial.reflection else []


def _failures(trial: Trial) -> list[Row]:
    lessons = [*trial.lessons, *trial.repeats]
    failed = [lesson.failure for lesson in lessons if lesson.failure is not None]
    if not failed:
        return []
    said = f"{len(failed)} of {len(lessons)} lessons have no reward, last: {failed[-1].kind}: {failed[-1].reason}"
    state: State = "red" if len(failed) * 2 > len(lessons) else "yellow"
    return [Row("failures", state, said, "mend the cause; a run with too many failures ends, resumable")]


def _judges(trial: Trial) -> list[Row]:
    """An accepted answer must be worth more than the accepted answer of another question."""
    if not trial.gold:
        return []
    unscored = next((r.missing for _, *pair in trial.gold for r in pair if r.missing is not None), None)
    if unscored is not None:
        return [Row("judges", "red", f"an accepted answer gets no reward: {unscored.kind}: {unscored.reason}", "correct rim.judges")]
    told = [(e, right.value or 0.0, wrong.value or 0.0) for e, right, wrong in trial.gold]
    wins = sum(right > wrong for _, right, wrong in told)
    means = f"{_mean([r for _, r, _ in told]):.2f} for accepted answers, {_mean([w for _, _, w in told]):.2f} for those of other questions"
    if wins == len(told):
        return [Row("judges", "green", f"they tell right from wrong in {wins} of {len(told)} examples: {means}")]
    lost = next(e for e, right, wrong in told if right <= wrong)
    said = f"they tell right from wrong in {wins} of {len(told)} examples only: {means}; example {lost.id!r} is one that fails"
    fix = f"does the judge accept {(lost.answer or '')[:60]!r}? correct rim.judges or the data"
    return [Row("judges", "red" if 2 * wins <= len(told) else "yellow", said, fix)]


def agreement(trial: Trial) -> list[Row]:
    """How often two judges are on the same side of one half."""
    rewards = [r for lesson in (*trial.lessons, *trial.repeats) for r in (lesson.before, lesson.after)]
    rewards += [r for _, *pair in trial.gold for r in pair]
    same = both = 0
    for reward in rewards:
        values = [part.value for part in reward.parts if part.value is not None]
        for i, one in enumerate(values):
            for other in values[i + 1 :]:
                both += 1
                same += (one >= 0.5) == (other >= 0.5)
    if not both:
        return []
    said = f"the judges agree in {same} of {both} pairs ({same / both:.0%})"
    if same / both < 0.7:
        return [Row("agreement", "yellow", said, "look where they differ: gepa-atlas rim audit, or drop the judge that you trust least")]
    return [Row("agreement", "green", said)]


def _noise(trial: Trial) -> Row:
    pairs = _pairs_of(trial)
    if not pairs:
        return Row("noise", "yellow", "not measured: no lesson was scored twice")
    changed = sum(a != b for a, b in pairs)
    sd = math.sqrt(sum((a - b) ** 2 for a, b in pairs) / (2 * len(pairs)))
    if not changed:
        return Row("noise", "green", f"none seen: {len(pairs)} lessons taught twice got the same reward both times")
    said = f"{changed} of {len(pairs)} lessons taught twice got another reward: about {sd:.2f} sd in one reward"
    if sd > 0.3:
        return Row("noise", "yellow", said, "give a larger max_metric_calls and more examples, or lower the agent's temperature")
    return Row("noise", "green", said)


def _pairs_of(trial: Trial) -> list[tuple[float, float]]:
    second = {lesson.example.id: lesson.after.value for lesson in trial.repeats}
    found = [(lesson.after.value, second.get(lesson.example.id)) for lesson in trial.lessons]
    return [(a, b) for a, b in found if a is not None and b is not None]


def headroom(trial: Trial) -> Row:
    """Whether a better prompt can show. Red only for what no prompt can mend."""
    before = _values([lesson.before for lesson in trial.lessons])
    after = _values([lesson.after for lesson in trial.lessons])
    if not after:
        return Row("headroom", "yellow", "not measured: no lesson was scored")
    n = len(after)
    reach = _reach(trial)
    if reach is not None:
        return reach
    said = f"mean reward {_mean(before):.2f} without guidance and {_mean(after):.2f} with the seed prompt on {n} train examples"
    if trial.told:
        told = _values([side.reward for _, side in trial.told])
        said += f"; {_mean(told):.2f} on {len(told)} when the agent is told the answer" if told else ""
    full = full_marks(after)
    if full is not None:
        return Row("headroom", full[0], f"{said}: {full[1]}", "take harder examples or stricter judges, or a larger --sample to be sure")
    return Row("headroom", "green", said)


def full_marks(values: Sequence[float]) -> tuple[State, str] | None:
    """The state and the words for a seed prompt that leaves no room; None where there is some."""
    if not values or _mean(values) < FULL:
        return None
    low, _ = wilson(sum(values), len(values))
    if low >= 0.9:
        return "red", "prompts cannot help: the seed prompt is right everywhere"
    return "yellow", f"the seed prompt is right wherever it was tried ({len(values)} examples say: at least {low:.0%} of the time)"


def _reach(trial: Trial) -> Row | None:
    """Told the answer outright, an agent that reads its guidance says something else than without it."""
    if not trial.told:
        return None
    bare = {lesson.example.id: lesson.baseline.output for lesson in trial.lessons}
    sides = [(example, side) for example, side in trial.told if side.attempt.output is not None and side.reward.value is not None]
    if not sides or any((side.reward.value or 0.0) >= 0.5 for _, side in sides):
        return None
    example, side = sides[0]
    if all(side.attempt.output == bare.get(example.id) for example, side in sides):
        said = "told the answer outright, the agent says word for word what it says without guidance: it may not read guidance at all"
        return Row("headroom", "yellow", said, "see the requests below, and where `guidance` is placed")
    said = f"told to reply {example.answer!r:.60}, the agent says {side.attempt.output!r:.60}, which the judges do not accept"
    return Row("headroom", "yellow", said, "if that is right after all, correct rim.judges; a small model may need demonstrations instead")


def _values(rewards: Sequence[Reward]) -> list[float]:
    return [r.value for r in rewards if r.value is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
