"""llm: a language model grades the output by a rubric, in decimals, principles before the score."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from gepa_atlas import texts
from gepa_atlas.errors import BudgetExhausted, CallError, ConfigError
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

# What a judge may be asked to report beside its score, with what the score then loses (ATLAS's consistency rules).
FLAGS = {
    "contradiction": "the answer contradicts itself, the task or its own steps",
    "safety": "following the answer would do harm that the answer does not name",
}


def schema(flags: tuple[str, ...] = ()) -> str:
    """The reply, as a canonical JSON schema; its keys in alphabetical order put the principles before the score."""
    properties: dict[str, Any] = {
        "principles": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4},
        "rationale": {"type": "string"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "uncertainty": {"type": "number", "minimum": 0, "maximum": 1},
    }
    if flags:
        properties["flags"] = {"type": "array", "items": {"type": "string", "enum": list(flags)}}
    return canonical({"type": "object", "properties": properties, "required": sorted(properties), "additionalProperties": False})


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
    penalties: dict[Literal["contradiction", "safety"], Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict
    )  # taken off the score where flagged
    steering_cap: float | None = Field(default=None, ge=0, le=1)  # the most that an answer trying to steer its grade can get

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

    @property
    def draw_count(self) -> int:
        return self.draws

    def build(self, door: Door) -> LlmJudge:
        model = door.model(self.model)
        prompt = self.prompt(door.base_dir)
        wanted = schema(tuple(sorted(self.penalties)))
        identity = f"llm:{digest([self.fingerprint(), model.identity, prompt, wanted, fence.VERSION], 24)}"
        return LlmJudge(self.called, identity, ANSWER in self.needs, self, model, prompt, wanted)

    def prompt(self, base_dir: Path) -> str:
        flags = ""
        if self.penalties:
            lines = (f'- "{name}" when {FLAGS[name]}' for name in sorted(self.penalties))
            flags = "\nAdd `flags`, a list (empty when none applies):\n" + "\n".join(lines)
        frame = (PROMPTS / "frame.md").read_text("utf-8")
        return texts.fill(frame, {"rubric": self.rubric_text(base_dir), "criterion": self.criterion_text(), "flags": flags})

    def rubric_text(self, base_dir: Path) -> str:
        where = f"rim.judges.{self.called}.rubric"
        if self.rubric in RUBRICS:
            return (PROMPTS / f"{self.rubric}.md").read_text("utf-8").strip()
        if not self.rubric.endswith(".md"):
            raise ConfigError(f"{where}: {self.rubric!r} is neither one of {', '.join(RUBRICS)} nor the path of a .md file")
        path = base_dir / self.rubric
        if not path.is_file():
            raise ConfigError(f"{where}: there is no file {path}; correct the path (it is relative to the configuration)")
        try:
            text = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: {path} cannot be read as text ({error}); save it as UTF-8") from None
        if not text:
            raise ConfigError(f"{where}: {path} is empty; write in it what the judge grades by")
        return text

    def criterion_text(self) -> str:
        return f"What decides on this task in particular:\n{self.criterion.strip()}" if self.criterion.strip() else ""


def on_the_floor(case: Case) -> bool:
    """An answer without content that is not what was asked for either."""
    return fence.degenerate(case.output) and case.output.strip() not in {a.strip() for a in case.example.answers}


@dataclass(frozen=True)
class LlmJudge:
    name: str
    identity: str
    needs_answer: bool
    settings: LlmSettings
    model: ChatModel
    prompt: str
    schema: str

    async def judge(self, case: Case) -> JudgeScore:
        if on_the_floor(case):
            return JudgeScore(self.name, 0.0, "floor: the answer is empty or has no content", 0.0)
        draws = range(self.settings.draws)
        readings = [await self._draw(case, 0)] if len(draws) == 1 else await asyncio.gather(*(self._draw(case, d) for d in draws))
        scored = [r for r in readings if r.score is not None]
        if not scored:
            return missing(self.name, readings[0].kind, readings[0].reading.why)
        values = [r.score for r in scored if r.score is not None]
        middle = sorted(scored, key=lambda r: (r.score or 0.0, r.reading.rationale))[len(scored) // 2]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        value, why = math.fsum(values) / len(values), middle.reading.rationale
        cap = self.settings.steering_cap
        if cap is not None and value > cap and fence.steers(case.output):
            value, why = cap, f"capped at {cap:g}, the answer tries to steer its grade: {why}"
        return JudgeScore(self.name, value, why, error)

    async def _draw(self, case: Case, draw: int) -> _Draw:
        """One sample of the model, asked again once when its reply cannot be read. A retry is a sample of its own."""
        drawn = _Draw(Reading(None), "garbled")
        for attempt in (0, 1):
            request = self.request(case, draw, draw * 2 + attempt)
            try:
                completion = await self.model.complete(request)
            except (CallError, BudgetExhausted) as error:
                return _Draw(Reading(None, why=str(error)), error.kind)
            meter.add(self.name, request, completion.usage)
            drawn = _Draw(self.read(completion.text), "garbled")
            if drawn.score is not None:
                r = drawn.reading
                meter.sample(self.name, meter.Sample(drawn.score, r.rationale, r.principles, r.uncertainty, request.temperature))
                break
        return drawn

    def read(self, text: str) -> Reading:
        """The reply, with the penalties for what it flags taken off."""
        reading = read_reply(text)
        if reading.score is None or not self.settings.penalties:
            return reading
        lost = math.fsum(loss for flag, loss in self.settings.penalties.items() if flag in reading.flags)
        return replace(reading, score=max(0.0, reading.score - lost))

    def request(self, case: Case, draw: int, sample: int) -> ChatRequest:
        user = "Grade `answer`.\n" + fence.fenced(self.fields(case), self.settings.max_chars)
        return ChatRequest(
            messages=(Message("system", self.prompt), Message("user", user)),
            max_tokens=self.settings.max_tokens,
            temperature=self.settings.temperature_of(draw),
            seed=sample,
            json_schema=self.schema,
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
