"""The two things a `GEPAAdapter` does for a search: run a candidate on examples, and give new texts for some of its components."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gepa_atlas.bridges.gepa_book import Book, Cell, Texts
from gepa_atlas.bridges.gepa_ledger import Ledger
from gepa_atlas.errors import Outage, said
from gepa_atlas.types import Failure

Dataset = Mapping[str, Sequence[Mapping[str, Any]]]
Proposal = tuple[Texts, dict[str, Any], dict[str, str]]  # new texts, prompts, raw answers of the model, by component
_IN_A_ROW = 5  # reflections that may fail one after the other before the run says so


@dataclass(frozen=True)
class Rollout:
    """One (candidate, example) that was run: a cell, or the reason why there is none; `batch` holds its trace at `at`."""

    cell: Cell | None
    failure: Failure | None = None
    batch: Any = None
    at: int = 0


def optional(adapter: Any, name: str) -> Any:
    """A part of gepa's adapter contract that an adapter may leave out: absent and None are the same there."""
    return getattr(adapter, name, None)


@dataclass
class Runner:
    """`adapter.evaluate`, counted, recorded and checked."""

    adapter: Any
    book: Book
    ledger: Ledger
    raise_on_exception: bool
    log: Callable[[str], None]

    def run(
        self, texts: Texts, loader: Any, ids: Sequence[Any], *, traces: bool, sample: int, index: int | None, parents: Sequence[int]
    ) -> list[Rollout]:
        """Rollouts in the order of `ids`. A failed call is a rollout with a reason, or raised where the caller wants that."""
        if not ids:
            return []
        key = self.ledger.key("rollouts", texts, [str(i) for i in ids], traces, sample)
        known = self.ledger.recall(key)
        if known is not None:
            self.book.spend(known["calls"])
            return [
                Rollout(Cell(i, s, None, o) if s is not None else None, None if s is not None else Failure("unscored", "it had no score"))
                for i, s, o in zip(ids, known["scores"], known["objectives"], strict=True)
            ]
        inputs = loader.fetch(list(ids))
        about: dict[str, Any] = {
            "iteration": self.book.iteration,
            "candidate_idx": index,
            "parent_ids": list(parents),
            "is_seed_candidate": index == 0,
        }
        if self.book.state is not None:
            self.book.notify("on_evaluation_start", **about, batch_size=len(ids), capture_traces=traces, inputs=inputs)
        try:
            batch = self.adapter.evaluate(inputs, dict(texts), capture_traces=traces)
        except Exception as error:  # the border to the user's adapter
            self.book.notify("on_error", iteration=self.book.iteration, exception=error, will_continue=not self.raise_on_exception)
            if self.raise_on_exception:
                raise
            self.log(f"the adapter raised {said(error)}\n{traceback.format_exc()}")
            self.book.spend(len(ids))
            return [Rollout(None, Failure("adapter_raised", said(error))) for _ in ids]
        self._check(batch, len(ids))
        calls = len(ids) if batch.num_metric_calls is None else batch.num_metric_calls
        self.ledger.record(
            key,
            "student",
            {"scores": [_number(s) for s in batch.scores], "objectives": batch.objective_scores or [None] * len(ids), "calls": calls},
        )
        self.book.spend(calls)
        if self.book.state is not None:
            self.book.notify(
                "on_evaluation_end",
                **about,
                scores=batch.scores,
                has_trajectories=bool(batch.trajectories),
                outputs=batch.outputs,
                trajectories=batch.trajectories,
                objective_scores=batch.objective_scores,
            )
        return [_rollout(i, batch, at) for at, i in enumerate(ids)]

    def _check(self, batch: Any, wanted: int) -> None:
        if batch is None:
            raise ValueError(f"{type(self.adapter).__name__}.evaluate returned nothing; it must return an EvaluationBatch")
        if len(batch.scores) != wanted or len(batch.outputs) != wanted:
            raise ValueError(
                f"{type(self.adapter).__name__}.evaluate answered {len(batch.outputs)} outputs and {len(batch.scores)} scores for {wanted} "
                "examples; it must give one of each for every example, in order"
            )


