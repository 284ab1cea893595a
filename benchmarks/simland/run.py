"""One world, every optimizer, through the counting server; truth is computed after the run, outside of the budget."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from benchmarks.optimizers import get
from benchmarks.server import EvalServer
from benchmarks.simland.landscape import SimLandscape
from benchmarks.simland.world import World

GENERATOR_VERSION = "simland-1"
CHECKPOINTS = 20


@dataclass(frozen=True)
class Job:
    """One world and everything that is run on it."""

    family: str
    noise: str
    index: int
    address: tuple[str | int, ...]
    optimizers: tuple[str, ...]
    budget: int
    seeds: int


@dataclass(frozen=True)
class Run:
    """One optimizer on one world. Gains are normalised by the world's headroom (plain in flat worlds)."""

    optimizer: str
    family: str
    noise: str
    index: int
    seed: int
    gain: float
    raw_gain: float
    curve: tuple[float, ...]  # normalised gain of the current best at each checkpoint
    seed_truth: float
    best_truth: float
    judged_gain: float  # what the judge would say of the gain: its excess over raw_gain is what was gamed
    optimism: float | None  # what the val calls said of the winner, less what the judge would say on held-out examples
    prompt_tokens: float
    calls: int
    refused: int
    repeats: int
    reflections: int
    seconds: float


def jobs(
    families: Iterable[str], noises: Sequence[str], worlds: int, salt: str, optimizers: Sequence[str], budget: int, seeds: int
) -> list[Job]:
    """`worlds` worlds of each family, noise levels in turn. `salt` is the hash of key, generator and optimizer sources."""
    return [
        Job(family, noises[i % len(noises)], i, (GENERATOR_VERSION, salt, i), tuple(optimizers), budget, seeds)
        for i in range(worlds)
        for family in families
    ]


def play(job: Job) -> list[Run]:
    """Run every optimizer of a job on its world."""
    world = World(job.family, job.noise, *job.address)
    return [_one(world, job, name, seed) for seed in range(job.seeds) for name in job.optimizers]


def _one(world: World, job: Job, name: str, seed: int) -> Run:
    server = EvalServer(SimLandscape(world), job.budget, CHECKPOINTS)
    started = time.process_time()
    final = get(name)(server, seed * 1009 + job.index)
    seconds = time.process_time() - started
    ledger = server.close(final)
    truth, believed = world.truth(final), server.val_mean(final)
    curve = [world.normalised(world.truth(texts)) for _, texts in ledger.best]
    curve[-1] = world.normalised(truth)
    return Run(
        optimizer=name,
        family=job.family,
        noise=job.noise,
        index=job.index,
        seed=seed,
        gain=world.normalised(truth),
        raw_gain=truth - world.seed_truth,
        curve=tuple(curve),
        seed_truth=world.seed_truth,
        best_truth=world.best_truth,
        judged_gain=world.judged(final) - world.judged(world.seed_candidate),
        optimism=None if believed is None else believed - world.judged(final),
        prompt_tokens=sum(map(len, final.values())) / 4,
        calls=ledger.student_calls,
        refused=ledger.refused,
        repeats=ledger.repeats,
        reflections=ledger.reflector_calls,
        seconds=seconds,
    )


def play_all(work: Sequence[Job], processes: int) -> Iterator[list[Run]]:
    """Every job, in order; in `processes` processes when more than one."""
    if processes <= 1:
        yield from map(play, work)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(play, work, chunksize=2)
