"""Plans: which judges are drawn how often, and when more are asked. A race between the responses that can still win.

A plan is an order of draws and the stages it is cut into. Every response gets the first stage; then, while two or more responses
have a posterior probability above `open`, those (and only those) get the next. The signal is the margin between the best answers
and the disagreement of judges, both in the posterior; the spread of one judge's draws predicts its errors no better than a coin
(AUC .51 to .58), the margin does (.90), so no judge's own spread is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gepa_atlas.rim.bank import Array
from gepa_atlas.rim.pooling import Counts, Pooling, means, softmax


@dataclass(frozen=True)
class Plan:
    order: tuple[int, ...]  # judge of each draw, by index into the pooling's judges
    stages: tuple[int, ...]  # draws of a response after each stage, rising; the last is the most a response can cost
    open: float = 0.05  # posterior probability above which a response is still in the race

    def counts(self, stage: int, judges: int) -> Counts:
        return np.bincount(np.array(self.order[: self.stages[stage]], dtype=int), minlength=judges)

    def to_json(self) -> dict[str, Any]:
        return {"order": list(self.order), "stages": list(self.stages), "open": self.open}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Plan:
        return cls(tuple(row["order"]), tuple(row["stages"]), row["open"])


@dataclass(frozen=True)
class Played:
    """A plan played on recorded scores: the log-posterior after the first and the last stage (N, A), paid calls (N, A)."""

    first: Array
    last: Array
    calls: Counts


def play(plan: Plan, model: Pooling, scores: Array, start: int = 0) -> Played:
    """`scores` (N, A, J, D) in the order of the model's judges; a judge without any score for a response is not called."""
    rows, responses, judges, _ = scores.shape
    there = ~np.isnan(scores).all(axis=3)
    wanted = np.broadcast_to(plan.counts(0, judges), (rows, responses, judges)) * there
    last = first = model.log_posterior(*means(scores, wanted, start))
    for stage in range(1, len(plan.stages)):
        racing = softmax(last) > plan.open
        racing &= racing.sum(axis=1, keepdims=True) > 1
        if not racing.any():
            break
        wanted = np.where(racing[..., None], plan.counts(stage, judges) * there, wanted)
        open_rows = racing.any(axis=1)
        last = last.copy()
        last[open_rows] = model.log_posterior(*means(scores[open_rows], wanted[open_rows], start))
    return Played(first, last, np.asarray(wanted.sum(axis=2)))


def best_order(model: Pooling, length: int, most: int, families: dict[int, str] | None = None) -> tuple[int, ...]:
    """Draws in the order of what each adds to the separation of best from not best, greedily; no judge more than `most` times."""
    counts = np.zeros(len(model.judges), dtype=np.int64)
    order: list[int] = []
    while len(order) < length and (counts < most).any():
        gains = [
            model.information(counts + np.eye(len(counts), dtype=np.int64)[j]) if counts[j] < most else -math.inf
            for j in range(len(counts))
        ]
        order.append(int(np.argmax(gains)))
        counts[order[-1]] += 1
    return tuple(order)


# Stages of the plans that calibration compares: draws of a response after each.
_STAGES = (
    (1,), (2,), (3,), (4,), (1, 2), (1, 3), (1, 2, 4), (1, 3, 6), (1, 3, 8), (1, 2, 4, 8), (2, 4), (2, 5), (2, 4, 8), (2, 5, 10),
    (2, 5, 12, 20), (3, 6), (3, 6, 12), (3, 8, 16), (4, 8), (4, 8, 16), (8,), (12,), (16,),
)  # fmt: skip


def candidates(order: tuple[int, ...]) -> Iterator[Plan]:
    full = len(order)
    for stages in (*_STAGES, (full,), (4, full), (8, full)):
        cut = tuple(sorted({min(s, full) for s in stages}))
        for threshold in (0.02, 0.05, 0.1) if len(cut) > 1 else (0.05,):
            yield Plan(order[: cut[-1]], cut, threshold)
