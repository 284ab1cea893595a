"""atlas: ATLAS's own rule for one rubric, for comparison: see `gepa_atlas.rim.atlas`. The panel is more accurate for fewer calls.

What differs from the original on purpose: a failed call is a missing sample and a failed arbiter a missing score (it scored 0.0), equal
uncertainties are settled by draw number (it was thread timing), and what is judged is fenced.
"""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from gepa_atlas.errors import BudgetExhausted, CallError
from gepa_atlas.ports import Case, ChatModel
from gepa_atlas.rim import fence, meter
from gepa_atlas.rim.atlas import SELF_DOUBT, THRESHOLD
from gepa_atlas.rim.judges.base import Door, JudgeSettings, missing
from gepa_atlas.rim.judges.llm import LlmJudge, LlmSettings, on_the_floor
from gepa_atlas.rim.meter import Sample
from gepa_atlas.types import JudgeScore, Message, digest

_ARBITER_TEMPERATURE = 0.3


class AtlasSettings(JudgeSettings):
    type: Literal["atlas"] = "atlas"
    rubric: str = "accuracy"
    small: str | dict[str, Any] | None = None
    large: str | dict[str, Any] | None = None
    temperatures: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(default=(0.2, 0.5, 0.8), min_length=1)
    threshold: float = Field(
        default=THRESHOLD, ge=0, allow_inf_nan=False
    )  # standard deviation of the samples above which the large model decides
    self_doubt: float = Field(default=SELF_DOUBT, ge=0)  # a sample's own uncertainty above which it does
    max_tokens: int = Field(default=1024, ge=16)
    large_max_tokens: int = Field(default=1024, ge=16)
    penalties: dict[Literal["contradiction", "safety"], float] = Field(default_factory=dict)
    steering_cap: float | None = Field(default=None, ge=0, le=1)

    @property
    def needs(self) -> frozenset[str]:
        return self._tier("small").needs

    def _tier(self, which: Literal["small", "large"]) -> LlmSettings:
        small = which == "small"
        return LlmSettings(
            name=self.called,
            model=self.small if small else self.large,
            rubric=self.rubric,
            draws=len(self.temperatures) if small else 1,
            temperature=self.temperatures if small else _ARBITER_TEMPERATURE,
            max_tokens=self.max_tokens if small else self.large_max_tokens,
            penalties=self.penalties,
        )

    def build(self, door: Door) -> AtlasJudge:
        small, large = self._tier("small").build(door), self._tier("large").build(door)
        identity = f"atlas:{digest([self.fingerprint(), small.identity, large.identity], 24)}"
        return AtlasJudge(self.called, identity, small.needs_answer, self, small, large)


@dataclass(frozen=True)
class AtlasJudge:
    name: str
    identity: str
    needs_answer: bool
    settings: AtlasSettings
    small: LlmJudge
    large: LlmJudge

    async def judge(self, case: Case) -> JudgeScore:
        if on_the_floor(case):
            return JudgeScore(self.name, 0.0, "floor: the answer is empty or has no content", 0.0)
        draws = range(len(self.settings.temperatures))
        drawn = await asyncio.gather(*(self._sample(self.small.model, self.small, case, draw) for draw in draws))
        samples = [s for s in drawn if isinstance(s, Sample)]
        why = self._reason(samples)
        if why is None:
            kept = min(samples, key=lambda s: s.uncertainty or 0.0)
            spread = statistics.pstdev([s.score for s in samples])
            return self._said(case, kept, spread)
        meter.escalated(self.name, why)
        verdict = await self._sample(self.large.model, self.large, case, 0, samples)
        if not isinstance(verdict, Sample):
            return missing(self.name, verdict.missing.kind if verdict.missing else "garbled", f"{why}; the arbiter failed")
        return self._said(case, verdict, None)

    def _reason(self, samples: list[Sample]) -> str | None:
        if not samples:
            return "tier1_no_valid_samples"
        if statistics.pstdev([s.score for s in samples]) > self.settings.threshold:
            return "variance"
        return "uncertainty" if max(s.uncertainty or 0.0 for s in samples) > self.settings.self_doubt else None

    def _said(self, case: Case, sample: Sample, spread: float | None) -> JudgeScore:
        cap = self.settings.steering_cap
        if cap is not None and sample.score > cap and fence.steers(case.output):
            return JudgeScore(self.name, cap, f"capped at {cap:g}, the answer tries to steer its grade: {sample.rationale}", spread)
        return JudgeScore(self.name, sample.score, sample.rationale, spread)

    async def _sample(
        self, model: ChatModel, judge: LlmJudge, case: Case, draw: int, seen: list[Sample] | None = None
    ) -> Sample | JudgeScore:
        request = judge.request(case, draw, draw)
        if seen is not None:
            lines = {f"evaluation_{i}": f"score {s.score:.2f}, uncertainty {s.uncertainty}: {s.rationale}" for i, s in enumerate(seen, 1)}
            text = f"{request.messages[1].content}\nEarlier evaluations disagree or are unsure; weigh them:\n{fence.fenced(lines)}"
            request = replace(request, messages=(request.messages[0], Message("user", text)))
        try:
            completion = await model.complete(request)
        except (CallError, BudgetExhausted) as error:
            return missing(self.name, error.kind, str(error))
        meter.add(self.name, request, completion.usage)
        reading = judge.read(completion.text)
        if reading.score is None:
            return missing(self.name, "garbled", reading.why)
        sample = Sample(reading.score, reading.rationale, reading.principles, reading.uncertainty, request.temperature)
        meter.sample(self.name, sample)
        return sample
