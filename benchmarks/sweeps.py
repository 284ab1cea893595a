"""`python -m benchmarks.sweeps`: what sweeps promise, measured.

planted   a search over ToyWorld settings against the whole matrix: how good its choice is, and what share of the matrix's runs it took
speedup   a matrix of CPU-bound cells with one job and with two, in one run: wall clock of the first over that of the second
overhead  seconds a cell takes beyond its own work, on loky
resume    a search of 500 trials, killed again and again: trials lost, trials double
same      the sweep of --sweep on loky, a Ray cluster of two nodes and Dask, undisturbed and with a worker killed half-way: equal tables
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import ROOT, Row, meta, table, write
from benchmarks.same import same
from gepa_atlas.sweep.config import load_sweep
from gepa_atlas.sweep.figures import mean_of
from gepa_atlas.sweep.report import Findings, read_findings
from gepa_atlas.sweep.runner import run_sweep
from gepa_atlas.testing.toyworld import toy_world

_TOY = str(ROOT / "configs" / "examples" / "toyworld.yaml")


def _run(folder: Path, tree: dict[str, Any]) -> tuple[Findings, float]:
    """A sweep's findings and its wall clock, without writing reports."""
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    started = time.perf_counter()
    run_sweep(load_sweep(folder / "sweep.yaml"), folder / "out")
    return read_findings(folder / "out"), time.perf_counter() - started


def planted(place: Path, worlds: Sequence[int], keys: Sequence[int]) -> list[Row]:
    """48 combinations, of which those with the true rules, a small gate and few proposals in flight are good; the matrix knows the best."""
    return [row for seed in worlds for row in _planted(place / f"world{seed}", seed, keys)]


def _planted(place: Path, seed: int, keys: Sequence[int]) -> list[Row]:
    settings = {"seed": seed, "noise": 0.5}
    world = toy_world(settings)
    rules, decoys = [r.sentence for r in world.rules], [d.sentence for d in world.decoys]
    offered = {"none": decoys[:1], "decoys": decoys, "half": rules[:3] + decoys, "all": rules + decoys}
    space = {
        "fragments": {"choices": {name: {"operator_options.edit.fragments": texts} for name, texts in offered.items()}},
        "minibatch": [2, 4, 8, 16],
        "width": [4, 16, 64],
    }
    changes = {"max_metric_calls": 240, "agents.student.params.world": settings, "data.toyworld": settings}
    tree = {"suites": {"toy": {"config": _TOY, "set": changes}}, "space": space, "seeds": 3}
    matrix, _ = _run(place / "matrix", tree)
    value = {tuple(t.settings.items()): mean_of(t, "gain") for t in matrix.trials}
    best, cost = max(value.values()), sum(row["rollouts"] for t in matrix.trials for row in t.rows.values())
    rows = []
    for key in keys:
        search = {"method": "gp", "cells": 31, "batch": 1, "seed": key}
        found, _ = _run(place / f"search{key}", {**tree, "search": search})
        chosen = value[tuple(found.board[0].trial.settings.items())]
        spent = sum(row["rollouts"] for t in found.trials for row in t.rows.values())
        row: Row = {"what": "planted", "world": seed, "key": key, "figure": chosen / best, "unit": "of the optimum"}
        rows.append(row | {"share_of_matrix": spent / cost})
    return rows


_BUSY = """
def busy(settings, seed, rounds):
    total = 0
    for i in range(rounds):
        total += i * i % 7
    return {"gain": 1.0 / (1 + settings["x"]), "tokens": total % 1000}
"""


def _cells(place: Path, jobs: int, rounds: int, count: int) -> tuple[float, float]:
    """Wall clock of a matrix of busy cells, and the seconds of work in it."""
    suite = {"function": str(place / "cells.py") + ":busy", "params": {"rounds": rounds}}
    tree = {"suites": {"busy": suite}, "space": {"x": list(range(count))}, "backend": {"name": "loky", "jobs": jobs}}
    found, wall = _run(place / f"jobs{jobs}-{rounds}", tree)
    return wall, sum(row["time"] for t in found.trials for row in t.rows.values())


