"""`python -m benchmarks.scheduler`: wall clock over ideal (work / concurrency), with stragglers and with slow reflection.

Ours runs through the real loop, call door and run.db, as it is when a configuration names no width. gepa runs in its default configuration
with a threaded evaluate, and tuned: PxNSampling(4, 4), a hand-written batch_evaluate and a batching reflection model. Nobody has more than
`concurrency` calls under way, reflections included. Every system makes about `--rollouts` student calls, by default 75 for each worker,
so that 64 workers are measured on a run that is worth 64 workers. With stragglers, `--draws` runs differ in which calls are slow; wall and
ideal are their sums.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import results
from benchmarks.fake import SEED, BatchingGepaAdapter, FakeGepaAdapter, GepaReflection, Task01, Work, atlas_experiment
from benchmarks.optimizers.gepa_package import gepa_optimize

TRAIN, VAL, SLOW, PER_WORKER = 60, 50, 10.0, 75
System = Callable[[Work, Work, int, int], None]


class _Quiet:
    def log(self, message: str) -> None:
        pass


def atlas(students: Work, reflections: Work, concurrency: int, rollouts: int) -> None:
    from gepa_atlas.loop import run

    experiment = atlas_experiment(
        students=students, reflections=reflections, concurrency=concurrency, rollouts=rollouts, train=TRAIN, val=VAL
    )
    with tempfile.TemporaryDirectory() as folder:
        run(experiment, Path(folder) / "run")


def _gepa(students: Work, reflections: Work, concurrency: int, rollouts: int, tuned: bool) -> None:
    from gepa.strategies.proposal_sampling import PxNSampling

    with ThreadPoolExecutor(concurrency) as pool:
        kind = BatchingGepaAdapter if tuned else FakeGepaAdapter
        gepa_optimize()(
            seed_candidate={"guidance": SEED},
            trainset=[f"Question number {i}?" for i in range(TRAIN)],
            valset=[f"Question number {i}?" for i in range(TRAIN, TRAIN + VAL)],
            adapter=kind(students, Task01(), pool),
            reflection_lm=GepaReflection(reflections, pool if tuned else None),
            reflection_minibatch_size=3,
            max_metric_calls=rollouts,
            sampling_strategy=PxNSampling(4, 4) if tuned else None,
            logger=_Quiet(),
            seed=0,
        )


SYSTEMS: dict[str, System] = {
    "atlas": atlas,
    "gepa": lambda s, r, c, n: _gepa(s, r, c, n, False),
    "gepa_tuned": lambda s, r, c, n: _gepa(s, r, c, n, True),
}


def measure(name: str, call: float, stragglers: float, concurrency: int, slow: bool, rollouts: int, draws: int = 1) -> results.Row:
    wall = ideal = cpu = 0.0
    made = reflected = 0
    for draw in range(draws):
        students = Work(call, stragglers, draw=draw)
        reflections = Work(call * (SLOW if slow else 1.0), stragglers, draw=draw)
        started, busy = time.monotonic(), time.process_time()
        SYSTEMS[name](students, reflections, concurrency, rollouts)
        wall += time.monotonic() - started
        cpu += time.process_time() - busy
        ideal += (students.seconds + reflections.seconds) / concurrency
        made, reflected = made + students.calls, reflected + reflections.calls
    return {
        "system": name, "concurrency": concurrency, "stragglers": stragglers, "reflection": "slow" if slow else "fast",
        "wall": round(wall, 3), "ideal": round(ideal, 3), "ratio": round(wall / ideal, 3),
        "rollouts": made, "reflections": reflected, "draws": draws, "cpu": round(cpu, 3),
    }  # fmt: skip


def _seconds(text: str) -> float:
    return float(text.removesuffix("ms")) / 1000 if text.endswith("ms") else float(text.removesuffix("s"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler", description=__doc__)
    parser.add_argument(
        "--calls", type=_seconds, default=0.05, help="how long a call takes, like 50ms; a slow reflection takes ten times that"
    )
    parser.add_argument("--stragglers", type=float, default=0.1, help="share of calls that take up to nine times as long")
    parser.add_argument("--concurrency", default="16,64")
    parser.add_argument("--rollouts", type=int, default=None, help=f"student calls of each run; by default {PER_WORKER} a worker")
    parser.add_argument("--draws", type=int, default=1, help="runs with stragglers that are summed up in a row")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--reflection", default="fast,slow")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    rows = []
    for concurrency in map(int, args.concurrency.split(",")):
        for stragglers in dict.fromkeys((0.0, args.stragglers)):
            for reflection in args.reflection.split(","):
                for name in args.systems.split(","):
                    rollouts = args.rollouts or PER_WORKER * concurrency
                    draws = args.draws if stragglers else 1
                    rows.append(measure(name, args.calls, stragglers, concurrency, reflection == "slow", rollouts, draws))
                    print(results.table(rows[-1:], list(rows[-1])).splitlines()[-1], flush=True)
    results.write(
        args.json,
        results.meta("scheduler", calls_seconds=args.calls, rollouts=args.rollouts or f"{PER_WORKER} a worker", load=os.getloadavg()),
        rows,
    )
    print(results.table(rows, list(rows[0])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
