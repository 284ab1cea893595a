"""`python -m benchmarks.simland`: optimizers on worlds nobody could tune to, at equal budget, with paired intervals."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks import results
from benchmarks.optimizers import get
from benchmarks.simland.families import FAMILIES, NOISES
from benchmarks.simland.hashing import key64
from benchmarks.simland.rows import rows
from benchmarks.simland.run import GENERATOR_VERSION, Run, jobs, play_all

COLUMNS = {
    "family": "family", "optimizer": "optimizer", "worlds": "worlds", "true_gain": "gain", "true_gain_low": "low", "true_gain_high": "high",
    "ratio_to_gepa": "x gepa", "ratio_low": "low", "ratio_high": "high", "hurt_rate": "hurt", "rollouts_to_gepa_gain": "to gepa",
    "prompt_tokens": "tokens", "reflections": "reflect", "cpu_seconds": "cpu s",
}  # fmt: skip


def _names(text: str, known: dict[str, object]) -> list[str]:
    names = list(known) if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"simland: {name!r} is not one of {', '.join(known)}")
    return names


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simland", description=__doc__)
    parser.add_argument("--worlds", type=int, default=40, help="worlds of each family; noise levels take turns")
    parser.add_argument("--budget", type=int, default=1000, help="student calls of one run")
    parser.add_argument("--optimizers", default="atlas,gepa,gepa_tuned,best_of_n,random,null")
    parser.add_argument("--key", required=True, help="text hashed into the world seeds with the generator and the optimizer's sources")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--families", default="all", help="comma-separated; " + ", ".join(FAMILIES))
    parser.add_argument("--noise", default="all", help="comma-separated; " + ", ".join(NOISES))
    parser.add_argument("--seeds", type=int, default=1, help="optimizer seeds per world")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--frozen-sources", action="store_true", help="leave the optimizer's hash out: development, marked in meta")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = _arguments(argv)
    families, noises = _names(args.families, dict(FAMILIES)), _names(args.noise, dict(NOISES))
    optimizers = list(dict.fromkeys(args.optimizers.split(",")))
    if "null" not in optimizers:
        optimizers.append("null")  # the sanity of every table
    for name in optimizers:
        get(name)
    generator = results.source_hash("benchmarks/simland", "benchmarks/server.py")
    sources = "development" if args.frozen_sources else results.optimizer_hash()
    salt = f"{key64(GENERATOR_VERSION, generator, sources, args.key):016x}"
    work = jobs(families, noises, args.worlds, salt, optimizers, args.budget, args.seeds)
    each = f"{args.worlds} of each of {len(families)} families"
    print(f"simland: {len(work)} worlds ({each}), {len(optimizers)} optimizers, budget {args.budget}")
    runs: list[Run] = []
    started = time.monotonic()
    for done, some in enumerate(play_all(work, args.jobs), 1):
        runs.extend(some)
        if done % max(1, len(work) // 10) == 0:
            print(f"  {done}/{len(work)} worlds, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    made = rows(runs, optimizers, families, noises, args.budget)
    about = results.meta(
        "simland", key=args.key, salt=salt, generator=GENERATOR_VERSION, generator_hash=generator, optimizer_hash=sources,
        worlds=len(work), worlds_per_family=args.worlds, families=families, noises=noises, budget=args.budget, seeds=args.seeds,
        seconds=round(time.monotonic() - started, 1),
        flat="gains of the flat family are in accuracy, not normalised, and left out of summaries",
    )  # fmt: skip
    results.write(args.json, about, made)
    shown = [r for r in made if r["noise"] in ("mixed", noises[0] if len(noises) == 1 else "mixed") or r["family"] == "deterministic"]
    print(results.table(shown, list(COLUMNS), COLUMNS))
    print(f"x gepa: ratio of mean gains to gepa's better configuration, paired bootstrap over worlds. Written to {args.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
