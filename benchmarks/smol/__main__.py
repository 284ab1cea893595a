"""`python -m benchmarks.smol`: real search on the embedded SmolLM2-135M; one vocabulary, equal student calls, held-out gain."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from benchmarks import results
from benchmarks.optimizers import get
from benchmarks.smol.engine import arithmetic
from benchmarks.smol.landscape import Admission
from benchmarks.smol.run import NAMES, play_all, task_admission
from benchmarks.smol.tasks import Rows, load
from benchmarks.stats import mean_interval


def _row(runs: Sequence[dict[str, Any]], task: str, budget: int, gains: np.ndarray[Any, np.dtype[np.float64]]) -> results.Row:
    gain = mean_interval(gains)
    return {
        "optimizer": runs[0]["optimizer"], "task": task, "seeds": len({r["seed"] for r in runs}), "budget": budget,
        "seed_score": results.rounded(float(np.mean([np.mean(r["seed_scores"]) for r in runs]))),
        "test_score": results.rounded(float(np.mean([np.mean(r["test_scores"]) for r in runs]))),
        "gain": results.rounded(gain.value), "gain_low": results.rounded(gain.low), "gain_high": results.rounded(gain.high),
        "rollouts": results.rounded(float(np.mean([r["rollouts"] for r in runs])), 1),
        "reflections": results.rounded(float(np.mean([r["reflections"] for r in runs])), 1),
        "prompt_tokens": results.rounded(float(np.mean([r["prompt_tokens"] for r in runs])), 1),
        "seconds": results.rounded(float(np.mean([r["seconds"] for r in runs])), 1),
    }  # fmt: skip


def rows(runs: Sequence[dict[str, Any]], optimizers: Sequence[str], budget: int) -> list[results.Row]:
    """Per task: paired over (seed, test example). `all`: paired over (task, seed), and against each peer."""
    out, means = [], {}
    for name in optimizers:
        mine = [r for r in runs if r["optimizer"] == name]
        means[name] = np.array([np.mean(r["test_scores"]) - np.mean(r["seed_scores"]) for r in mine])
        out.append(_row(mine, "all", budget, means[name]))
    for row in list(out):
        for peer in optimizers:
            if peer != row["optimizer"] and peer in ("gepa", "miprov2"):
                difference = mean_interval(means[row["optimizer"]] - means[peer])
                row |= {f"over_{peer}": results.rounded(difference.value), f"over_{peer}_low": results.rounded(difference.low),
                        f"over_{peer}_high": results.rounded(difference.high)}  # fmt: skip
    for task in dict.fromkeys(r["task"] for r in runs):
        for name in optimizers:
            mine = [r for r in runs if r["optimizer"] == name and r["task"] == task]
            paired = np.concatenate([np.array(r["test_scores"]) - np.array(r["seed_scores"]) for r in mine])
            out.append(_row(mine, task, budget, paired))
    return out


def _admitted(found: dict[str, Rows], key: str, most: int, engine: str, work: Any) -> list[Admission]:
    """Verdicts on tasks in an order drawn by the key, until `most` are admitted."""
    order = sorted(found, key=lambda n: results.text_hash(key + "\0" + n))
    verdicts: list[Admission] = []
    while order and sum(v.admitted for v in verdicts) < most:
        now, order = order[: work.n_jobs], order[work.n_jobs :]
        for verdict in work(delayed(task_admission)(name, found[name], key, engine) for name in now):
            if sum(v.admitted for v in verdicts) < most:
                verdicts.append(verdict)
                print(f"  {verdict.task}: {'admitted' if verdict.admitted else 'left out'}, {verdict.reason}", file=sys.stderr, flush=True)
    return verdicts


def _spent(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the model was really asked, and who won with what."""
    winners = [{k: r[k] for k in ("optimizer", "task", "seed", "final")} for r in runs]
    return {"model_calls": sum(r["model_calls"] for r in runs), "winners": winners}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smol", description=__doc__)
    parser.add_argument("--tasks", type=Path, required=True, help="a folder with one JSONL of {input, output} a task")
    parser.add_argument("--budget", type=int, default=600, help="student calls of one run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--optimizers", default="atlas,gepa,miprov2,random")
    parser.add_argument("--key", required=True, help="text that draws the splits")
    parser.add_argument("--most-tasks", type=int, default=12, help="take at most so many admitted tasks, in an order drawn by the key")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--engine", choices=["batch", "served"], default="batch",
                        help="the weights computed here in batches, or by the product's own servers at a tenth of the speed")  # fmt: skip
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(argv)
    found = load(args.tasks)
    optimizers = args.optimizers.split(",")
    for name in optimizers:
        get(NAMES.get(name, name))
    work = Parallel(n_jobs=args.jobs)
    verdicts = _admitted(found, args.key, args.most_tasks, args.engine, work)
    tasks = [v.task for v in verdicts if v.admitted]
    if not tasks:
        print("smol: no task has headroom that prompts can reach; nothing was run", file=sys.stderr)
        return 1
    units = [(name, seed) for seed in range(args.seeds) for name in tasks]
    runs: list[dict[str, Any]] = []
    made: list[results.Row] = []
    for some in Parallel(n_jobs=args.jobs, return_as="generator_unordered")(
        delayed(play_all)(name, found[name], args.key, seed, optimizers, args.budget, args.engine) for name, seed in units
    ):
        runs += some
        said = ", ".join(f"{r['optimizer']} {np.mean(r['test_scores']):.3f} ({r['seconds']:.0f} s)" for r in some)
        start = np.mean(some[0]["seed_scores"])
        print(f"  [{len(runs) // len(optimizers)}/{len(units)}] {some[0]['task']} {some[0]['seed']}: from {start:.3f}; {said}",
              file=sys.stderr, flush=True)  # fmt: skip
        runs.sort(key=lambda r: (tasks.index(r["task"]), r["seed"], optimizers.index(r["optimizer"])))
        made = rows(runs, optimizers, args.budget)
        about = results.meta(
            "smol", key=args.key, model="SmolLM2-135M-Instruct", engine=arithmetic() if args.engine == "batch" else "llama.cpp",
            draws_done=len(runs) // len(optimizers), draws=len(units), admissions=[vars(v) for v in verdicts], **_spent(runs),
        )  # fmt: skip
        results.write(args.json, about, made)  # after every draw, so that a run that is ended early leaves what it has
    columns = ["task", "optimizer", "seeds", "seed_score", "test_score", "gain", "gain_low", "gain_high", "over_gepa", "over_miprov2",
               "rollouts", "prompt_tokens"]  # fmt: skip
    print(results.table(made, columns))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
