"""From judges' words to one value: the plain weighted mean, or the probability that a calibration profile makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from gepa_atlas.errors import ConfigError
from gepa_atlas.ports import Case
from gepa_atlas.rim.config import Bounds, RimConfig
from gepa_atlas.rim.profile import Points, load_profile
from gepa_atlas.types import JudgeScore

Spoken = Sequence[tuple[float, JudgeScore]]  # (weight, a part with a value)


class Pooler(Protocol):
    @property
    def identity(self) -> str: ...

    def pool(self, spoken: Spoken, case: Case | None) -> tuple[float, float | None]:
        """(value in [0, 1], its standard error where every judge knows its noise)."""
        ...


@dataclass(frozen=True)
class Plain:
    identity: str = "mean"

    def pool(self, spoken: Spoken, case: Case | None) -> tuple[float, float | None]:
        weight = math.fsum(w for w, _ in spoken)
        value = math.fsum(w * (part.value or 0.0) for w, part in spoken) / weight
        doubts = [w * part.uncertainty for w, part in spoken if part.uncertainty is not None]
        return value, math.hypot(*doubts) / weight if len(doubts) == len(spoken) else None


@dataclass(frozen=True)
class Calibrated:
    """P(the answer is right) by the profile, from the judges it knows; a judge's draws count as it was configured."""

    identity: str
    points: Points
    draws: dict[str, int]

    def pool(self, spoken: Spoken, case: Case | None) -> tuple[float, float | None]:
        scores = {part.judge: (part.value or 0.0, self.draws.get(part.judge, 1)) for _, part in spoken}
        exact = frozenset(part.judge for _, part in spoken if part.uncertainty == 0.0)
        return self.points.value(scores, len(case.output) if case else None, exact)


def calibrated(path: Path, config: RimConfig) -> Calibrated:
    """Raises ConfigError when the profile was not fitted on labels by these judges."""
    profile = load_profile(path)
    points = profile.points.get("labels")
    judges = (*config.judges, *(config.escalate.judges if config.escalate else ()))
    if points is None:
        raise ConfigError(f"rim.profile: {path} holds no pointwise calibration; make one with `gepa-atlas rim calibrate --labels FILE`")
    unknown = sorted({j.called for j in judges} - set(points.pooling.judges))
    if unknown:
        raise ConfigError(f"rim.profile: {path} does not know the judge {unknown[0]!r}; calibrate again with the judges of this panel")
    return Calibrated(profile.identity, points, {judge.called: judge.draw_count for judge in judges})


def bounded(spoken: Spoken, bounds: Bounds) -> list[tuple[float, JudgeScore]]:
    """ATLAS's consistency rules, in its order: process by accuracy, then helpfulness by process and by diagnostic."""
    values = {part.judge: part.value for _, part in spoken}

    def cap(name: str, most: float, because: str) -> None:
        if (value := values.get(name)) is not None and value > most:
            values[name] = max(0.0, most)
            notes[name] = f" [capped at {max(0.0, most):.2f}: {because}]"

    notes: dict[str, str] = {}
    if (accuracy := values.get("accuracy")) is not None:
        cap("process", accuracy + bounds.process_over_accuracy, "accuracy")
    if (process := values.get("process")) is not None and process < bounds.helpfulness_without_process:
        cap("helpfulness", bounds.helpfulness_without_process, "process")
    if (diagnostic := values.get("diagnostic")) is not None:
        cap("helpfulness", diagnostic + bounds.helpfulness_over_diagnostic, "diagnostic")
    return [(w, replace(part, value=values[part.judge], rationale=part.rationale + notes.get(part.judge, ""))) for w, part in spoken]
