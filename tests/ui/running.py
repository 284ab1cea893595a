"""A real live page in a process of its own, runs to show, and one whose texts are hostile."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gepa_atlas.store.run import Run
from gepa_atlas.types import Candidate, Decision, SlotKind, Status

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-c", "import sys; from gepa_atlas.start import main; sys.exit(main())"]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)<script>"
SEED = Candidate.of({"guidance": "Answer."})
CHILD = Candidate.of({"guidance": HOSTILE})


@dataclass
class Server:
    url: str  # without the token
    token: str
    process: subprocess.Popen[str]


@contextmanager
def ui(runs: Path, *options: str) -> Iterator[Server]:
    """`gepa-atlas ui` on a free port; ended by SIGTERM."""
    command = [*COMMAND, "ui", "--runs", str(runs), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+/)(?:\?token=(\S+))?", line)
        assert found is not None, line
        yield Server(found[1], found[2] or "", process)
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def start_run(directory: Path, calls: int = 300, latency: float = 0.1) -> subprocess.Popen[str]:
    """A search of the toy world that takes some seconds, in another process."""
    options = ["--run-dir", str(directory), "--max-metric-calls", str(calls), "--quiet"]
    options += ["--set", f"agents.student.params.latency={latency}", "--set", "concurrency=4"]
    command = [*COMMAND, "optimize", str(ROOT / "configs/examples/toyworld.yaml"), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True, cwd=ROOT)


def slot(n: int, decision: Decision, parents: tuple[str, ...], results: list[list[object]]) -> dict[str, object]:
    cells = [[row[1], 0] for row in results]
    proposal = {
        "n": n,
        "kind": decision.kind.value,
        "operator": decision.operator,
        "parents": list(parents),
        "read": [],
        "gate": cells,
        "cost": 1,
    }
    return {"proposal": proposal, "draft": None, "results": results, "decision": decision.to_json()}


def hostile_run(below: Path) -> Path:
    """A stopped run whose name, reasons and operators would be markup."""
    directory = below / HOSTILE

    async def write() -> None:
        with Run.open(directory, manifest={}, config={"max_metric_calls": 10}) as run:
            first = Decision(0, SlotKind.MEASURE, "seed", SEED.id, Status.IMPROVED, f"new best {HOSTILE}", 2)
            await run.tell(1, "slot", slot(0, first, (SEED.id,), [[SEED.id, f"e{i}", 0, 0.0, 0.0, None] for i in range(8)]))
            better = Decision(1, SlotKind.CHILD, HOSTILE, CHILD.id, Status.IMPROVED, HOSTILE, 2)
            await run.tell(3, "slot", slot(1, better, (SEED.id,), [[CHILD.id, f"e{i}", 0, 0.0, 0.5, None] for i in range(8)]))
            await run.stop(HOSTILE)

    asyncio.run(write())
    return directory
