"""How often the ship gate passes what is no better: evaluations drawn from known truths, held against its two claims on means.

    python -m benchmarks.gate --evaluations 400 --json OUT.json

Every world has tasks with a true mean reward of their own, a student at half of it, and an adapter whose true mean over the world's tasks
is that of the evolved prompt alone plus an effect. With effect 0 a pass is false; the gate's bound on it is alpha / 2. The other criteria
can only refuse more, and are left out (tests/ship/test_error_rates.py asks the whole gate, and does the exact arithmetic of the bound on
non-degradation). Beside the gate's interval: the passes that a percentile and a BCa bootstrap of the same differences would give.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from gepa_atlas.evolve.rng import rng
from gepa_atlas.ship import criteria
from gepa_atlas.ship.cells import Evaluation, Row
from gepa_atlas.ship.config import GateConfig
from gepa_atlas.ship.gate import ADAPTER
from gepa_atlas.ship.stats import Draws

Array = np.ndarray
_NORMAL = NormalDist()


# name -> (true means of the evolved prompt's answers, what the adapter adds to each; its mean is 0)
def _even(n: int, random: np.random.Generator) -> tuple[Array, Array]:
    return random.uniform(0.3, 0.7, n), np.zeros(n)


def _mixed(n: int, random: np.random.Generator) -> tuple[Array, Array]:
    return random.uniform(0.35, 0.65, n), random.choice([-0.25, 0.25], n)


def _rare(share: float) -> Callable[[int, np.random.Generator], tuple[Array, Array]]:
    """A few large losses that many small gains make up for: what few tasks may not show at all."""

    def draw(n: int, random: np.random.Generator) -> tuple[Array, Array]:
        return np.full(n, 0.8), np.where(random.random(n) < share, -0.7, 0.7 * share / (1 - share))

    return draw


WORLDS: dict[str, Callable[[int, np.random.Generator], tuple[Array, Array]]] = {
    "even": _even, "mixed": _mixed, "rare .02": _rare(0.02), "rare .05": _rare(0.05), "rare .1": _rare(0.1),
}  # fmt: skip
NOISES = ("none", "graded", "bernoulli")


def answers(means: Array, noise: str, luck: Array) -> Array:
    """Rewards by task and sample with these means; `luck` in (0, 1), equal where two cells share it."""
    p = np.clip(means, 0.0, 1.0)[:, None]
    if noise == "bernoulli":
        return np.asarray(luck < p, float)
    width = np.minimum(np.minimum(p, 1 - p), 0.2) if noise == "graded" else 0.0
    return np.asarray(p + width * (2 * luck - 1))


def draw(world: str, noise: str, n: int, *, samples: int, shared: float, effect: float, address: tuple[Any, ...]) -> Evaluation:
    """One evaluation. `shared` is the share of luck (and with it the correlation) that base and adapter have in common."""
    random = rng(0, "gate-benchmark", *address)
    means, change = WORLDS[world](n, random)
    own, common = random.random((3, n, samples)), random.random((n, samples))
    together = random.random((n, samples)) < shared
    cells = {
        "student": answers(means / 2, noise, own[0]),
        "base+evolved": answers(means, noise, np.where(together, common, own[1])),
        "adapter+evolved": answers(means + change + effect, noise, np.where(together, common, own[2])),
    }
    rows = [
        Row.model_construct(cell=cell, task_id=f"t{task}", sample=sample, reward=float(reward))
        for cell, rewards in cells.items()
        for task, of_task in enumerate(rewards)
        for sample, reward in enumerate(of_task)
    ]
    return Evaluation(tuple(rows))


def differences(found: Evaluation) -> Array:
    theirs = found.rewards("base+evolved")
    return np.array([value - theirs[task] for task, value in found.rewards("adapter+evolved").items()])


def bootstrap_low(values: Array, method: str, resamples: int = 1000) -> float:
    """Lower end of a 95 % percentile or BCa interval, for comparison."""
    n = len(values)
    means = values[rng(0, "comparison", n).integers(0, n, (resamples, n))].mean(axis=1)
    level = 0.025
    if method == "bca":
        below = (np.sum(means < values.mean()) + 0.5 * np.sum(means == values.mean())) / resamples
        apart = values.mean() - (values.sum() - values) / (n - 1)
        spread = float((apart**2).sum())
        if not 0 < below < 1 or spread == 0:
            return float(np.quantile(means, level))
        bias, skew = _NORMAL.inv_cdf(below), float((apart**3).sum()) / (6 * spread**1.5)
        at = bias + _NORMAL.inv_cdf(level)
        level = _NORMAL.cdf(bias + at / (1 - skew * at))
    return float(np.quantile(means, level))


def measure(world: str, noise: str, n: int, shared: float, effect: float, *, evaluations: int, samples: int) -> dict[str, Any]:
    """Share of passes of the gate and of the two bootstraps."""
    config = GateConfig()
    passes = {"gate": 0, "percentile": 0, "bca": 0}
    for at in range(evaluations):
        address = (world, noise, n, str(shared), at)
        found = draw(world, noise, n, samples=samples, shared=shared, effect=effect, address=address)
        draws = Draws(config.alpha, 1000, at)
        claims = [criteria.over_student(found, ADAPTER, config, draws), criteria.over_cell(found, ADAPTER, "base+evolved", config, draws)]
        passes["gate"] += criteria.verdict(claims) == "pass"
        values = differences(found)
        for method in ("percentile", "bca"):
            passes[method] += bootstrap_low(values, method) > 1e-12
    row = {"world": world, "noise": noise, "tasks": n, "shared": shared, "effect": effect, "evaluations": evaluations, "samples": samples}
    return row | {f"{name}_passes": count / evaluations for name, count in passes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=400, help="evaluations of each kind")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="which worlds, comma-separated")
    parser.add_argument("--tasks", default="20,60,150", help="task counts, comma-separated")
    parser.add_argument("--samples", type=int, default=4, help="answers a task and cell")
    parser.add_argument("--effects", default="0,0.05,0.1", help="true gains of the adapter over the prompt alone")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    rows = []
    for effect in map(float, args.effects.split(",")):
        for world in args.worlds.split(","):
            for noise, shared in (("none", 0.0), ("graded", 0.0), ("bernoulli", 0.0), ("bernoulli", 0.8)):
                if world == "even" and noise == "none":
                    continue  # every difference is the effect itself
                for n in map(int, args.tasks.split(",")):
                    row = measure(world, noise, n, shared, effect, evaluations=args.evaluations, samples=args.samples)
                    rows.append(row)
                    print(
                        f"effect {effect:<5g} {world:9} {noise:10} shared {shared:<4g} {n:4} tasks: passes "
                        f"gate {row['gate_passes']:.3f}  percentile {row['percentile_passes']:.3f}  bca {row['bca_passes']:.3f}",
                        flush=True,
                    )
    if args.json:
        args.json.write_text(json.dumps({"meta": vars(args) | {"json": str(args.json)}, "rows": rows}, indent=1) + "\n")
    null = [row for row in rows if row["effect"] == 0]
    if null:
        print(f"false passes, worst of {len(null)}: gate {max(r['gate_passes'] for r in null):.3f}, "
              f"percentile {max(r['percentile_passes'] for r in null):.3f}, bca {max(r['bca_passes'] for r in null):.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
