"""Functions that sweeps of the tests measure."""

from __future__ import annotations

import os
import signal
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
