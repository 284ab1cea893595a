"""`python -m benchmarks.smol`: real search on the embedded SmolLM2-135M; one vocabulary, equal student calls, held-out gain."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.optimizers import get
from benchmarks.server import EvalServer
from benchmarks.smol.landscape import Admission, SmolLandscape, admit
from benchmarks.smol.student import Student
from benchmarks.smol.tasks import draw, load
from benchmarks.stats import mean_interval

# What an optimizer of this suite is called on the command line, and with which operators: those that use the shared vocabulary.
NAMES = {"atlas": "atlas:operators=reflect.demos.merge.ablate"}


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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smol", description=__doc__)
    parser.add_argument("--tasks", type=Path, required=True, help="a folder with one JSONL of {input, output} a task")
    parser.add_argument("--budget", type=int, default=600, help="student calls of one run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--optimizers", default="atlas,gepa,miprov2,random")
    parser.add_argument("--key", required=True, help="text that draws the splits")
    parser.add_argument("--most-tasks", type=int, default=8, help="take at most so many admitted tasks, in an order drawn by the key")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args(argv)
    from gepa_atlas.llm.local import LocalModel

    found = load(args.tasks)
    optimizers = args.optimizers.split(",")
    for name in optimizers:
        get(NAMES.get(name, name))
    student = Student(LocalModel())
    admissions: list[Admission] = []
    runs: list[dict[str, Any]] = []
    try:
        order = sorted(found, key=lambda n: results.text_hash(args.key + "\0" + n))
        for name in order:
            if sum(a.admitted for a in admissions) >= args.most_tasks:
                break
            verdict = admit(SmolLandscape(draw(name, found[name], args.key, 0), student))
            admissions.append(verdict)
            print(f"  {name}: {'admitted' if verdict.admitted else 'left out'}, {verdict.reason}", file=sys.stderr, flush=True)
            if not verdict.admitted:
                continue
            for seed in range(args.seeds):
                landscape = SmolLandscape(draw(name, found[name], args.key, seed), student)
                for optimizer in optimizers:
                    runs.append(play(landscape, optimizer, args.budget, seed))
                    last = runs[-1]
                    print(
                        f"    seed {seed} {optimizer}: {np.mean(last['seed_scores']):.3f} -> {np.mean(last['test_scores']):.3f}, "
                        f"{last['rollouts']} calls, {last['seconds']:.0f} s", file=sys.stderr, flush=True,
                    )  # fmt: skip
    finally:
        student.close()
    if not runs:
        print("smol: no task has headroom that prompts can reach; nothing was run", file=sys.stderr)
        return 1
    made = rows(runs, optimizers, args.budget)
    about = results.meta(
        "smol", key=args.key, model="SmolLM2-135M-Instruct", admissions=[vars(a) for a in admissions], model_calls=student.made,
        winners=[{k: r[k] for k in ("optimizer", "task", "seed", "final")} for r in runs],
    )  # fmt: skip
    results.write(args.json, about, made)
    columns = ["task", "optimizer", "seeds", "seed_score", "test_score", "gain", "gain_low", "gain_high", "over_gepa", "over_miprov2",
               "rollouts", "prompt_tokens"]  # fmt: skip
    print(results.table(made, columns))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
