"""Which lessons become rows. Pure: the same evidence gives the same rows, and every lesson that is left out is counted under a reason."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from gepa_atlas.handoff.config import ExportConfig
from gepa_atlas.handoff.evidence import Base, Evidence, Played, Standing
from gepa_atlas.types import Example, digest


@dataclass(frozen=True)
class Selection:
    """What was kept, in order, and how many each rule removed. kept + sum(removed) is what there was."""

    kept: tuple[Played, ...]
    removed: Mapping[str, int] = field(default_factory=dict)


def usable(played: Iterable[Played], config: ExportConfig, train: frozenset[str]) -> Selection:
    """Lessons a teacher may be shown at all: of train tasks, written as text, finished, sure, short, without the answer in them."""
    removed: Counter[str] = Counter()
    kept = []
    for one in played:
        why = (
            "not_train" if one.split != "train" or one.task_id not in train
            else "not_text" if not one.text
            else "no_guidance" if one.empty
            else "truncated" if one.truncated
            else "answer_leak" if one.leak
            else "contaminated" if one.contaminated
            else "too_long" if config.max_words is not None and one.words > config.max_words
            else "uncertain" if config.max_uncertainty is not None and one.judge_sd > config.max_uncertainty
            else None
        )  # fmt: skip
        if why is None:
            kept.append(one)
        else:
            removed[why] += 1
    return Selection(tuple(kept), dict(removed))


def top(candidates: Sequence[Played], config: ExportConfig) -> Selection:
    """The best by lower bound, task by task in turn: each task's best, then each task's second; easy tasks cannot crowd out others.

    Within a round, higher bounds come first. A lesson whose candidate has given enough is passed over for the task's next one.
    """
    removed: Counter[str] = Counter()
    queues: dict[str, deque[Played]] = defaultdict(deque)
    for one in sorted(candidates, key=lambda p: (-p.delta_low, p.trace_id, p.candidate_id)):
        if one.delta_low < config.min_delta or one.delta <= 0:
            removed["below_min_delta"] += 1
        else:
            queues[one.task_id].append(one)
    given: Counter[str] = Counter()
    kept: list[Played] = []
    for _ in range(config.top_per_task):
        for task in sorted(queues, key=lambda name: (-queues[name][0].delta_low, name) if queues[name] else (math.inf, name)):
            queue = queues[task]
            while queue:
                one = queue.popleft()
                if config.top_per_candidate is None or given[one.candidate_id] < config.top_per_candidate:
                    given[one.candidate_id] += 1
                    kept.append(one)
                    break
                removed["over_top_per_candidate"] += 1
    left = sum(map(len, queues.values()))
    return Selection(tuple(kept), dict(removed) | ({"over_top_per_task": left} if left else {}))


def by_candidate(standings: Mapping[str, Standing], tasks: Iterable[Example]) -> list[Played]:
    """Under `playbook` a guidance is the same for every task, so what it was worth over the val tasks speaks for train tasks too."""
    return [
        Played("", task.id, "train", name, standing.delta, standing.delta_low, 0.0, False, True, False, False, False, standing.tasks)
        for task in tasks
        for name, standing in sorted(standings.items())
    ]


@dataclass(frozen=True, slots=True)
class Pair:
    chosen: Played
    rejected: Played

    @property
    def gap(self) -> float:
        return self.chosen.delta - self.rejected.delta


def pairs(candidates: Iterable[Played], config: ExportConfig) -> list[Pair]:
    """Best with worst, second best with second worst, ..., at one task, where the gap is wide and more than the judges' noise.

    A chosen guidance must not have done harm.
    """
    tasks: dict[str, list[Played]] = defaultdict(list)
    for one in candidates:
        tasks[one.task_id].append(one)
    found = []
    for task in sorted(tasks):
        ranked = sorted(tasks[task], key=lambda p: (-p.delta, p.trace_id))
        for chosen, rejected in list(zip(ranked, reversed(ranked), strict=True))[: min(len(ranked) // 2, config.top_per_task)]:
            pair, noise = Pair(chosen, rejected), math.hypot(chosen.judge_sd, rejected.judge_sd)
            if chosen.delta >= 0 and pair.gap >= config.pair_gap and pair.gap > 2 * noise:
                found.append(pair)
    return found


def labelled(candidates: Iterable[Played], config: ExportConfig, bases: Mapping[str, Base]) -> list[tuple[Played, bool]]:
    """For KTO: desirable is a delta of `min_delta` or more. Where the baseline leaves no room for one, only harm says anything."""
    rows = []
    for one in candidates:
        good = one.delta >= config.min_delta and one.delta > 0
        if good or one.delta < 0 or not solved(bases[one.task_id], config):
            rows.append((one, good))
    return rows


def solved(base: Base, config: ExportConfig) -> bool:
    """Whether the student alone is so good that no delta of `min_delta` is possible."""
    return base.mean is not None and base.mean > 1.0 - max(config.min_delta, 1e-9)


# -- the curriculum of GRPO -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curriculum:
    """Sampling weights of train tasks, and how many tasks each rule removed."""

    weights: Mapping[str, float]
    removed: Mapping[str, int]


def curriculum(tasks: Sequence[Example], evidence: Evidence, config: ExportConfig, seed: int) -> Curriculum:
    """Weights from the optimizer's candidate x task matrix: the spread of a task's deltas, plus `weight_floor`.

    Of tasks that the student solves alone `solved_share` stay: there guidance can only harm, which is learnt nowhere else. Of those that no
    lesson improved, `explore_share` stay. A task that was never taught weighs as much as the others on average.
    """
    removed: Counter[str] = Counter()
    weights: dict[str, float] = {}
    untaught, hopeless, easy = [], [], []
    for task in tasks:
        deltas = evidence.deltas(task.id)
        base = evidence.bases.get(task.id)
        if base is not None and solved(base, config):
            easy.append(task.id)
            weights[task.id] = pstdev(deltas or [0.0]) + config.weight_floor
        elif not deltas:
            untaught.append(task.id)
        else:
            weights[task.id] = pstdev(deltas) + config.weight_floor
            if max(deltas) <= 0:
                hopeless.append(task.id)
    for why, some, share in (("never_improved", hopeless, config.explore_share), ("solved_by_baseline", easy, config.solved_share)):
        stay = sorted(some, key=lambda name: digest([seed, "explore", name]))[: math.ceil(share * len(some))]
        for name in set(some) - set(stay):
            del weights[name]
            removed[why] += 1
    weights |= dict.fromkeys(untaught, fmean(weights.values()) if weights else 1.0)
    if weights.keys() <= set(easy):  # nothing is to be gained anywhere
        weights, removed["solved_by_baseline"] = {}, len(easy)
    if config.max_samples is not None and len(weights) > config.max_samples:
        kept = sorted(weights, key=lambda name: digest([seed, "max_samples", name]))[: config.max_samples]
        removed["over_max_samples"] += len(weights) - len(kept)
        weights = {name: weights[name] for name in kept}
    order = {task.id: at for at, task in enumerate(tasks)}
    return Curriculum(
        {name: round(weights[name], 9) for name in sorted(weights, key=order.__getitem__)}, {k: v for k, v in removed.items() if v}
    )
