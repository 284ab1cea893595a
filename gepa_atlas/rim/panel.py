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
from gepa_atlas.rim import meter
from gepa_atlas.rim.compare import Comparer, Comparison
from gepa_atlas.rim.config import Bounds, RimConfig
from gepa_atlas.rim.judges.base import ANSWER, GUIDANCE, SPEC, Door, JudgeSettings, missing
from gepa_atlas.rim.pooled import Plain, Pooler, bounded, calibrated
from gepa_atlas.types import Example, Failure, Guidance, JudgeScore, Reward, digest


@dataclass(frozen=True)
class Seat:
    """A judge on the panel. `needs` are the inputs without which it stays silent (see `judges.base`)."""

    judge: Judge
    weight: float = 1.0
    needs: frozenset[str] = frozenset()
    settings: JudgeSettings | None = None


@dataclass(frozen=True)
class Tier:
    """Seats that are asked when those before disagree by more than `disagreement`, or a delta is smaller than `margin`."""

    seats: tuple[Seat, ...]
    disagreement: float
    margin: float


@dataclass(frozen=True, slots=True)
class Delta:
    """After minus before by the same judges, with its standard error where every judge knows its noise."""

    value: float | None
    error: float | None
    before: Reward
    after: Reward
    missing: Failure | None = None
    escalated: bool = False
    comparison: Comparison | None = None


class Panel:
    """Scores are weighted means of the active judges. A judge is active when its inputs are there.

    `score` judges one side of a delta: it shows no judge anything that only the taught side has (guidance, plan, trace), so the
    same judges with the same fields speak on both sides, and cannot tell which is which; it never escalates, as the other side
    might not. `delta` judges both sides, and escalates both or none. `level` judges one interaction with all that is known of it; a
    level is not comparable with the level of an attempt that has other inputs.
    """

    def __init__(
        self,
        seats: Sequence[Seat],
        *,
        quorum: float = 1.0,
        second: Tier | None = None,
        watch: Seat | None = None,
        bounds: Bounds | None = None,
        comparer: Comparer | None = None,
        pooler: Pooler | None = None,
    ) -> None:
        if not seats:
            raise ConfigError("rim.judges: a panel needs at least one judge; add one, for example `exact`")
        self.seats = tuple(seats)
        self.quorum = quorum
        self.second = second
        self.watch = watch
        self.bounds = bounds
        self.comparer = comparer
        self.pooler = pooler or Plain()

    @property
    def all_seats(self) -> tuple[Seat, ...]:
        return (*self.seats, *(self.second.seats if self.second else ()), *([self.watch] if self.watch else []))

    @cached_property
    def identity(self) -> str:
        """Digest of everything that can change a reward: judges, rubric texts, models, weights, quorum, escalation, profile."""
        tier = [self.second.disagreement, self.second.margin] if self.second else None
        bounds = self.bounds.model_dump() if self.bounds else None
        seats = [[s.judge.name, s.judge.identity, s.weight, sorted(s.needs)] for s in self.all_seats]
        compare = self.comparer and self.comparer.identity
        return digest([seats, self.quorum, tier, bounds, self.pooler.identity, self.watch is not None, compare], 32)

    @property
    def needs_answer(self) -> bool:
        return any(seat.judge.needs_answer for seat in self.all_seats)

    def check(self, examples: Sequence[Example]) -> None:
        """Raise DataError naming the first example that a judge could never score."""
        for seat in self.all_seats:
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
        return await self._tier_one(replace(case, guidance=Guidance(), inputs=()))

    async def level(self, case: Case) -> Reward:
        first = await self._tier_one(case)
        why = self._disagreement(first)
        return first if why is None else await self._tier_two(case, first, why)

    async def delta(self, before: Case, after: Case) -> Delta:
        """Both attempts at one example, judged blind by the judges whose inputs both have."""
        if before.example != after.example:
            raise ConfigError("a delta compares two attempts at the same example")
        sides = _same_fields(before, after)
        was, now, why = await self.escalate(*sides, *await asyncio.gather(*map(self._tier_one, sides)))
        if was.value is None or now.value is None:
            return Delta(None, None, was, now, was.missing or now.missing, why is not None)
        if before.output == after.output:
            return Delta(0.0, 0.0, was, now)
        known = was.uncertainty is not None and now.uncertainty is not None
        error = math.hypot(was.uncertainty or 0.0, now.uncertainty or 0.0) if known else None
        pointwise = Delta(now.value - was.value, error, was, now, None, why is not None)
        return pointwise if self.comparer is None else await _compared(pointwise, self.comparer, sides)

    async def escalate(self, before: Case, after: Case, was: Reward, now: Reward) -> tuple[Reward, Reward, str | None]:
        """Both sides with tier 2 added where tier 1 disagrees on one of them or they are close, else as they are; and why."""
        why = None if before.output == after.output else self._disagreement(was) or self._disagreement(now) or self._close(was, now)
        if why is None:
            return was, now, None
        was, now = await asyncio.gather(self._tier_two(before, was, why), self._tier_two(after, now, why))
        return was, now, why

    # -- tiers ---------------------------------------------------------------------------------------------------------------

    async def _tier_one(self, case: Case) -> Reward:
        seats = self.seats if self.watch is None else (*self.seats, self.watch)
        parts = [await _ask(seats[0], case)] if len(seats) == 1 else await asyncio.gather(*(_ask(seat, case) for seat in seats))
        return self.pool(tuple(parts[: len(self.seats)]), self.seats, case, tuple(parts[len(self.seats) :]))

    async def _tier_two(self, case: Case, first: Reward, why: str) -> Reward:
        """Tier 1 with the judges of tier 2 added to the mean; a watching judge is not asked again."""
        assert self.second is not None
        parts = await asyncio.gather(*(_ask(seat, case) for seat in self.second.seats))
        for seat in self.second.seats:
            meter.escalated(seat.judge.name, why)
        count = len(self.seats)
        return self.pool((*first.parts[:count], *parts), (*self.seats, *self.second.seats), case, first.parts[count:])

    def _disagreement(self, reward: Reward) -> str | None:
        if self.second is None:
            return None
        values = [p.value for p in reward.parts[: len(self.seats)] if p.value is not None]
        spread = max(values) - min(values) if values else 0.0
        return f"tier 1 disagrees by {spread:.2f}" if spread > self.second.disagreement else None

    def _close(self, was: Reward, now: Reward) -> str | None:
        if self.second is None or was.value is None or now.value is None or abs(now.value - was.value) >= self.second.margin:
            return None
        return f"the sides are {abs(now.value - was.value):.2f} apart"

    def pool(
        self,
        parts: tuple[JudgeScore, ...],
        seats: Sequence[Seat] | None = None,
        case: Case | None = None,
        beside: tuple[JudgeScore, ...] = (),
    ) -> Reward:
        """The pooled word of `parts`, one a seat and in the order of the seats; `beside` is recorded and not pooled."""
        seats = self.seats if seats is None else seats
        active = [(seat.weight, part) for seat, part in zip(seats, parts, strict=True) if not _skipped(part)]
        spoken = [(weight, part) for weight, part in active if part.value is not None]
        total, weight = math.fsum(w for w, _ in active), math.fsum(w for w, _ in spoken)
        kept = (*parts, *beside)
        if not active:
            return Reward.none("no_active_judge", f"no judge has its inputs: {_reasons(parts)}", kept)
        if not spoken or weight < self.quorum * total - 1e-12:
            kinds = [part.missing.kind for _, part in active if part.missing]
            return Reward.none(kinds[0], f"{len(spoken)} of {len(active)} judges scored, below the quorum: {_reasons(parts)}", kept)
        if self.bounds:
            spoken = bounded(spoken, self.bounds)
        value, doubt = self.pooler.pool(spoken, case)
        why = "; ".join(f"{part.judge} {part.value:.2f}: {part.rationale}" for _, part in spoken)
        return Reward(min(1.0, max(0.0, value)), kept, why, doubt)