def speedup(place: Path) -> list[Row]:
    (place / "cells.py").write_text(_BUSY)
    one, _ = _cells(place, 1, 20_000_000, 16)
    two, _ = _cells(place, 2, 20_000_000, 16)
    return [{"what": "speedup", "key": 0, "figure": one / two, "unit": "x with two jobs", "share_of_matrix": None}]


def overhead(place: Path) -> list[Row]:
    (place / "cells.py").write_text(_BUSY)
    wall, work = _cells(place, 2, 1000, 40)
    return [{"what": "overhead", "key": 0, "figure": (wall - work / 2) / 40, "unit": "s a cell", "share_of_matrix": None}]


_SLOW = """
import time
def slow(settings, seed, log):
    with open(log, "a") as file:
        file.write("x")
    time.sleep(0.02)
    return {"gain": 1 - (settings["x"] - 3) ** 2 / 9}
"""


def resume(place: Path, kills: int = 8, trials: int = 500) -> list[Row]:
    (place / "cells.py").write_text(_SLOW)
    tree = {
        "suites": {"slow": {"function": "cells.py:slow", "params": {"log": str(place / "log")}}},
        "space": {"x": {"low": 0.0, "high": 9.0}},
        "search": {"method": "tpe", "trials": trials, "batch": 4},
        "backend": {"name": "loky", "jobs": 2},
    }
    (place / "sweep.yaml").write_text(yaml.safe_dump(tree))
    program = "from gepa_atlas.start import main; main()"
    command = [sys.executable, "-c", program, "sweep", str(place / "sweep.yaml"), "--out", str(place / "out"), "--quiet", "--resume"]
    draw, killed = random.Random(1), 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(timeout=3 + 5 * draw.random() if killed < kills else None)
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    found = read_findings(place / "out")
    numbers = [t.number for t in found.trials if t.state == "complete"]
    runs = (place / "log").stat().st_size
    return [
        {"what": "resume", "key": killed, "figure": trials - len(set(numbers)), "unit": "of 500 trials lost", "share_of_matrix": None},
        {"what": "resume", "key": killed, "figure": len(found.trials) - trials, "unit": "trials double", "share_of_matrix": None},
        {"what": "resume", "key": killed, "figure": runs - trials, "unit": "cells run again after a kill", "share_of_matrix": None},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["planted", "speedup", "overhead", "resume", "same", []], help="default: all")
    parser.add_argument("--keys", default="0,1,2,3,4", help="seeds of the searches of `planted`")
    parser.add_argument("--worlds", default="3", help="seeds of the ToyWorlds of `planted`")
    parser.add_argument("--sweep", type=Path, default=ROOT / "configs" / "sweeps" / "local.yaml", help="the file for `same`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of --sweep; repeatable")
    parser.add_argument("--into", type=float, default=10.0, help="seconds into its cell that the worker is killed in `same`")
    parser.add_argument("--json", type=Path, help="write the rows there")
    given = parser.parse_args()
    keys, worlds = ([int(k) for k in each.split(",")] for each in (given.keys, given.worlds))
    todo: dict[str, Callable[[Path], list[Row]]] = {
        "planted": lambda place: planted(place, worlds, keys), "speedup": speedup, "overhead": overhead, "resume": resume,
        "same": lambda place: same(place, given.sweep, given.into, given.set),
    }  # fmt: skip
    rows: list[Row] = []
    for name in given.what or todo:
        with tempfile.TemporaryDirectory(prefix="gepa_atlas_sweeps_") as place:
            rows += todo[name](Path(place))
    print(table(rows, ["what", "world", "key", "figure", "unit", "share_of_matrix", "seconds"]))
    if given.json:
        write(given.json, meta("sweeps", keys=keys, worlds=worlds), rows)


if __name__ == "__main__":
    main()
