"""A million lessons: what a page of each filter takes, in milliseconds, and which of them an index does not help."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from benchmarks.memory.lessons import OPERATIONS, START
from benchmarks.results import ROOT
from gepa_atlas.memory import query
from gepa_atlas.memory.query import Filter
from gepa_atlas.memory.store import Memory

PAGE = 50


def _operation(draw: random.Random, count: int) -> str:
    """One that the store has."""
    return f"op{draw.randrange(min(OPERATIONS, 1 + (count - 1) // 5000))}"


def questions(draw: random.Random, count: int) -> dict[str, Filter]:
    operation = _operation(draw, count)
    since = START + 30.0 * count * draw.random()
    return {
        "newest": Filter(),
        "operation": Filter(operation=operation),
        "operation, delta at least": Filter(operation=operation, min_delta=draw.uniform(0.0, 0.95)),
        "operation, delta at most": Filter(operation=operation, max_delta=draw.uniform(-0.9, 0.0)),
        "operation, reward at least": Filter(operation=operation, min_reward=draw.uniform(0.5, 0.99)),
        "operation, time": Filter(operation=operation, since=since, until=since + 0.02 * 30.0 * count),
        "operation, state": Filter(operation=operation, states=("approved",)),
        "operation, state, delta": Filter(operation=operation, states=("pending",), min_delta=0.5),
        "operation, time, delta": Filter(operation=operation, since=since, min_delta=0.5),
        "operation, rare state, delta": Filter(operation=operation, states=("golden",), min_delta=0.0),
        "delta at least": Filter(min_delta=draw.uniform(0.5, 0.95)),
        "reward at most": Filter(max_reward=draw.uniform(0.01, 0.5)),
        "time": Filter(since=since),
        "state": Filter(states=("golden",)),
        "run": Filter(run_id=f"r{draw.randrange(1 + (count - 1) // 5000)}"),
    }


def fill(url: str, count: int, processes: int = 1) -> float:
    """Write lessons 0 to count with so many processes; seconds of wall clock."""
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.memory.filler", url]
    steps = [round(count * k / processes) for k in range(processes + 1)]
    running = [subprocess.Popen([*command, str(a), str(b)], cwd=ROOT) for a, b in pairwise(steps)]
    if any([process.wait() for process in running]):
        raise RuntimeError("a process that filled the store has failed")
    return time.monotonic() - began


def measure(memory: Memory, count: int, repeats: int, seed: int = 0) -> list[dict[str, Any]]:
    """Milliseconds of a page of 50, and of one trace with all its parts."""
    draw = random.Random(seed)
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        asked: dict[str, Callable[[], object]] = {
            name: (lambda which=which: query.page(memory, which, PAGE)) for name, which in questions(draw, count).items()
        }
        some = query.page(memory, Filter(operation=_operation(draw, count)), 200)
        one = draw.choice(some)["id"]
        asked["one trace"] = lambda one=one: query.trace(memory, one)
        asked["states of 500"] = lambda some=some: memory.states([row["id"] for row in some] * 2)
        for name, ask in asked.items():
            began = time.perf_counter()
            ask()
            found.setdefault(name, []).append(1000 * (time.perf_counter() - began))
    return [
        {"question": name, "median_ms": statistics.median(v), "p95_ms": sorted(v)[int(0.95 * (len(v) - 1))], "max_ms": max(v)}
        for name, v in found.items()
    ]
