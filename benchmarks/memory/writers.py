"""Writers at once, some of them killed at random and started again: is everything there, once and whole?"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from benchmarks.memory.lessons import of_writer
from benchmarks.results import ROOT
from gepa_atlas.memory import schema as s
from gepa_atlas.memory.store import Memory


@dataclass(frozen=True)
class Outcome:
    """seconds: wall clock of all writers. lost, double, torn: traces that are missing, there twice, or without all of their parts."""

    seconds: float
    kills: int
    written: int
    lost: int
    double: int
    torn: int
    torn_after_a_kill: int
    changed: int  # of those compared, lines that are not as they were written

    @property
    def sound(self) -> bool:
        return not (self.lost or self.double or self.torn or self.torn_after_a_kill or self.changed)


def write(url: str, processes: int, count: int, kills: int, seed: int = 0) -> Outcome:
    """`kills` SIGKILLs spread over the work by what is in the store, not by the clock; a killed writer starts from its beginning."""
    draw = random.Random(seed)
    Memory.open(url).close()
    began = time.monotonic()
    running = {w: _start(url, w, count) for w in range(processes)}
    moments = [(at + draw.random()) / (kills + 1) * 0.8 * processes * count for at in range(kills)]  # a tenth is the same for all
    torn = killed = 0
    with Memory.open(url) as memory:
        while running:
            time.sleep(0.02)
            for w, process in list(running.items()):
                if process.poll() is not None:
                    if process.returncode != 0:
                        raise RuntimeError(f"writer {w} ended with {process.returncode}")
                    del running[w]
            if running and killed < kills and _written(memory) >= moments[killed]:
                w = draw.choice(sorted(running))
                running[w].send_signal(signal.SIGKILL)
                if running[w].wait() == -signal.SIGKILL:
                    killed += 1
                    torn += _torn(url)
                    running[w] = _start(url, w, count)
    seconds = time.monotonic() - began
    return _checked(url, processes, count, seconds, killed, torn)


def _written(memory: Memory) -> int:
    return int(next(iter(memory.rows(sa.select(sa.func.count().label("n")).select_from(s.traces))))["n"])


def _start(url: str, writer: int, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.memory.writer", url, str(writer), str(count)], cwd=ROOT)


def _torn(url: str) -> int:
    """Traces of the newest thousand that lack an attempt or a reward."""
    newest = sa.select(s.traces.c.id).order_by(s.traces.c.seq.desc()).limit(1000).subquery()
    return _incomplete(url, newest)


def _incomplete(url: str, which: Any) -> int:
    parts = []
    for table in (s.attempts, s.rewards):
        counted = sa.select(sa.func.count()).select_from(table).where(table.c.trace_id == which.c.id).scalar_subquery()
        parts.append(counted != 2)
    with Memory.open(url) as memory, memory.engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(which).where(sa.or_(*parts))).scalar() or 0)


def _checked(url: str, processes: int, count: int, seconds: float, kills: int, torn_early: int) -> Outcome:
    lost, changed, expected = 0, 0, 0
    seen: set[str] = set()
    with Memory.open(url) as memory:
        here = {row["id"]: row["seq"] for row in memory.rows(sa.select(s.traces.c.id, s.traces.c.seq))}
        rows = sum(1 for _ in memory.rows(sa.select(s.traces.c.seq)))
        draw = random.Random(1)
        for w in range(processes):
            for trace in of_writer(w, count):
                if trace.id not in seen:
                    seen.add(trace.id)
                    expected += 1
                    lost += trace.id not in here
                    if draw.random() < 0.002 and trace.id in here:
                        query = sa.select(s.traces.c.body).where(s.traces.c.id == trace.id)
                        changed += json.loads(next(iter(memory.rows(query)))["body"]) != trace.line
    whole = sa.select(s.traces.c.id).subquery()
    return Outcome(seconds, kills, rows, lost, rows - len(seen & here.keys()), _incomplete(url, whole), torn_early, changed)
