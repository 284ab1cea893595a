"""A run into the store while it goes on. The store never slows the search down and never ends it: it is written by a thread of its own,
and when it refuses, the run goes on and says how to import the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from gepa_atlas.errors import AtlasError, said
from gepa_atlas.evolve.engine import Evolution
from gepa_atlas.loop import Experiment, Observer, Result
from gepa_atlas.memory import rows
from gepa_atlas.memory.config import MemoryConfig
from gepa_atlas.memory.ingest import operation_of, run_row, verdict_row
from gepa_atlas.memory.skills import evidence_of
from gepa_atlas.memory.store import Memory
from gepa_atlas.store.view import RunView
from gepa_atlas.types import Candidate, Decision, Lesson, Outcome, Proposal

_BATCH = 500  # lessons of one transaction
_GATHER = 0.2  # seconds in which lessons gather for one transaction


class Remembering:
    """An observer that remembers what it sees, and passes it on to another."""

    def __init__(self, memory: Memory, inner: Observer) -> None:
        self.problem: str | None = None  # why the rest of the run is not in the store
        self._memory, self._inner = memory, inner
        self._queue: SimpleQueue[tuple[Outcome, Proposal, float] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="memory writer", daemon=True)
        self._candidates: dict[str, Candidate] = {}
        self._traces: dict[str, rows.Trace] = {}
        self._run: dict[str, Any] = {}

    @classmethod
    def open(cls, config: MemoryConfig, inner: Observer) -> Remembering:
        """Raises the errors of `Memory.open`: a store that cannot be used at all is refused before anything is spent."""
        return cls(Memory.open(config.url, redact=config.redact), inner)

    def started(self, experiment: Experiment, directory: Path, resumed: bool) -> None:
        with RunView.read(directory) as run:
            run_id, started, judges = run.run_id, run.started, run.manifest.get("rim", "")
        self._run = run_row(run_id, operation_of(experiment.config), experiment.config, "running", started, judges)
        self._candidates = {candidate.id: candidate for candidate in experiment.seeds}
        self._thread.start()
        self._inner.started(experiment, directory, resumed)

    def seed_measured(self, lessons: Sequence[Lesson]) -> None:
        self._inner.seed_measured(lessons)

    def taught(self, outcome: Outcome, proposal: Proposal) -> None:
        self._queue.put((outcome, proposal, time.time()))
        self._inner.taught(outcome, proposal)

    def decided(self, decision: Decision, evolution: Evolution) -> None:
        self._inner.decided(decision, evolution)

    def finished(self, result: Result) -> None:
        self._inner.finished(result)

    def close(self, result: Result | None) -> None:
        """Write what is waiting, and with a result the verdict and what the run says of its items. Never raises for the store's sake."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._run and self.problem is None:
            try:
                self._end(result)
            except AtlasError as error:
                self.problem = str(error)
        self._memory.close()

    def _end(self, result: Result | None) -> None:
        run_id, operation = self._run["run_id"], self._run["operation"]
        if result is None:
            self._memory.put_run({**self._run, "status": "stopped"})
            return
        verdict = verdict_row(run_id, result.verdict.to_json(), result.winner.to_json())
        self._memory.put_evidence(run_id, *evidence_of(run_id, operation, list(self._candidates.values()), self._traces.values()))
        self._memory.put_run({**self._run, "status": "finished"}, verdict)

    def _work(self) -> None:
        """The writer's thread: batches until the end, or until the store refuses."""
        try:
            self._memory.put_run(self._run)
            self._memory.add_candidates(self._run["run_id"], [(c, -1, "") for c in self._candidates.values()])
            going = True
            while going:
                batch, going = self._gather()
                self._write(batch)
        except AtlasError as error:
            self.problem = str(error)
        except Exception as error:  # the border of the thread: nobody else would hear of it
            self.problem = said(error)

    def _gather(self) -> tuple[list[tuple[Outcome, Proposal, float]], bool]:
        """What comes within a moment of the first; False when it is the last."""
        batch: list[tuple[Outcome, Proposal, float]] = []
        until = None
        while sum(len(outcome.lessons) for outcome, _, _ in batch) < _BATCH:
            try:
                one = self._queue.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            except Empty:
                break
            if one is None:
                return batch, False
            batch.append(one)
            until = until or time.monotonic() + _GATHER
        return batch, True

    def _write(self, batch: list[tuple[Outcome, Proposal, float]]) -> None:
        run_id, operation = self._run["run_id"], self._run["operation"]
        traces = [rows.lesson(lesson.to_json(), run_id, operation, at) for outcome, _, at in batch for lesson in outcome.lessons]
        drafted = [
            (outcome.draft.candidate, proposal.n, outcome.draft.note)
            for outcome, proposal, _ in batch
            if outcome.draft is not None and outcome.draft.candidate is not None
        ]
        self._memory.add(traces)
        self._memory.add_candidates(run_id, drafted)
        for trace in traces:
            self._traces.setdefault(trace.id, trace)  # of a cell that is told twice, the first word stands
        self._candidates |= {candidate.id: candidate for candidate, _, _ in drafted}
