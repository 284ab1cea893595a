"""python -m benchmarks.compat CHECKOUT [--json OUT]: gepa's tests of its `optimize`, against gepa itself and against our compat module.

CHECKOUT is a clone of github.com/gepa-ai/gepa at the tag of the installed gepa package. Its tests are read there, never copied. Counted are
the tests that call `gepa.optimize` or `gepa.api.optimize`: which those are, and which of them can pass on this machine at all, is found by
running them against gepa itself first.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import meta, write

ROOT = Path(__file__).parent.parent.parent
_USES = re.compile(r"gepa\.optimize\(|from gepa(\.api)? import .*\boptimize\b|import gepa\b")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compat", description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    given.checkout = given.checkout.resolve()
    tests = given.checkout / "tests"
    if not tests.is_dir():
        parser.error(f"{tests} is no directory; give a clone of github.com/gepa-ai/gepa")
    files = sorted(f for f in tests.rglob("test_*.py") if _USES.search(f.read_text("utf-8")))
    table = rows(given.checkout, run("gepa", given.checkout, files), run("atlas", given.checkout, files))
    if given.json:
        write(given.json, meta("compat"), table)
    show(table)
    return 0


def run(side: str, checkout: Path, files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What each test of these files did, on one side."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "rows.json"
        env = os.environ | {"COMPAT_SIDE": side, "COMPAT_OUT": str(out), "COMPAT_CHECKOUT": str(checkout), "PYTHONPATH": str(ROOT)}
        options = ["-p", "benchmarks.compat.plugin", "-p", "no:cacheprovider", "-q", "-x", "--maxfail=10000", "--timeout=120"]
        command = [
            sys.executable,
            "-m",
            "pytest",
            *options,
            "--rootdir",
            str(checkout),
            "-c",
            os.devnull,
            "--continue-on-collection-errors",
        ]
        subprocess.run([*command, *map(str, files)], cwd=directory, env=env, capture_output=True, check=False)
        found: dict[str, dict[str, Any]] = json.loads(out.read_text())
        return found


def calls_optimize(checkout: Path, test: str) -> bool:
    """Whether the test function of a pytest id says `optimize(`."""
    file, *_, name = test.split("::")
    tree = ast.parse((checkout / file).read_text("utf-8"))
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name.partition("[")[0]]
    calls = [ast.unparse(c.func) for n in found for c in ast.walk(n) if isinstance(c, ast.Call)]
    return any(call in ("optimize", "gepa.optimize") for call in calls)


def rows(checkout: Path, theirs: dict[str, dict[str, Any]], ours: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One flat row for each test that reaches `optimize`, or that could not be run at all."""
    table = []
    for test, row in sorted(theirs.items()):
        if row["outcome"] == "not collected" or (row["outcome"] == "failed" and not row["reached"] and calls_optimize(checkout, test)):
            table.append({"test": test, "gepa": "cannot run", "atlas": "cannot run", "why": row["why"]})
        elif row["reached"]:
            mine = ours.get(test, {"outcome": "not run", "why": ""})
            passed = mine["outcome"] == "passed"
            why = "" if passed else mine.get("refused") or mine["why"]
            table.append({"test": test, "gepa": row["outcome"], "atlas": mine["outcome"], "why": why})
    return table


def show(table: Sequence[dict[str, Any]]) -> None:
    print(f"{'gepa':10} {'atlas':10} test")
    for row in table:
        print(f"{row['gepa']:10} {row['atlas']:10} {row['test'].removeprefix('tests/')}")
        if row["why"]:
            print(f"{'':22}{row['why']}")
    able = [row for row in table if row["gepa"] == "passed"]
    print(
        f"{sum(row['atlas'] == 'passed' for row in able)} of {len(able)} tests that pass with gepa itself pass with gepa_atlas.compat.gepa"
    )


if __name__ == "__main__":
    raise SystemExit(main())
