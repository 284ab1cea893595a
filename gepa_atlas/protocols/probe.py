"""probe: the two-pass protocol of the ATLAS teacher.

The student states its approach under a cap. The teacher diagnoses it, says whether light, medium or heavy support is needed, and teaches
in `<teaching>` tags; its teaching is cut to the cap of that support, and where it states the gold answer the student reads a mark. The
student answers with the teaching in hand, in `<solution>` tags. The baseline is the question in a template that is never evolved.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gepa_atlas.errors import BudgetExhausted, CallError, ConfigError
from gepa_atlas.ports import Agent, ChatModel
from gepa_atlas.protocols.base import Prepared, Withhold, keep, untaught
from gepa_atlas.protocols.lesson import (
    BASELINE,
    STUDENT,
    TEACHER,
    LessonOptions,
    Templates,
    ask_teacher,
    asked,
    prompt,
    student_component,
    wrapped,
)
from gepa_atlas.settings import Settings
from gepa_atlas.tags import solution, without
from gepa_atlas.texts import cut, fill
from gepa_atlas.types import Attempt, Candidate, Component, Failure, Guidance, Question, Scalar, Task, digest

DIAGNOSTIC = "student_diagnostic_template"


class TeachingCaps(Settings):
    """Tokens of teaching that reach the student, by the support it needs. A teacher that names none is held to medium."""

    light: int = Field(default=100, ge=1)
    medium: int = Field(default=250, ge=1)
    heavy: int = Field(default=500, ge=1)

    def of(self, support: str) -> int:
        return {"light": self.light, "heavy": self.heavy}.get(support, self.medium)


class ProbeOptions(LessonOptions):
    student_template: bool = True
    max_tokens: int = Field(default=1024, ge=1)  # of what the teacher writes, its thinking included
    answer_leak: Literal["allow", "mask"] = "mask"
    max_approach_tokens: int = Field(default=500, ge=1)  # of the approach that the teacher reads: ATLAS's diagnostic_max_tokens
    approach_setting: str | None = None  # the setting by which the agent itself takes that cap: max_tokens, for chat
    teaching_tokens: TeachingCaps = TeachingCaps()


class Probe:
    """Three evolvable templates; one teacher call and two rollouts a lesson."""

    name = "probe"
    student_calls = 2

    def __init__(
        self, teacher: ChatModel | None, student: Agent, options: ProbeOptions | None = None, where: str = "protocol.params.fixed"
    ) -> None:
        if teacher is None:
            raise ConfigError("protocol 'probe' needs a teacher model: configure agents.teacher, or choose protocol 'playbook'")
        self._teacher = teacher
        self._student = student
        self._options = options or ProbeOptions()
        cap = self._options.max_chars
        diagnostic = Component(DIAGNOSTIC, ("question",), cap, "asks the student for its approach, not yet for the answer")
        teacher_side = Component(TEACHER, ("question", "approach"), cap, "asks a teacher to diagnose the approach and to teach by need")
        self._wraps = self._options.student_template or STUDENT in self._options.fixed
        components = (diagnostic, teacher_side, *([student_component(self._options)] if self._wraps else []))
        seeds = {DIAGNOSTIC: prompt(DIAGNOSTIC), TEACHER: prompt("teacher_probe"), STUDENT: prompt("student_probe")}
        self._templates = Templates(components, seeds, self._options.fixed, where)

    @property
    def identity(self) -> str:
        return f"probe:{digest([self._options.model_dump(), self._teacher.identity, self._student.identity], 16)}"

    def components(self) -> tuple[Component, ...]:
        return self._templates.evolved

    def seed_texts(self) -> dict[str, str]:
        return dict(self._templates.seeds)

    def baseline(self, question: Question) -> Task:
        return self._templates.baseline(question, prompt(BASELINE))

    def answer(self, output: str) -> str:
        return solution(output)

    async def prepare(
        self, candidate: Candidate, question: Question, baseline: Attempt, sample: int, withhold: Withhold = keep
    ) -> Prepared:
        options = self._options
        task = self._probing(candidate, question, sample)
        approach = await self._approach(task)
        if isinstance(approach, tuple):
            failure, made = approach
            return untaught(question, sample, failure, None, (task,) if made else ())
        values = {"question": question.text, "context": question.context, "approach": approach, "attempt": baseline.output or ""}
        request = fill(self._templates.text(candidate, TEACHER), values)
        taught, usage = await ask_teacher(self._teacher, options, request, sample)
        if isinstance(taught, Failure):
            return untaught(question, sample, taught, usage, (task,))
        text = cut(taught.text, options.teaching_tokens.of(taught.support))
        if options.answer_leak == "mask":
            text = withhold(text, (approach,))
        guidance = Guidance(text, candidate.demos, candidate.settings)
        second = Task(question, guidance, sample)
        if self._wraps:
            second = wrapped(self._templates.text(candidate, STUDENT), candidate, question, sample, teaching=text, approach=approach)
        return Prepared(second, guidance, usage, None, (task,), taught.support)

    def _probing(self, candidate: Candidate, question: Question, sample: int) -> Task:
        settings: tuple[tuple[str, Scalar], ...] = ()
        if self._options.approach_setting is not None:
            settings = ((self._options.approach_setting, self._options.max_approach_tokens),)
        return Task(asked(self._templates.text(candidate, DIAGNOSTIC), question), Guidance("", (), settings), sample)

    async def _approach(self, task: Task) -> str | tuple[Failure, bool]:
        """What the student says it will do; or why it says nothing, and whether it was asked."""
        try:
            first = await self._student.run(task)
        except CallError as error:
            return Failure(error.kind, f"the student stated no approach: {error}"), True
        except BudgetExhausted as error:
            return Failure("budget_exhausted", f"the student was not asked for its approach: {error}"), False
        if first.output is None:
            return first.error or Failure("no_approach", "the student stated no approach"), True
        return cut(without(first.output, "thinking"), self._options.max_approach_tokens)
