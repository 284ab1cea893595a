"""llm: a language model grades the output by a rubric, in decimals, principles before the score."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from gepa_atlas import texts
from gepa_atlas.errors import CallError, ConfigError
from gepa_atlas.ports import Case, ChatModel, ChatRequest
from gepa_atlas.rim import fence, meter
from gepa_atlas.rim.judges.base import ANSWER, GUIDANCE, PLAN, TRACE, Door, JudgeSettings, missing
from gepa_atlas.rim.replies import Reading, read_reply
from gepa_atlas.types import JudgeScore, Message, canonical, digest

PROMPTS = Path(__file__).parent.parent / "prompts"

# What each shipped rubric cannot be graded without. A rubric of the user's names its own in `needs`.
RUBRICS: dict[str, frozenset[str]] = {
    "accuracy": frozenset(),
    "quality": frozenset(),
    "helpfulness": frozenset({GUIDANCE}),
    "process": frozenset({TRACE}),
    "diagnostic": frozenset({PLAN}),
}

SCHEMA = canonical(
    {
        "type": "object",
        "properties": {
            "principles": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4},
            "rationale": {"type": "string"},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "uncertainty": {"type": "number", "minimum": 0, "maximum": 1},
        },
        "required": ["principles", "rationale", "score", "uncertainty"],
        "additionalProperties": False,
    }
)


class LlmSettings(JudgeSettings):
    """`rubric` is accuracy, quality, helpfulness, process, diagnostic, or the path of a Markdown file (relative to the configuration).

    `draws` independent samples are averaged. Two draws of one model are worth little more than one (their errors correlate .6 to
    .8); another model family in the panel is worth much more, so the default is one.
    """

    type: Literal["llm"] = "llm"
    model: str | dict[str, Any] | None = None  # None: the judge model of the run
    rubric: str = "accuracy"
    criterion: str = ""  # what this task in particular is about; one line per criterion
    draws: int = Field(default=1, ge=1, le=32)
    temperature: float | tuple[float, ...] = 0.0  # several: taken in turn by the draws
    max_tokens: int = Field(default=1024, ge=16)
    needs_inputs: tuple[Literal["answer", "guidance", "plan", "trace", "baseline"], ...] | None = Field(default=None, alias="needs")
    show_answer: bool = True  # the judge sees the gold answer, where there is one
    max_chars: int = Field(default=60_000, ge=1000)  # of each text shown; the middle of a longer one is left out

    @field_validator("temperature")
    @classmethod
    def _range(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if not all(0 <= t <= 2 for t in ((value,) if isinstance(value, float) else value)) or value == ():
            raise ValueError("temperatures are numbers between 0 and 2")
        return value

    @property
    def needs(self) -> frozenset[str]:
        return RUBRICS.get(self.rubric, frozenset()) if self.needs_inputs is None else frozenset(self.needs_inputs)

    def temperature_of(self, draw: int) -> float:
        return self.temperature if isinstance(self.temperature, float) else self.temperature[draw % len(self.temperature)]

    def build(self, door: Door) -> LlmJudge:
        model = door.model(self.model)
        prompt = self.prompt(door.base_dir)
        identity = f"llm:{digest([self.fingerprint(), model.identity, prompt, SCHEMA, fence.VERSION], 24)}"
        return LlmJudge(self.called, identity, ANSWER in self.needs, self, model, prompt)

    def prompt(self, base_dir: Path) -> str:
        where = f"rim.judges.{self.called}.rubric"
        if self.rubric in RUBRICS:
            rubric = (PROMPTS / f"{self.rubric}.md").read_text("utf-8")
        elif self.rubric.endswith(".md"):
            path = base_dir / self.rubric
            if not path.is_file():
                raise ConfigError(f"{where}: there is no file {path}; correct the path (it is relative to the configuration)")
            rubric = path.read_text("utf-8")
        else:
            raise ConfigError(f"{where}: {self.rubric!r} is neither one of {', '.join(RUBRICS)} nor the path of a .md file")
        criterion = f"What decides on this task in particular:\n{self.criterion.strip()}" if self.criterion.strip() else ""
        frame = (PROMPTS / "frame.md").read_text("utf-8")
        return texts.fill(frame, {"rubric": rubric.strip(), "criterion": criterion}).replace("\n\n\n", "\n")


@dataclass(frozen=True)
class LlmJudge:
    name: str
    identity: str
    needs_answer: bool
    settings: LlmSettings
    model: ChatModel
    prompt: str

    async def judge(self, case: Case) -> JudgeScore:
        if fence.degenerate(case.output) and case.output.strip() not in {a.strip() for a in case.example.answers}:
            return JudgeScore(self.name, 0.0, "floor: the answer is empty or has no content", 0.0)
        readings = await asyncio.gather(*(self._draw(case, draw) for draw in range(self.settings.draws)))
        scored = [r for r in readings if r.score is not None]
        if not scored:
            return missing(self.name, readings[0].kind, readings[0].reading.why)
        values = [r.score for r in scored if r.score is not None]
        middle = sorted(scored, key=lambda r: (r.score or 0.0, r.reading.rationale))[len(scored) // 2]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return JudgeScore(self.name, math.fsum(values) / len(values), middle.reading.rationale, error)

    async def _draw(self, case: Case, draw: int) -> _Draw:
        """One sample of the model, asked again once when its reply cannot be read. A retry is a sample of its own."""
        drawn = _Draw(Reading(None), "garbled")
        for attempt in (0, 1):
            request = self.request(case, draw, draw * 2 + attempt)
            try:
                completion = await self.model.complete(request)
            except CallError as error:
                return _Draw(Reading(None, why=str(error)), error.kind)
            meter.add(self.name, completion.usage)
            drawn = _Draw(read_reply(completion.text), "garbled")
            if drawn.score is not None:
                break
        return drawn

    def request(self, case: Case, draw: int, sample: int) -> ChatRequest:
        user = "Grade `answer`.\n" + fence.fenced(self.fields(case), self.settings.max_chars)
        return ChatRequest(
            messages=(Message("system", self.prompt), Message("user", user)),
            max_tokens=self.settings.max_tokens,
            temperature=self.settings.temperature_of(draw),
            seed=sample,
            json_schema=SCHEMA,
            sample=sample,
        )

    def fields(self, case: Case) -> Mapping[str, str]:
        """What the judge reads: the task, the answer, and of the rest only what the rubric is about."""
        fields = {"task": case.example.question}
        if case.example.context:
            fields["context"] = case.example.context
        if self.settings.show_answer and case.example.answer is not None:
            fields["reference_answer"] = case.example.answer
        if case.guidance.text and self.settings.rubric != "accuracy":
            fields["guidance"] = case.guidance.text
        return fields | {name: text for name, text in case.inputs if text} | {"answer": case.output}


@dataclass(frozen=True, slots=True)
class _Draw:
    reading: Reading
    kind: str

    @property
    def score(self) -> float | None:
        return self.reading.score
