"""lesson: a teacher model reads the question and the first attempt and writes guidance for this example."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from pydantic import Field

from gepa_atlas.errors import BudgetExhausted, CallError, ConfigError
from gepa_atlas.ports import ChatModel, ChatRequest
from gepa_atlas.protocols.base import Prepared, Withhold, keep, untaught
from gepa_atlas.settings import Settings
from gepa_atlas.tags import inside, teaching, without
from gepa_atlas.texts import fill
from gepa_atlas.types import Attempt, Candidate, Component, Failure, Guidance, Message, Question, Task, Usage, digest

TEACHER = "teacher_adaptive_template"
STUDENT = "student_with_teaching_template"
BASELINE = "student_baseline_template"
SUPPORT = ("light", "medium", "heavy")


class LessonOptions(Settings):
    max_tokens: int = Field(default=512, ge=1)  # of what the teacher writes
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    max_chars: int = Field(default=8_000, ge=1)  # the longest template a candidate may carry
    student_template: bool = False  # also evolve how the teaching is put to the student, as one text with the question
    fixed: dict[str, str] = Field(default_factory=dict)  # templates that are used as they stand and not evolved, by name
    answer_leak: Literal["allow", "mask"] = "allow"  # mask: where the teaching states the gold answer, the student reads a mark


def prompt(name: str) -> str:
    """A template shipped beside this file."""
    return (files("gepa_atlas.protocols") / "prompts" / f"{name}.md").read_text("utf-8").strip()


def asked(template: str, question: Question, **more: str) -> Question:
    """The question as a template puts it. A context that the template shows is not sent beside it again."""
    text = fill(template, {"question": question.text, "context": question.context, **more})
    return Question(question.example_id, text, "" if "{context}" in template else question.context)


class Templates:
    """The texts of a lesson: a candidate's own, or for those that are not evolved the fixed ones."""

    def __init__(self, components: tuple[Component, ...], seeds: dict[str, str], fixed: dict[str, str], where: str) -> None:
        known = [c.name for c in components] + [BASELINE]
        for name, text in fixed.items():
            if name not in known:
                raise ConfigError(f"{where}: there is no template {name!r}; the protocol has {', '.join(known)}")
            component = next((c for c in components if c.name == name), Component(BASELINE, ("question",)))
            for placeholder in component.placeholders:
                if "{" + placeholder + "}" not in text:
                    raise ConfigError(f"{where}: {name} lacks its placeholder {{{placeholder}}}; put it where the text belongs")
        self.evolved = tuple(c for c in components if c.name not in fixed)
        if not self.evolved:
            raise ConfigError(f"{where}: every template is fixed, so there is nothing to evolve; leave one of {', '.join(known[:-1])} out")
        self.seeds = {c.name: seeds[c.name] for c in self.evolved}
        self._fixed = fixed

    def text(self, candidate: Candidate, name: str) -> str:
        return self._fixed[name] if name in self._fixed else candidate.text(name)

    def baseline(self, question: Question, default: str | None) -> Task:
        template = self._fixed.get(BASELINE, default)
        return Task(question if template is None else asked(template, question))


class Lesson:
    """The default protocol when a teacher is configured. One teacher call and one rollout a lesson."""

    name = "lesson"
    student_calls = 1

    def __init__(self, teacher: ChatModel | None, options: LessonOptions | None = None, where: str = "protocol.params.fixed") -> None:
        if teacher is None:
            raise ConfigError(
                "protocol 'lesson' needs a teacher model: configure agents.teacher, or choose protocol 'playbook', which needs none"
            )
        self._teacher = teacher
        self._options = options or LessonOptions()
        purpose = "asks a teacher for guidance that helps a student answer a question better than in its first attempt"
        components = [Component(TEACHER, ("question", "attempt"), self._options.max_chars, purpose)]
        if self._options.student_template or STUDENT in self._options.fixed:
            components.append(student_component(self._options))
        seeds = {TEACHER: prompt("teacher_lesson"), STUDENT: prompt(STUDENT)}
        self._wraps = len(components) > 1
        self._templates = Templates(tuple(components), seeds, self._options.fixed, where)

    @property
    def identity(self) -> str:
        return f"lesson:{digest([self._options.model_dump(), self._teacher.identity], 16)}"

    def components(self) -> tuple[Component, ...]:
        return self._templates.evolved

    def seed_texts(self) -> dict[str, str]:
        return dict(self._templates.seeds)

    def baseline(self, question: Question) -> Task:
        return self._templates.baseline(question, None)

    def answer(self, output: str) -> str:
        return output

    async def prepare(
        self, candidate: Candidate, question: Question, baseline: Attempt, sample: int, withhold: Withhold = keep
    ) -> Prepared:
        if baseline.output is None:
            return untaught(question, sample, baseline.error or Failure("no_baseline", "there is no first attempt to teach from"))
        values = {"question": question.text, "attempt": baseline.output, "context": question.context}
        request = fill(self._templates.text(candidate, TEACHER), values)
        taught, usage = await ask_teacher(self._teacher, self._options, request, sample)
        if isinstance(taught, Failure):
            return untaught(question, sample, taught, usage)
        text = withhold(taught.text, (baseline.output,)) if self._options.answer_leak == "mask" else taught.text
        guidance = Guidance(text, candidate.demos, candidate.settings)
        task = Task(question, guidance, sample)
        if self._wraps:
            template = self._templates.text(candidate, STUDENT)
            task = wrapped(template, candidate, question, sample, teaching=text, attempt=baseline.output)
        return Prepared(task, guidance, usage, support=taught.support)


def student_component(options: LessonOptions) -> Component:
    return Component(STUDENT, ("question", "teaching"), options.max_chars, "puts question and teaching to the student")


def wrapped(template: str, candidate: Candidate, question: Question, sample: int, **values: str) -> Task:
    """A task whose question is `student_with_teaching_template` filled in: the student receives one text."""
    return Task(asked(template, question, **values), Guidance("", candidate.demos, candidate.settings), sample)


@dataclass(frozen=True, slots=True)
class Taught:
    """What a teacher wrote for the student, and how much help it thought was needed (empty when it did not say)."""

    text: str
    support: str = ""


async def ask_teacher(teacher: ChatModel, options: LessonOptions, text: str, sample: int) -> tuple[Taught | Failure, Usage]:
    """Guidance, or the named reason why there is none, and what the call took."""
    request = ChatRequest((Message("user", text),), max_tokens=options.max_tokens, temperature=options.temperature, sample=sample)
    try:
        completion = await teacher.complete(request)
    except CallError as error:
        return Failure(error.kind, f"the teacher failed: {error}"), Usage()
    except BudgetExhausted as error:
        return Failure("budget_exhausted", f"the teacher was not asked: {error}"), Usage()
    said = inside(completion.text, "support") or ""
    support = next((level for level in SUPPORT if level in said.lower()), "")
    taught = teaching(without(completion.text, "support") if support else completion.text)
    if not taught:
        return Failure("empty_answer", "the teacher wrote no guidance"), completion.usage
    return Taught(taught, support), completion.usage
