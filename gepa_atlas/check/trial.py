"""The part of a check that is paid for: one lesson end to end, then a few more, some of them twice, and two that no agent can miss.

Answers are kept in a ledger of their own (`check/` in the run's directory), so that a check that is repeated pays for what is new only.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from gepa_atlas.calls import CallEvent
from gepa_atlas.classroom import Classroom, Side
from gepa_atlas.errors import AtlasError, BudgetExhausted, CallError
from gepa_atlas.loop import Experiment
from gepa_atlas.loops import gathered
from gepa_atlas.ports import Agent, Case, ChatModel, ChatRequest, Endpoint
from gepa_atlas.protocols.lesson import STUDENT
from gepa_atlas.store.run import Run
from gepa_atlas.types import Attempt, Example, Failure, Guidance, Lesson, Message, Question, Reward, Role, Task, Usage

_TOLD = 2  # examples whose answer the agent is told outright
_JUDGED = 4  # gold answers that the panel is shown beside wrong ones
_DOLLARS, _SECONDS = 1.0, 600.0  # what the rest of a check may take without being asked for


class Meter:
    """Calls by role, from call events: how many were made and how many were known, and what they take."""

    def __init__(self) -> None:
        self.made: Counter[Role] = Counter()
        self.known: Counter[Role] = Counter()
        self.usage: dict[Role, Usage] = {}  # of all of them
        self.paid = Usage()  # of those that were made
        self.failed: Counter[str] = Counter()

    def on_call(self, event: CallEvent) -> None:
        if event.what not in ("settled", "replayed"):
            self.failed[event.what] += event.what in ("retried", "failed")
            return
        self.usage[event.role] = self.usage.get(event.role, Usage()) + event.usage
        if event.what == "settled":
            self.made[event.role] += 1
            self.paid = self.paid + event.usage
        else:
            self.known[event.role] += 1

    def count(self, role: Role) -> int:
        return self.made[role] + self.known[role]


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """What a check will do at most. `runs` are runs of the agent."""

    examples: tuple[Example, ...]
    told: tuple[Example, ...]
    runs: int
    lessons: int
    judgments: int
    reflection: bool

    def sentence(self, teacher: bool) -> str:
        parts = [f"{self.runs} runs of the agent"]
        parts += [f"{self.lessons} calls of the teacher"] if teacher else []
        parts += ["1 of the reflection model"] if self.reflection else []
        return f"this check makes up to {', '.join(parts)}, and judges {self.judgments} answers"


def plan_trial(experiment: Experiment, sample: int, reflection: bool) -> TrialPlan:
    """`sample` train examples: 1 is one lesson end to end and nothing more."""
    data = experiment.dataset
    examples = data.train[:sample]
    told = tuple(e for e in examples if e.answers)[:_TOLD] if sample > 1 else ()
    repeats = len(examples) if sample > 1 else 0
    gold = min(_JUDGED, sum(bool(e.answers) for e in data.train)) if sample > 1 else 0
    k = experiment.plan.student_calls
    lessons = len(examples) + repeats
    runs = len(examples) + k * lessons + len(told)
    return TrialPlan(examples, told, runs, lessons, len(examples) + lessons + len(told) + 2 * gold, reflection)


@dataclass
class Trial:
    """What was found. `skipped` says why there is no more than the first lesson."""

    lessons: list[Lesson] = field(default_factory=list)
    repeats: list[Lesson] = field(default_factory=list)
    told: list[tuple[Example, Side]] = field(default_factory=list)
    gold: list[tuple[Example, Reward, Reward]] = field(default_factory=list)  # of an accepted answer, of another example's
    tasks: list[Task] = field(default_factory=list)  # what the agent was given in the first lesson
    reflection: Failure | str = ""  # what the reflection model said to one request; empty where there is none
    skipped: str = ""
    seconds: float = 0.0  # wall clock of everything after the first lesson
    runs: int = 0  # of the agent in that time, known answers not counted
    first_runs: int = 0


class _Recorder:
    """The agent, with a list of what it was given."""

    def __init__(self, agent: Agent, tasks: list[Task]) -> None:
        self._agent, self.tasks = agent, tasks

    @property
    def identity(self) -> str:
        return self._agent.identity

    @property
    def endpoint(self) -> Endpoint:
        return self._agent.endpoint

    async def run(self, task: Task) -> Attempt:
        self.tasks.append(task)
        return await self._agent.run(task)


async def run_trial(
    experiment: Experiment,
    plan: TrialPlan,
    reflection: ChatModel | None,
    meter: Meter,
    directory: Path,
    *,
    dollars: float | None = None,
    seconds: float | None = None,
) -> Trial:
    """Raises RunBusy and the like; what calls do is in the trial. `dollars`, `seconds`: what the user allows for all of it."""
    trial = Trial()
    with Run.open(directory, manifest={"check": "1"}, config={}) as store:
        experiment.calls.use(store)
        student = _Recorder(experiment.student, trial.tasks)
        room = Classroom(student, experiment.panel, experiment.protocol)
        seed = experiment.seeds[0]
        with experiment.calls.impatient():
            trial.lessons.append(await room.teach(seed, plan.examples[0]))
            if reflection is not None:
                trial.reflection = await _ping(reflection)
        student.tasks = []
        trial.first_runs = meter.made["student"]
        if trial.lessons[0].failure is not None:
            return trial
        trial.skipped = _too_dear(experiment, plan, meter, trial, dollars, seconds)
        if trial.skipped or len(plan.examples) < 2:
            return trial
        began = time.monotonic()
        await _the_rest(experiment, plan, room, trial)
        trial.seconds, trial.runs = time.monotonic() - began, meter.made["student"] - trial.first_runs
    return trial


async def _the_rest(experiment: Experiment, plan: TrialPlan, room: Classroom, trial: Trial) -> None:
    seed = experiment.seeds[0]
    in_the_question = any(c.name == STUDENT for c in experiment.components) or experiment.protocol.name == "probe"

    async def taught(example: Example, sample: int) -> None:
        lesson = await room.teach(seed, example, sample)
        (trial.repeats if sample else trial.lessons).append(lesson)

    async def told(example: Example) -> None:
        text = f"The answer to this question is: {example.answer}\nReply with exactly that and nothing else."
        task = Task(example.public(), Guidance(text))
        if in_the_question:
            asked = experiment.protocol.baseline(example.public()).question
            task = Task(Question(asked.example_id, f"{asked.text}\n\n{text}", asked.context))
        trial.told.append((example, await _side(experiment, example, task)))

    async def judged(example: Example, other: Example) -> None:
        right, wrong = example.answer or "", other.answer or ""
        score = experiment.panel.score
        scores = await asyncio.gather(score(Case(example, right)), score(Case(example, wrong)))
        trial.gold.append((example, scores[0], scores[1]))

    work: list[Coroutine[None, None, None]] = [taught(e, 0) for e in plan.examples[1:]]
    work += [taught(e, 1) for e in plan.examples]
    work += [told(e) for e in plan.told]
    work += [judged(*pair) for pair in _pairs(experiment.dataset.train)]
    await gathered(work)
    order = {e.id: n for n, e in enumerate(plan.examples)}
    for lessons in (trial.lessons, trial.repeats):
        lessons.sort(key=lambda lesson: order[lesson.example.id])


def _pairs(train: tuple[Example, ...]) -> list[tuple[Example, Example]]:
    """Examples with another one whose accepted answers are others."""
    with_gold = [e for e in train if e.answers]
    pairs = []
    for n, example in enumerate(with_gold[:_JUDGED]):
        other = next((o for o in (*with_gold[n + 1 :], *with_gold[:n]) if not set(o.answers) & set(example.answers)), None)
        if other is not None:
            pairs.append((example, other))
    return pairs


async def _side(experiment: Experiment, example: Example, task: Task) -> Side:
    try:
        attempt = await experiment.student.run(task)
    except CallError as error:
        attempt = Attempt.failed(error.kind, str(error))
    except BudgetExhausted as error:
        attempt = Attempt.failed("budget_exhausted", str(error))
    if attempt.output is None:
        assert attempt.error is not None
        return Side(attempt, Reward.none(attempt.error.kind, attempt.error.reason), "")
    return Side(attempt, await experiment.panel.score(Case(example, experiment.protocol.answer(attempt.output))), "")


async def _ping(model: ChatModel) -> Failure | str:
    request = ChatRequest((Message("user", "Reply with the word ready."),), max_tokens=512)
    try:
        completion = await model.complete(request)
    except CallError as error:
        return Failure(error.kind, str(error))
    except AtlasError as error:
        return Failure("budget_exhausted", str(error))
    return completion.text.strip()[:80] or "(nothing)"


def _too_dear(experiment: Experiment, plan: TrialPlan, meter: Meter, trial: Trial, dollars: float | None, seconds: float | None) -> str:
    """Why the rest is not done: what one lesson took, times what is left, is more than anybody allowed."""
    lesson, left = trial.lessons[0], max(0, plan.runs - trial.first_runs)
    first = meter.usage.get("student", Usage())
    runs = max(1, meter.count("student"))
    total = sum((usage.dollars or 0.0) for role, usage in meter.usage.items() if role != "reflection")
    cost = total / runs * left
    allowed = _DOLLARS if dollars is None else dollars
    if cost > allowed:
        return f"the rest of this check would cost about ${cost:.2f}; allow it with --max-usd {max(1, round(cost * 1.5))}, or --sample 2"
    lanes = min(len(plan.examples), experiment.student.endpoint.max_concurrency)
    takes = (first.seconds / runs + lesson.teacher_usage.seconds) * left / max(1, lanes)
    if takes > (_SECONDS if seconds is None else seconds):
        return f"the rest of this check would take about {takes / 60:.0f} minutes; allow it with --max-minutes, or --sample 2"
    return ""
