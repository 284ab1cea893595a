"""An observer that tells sinks what a run does. No sink slows a run down or ends it: each has a thread of its own and a queue that is
never waited for, and one that fails is named once and told nothing more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from gepa_atlas.calls import CallEvent, Calls
from gepa_atlas.errors import said
from gepa_atlas.evolve.engine import Evolution
from gepa_atlas.experiment import Experiment, Observer, Result, Silent
from gepa_atlas.observe.config import ObserveConfig
from gepa_atlas.observe.facts import CallEnded, Fact, RunBegan, RunEnded, Sink, SlotDecided, Tally, rewards
from gepa_atlas.secrets import scrub
from gepa_atlas.store.view import RunView
from gepa_atlas.types import Decision, Lesson, Outcome, Proposal

_QUEUE = 10_000  # facts that may wait for a sink; further ones are lost to it
_PATIENCE = 60.0  # seconds that the end of a run waits for its sinks, at most

Say = Callable[[str], None]


def build_sinks(config: ObserveConfig) -> dict[str, Sink]:
    """The configured sinks by name. Raises MissingExtra and ConfigError, before anything is spent."""
    found: dict[str, Sink] = {}
    for name, options in (("mlflow", config.mlflow), ("wandb", config.wandb), ("trackio", config.trackio)):
        if options is not None:
            from gepa_atlas.observe.tracker import Tracker

            found[name] = Tracker(name, options)
    if config.opentelemetry is not None:
        from gepa_atlas.observe.otel import spans

        found["opentelemetry"] = spans(config.opentelemetry)
    if config.prometheus is not None:
        from gepa_atlas.observe.prometheus import Metrics

        found["prometheus"] = Metrics(config.prometheus)
    return found


@contextmanager
def observing(config: ObserveConfig | None, inner: Observer, say: Say) -> Iterator[Observing]:
    """The observer to run with: `inner`, and what the configuration names. `say` hears of a sink that failed."""
    live = Observing({} if config is None else build_sinks(config), inner, say)
    try:
        yield live
    finally:
        live.close()


class Feed:
    """One sink in its thread."""

    def __init__(self, name: str, sink: Sink) -> None:
        self.problem: str | None = None
        self.lost = 0
        self._name, self._sink = name, sink
        self._queue: SimpleQueue[Fact | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"observe {name}", daemon=True)
        self._thread.start()

    def put(self, fact: Fact) -> None:
        if self.problem is None and self._queue.qsize() < _QUEUE:
            self._queue.put(fact)
        else:
            self.lost += 1

    def close(self, last: Fact | None, until: float) -> None:
        """Wait for what is queued, until the given reading of time.monotonic at most."""
        if last is not None:
            self._queue.put(last)
        self._queue.put(None)
        self._thread.join(max(0.1, until - time.monotonic()))
        if self._thread.is_alive():
            self.problem = self.problem or f"was still busy {_PATIENCE:.0f} seconds after the run had ended"
        elif self.lost and self.problem is None:
            self.problem = f"was too slow: {self.lost} facts are missing"

    def _work(self) -> None:
        try:
            while (fact := self._queue.get()) is not None:
                self._sink.take(fact)
            self._sink.close()
        except Exception as error:  # the border to the sink's library, which raises what its network and its files raise
            self.problem = scrub(said(error))


class Observing:
    """Passes everything on to `inner`, and tells the sinks. `on_call` is for `build_experiment`."""

    def __init__(self, sinks: Mapping[str, Sink], inner: Observer | None = None, say: Say = lambda text: None) -> None:
        self._inner, self._say = inner or Silent(), say
        self._feeds = {name: Feed(name, sink) for name, sink in sinks.items()}
        self._named: set[str] = set()  # sinks whose failure was said
        self._tally = Tally()
        self._calls: Calls | None = None
        self._began: dict[str, int] = {}  # by key of a call
        self._slots: dict[int, int] = {}  # when the first call of a slot began
        self._replayed = 0  # slots that an earlier process has told of
        self._told: tuple[tuple[float | None, float | None], ...] = ()  # rewards of the slot that is decided next
        self._result: Result | None = None

    def started(self, experiment: Experiment, directory: Path, resumed: bool) -> None:
        if self._feeds:
            self._begin(experiment, directory, resumed)
        self._inner.started(experiment, directory, resumed)

    def _begin(self, experiment: Experiment, directory: Path, resumed: bool) -> None:
        with RunView.read(directory) as run:
            run_id = run.run_id
            self._replayed = sum(event.kind == "slot" for event in run.events())
        self._calls = experiment.calls
        settings: dict[str, str | int | float] = {
            "student": scrub(experiment.student.identity),
            "protocol": experiment.protocol.name,
            "judges": ", ".join(seat.judge.name for seat in experiment.panel.seats),
            "operators": ", ".join(experiment.proposers),
            "seed": experiment.plan.seed,
            "width": experiment.plan.width,
            "rollouts": experiment.plan.rollouts or 0,
        }
        self._tell(RunBegan(run_id, scrub(experiment.name), resumed, settings, time.time_ns()))

    def seed_measured(self, lessons: Sequence[Lesson]) -> None:
        self._inner.seed_measured(lessons)

    def taught(self, outcome: Outcome, proposal: Proposal) -> None:
        for lesson in outcome.lessons:
            self._tally.lesson(lesson)
        self._told = rewards(outcome.lessons)
        self._inner.taught(outcome, proposal)

    def decided(self, decision: Decision, evolution: Evolution) -> None:
        if self._feeds and decision.n >= self._replayed:
            best, now = evolution.best(), time.time_ns()
            figures = self._figures() | {"rollouts": evolution.budget.spent, "candidates": len(evolution.archive)}
            if best.n:
                figures |= {"best_gain": best.mean, "best_half_width": 1.96 * best.var**0.5}
            self._tell(SlotDecided(_clean(decision), self._told, figures, self._slots.pop(decision.n, now), now))
        self._inner.decided(decision, evolution)

    def finished(self, result: Result) -> None:
        self._result = result
        self._inner.finished(result)

    def on_call(self, event: CallEvent) -> None:
        if not self._feeds:
            return
        slot = event.slot // 2 if event.slot >= 0 else None
        now = time.time_ns()
        if event.what == "started":
            self._began[event.key] = now
            if slot is not None:
                self._slots.setdefault(slot, now)
        elif event.what in ("settled", "failed", "dropped"):
            began = self._began.pop(event.key, now)
            if event.what != "dropped":
                self._tally.answers += 1
                self._tally.seconds += event.usage.seconds
                first = began if slot is None else self._slots.get(slot, began)
                problem = scrub(event.reason) if event.what == "failed" else ""
                self._tell(CallEnded(event.role, scrub(event.endpoint), slot, event.attempt, event.usage, problem, began, now, first))
        if event.what in ("retried", "failed"):
            self._tally.trouble[event.what] += 1

    def close(self) -> None:
        """Tell the sinks how it ended, and wait for them a while. Never raises for a sink's sake."""
        last = _ended(self._result, self._figures()) if self._calls is not None else None
        until = time.monotonic() + _PATIENCE
        for feed in self._feeds.values():
            feed.close(last, until)
        self._name_failed()

    def _figures(self) -> dict[str, float]:
        return self._tally.figures(self._calls.spent.by_role if self._calls is not None else {})

    def _tell(self, fact: Fact) -> None:
        for feed in self._feeds.values():
            feed.put(fact)
        self._name_failed()

    def _name_failed(self) -> None:
        for name, feed in self._feeds.items():
            if feed.problem is not None and name not in self._named:
                self._named.add(name)
                self._say(f"observe.{name} failed and is told nothing more ({feed.problem}); the run is not touched by it")


def _clean(decision: Decision) -> Decision:
    return Decision(**{**{n: getattr(decision, n) for n in Decision.__dataclass_fields__}, "reason": scrub(decision.reason)})


def _ended(result: Result | None, figures: dict[str, float]) -> RunEnded:
    if result is None:
        return RunEnded("stopped", "", "it ended early and can be resumed", figures, time.time_ns())
    verdict = result.verdict
    known = {"test_gain": verdict.gain, "test_gain_low": verdict.gain_low, "test_gain_high": verdict.gain_high}
    known |= {
        "test_reward_seed": verdict.seed.after if verdict.seed else None,
        "test_reward_winner": verdict.winner.after if verdict.winner else None,
        "test_harm_rate": verdict.winner.harm_rate if verdict.winner else None,
    }
    found = figures | {"rollouts": result.rollouts} | {name: value for name, value in known.items() if value is not None}
    return RunEnded("finished", verdict.ruling.value, scrub(result.stop_reason), found, time.time_ns())
