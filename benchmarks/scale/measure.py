"""One whole run of ToyWorld on the in-process student, in a process of its own: what it took, by where it went."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.fake import written
from benchmarks.results import ROOT

_RULES = 30  # and as many decoys: large enough that a search does not come to its end
_FILE = {
    "agents": {"student": {"provider": "toyworld"}},
    "protocol": "playbook",
    "seed_prompts": {"guidance": "Read the ticket and reply."},
    "rim": {"judges": ["exact"]},
    "operators": ["edit", "merge", "ablate"],
}


@dataclass(frozen=True)
class Taken:
    """What a run took. Seconds are processor time of one core."""

    examples: int  # 30 % train, 30 % val, 40 % test
    rollouts: int  # of the student
    slots: int
    candidates: int
    prompt: float  # characters of guidance, mean over lessons
    known: float  # candidates in the archive, mean over slots
    weights: float  # that the search's belief is a Gaussian over, mean over slots
    seconds: float  # the whole run, without the exports
    engine: float  # of them in the search's decisions (ask and tell), in the thread that makes them
    report: float  # seconds of the exports
    memory: float  # peak MB of the process, exports included
    run_db: float  # bytes
    written: float  # bytes passed to write calls until the run is finished
    traces: float  # bytes
    page: float  # bytes of report.html


def take(examples: int, rollouts: int, seed: int = 0, minibatch: int = 6) -> Taken:
    """Run it, in this process. `minibatch` decides how many candidates the rollouts bring, and how long their prompts become."""
    from gepa_atlas import loop
    from gepa_atlas.build import build_experiment
    from gepa_atlas.cli.session import REPORT, TRACES, export, to_record
    from gepa_atlas.config import from_tree
    from gepa_atlas.evolve.engine import Evolution
    from gepa_atlas.testing.toyworld import toy_world

    world = {"seed": 3, "noise": 0.5, "rules": _RULES, "decoys": _RULES, "examples": examples}
    lines = toy_world(world).fragments()
    student = {"provider": "toyworld", "params": {"world": world}}
    tree: dict[str, Any] = {
        **_FILE, "agents": {"student": student}, "data": {"toyworld": world}, "max_metric_calls": rollouts, "seed": seed,
        "minibatch": minibatch,
        "operator_options": {"edit": {"builtin": False, "from_data": False, "fragments": lines}},
    }  # fmt: skip
    inside = [0.0]
    sizes: list[tuple[int, int]] = []
    note = lambda evolution: sizes.append((len(evolution.archive), evolution.belief.size))  # noqa: E731
    Evolution.ask = _timed(Evolution.ask, inside)  # type: ignore[method-assign]
    Evolution.tell = _timed(Evolution.tell, inside, note)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="gepa_atlas_scale_") as place:
        loaded = from_tree(tree, Path(place) / "scale.yaml")
        bytes_before, before = written(), time.process_time()
        result = loop.run(build_experiment(loaded), Path(place) / "run")
        ran, ran_bytes = time.process_time(), written()
        export(to_record(result, ()), result, loaded)
        directory = result.directory
        size = {name: (directory / name).stat().st_size for name in ("run.db", TRACES, REPORT)}
        return Taken(
            examples=examples,
            rollouts=result.rollouts,
            slots=result.evolution.told,
            candidates=len(result.evolution.archive),
            prompt=round(sum(len(lesson.guidance.text) for lesson in result.lessons) / len(result.lessons), 1),
            known=round(sum(known for known, _ in sizes) / len(sizes), 1),
            weights=round(sum(weights for _, weights in sizes) / len(sizes), 1),
            seconds=round(ran - before, 3),
            engine=round(inside[0], 3),
            report=round(time.process_time() - ran, 3),
            memory=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            run_db=size["run.db"],
            written=ran_bytes - bytes_before,
            traces=size[TRACES],
            page=size[REPORT],
        )


def _timed(call: Callable[..., Any], inside: list[float], after: Callable[[Any], None] = lambda evolution: None) -> Callable[..., Any]:
    """Processor time of this thread: the ledger's writes in other threads meanwhile."""

    def timed(evolution: Any, *args: Any) -> Any:
        began = time.thread_time()
        try:
            return call(evolution, *args)
        finally:
            inside[0] += time.thread_time() - began
            after(evolution)

    return timed


def apart(examples: int, rollouts: int, seed: int = 0, minibatch: int = 6) -> Taken:
    """The same in a process of its own, so that peak memory is that run's. One BLAS thread: processor time is not spent on waiting."""
    call = f"take({examples}, {rollouts}, {seed}, {minibatch})"
    code = f"import dataclasses, json; from benchmarks.scale.measure import take; print('\\n' + json.dumps(dataclasses.asdict({call})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{rollouts} rollouts on {examples} examples failed: {done.stderr.strip()[-2000:]}")
    return Taken(**json.loads(done.stdout.strip().splitlines()[-1]))


def quickest(times: int, examples: int, rollouts: int, seed: int, minibatch: int = 6) -> Taken:
    """The same run several times over: what other programs take from this one's caches only adds seconds."""
    runs = [apart(examples, rollouts, seed, minibatch) for _ in range(times)]
    return replace(min(runs, key=lambda run: run.seconds), report=min(run.report for run in runs))
