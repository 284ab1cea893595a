"""Functions that sweeps of the tests measure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def bowl(settings: dict[str, Any], seed: int, centre: float = 3.0) -> dict[str, Any]:
    """Best at x = centre and kind = "b"; every seed has its own luck, every example its own difficulty."""
    gain = 1.0 - (settings["x"] - centre) ** 2 / 40.0 - (settings.get("kind", "b") != "b") * 0.3
    examples = {f"e{i}": gain + 0.01 * (i - 4.5) + 0.02 * seed for i in range(10)}
    return {"gain": sum(examples.values()) / 10, "harm": abs(settings["x"]) / 10, "rollouts": 10, "examples": examples}


def counted(settings: dict[str, Any], seed: int, log: str, pause: float = 0.0) -> dict[str, Any]:
    """As `bowl`, and leaves a line in `log` for every time it is run."""
    with Path(log).open("a") as file:
        file.write(f"{settings} {seed}\n")
    time.sleep(pause)
    return bowl(settings, seed)


def busy(settings: dict[str, Any], seed: int, rounds: int = 3_000_000) -> dict[str, Any]:
    """Keeps one core at work."""
    total = 0
    for i in range(rounds):
        total += i * i % 7
    return {"gain": 1.0 / (1 + settings["x"]), "tokens": total}


def gated(settings: dict[str, Any], seed: int, log: str, gate: str) -> dict[str, Any]:
    """As `counted`, and is not done before there is a file `gate`."""
    found = counted(settings, seed, log)
    while not Path(gate).exists():
        time.sleep(0.01)
    return found


def poisoned(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Kills its worker when x is 2, raises when x is 4."""
    if settings["x"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if settings["x"] == 4:
        raise ValueError("x is 4")
    return bowl(settings, seed)


def lost_once(settings: dict[str, Any], seed: int, mark: str) -> dict[str, Any]:
    """Its worker dies the first time that x is 2."""
    if settings["x"] == 2 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return bowl(settings, seed)


def nonsense(settings: dict[str, Any], seed: int) -> Any:
    if settings["what"] == "exit":
        sys.exit(3)
    return {
        "misspelt": {"win": 1}, "nan": {"gain": float("nan")}, "list": [1], "nothing": {}, "true": {"gain": True},
        "huge": {"gain": 10**400},
        "examples": {"gain": 0.1, "examples": {"a": "x"}}, "no examples": {"gain": 0.1, "examples": [1]},
        "numpy": {"gain": np.float32(0.5), "rollouts": np.int64(3), "examples": {1: np.float64(0.5)}},
    }[settings["what"]]  # fmt: skip


def picky(settings: dict[str, Any], seed: int, log: str, bad: str) -> dict[str, Any]:
    """As `counted`; while the file `bad` exists, only x = 3 with seed 0 works."""
    if Path(bad).exists() and (settings["x"] != 3 or seed != 0):
        raise ValueError(f"there is a {Path(bad).name} file")
    return counted(settings, seed, log)


def greedy(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Takes all memory when x is 2, ends its process when x is 3."""
    held = []
    while settings["x"] == 2:
        held.append(bytes(500_000_000))
    if settings["x"] == 3:
        print("the end", file=sys.stderr, flush=True)
        os._exit(7)
    return bowl(settings, seed)


def hanging(settings: dict[str, Any], seed: int, began: str) -> dict[str, Any]:
    """Waits for a process that never ends, whose number it leaves in `began`."""
    with subprocess.Popen(["sleep", "100000"]) as process:
        Path(began).write_text(str(process.pid))
    return {}
