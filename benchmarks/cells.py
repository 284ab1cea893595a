"""Cells of sweeps over optimizers, ours and others', under the equal-budget contract: every one of them has the same student calls, through
the counting server, on the same worlds. The seed of a cell is the number of its world."""

from __future__ import annotations

from typing import Any

from benchmarks.optimizers import get
from benchmarks.simland.rows import HURT
from benchmarks.simland.run import GENERATOR_VERSION, Job, play


def simland(settings: dict[str, Any], seed: int, *, family: str, noise: str, budget: int, key: str) -> dict[str, Any]:
    """One optimizer (`settings["optimizer"]`) on one world, fixed by `key`. The gain is the true one of what it ships, as a share
    of what the best prompt gains; harm says whether the true score fell by more than a point."""
    name = str(settings["optimizer"])
    get(name)
    (run,) = play(Job(family, noise, seed, (GENERATOR_VERSION, key, seed), (name,), budget, 1))
    return {"gain": run.gain, "score": run.seed_truth + run.raw_gain, "harm": float(run.raw_gain < HURT), "rollouts": run.calls}
