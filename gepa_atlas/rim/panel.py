"""The panel: judges with weights, one pooled reward, None with a reason when too few of them could speak."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.ports import Case, ChatModel, Judge
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.rim.judges.base import ANSWER, GUIDANCE, SPEC, Door, JudgeSettings, missing
from gepa_atlas.types import Example, Failure, Guidance, JudgeScore, Reward, digest


@dataclass(frozen=True)
class Seat:
    """A judge on the panel. `needs` are the inputs without which it stays silent (see `judges.base`)."""

    judge: Judge
    weight: float = 1.0
    needs: frozenset[str] = frozenset()
    settings: JudgeSettings | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """After minus before by the same judges, with its standard error where every judge knows its noise."""

    value: float | None
    error: float | None
    before: Reward
    after: Reward
    missing: Failure | None = None


class Panel:
    """Scores are weighted means of the active judges. A judge is active when its inputs are there.

    `score` judges one side of a delta: it shows no judge anything that only the taught side has (guidance, plan, trace), so the
    same judges with the same fields speak on both sides, and cannot tell which is which. `level` judges one interaction with all
    that is known of it; a level is not comparable with the level of an attempt that has other inputs.
    """

    def __init__(self, seats: Sequence[Seat], *, quorum: float = 1.0) -> None:
        if not seats:
            raise ConfigError("rim.judges: a panel needs at least one judge; add one, for example `exact`")
        self.seats = tuple(seats)
        self.quorum = quorum

    @cached_property
    def identity(self) -> str:
        """Digest of everything that can change a reward: judges, rubric texts, models, weights, quorum."""
        return digest([[[s.judge.name, s.judge.identity, s.weight, sorted(s.needs)] for s in self.seats], self.quorum], 32)

    @property
    def needs_answer(self) -> bool:
        return any(seat.judge.needs_answer for seat in self.seats)

    def check(self, examples: Sequence[Example]) -> None:
        """Raise DataError naming the first example that a judge could never score."""
        for seat in self.seats:
            if seat.judge.needs_answer:
                for example in examples:
                    if not example.answers:
                        raise DataError(
                            f"example {example.id!r} has no gold answer, which judge {seat.judge.name!r} needs: "
                            "add one, map the field that holds it, or choose judges that need none (regex, json_schema, llm)"
                        )
            if seat.settings is not None:
                seat.settings.check(examples)

    async def score(self, case: Case) -> Reward:
        return await self.level(replace(case, guidance=Guidance(), inputs=()))

    async def level(self, case: Case) -> Reward:
        parts = await asyncio.gather(*(_ask(seat, case) for seat in self.seats))
        return self.pool(tuple(parts))

    async def delta(self, before: Case, after: Case) -> Delta:
        """Both attempts at one example, judged blind by the judges whose inputs both have."""
        if before.example != after.example:
            raise ConfigError("a delta compares two attempts at the same example")
        shared = dict(before.inputs).keys() & dict(after.inputs).keys()
        both = bool(before.guidance) and bool(after.guidance)
        sides = [
            replace(case, guidance=case.guidance if both else Guidance(), inputs=tuple(i for i in case.inputs if i[0] in shared))
            for case in (before, after)
        ]
        was, now = await asyncio.gather(*map(self.level, sides))
        if was.value is None or now.value is None:
            return Delta(None, None, was, now, was.missing or now.missing)
        if before.output == after.output:
            return Delta(0.0, 0.0, was, now)
        known = was.uncertainty is not None and now.uncertainty is not None
        return Delta(now.value - was.value, math.hypot(was.uncertainty or 0.0, now.uncertainty or 0.0) if known else None, was, now)

    def pool(self, parts: tuple[JudgeScore, ...]) -> Reward:
        """The pooled word of `parts`, one a seat and in the order of the seats."""
        active = [(seat, part) for seat, part in zip(self.seats, parts, strict=True) if not _skipped(part)]
        spoken = [(seat.weight, part) for seat, part in active if part.value is not None]
        total = math.fsum(seat.weight for seat, _ in active)
        if not active:
            return Reward.none("no_active_judge", f"no judge has its inputs: {_reasons(parts)}", parts)
        weight = math.fsum(w for w, _ in spoken)
        if not spoken or weight < self.quorum * total - 1e-12:
            kinds = [part.missing.kind for _, part in active if part.missing]
            return Reward.none(kinds[0], f"{len(spoken)} of {len(active)} judges scored, below the quorum: {_reasons(parts)}", parts)
        value = math.fsum(w * (part.value or 0.0) for w, part in spoken) / weight
        doubts = [w * part.uncertainty for w, part in spoken if part.uncertainty is not None]
        doubt = math.hypot(*doubts) / weight if len(doubts) == len(spoken) else None
        why = "; ".join(f"{part.judge} {part.value:.2f}: {part.rationale}" for _, part in spoken)
        return Reward(min(1.0, max(0.0, value)), parts, why, doubt)


async def _ask(seat: Seat, case: Case) -> JudgeScore:
    lacking = sorted(need for need in seat.needs if not _present(need, case))
    if lacking:
        return missing(seat.judge.name, "skipped", f"no {' and no '.join(lacking)}")
    return await seat.judge.judge(case)


def _present(need: str, case: Case) -> bool:
    if need == ANSWER:
        return bool(case.example.answers)
    if need == SPEC:
        return bool(case.example.spec)
    return bool(case.guidance) if need == GUIDANCE else bool(dict(case.inputs).get(need))


def _skipped(part: JudgeScore) -> bool:
    return part.missing is not None and part.missing.kind == "skipped"


def _reasons(parts: Sequence[JudgeScore]) -> str:
    return "; ".join(f"{part.judge}: {part.missing.reason}" for part in parts if part.missing)[:500]


def build_panel(config: RimConfig, *, model: Callable[[Any], ChatModel], base_dir: Path | None = None) -> Panel:
    """The panel that `config` describes. `model` turns a judge's `model:` entry (None: the run's judge model) into a ChatModel."""
    door = Door(model, base_dir or Path.cwd())
    return Panel([Seat(s.build(door), s.weight, s.needs, s) for s in config.judges], quorum=config.quorum)
