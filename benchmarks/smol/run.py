"""One process of the suite: its student, and every optimizer on one draw of a task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from benchmarks.optimizers import get
from benchmarks.server import EvalServer
from benchmarks.smol.engine import Engine
from benchmarks.smol.landscape import Admission, SmolLandscape, admit
from benchmarks.smol.student import Served, Student
from benchmarks.smol.tasks import Rows, draw

# What an optimizer of this suite is called on the command line, and with which operators: those that use the shared vocabulary.
NAMES = {"atlas": "atlas:operators=demos.edit.merge.ablate+minibatch=10+retest=4+retest_share=0.3"}


def play(landscape: SmolLandscape, name: str, budget: int, seed: int) -> dict[str, Any]:
    """One run, and its seed's and winner's held-out scores."""
    server = EvalServer(landscape, budget)
    started = time.monotonic()
    final = get(NAMES.get(name, name))(server, seed)
    ledger = server.close(final)
    return {
        "optimizer": name, "task": landscape.task.name, "seed": seed, "seed_scores": landscape.held_out(server.seed),
        "test_scores": landscape.held_out(final), "rollouts": ledger.student_calls, "reflections": ledger.reflector_calls,
        "seconds": time.monotonic() - started, "prompt_tokens": sum(map(len, final.values())) / 4, "final": final,
    }  # fmt: skip


@cache
def _student(engine: str) -> Student:
    """The student of this process."""
    if engine == "served":
        from gepa_atlas.llm.local import LocalModel

        return Student(Served(LocalModel()))
    from gepa_atlas.llm.llamacpp import weights

    return Student(Engine(weights()))


def task_admission(name: str, rows: Rows, key: str, engine: str) -> Admission:
    return admit(SmolLandscape(draw(name, rows, key, 0), _student(engine)))


def play_all(name: str, rows: Rows, key: str, seed: int, optimizers: Sequence[str], budget: int, engine: str) -> list[dict[str, Any]]:
    """All optimizers on one draw of a task, in one process, which remembers the model's answers for all of them."""
    student = _student(engine)
    landscape = SmolLandscape(draw(name, rows, key, seed), student)
    runs = []
    for optimizer in optimizers:
        before = student.made
        runs.append({**play(landscape, optimizer, budget, seed), "model_calls": student.made - before})
    return runs