async def _compared(pointwise: Delta, comparer: Comparer, sides: tuple[Case, Case]) -> Delta:
    """The pointwise delta averaged with what a comparison in both orders says; without it when the comparison failed, as it says."""
    said = await comparer.compare(*sides)
    if said.value is None or pointwise.value is None:
        return replace(pointwise, comparison=said)
    weight = comparer.settings.weight
    value = (pointwise.value + weight * said.value) / (1 + weight)
    # How often one comparison in both orders is wrong is not known here, so the error of the whole is not either.
    return replace(pointwise, value=value, error=None, comparison=said)


def _same_fields(before: Case, after: Case) -> tuple[Case, Case]:
    """Both cases without what only one of them has: a judge could tell them apart by it."""
    shared = dict(before.inputs).keys() & dict(after.inputs).keys()
    both = bool(before.guidance) and bool(after.guidance)

    def stripped(case: Case) -> Case:
        return replace(case, guidance=case.guidance if both else Guidance(), inputs=tuple(i for i in case.inputs if i[0] in shared))

    return stripped(before), stripped(after)


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

    def seat(settings: JudgeSettings) -> Seat:
        return Seat(settings.build(door), settings.weight, settings.needs, settings)

    more = config.escalate
    second = Tier(tuple(map(seat, more.judges)), more.disagreement, more.margin) if more else None
    pooler = calibrated(door.base_dir / config.profile, config) if config.profile else None
    watch = seat(config.watch) if config.watch else None
    return Panel(
        list(map(seat, config.judges)),
        quorum=config.quorum,
        second=second,
        watch=watch,
        bounds=config.bounds,
        comparer=config.compare.build(door) if config.compare else None,
        pooler=pooler,
    )
