"""python -m benchmarks.memory writers|queries|warm: see README.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.memory import queries, warm, writers
from gepa_atlas.memory import query
from gepa_atlas.memory.store import Memory
from gepa_atlas.testing.postgres import binaries, server


@contextmanager
def store(kind: str) -> Iterator[str]:
    """The address of an empty store in a temporary folder."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="memory_") as place:
            yield f"{place}/memory.db"
        return
    tools = binaries()
    if tools is None:
        raise SystemExit("there is no PostgreSQL to start: put initdb and pg_ctl on PATH")
    with server(tools, durable=True) as postgres:
        yield postgres.database("memory")


def run_writers(args: argparse.Namespace) -> list[results.Row]:
    rows = []
    for kind in args.stores:
        with store(kind) as url:
            outcome = writers.write(url, args.processes, args.lessons, args.kills)
        rows.append({"store": kind, "processes": args.processes, "lessons": args.lessons, **asdict(outcome), "sound": outcome.sound})
        rows[-1]["seconds"] = round(outcome.seconds, 1)
        print(rows[-1], flush=True)
    return rows


def run_queries(args: argparse.Namespace) -> list[results.Row]:
    rows: list[results.Row] = []
    for kind in args.stores:
        with store(kind) as url:
            seconds = queries.fill(url, args.lessons, args.processes)
            print(f"{args.lessons} lessons in {seconds:.0f} s", file=sys.stderr, flush=True)
            with Memory.open(url) as memory:  # a new connection: its cache is empty, the system's is not
                measured = queries.measure(memory, args.lessons, args.repeats)
                began = time.perf_counter()
                query.counts(memory, query.Filter())
                whole = 1000 * (time.perf_counter() - began)
            size = os.path.getsize(url) if kind == "sqlite" else None
        shared: dict[str, Any] = {"store": kind, "lessons": args.lessons}
        rows += [{**shared, **{k: v if isinstance(v, str) else round(v, 2) for k, v in row.items()}} for row in measured]
        rows.append({**shared, "question": "counts of everything (no index helps)", "median_ms": round(whole, 1)})
        rows.append({**shared, "question": "filling", "seconds": round(seconds, 1), "bytes": size})
    print(results.table(rows, ["store", "question", "median_ms", "p95_ms", "max_ms"]))
    return rows


def run_warm(args: argparse.Namespace) -> list[results.Row]:
    rows = warm.compare(args.seeds, args.budget)
    print(results.table(rows, ["seed", "first_gain", "first_rollouts", "cold_rollouts", "warm_rollouts", "cold_gain", "warm_gain"]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.memory")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, lessons in (("writers", 50_000), ("queries", 1_000_000)):
        one = commands.add_parser(name)
        one.add_argument("--stores", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
        one.add_argument("--lessons", type=int, default=lessons, help="of each writer, or in the store")
        one.add_argument("--processes", type=int, default=8)
    commands.choices["writers"].add_argument("--kills", type=int, default=24)
    commands.choices["queries"].add_argument("--repeats", type=int, default=40)
    started = commands.add_parser("warm")
    started.add_argument("--seeds", type=int, default=20)
    started.add_argument("--budget", type=int, default=600)
    for one in commands.choices.values():
        one.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = {"writers": run_writers, "queries": run_queries, "warm": run_warm}[args.command](args)
    if args.json:
        results.write(args.json, results.meta(f"memory {args.command}"), rows)


if __name__ == "__main__":
    main()
