"""The `gepa` package 0.1.4 as a peer, with its best shot: a hand-written batch_evaluate, and its best-so-far when the budget ends it.

gepa checks its budget between steps only and would pass it by up to one validation: the server's hard stop ends the run, and what
gepa itself held for best at that moment (highest validation mean, first wins ties) is what it ships.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from benchmarks.optimizers.base import step_feedback
from benchmarks.server import BudgetExhausted, EvalServer, Rollout


def gepa_optimize() -> Any:
    """`gepa.optimize`, untyped: its protocols ask more of an adapter than it uses."""
    return import_module("gepa").optimize


@dataclass(frozen=True)
class Config:
    """What is turned of gepa.optimize; the rest stays at its default."""

    minibatch: int | None = None  # its default is 3
    parents: int = 1
    mutations: int = 1
    best_only: bool = False  # BestImprovement in place of AllImprovements
    selector: str = "pareto"
    val_limit: int | None = None  # a fixed random subset of the validation set
    merge: bool = False
    equal: bool = False  # accept ties


class _Quiet:
    def log(self, message: str) -> None:
        """gepa's log lines are quadratic in the run's length and nobody reads them here."""


class _Adapter:
    """gepa's adapter protocol over an EvalServer."""

    propose_new_texts = None

    def __init__(self, server: EvalServer) -> None:
        self.server = server

    def evaluate(self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        return self._batch(self.server.evaluate(candidate, batch), capture_traces)

    def batch_evaluate(self, items: list[tuple[dict[str, str], list[str]]]) -> list[Any]:
        return [self._batch(self.server.evaluate(candidate, batch), True) for candidate, batch in items]

    @staticmethod
    def _batch(rollouts: list[Rollout], traces: bool) -> Any:
        from gepa.core.adapter import EvaluationBatch

        return EvaluationBatch(
            outputs=[r.output for r in rollouts], scores=[r.score for r in rollouts], trajectories=rollouts if traces else None
        )

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        rollouts: list[Rollout] = eval_batch.trajectories
        return {
            name: [
                {
                    "Inputs": self.server.question(r.example),
                    "Generated Outputs": r.output,
                    "Feedback": step_feedback(r.feedback, name, self.server.components),
                }
                for r in rollouts
            ]
            for name in components_to_update
        }


class _Best:
    """Follows gepa's own selection: the candidate with the highest validation mean, first wins ties."""

    def __init__(self, seed: dict[str, str]) -> None:
        self.texts, self.score = dict(seed), -1.0

    def on_valset_evaluated(self, event: Any) -> None:
        if event["average_score"] > self.score:
            self.texts, self.score = dict(event["candidate"]), event["average_score"]


def run(server: EvalServer, seed: int, config: Config) -> dict[str, str]:
    """One gepa.optimize, stopped by the server."""
    from gepa.strategies.proposal_sampling import PxNSampling
    from gepa.strategies.proposal_selection import AllImprovements, BestImprovement

    val = list(server.val_ids)
    if config.val_limit is not None and config.val_limit < len(val):
        val = random.Random(seed).sample(val, config.val_limit)
    best = _Best(server.seed)
    server.watch(lambda: best.texts)
    wide = config.parents * config.mutations > 1
    with suppress(BudgetExhausted):
        gepa_optimize()(
            seed_candidate=dict(server.seed),
            trainset=list(server.train_ids),
            valset=val,
            adapter=_Adapter(server),
            reflection_lm=server.reflect,
            candidate_selection_strategy=config.selector,
            reflection_minibatch_size=config.minibatch,
            max_metric_calls=10 * server.budget,  # the server stops it, not gepa's own counter
            use_merge=config.merge,
            acceptance_criterion="improvement_or_equal" if config.equal else "strict_improvement",
            sampling_strategy=PxNSampling(config.parents, config.mutations) if wide else None,
            selection_strategy=BestImprovement() if config.best_only else AllImprovements(),
            stop_callbacks=lambda state: server.left <= 0,
            callbacks=[best],
            logger=_Quiet(),
            seed=seed,
            track_best_outputs=False,
            raise_on_exception=True,
        )
    return best.texts


DEFAULT = Config()
TUNED = Config(minibatch=8, val_limit=30)  # the best of 16 configurations on development worlds, see LOG.md
