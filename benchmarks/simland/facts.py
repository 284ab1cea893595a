"""`python -m benchmarks.simland.facts`: does simland reproduce what is published of published optimizers?

Each fact is a paired comparison of two optimizers on development worlds; it holds when the whole 95 % interval is on the published
side, is contradicted when the whole interval is on the other side, and is open otherwise. What does not hold is kept in LOG.md and
nothing is chosen on it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import results
from benchmarks.simland.families import FAMILIES, NOISES
from benchmarks.simland.run import Run, jobs, play_all
from benchmarks.stats import Interval, mean_interval

HEADROOM = tuple(f for f in FAMILIES if f != "flat")


@dataclass(frozen=True)
class Fact:
    """`first` minus `second` of `figure` should be positive; with no second, `figure` of the first less `bar`."""

    name: str
    source: str
    first: str
    second: str | None
    families: tuple[str, ...]
    noises: tuple[str, ...]
    budget: int
    figure: Callable[[Run], float]
    bar: float = 0.0


def _gain(r: Run) -> float:
    return r.gain


def _lack(r: Run) -> float:
    return 1.0 - r.gain


def _gap(r: Run) -> float:
    return r.optimism or 0.0


def _below(r: Run) -> float:
    return float(r.raw_gain < -1e-9)


ALL, NOISY = tuple(NOISES), ("light", "medium", "heavy")
FACTS = (
    Fact("minibatch 3 beats naive minibatch 100", "Combee 2604.04247", "gepa", "gepa:minibatch=100", HEADROOM, ALL, 2000, _gain),
    Fact("item edits beat rewrites, no gate", "ACE 2510.04618", "delta_ungated", "rewrite_ungated", ("sparse", "easy"), ALL, 600, _gain),
    Fact("item edits beat rewrites, gated", "ACE 2510.04618", "delta", "rewrite", ("sparse", "easy"), ALL, 3000, _gain),
    Fact("diversity needs stable selection", "ESPO 2026", "four_stable", "four_argmax", HEADROOM, ("medium", "heavy"), 2000, _gain),
    Fact("2x4 has a smaller val-test gap than 1x1", "gepa blog 2026-07", "gepa", "gepa:parents=2+mutations=4", HEADROOM, NOISY, 3000, _gap),
    Fact("flat: gepa under the seed in about half", "2604.14585", "gepa", None, ("flat",), NOISY, 1000, _below, bar=0.35),
    Fact("a defective seed holds gepa back", "VISTA 2603.18388", "gepa", None, ("defective",), ALL, 1000, _lack, bar=0.5),
    Fact("Pareto at least greedy on slices", "gepa 2507.19457", "gepa", "gepa:selector=current_best", ("slices",), ALL, 2000, _gain),
    Fact("parallel 2x2 at least 1x1", "gepa blog 2026-07", "gepa:parents=2+mutations=2", "gepa", HEADROOM, ALL, 3000, _gain),
    Fact("heavy noise leaves gepa under 0.3", "gepa report 4.2", "gepa", None, HEADROOM, ("heavy",), 1000, _lack, bar=0.7),
)  # fmt: skip


def check(fact: Fact, worlds: int, processes: int) -> tuple[Interval, str]:
    """Run a fact's comparison; the difference and what it says of the fact."""
    names = [n for n in (fact.first, fact.second) if n]
    work = jobs(fact.families, fact.noises, worlds, "facts", names, fact.budget, 1)
    cells: dict[tuple[str, int], dict[str, float]] = {}
    for runs in play_all(work, processes):
        for r in runs:
            cells.setdefault((r.family, r.index), {})[r.optimizer] = fact.figure(r)
    values = [c[fact.first] - (c[fact.second] if fact.second else fact.bar) for c in cells.values()]
    interval = mean_interval(np.array(values))
    return interval, "holds" if interval.low > 0 else "contradicted" if interval.high < 0 else "open"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simland.facts", description=__doc__)
    parser.add_argument("--worlds", type=int, default=12, help="worlds of each family in a comparison")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="check the facts whose name contains this text")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(argv)
    rows = []
    for fact in FACTS:
        if args.only not in fact.name:
            continue
        share = args.worlds * 4 if len(fact.families) == 1 else args.worlds
        interval, verdict = check(fact, share, args.jobs)
        rows.append(
            {
                "fact": fact.name, "source": fact.source, "difference": interval.value, "low": interval.low, "high": interval.high,
                "worlds": share * len(fact.families), "budget": fact.budget, "verdict": verdict,
            }
        )  # fmt: skip
        print(f"{verdict:13s} {fact.name}: {interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] ({fact.source})", flush=True)
    if args.json:
        results.write(args.json, results.meta("simland.facts"), rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
