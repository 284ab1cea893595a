"""One run as its run.db tells it, kept up to date while another process writes it. Everything here is read, nothing is replayed."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gepa_atlas.errors import RunDamaged
from gepa_atlas.evolve.stats import paired_gain
from gepa_atlas.report.ledger import Slot, slots_of
from gepa_atlas.secrets import scrub_json
from gepa_atlas.store.log import Draft, Event
from gepa_atlas.store.tail import Tail
from gepa_atlas.types import SlotKind, Status, Usage

WINDOW = 60.0  # seconds of traffic that a rate is taken over
_POINTS = 200  # of the line of best so far

_Scores = dict[str, dict[str, dict[int, tuple[float, float]]]]  # candidate -> example -> sample -> reward before and after


class Watched:
    """`look` reads what is new; `state` and `decisions` say it as JSON without secrets. For several threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._tail = Tail(self.directory)
        self._limits: dict[str, Any] = {}
        self._gain: dict[str, Any] | None = None
        self._slots: list[dict[str, Any]] = []
        self._scores: _Scores = {}
        self._seed = self._best = ""
        self._course: list[tuple[int, float]] = []  # rollouts told, gain of the best
        self._rollouts = 0  # of told slots
        self._finish: Mapping[str, Any] | None = None
        self._open: dict[int, tuple[str, int]] = {}  # row of an intent -> role, number of its slot
        self._row = 0
        self._recent: deque[tuple[float, str]] = deque()  # when a call was settled, by whom

    def look(self) -> None:
        """Raises RunDamaged, RunChanged, RunBusy, StoreFull, or OSError when the directory is gone."""
        with self._lock:
            if not self._tail.changed():
                return
            try:
                self._read()
            except RunDamaged:  # or another run in the same place
                self._begin()
                self._read()

    def _read(self) -> None:
        for row in self._tail.more():
            self._row += 1
            self._take(row)
        self._limits = _limits(self.directory)  # a resume may have raised them
        self._gain = self._measured()

    def state(self) -> dict[str, Any]:
        """Where the run stands: status, figures, spend, traffic. Everything that is not known is null."""
        with self._lock:
            index, status = self._tail.index, self._tail.status
            calls = index.calls()
            told: dict[str, Any] = {
                "name": self.directory.name,
                "run_id": index.run_id,
                "status": status,
                "reason": self._finish["stop_reason"] if self._finish else index.reason,
                "started": index.started or None,
                "limits": self._limits,
                "rollouts": calls["rollouts"],
                "told": len(self._slots),
                "candidates": len({d["candidate_id"] for d in self._slots if d["status"] != Status.NOT_ADDED.value and d["candidate_id"]}),
                "gain": self._gain,
                "course": _thinned(self._course),
                "spend": {role: _spent(role, calls) for role in sorted(calls["usage"].keys() | calls["by_role"].keys())},
                "traffic": self._traffic(status),
                "has_report": (self.directory / "report.html").is_file(),
            }
        clean: dict[str, Any] = scrub_json(told)
        return clean

    def decisions(self, since: int = 0) -> list[dict[str, Any]]:
        """The decisions from the given place on, oldest first; `rollouts_told` is the total after each."""
        with self._lock:
            clean: list[dict[str, Any]] = scrub_json(self._slots[since:])
            return clean

    # -- taking in -----------------------------------------------------------------------------------------------------

    def _take(self, row: Draft) -> None:
        if row.kind == "intent":
            self._open[self._row] = row.head["role"], row.head["slot"]
        elif row.kind == "entry":
            self._open.pop(row.head["intent"], None)
            self._recent.append((row.head["at"], row.head["role"]))
        elif row.kind == "event":
            event = Event(int(row.name), row.head["kind"], json.loads(row.body))
            if event.kind == "finish":
                self._finish = event.payload
            elif event.kind == "slot":
                self._open = {n: open_ for n, open_ in self._open.items() if open_[1] != event.n}
                for slot in slots_of([event]):
                    self._decide(slot)

    def _decide(self, slot: Slot) -> None:
        made = slot.decision
        self._rollouts += made.rollouts
        if made.operator == "seed" and slot.parents:
            self._seed = slot.parents[0]
        if made.kind is not SlotKind.FINAL:
            for told in slot.told:
                if told.example in slot.gate and told.before is not None and told.after is not None:
                    self._scores.setdefault(told.candidate, {}).setdefault(told.example, {})[told.sample] = told.before, told.after
            if made.status is Status.IMPROVED and made.candidate_id:
                self._best = made.candidate_id
            gain = self._mean_gain()
            if gain is not None:
                self._course.append((self._rollouts, round(gain, 6)))
        self._slots.append({**made.to_json(), "rollouts_told": self._rollouts})

    # -- figures -------------------------------------------------------------------------------------------------------

    def _measured(self) -> dict[str, Any] | None:
        """Of the verdict on held-out examples once there is one; until then of the best so far over the seed, on the search split."""
        if self._finish is not None:
            verdict = self._finish["verdict"]
            kept = {key: verdict[key] for key in ("ruling", "gain", "gain_low", "gain_high", "pairs", "reasons")}
            return {"split": "test", "mean": kept["gain"], "low": kept["gain_low"], "high": kept["gain_high"], **kept}
        ours, seed = self._means(self._best), self._means(self._seed)
        mean, low, high, pairs = paired_gain(ours, seed)
        if not pairs:
            return None
        if self._best == self._seed:
            low = high = None  # it is not compared with itself
        return {"split": "val", "mean": mean, "low": low, "high": high, "pairs": pairs, "is_seed": self._best == self._seed}

    def _mean_gain(self) -> float | None:
        ours, seed = self._means(self._best), self._means(self._seed)
        shared = ours.keys() & seed.keys()
        steps = [(ours[e][1] - ours[e][0]) - (seed[e][1] - seed[e][0]) for e in shared]
        return sum(steps) / len(steps) if steps else None

    def _means(self, candidate: str) -> dict[str, tuple[float, float]]:
        samples = {example: list(told.values()) for example, told in self._scores.get(candidate, {}).items()}
        return {e: (sum(b for b, _ in v) / len(v), sum(a for _, a in v) / len(v)) for e, v in samples.items()}

    def _traffic(self, status: str) -> dict[str, Any]:
        """Calls on record and not yet answered, and answers of the last minute by role. Nothing moves in a run that does not run."""
        since = time.time() - WINDOW
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        if status != "running":
            return {"calls": {}, "slots": [], "per_minute": {}}
        return {
            "calls": dict(sorted(Counter(role for role, _ in self._open.values()).items())),
            "slots": sorted({(n - 1) // 2 for _, n in self._open.values() if n > 0}),
            "per_minute": dict(sorted(Counter(role for _, role in self._recent).items())),
        }


def _spent(role: str, calls: Mapping[str, Any]) -> dict[str, Any]:
    usage = Usage.from_json(calls["usage"].get(role, Usage().to_json()))
    seconds = round(usage.seconds, 3)
    return {"calls": calls["by_role"].get(role, 0), "tokens": usage.tokens, "dollars": usage.dollars, "seconds": seconds}


def _limits(directory: Path) -> dict[str, Any]:
    """What config.json of the run says of limits; empty where it cannot be read."""
    try:
        found = json.loads((directory / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    budget = found.get("budget")
    shown = {"rollouts": found.get("max_metric_calls"), "concurrency": found.get("concurrency"), "width": found.get("width")}
    return shown | (budget if isinstance(budget, dict) else {})


def _thinned(course: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `_POINTS` of the points, the last one always."""
    step = max(1, -(-len(course) // _POINTS))
    return [point for at, point in enumerate(course) if (len(course) - 1 - at) % step == 0]
