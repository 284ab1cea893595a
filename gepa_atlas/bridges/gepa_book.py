"""What gepa's stoppers, selectors and callbacks see of our search: a real `gepa.core.state.GEPAState`, kept in step with the archive.

gepa measures an accepted candidate on the whole valset at once; our search measures it further and further, and noisy examples again. So
scores of a candidate grow here: a cell measured several times holds the mean, and fronts are recomputed for what changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Texts = dict[str, str]


@dataclass(frozen=True)
class Cell:
    """One measured (candidate, example): the adapter's raw score, its output and its objectives."""

    example: Any  # the loader's own id
    score: float
    output: Any = None
    objectives: Mapping[str, float] | None = None


@dataclass
class Book:
    """Only accepted candidates are in it, as in gepa. `state` exists once the seed has been measured."""

    seed: Texts
    callbacks: list[Any] | None
    keep_outputs: bool
    limit: int | None
    valset_size: int
    state: Any = None
    calls: int = 0  # metric calls made, the seed's first ones included
    _cells: list[dict[Any, list[Cell]]] = field(default_factory=list)

    # -- events -------------------------------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        return 0 if self.state is None else self.state.i + 1

    def notify(self, method: str, **event: Any) -> None:
        from gepa.core.callbacks import notify_callbacks

        notify_callbacks(self.callbacks, method, event)

    def spend(self, calls: int) -> None:
        """Metric calls were made: counted at once, and told to `on_budget_updated`."""
        self.calls += calls
        if self.state is not None:
            self.state.increment_evals(calls)

    # -- candidates ---------------------------------------------------------------------------------------------------

    def open(self, cells: Sequence[Cell]) -> None:
        """The seed has been measured: the state begins."""
        from gepa.core.state import GEPAState, ValsetEvaluation

        first = ValsetEvaluation(outputs_by_val_id={}, scores_by_val_id={})
        self.state = GEPAState(self.seed, first, track_best_outputs=self.keep_outputs)
        self.state.num_full_ds_evals = 0
        self.state.total_num_evals = self.calls
        self._cells.append({})
        self._take(0, cells)
        self._told_valset(0, cells)
        self.state.add_budget_hook(self._budget)

    def begin_iteration(self, trainset: Any) -> None:
        self.state.i += 1
        self.state.full_program_trace.append({"i": self.state.i})
        self.notify("on_iteration_start", iteration=self.iteration, state=self.state, trainset_loader=trainset)

    def add(self, texts: Texts, parents: Sequence[int], cells: Sequence[Cell]) -> int:
        """A child joins the population."""
        state = self.state
        index = len(state.program_candidates)
        state.program_candidates.append(dict(texts))
        state.parent_program_for_candidate.append(list(parents))
        state.prog_candidate_val_subscores.append({})
        state.prog_candidate_objective_scores.append({})
        state.num_metric_calls_by_discovery.append(self.calls)
        turn = state.named_predictor_id_to_update_next_for_program_candidate
        turn.append(max((turn[p] for p in parents), default=0))
        before = self._front()
        self._cells.append({})
        self._take(index, cells)
        state.full_program_trace[-1]["new_program_idx"] = index
        after = self._front()
        self.notify(
            "on_pareto_front_updated", iteration=self.iteration, new_front=sorted(after), displaced_candidates=sorted(before - after)
        )
        self._told_valset(index, cells)
        self.notify(
            "on_candidate_accepted",
            iteration=self.iteration,
            new_candidate_idx=index,
            new_score=sum(cell.score for cell in cells),
            parent_ids=list(parents),
        )
        return index

    def extend(self, index: int, cells: Sequence[Cell]) -> None:
        """A known candidate was measured further."""
        if cells:
            self._take(index, cells)
            self._told_valset(index, cells)

    def mean(self, index: int) -> float:
        scores = self.state.prog_candidate_val_subscores[index]
        return sum(scores.values()) / len(scores) if scores else float("-inf")

    def _take(self, index: int, cells: Sequence[Cell]) -> None:
        state, mine = self.state, self._cells[index]
        for cell in cells:
            mine.setdefault(cell.example, []).append(cell)
        scores = state.prog_candidate_val_subscores[index]
        before = len(scores)
        scores.update({cell.example: _mean([c.score for c in mine[cell.example]]) for cell in cells})
        state.prog_candidate_objective_scores[index] = _objectives([c for seen in mine.values() for c in seen])
        state.num_full_ds_evals += before < len(scores) == self.valset_size
        for example in {cell.example for cell in cells}:
            self._front_of(example)
        self._objective_front()

    def _front_of(self, example: Any) -> None:
        """Who is best on this example, ties shared."""
        state = self.state
        known = {i: s[example] for i, s in enumerate(state.prog_candidate_val_subscores) if example in s}
        top = max(known.values())
        best = {i for i, score in known.items() if score == top}
        state.pareto_front_valset[example] = top
        state.program_at_pareto_front_valset[example] = best
        if state.best_outputs_valset is not None:
            state.best_outputs_valset[example] = [(i, self._cells[i][example][-1].output) for i in sorted(best)]

    def _objective_front(self) -> None:
        state = self.state
        table = state.prog_candidate_objective_scores
        for name in {name for scores in table for name in scores}:
            top = max(scores[name] for scores in table if name in scores)
            state.objective_pareto_front[name] = top
            state.program_at_pareto_front_objectives[name] = {i for i, scores in enumerate(table) if scores.get(name) == top}

    def _front(self) -> set[int]:
        return {i for front in self.state.program_at_pareto_front_valset.values() for i in front}

    def _told_valset(self, index: int, cells: Sequence[Cell]) -> None:
        state = self.state
        scores = state.program_full_scores_val_set
        self.notify(
            "on_valset_evaluated",
            iteration=self.iteration,
            candidate_idx=index,
            candidate=dict(state.program_candidates[index]),
            scores_by_val_id={cell.example: cell.score for cell in cells},
            average_score=self.mean(index),
            num_examples_evaluated=len(cells),
            total_valset_size=self.valset_size,
            parent_ids=[p for p in state.parent_program_for_candidate[index] if p is not None],
            is_best_program=scores[index] == max(scores),
            outputs_by_val_id={cell.example: cell.output for cell in cells},
        )

    def _budget(self, used: int, delta: int) -> None:
        left = None if self.limit is None else max(0, self.limit - used)
        self.notify(
            "on_budget_updated", iteration=self.iteration, metric_calls_used=used, metric_calls_delta=delta, metric_calls_remaining=left
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _objectives(cells: Sequence[Cell]) -> dict[str, float]:
    by_name: dict[str, list[float]] = {}
    for cell in cells:
        for name, value in (cell.objectives or {}).items():
            by_name.setdefault(name, []).append(value)
    return {name: _mean(values) for name, values in by_name.items()}
