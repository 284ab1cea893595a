"""The shapes of ATLAS's reward records: field names and `to_dict` are theirs, so that code written for them moves over unchanged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class AtlasJudgeSample:
    score: float
    rationale: str
    principles: list[dict[str, Any]] = field(default_factory=list)
    uncertainty: float | None = None
    temperature: float | None = None


@dataclass
class AtlasJudgeBreakdown:
    """`score` is None, with the reason as rationale, where ATLAS would have written 0.0."""

    identifier: str
    score: float | None
    rationale: str
    principles: list[dict[str, Any]] = field(default_factory=list)
    samples: list[AtlasJudgeSample] = field(default_factory=list)
    escalated: bool = False
    escalation_reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"samples": [dict(vars(sample)) for sample in self.samples]}


@dataclass
class AtlasRewardBreakdown:
    """`score` equals the evaluation's score (in ATLAS the two could differ)."""

    score: float | None
    judges: list[AtlasJudgeBreakdown] = field(default_factory=list)
    rationale: str | None = None
    raw: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"score": self.score, "rationale": self.rationale, "judges": [j.to_dict() for j in self.judges], "raw": self.raw}


@dataclass
class RIMEvaluation:
    """`score` is None when the panel could not speak; `extra["info"]["missing"]` says why. It is never 0.0 for a failure."""

    score: float | None
    rationale: str
    judge_scores: dict[str, float | None]
    judge_explanations: dict[str, str]
    reward: AtlasRewardBreakdown
    extra: dict[str, Any] = field(default_factory=dict)
