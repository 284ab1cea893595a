"""`python -m benchmarks.scale`: what a run takes, fitted on small runs, and predicted for large ones.

check   fit on runs of up to 2,000 rollouts, predict one of `--rollouts`, then run it: predicted and measured, side by side
ahead   from 20,000 rollouts to 10,000 candidates x 10,000 examples and 10 million rollouts: which part breaks first
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import results
from benchmarks.scale.ahead import LIMITS, ahead
from benchmarks.scale.measure import Taken, quickest
from benchmarks.scale.model import Model, figures, fit, load_of

FILE = results.ROOT / "benchmarks" / "results" / "scale.json"
# (examples, rollouts, minibatch): few and many candidates for the rollouts, with long and short prompts, so that terms can be told apart.
USUAL = [(examples, rollouts, 6) for examples in (200, 400, 1000) for rollouts in (500, 1000, 2000)]
OTHER = [(examples, rollouts, minibatch) for examples, rollouts in ((400, 1000), (1000, 2000)) for minibatch in (1, 2, 12)]
UNITS = {
    "seconds": "s of one core", "rest": "s, other than", "engine": "s in the search's decisions", "report": "s of exports",
    "memory": "MB", "run_db": "bytes", "written": "bytes written", "traces": "bytes", "page": "bytes of report.html",
}  # fmt: skip


def small_runs(seeds: int, times: int) -> Model:
    usual: list[Taken] = []
    other: list[Taken] = []
    for seed in range(seeds):
        for setups, found in ((USUAL, usual), (OTHER, other)):
            for examples, rollouts, minibatch in setups:
                found.append(quickest(times, examples, rollouts, seed, minibatch))
                print(f"  {found[-1]}", file=sys.stderr, flush=True)
    return fit([*usual, *other], [run for run in usual if run.rollouts > 1600])


def check(model: Model, examples: int, rollouts: int, times: int) -> list[results.Row]:
    """Predicted and measured. What the run does (its slots, its prompts' length) is taken from the run, what that costs is predicted; the
    number of slots is predicted beside."""
    taken = quickest(times, examples, rollouts, 7)
    print(f"  {taken}", file=sys.stderr, flush=True)
    predicted, measured = model.predict(load_of(taken)), figures(taken)
    rows: list[results.Row] = [
        {"what": name, "predicted": predicted[name], "measured": measured[name], "ratio": predicted[name] / measured[name], "unit": unit}
        for name, unit in UNITS.items()
    ]
    slots = model.slots * taken.rollouts
    return [*rows, {"what": "slots", "predicted": slots, "measured": taken.slots, "ratio": slots / taken.slots, "unit": "for the rollouts"}]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["check", "ahead"])
    parser.add_argument("--examples", type=int, default=400, help="of the large run")
    parser.add_argument("--rollouts", type=int, default=20_000, help="of the large run")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the small runs")
    parser.add_argument("--times", type=int, default=3, help="each run is made so often, and the quickest counts, small and large alike")
    parser.add_argument("--model", type=Path, default=FILE, help="for `ahead`: the file with the fitted coefficients")
    parser.add_argument("--json", type=Path, help="for `check`: write coefficients and rows there")
    args = parser.parse_args(argv)
    if args.what == "ahead":
        about = json.loads(args.model.read_text("utf-8"))["meta"]
        model = Model({name: tuple(w) for name, w in about["weights"].items()}, about["slots"], about["candidates"], about["known"])
        rows = ahead(model)
        print(results.table(rows, list(rows[0])))
        print(f"limits: {', '.join(f'{name} {limit:g}' for name, limit in LIMITS.items())}")
        return 0
    model = small_runs(args.seeds, args.times)
    rows = check(model, args.examples, args.rollouts, args.times)
    print(results.table(rows, ["what", "predicted", "measured", "ratio", "unit"]))
    if args.json:
        about = results.meta("scale", weights=model.weights, slots=model.slots, candidates=model.candidates, known=model.known)
        results.write(args.json, about, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