def _rollout(example: Any, batch: Any, at: int) -> Rollout:
    score = _number(batch.scores[at])
    if score is None:
        output = batch.outputs[at]
        why = said(output) if isinstance(output, Exception) else f"the adapter gave {batch.scores[at]!r} for a score"
        return Rollout(None, Failure("unscored", why), batch, at)
    objectives = batch.objective_scores[at] if batch.objective_scores else None
    return Rollout(Cell(example, score, batch.outputs[at], objectives), None, batch, at)


def _number(score: Any) -> float | None:
    """A finite score as a float; None for anything else."""
    return float(score) if isinstance(score, int | float) and math.isfinite(score) else None


def joined(rollouts: Sequence[Rollout]) -> Any:
    """The rollouts as one EvaluationBatch with traces, as `make_reflective_dataset` takes it.

    An adapter may drop traces of examples that failed: of such a batch all traces are taken, once.
    """
    from gepa.core.adapter import EvaluationBatch

    outputs, scores, objectives, traces, whole = [], [], [], [], set()
    for rollout in rollouts:
        batch = rollout.batch
        if batch is None:
            continue
        aligned = len(batch.trajectories or ()) == len(batch.outputs)
        if aligned:
            traces.append(batch.trajectories[rollout.at])
        elif id(batch) not in whole:
            traces += batch.trajectories or []
            whole.add(id(batch))
        outputs.append(batch.outputs[rollout.at])
        scores.append(batch.scores[rollout.at])
        objectives.append(batch.objective_scores[rollout.at] if batch.objective_scores else {})
    return EvaluationBatch(outputs=outputs, scores=scores, trajectories=traces, objective_scores=objectives if any(objectives) else None)


@dataclass
class TextWriter:
    """New texts for components: the adapter's own proposer, the caller's, or gepa's reflection prompt to a model."""

    adapter: Any
    custom: Callable[..., Texts] | None
    reflection: Any  # a ReflectionLM, or None where the adapter or the caller proposes
    log: Callable[[str], None]
    failed: int = field(default=0, init=False)

    def dataset(self, texts: Texts, batch: Any, components: list[str]) -> dict[str, list[dict[str, Any]]] | str:
        """The adapter's reflective dataset, or one line on why there is none."""
        try:
            built: Dataset = self.adapter.make_reflective_dataset(dict(texts), batch, components)
        except Exception as error:  # the border to the user's adapter
            return self._failure("make_reflective_dataset", error)
        rows = {name: [dict(row) for row in each] for name, each in built.items()}
        return rows if any(rows.values()) else "the adapter has no examples of these runs to reflect on"

    def write(self, texts: Texts, dataset: Dataset, components: list[str]) -> Proposal | str:
        """New texts, or one line on why there are none. Raises Outage when nothing but failures comes."""
        try:
            proposal = self._ask(dict(texts), dataset, components)
        except Exception as error:  # the border to the user's model or proposer
            return self._failure("the proposer", error)
        self.failed = 0
        new = proposal[0]
        for name, text in new.items():
            if name not in texts:
                return f"the proposer wrote component {name!r}; there are {', '.join(texts)}"
            if not isinstance(text, str):
                return f"the proposer's text for {name!r} is a {type(text).__name__}"
        return proposal if any(texts[name] != text for name, text in new.items()) else "the proposer changed nothing"

    def _failure(self, who: str, error: Exception) -> str:
        self.failed += 1
        reason = f"{who} raised {said(error)}"
        self.log(reason)
        if self.failed >= _IN_A_ROW:
            raise Outage(f"{self.failed} proposals in a row failed, last: {reason}; mend it and start again") from error
        return reason

    def _ask(self, texts: Texts, dataset: Dataset, components: list[str]) -> Proposal:
        own = optional(self.adapter, "propose_new_texts") or self.custom
        if own is not None:
            return dict(own(texts, dataset, components)), {}, {}
        proposal, self.reflection = self.reflection.reflect(texts, dataset, components)
        return proposal.new_texts, proposal.prompts, proposal.raw_lm_outputs
