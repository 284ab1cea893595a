"""Killed, torn and starved: the run that is resumed decides what the undisturbed one decided, and pays for nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos
SCRIPT = Path(__file__).with_name("chaos.py")


def chaos(*args: str) -> dict[str, int]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *args],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def held(report: dict[str, int]) -> bool:
    return report["alike"] == report["runs"] and report["paid_again"] == report["lost"] == report["invented"] == 0


def test_killed_at_a_hundred_random_moments(memory_dir: Path) -> None:
    report = chaos("moments", str(memory_dir), "100", "7", "0")
    assert report["kills"] == 100 and held(report), report
    assert report["extra"] <= 6 * report["kills"], report  # no more than what was under way


def test_killed_while_thirty_percent_of_attempts_fail(memory_dir: Path) -> None:
    report = chaos("moments", str(memory_dir), "30", "8", "0.3")
    assert report["kills"] == 30 and held(report), report


def test_killed_before_every_numbered_write(tmp_path: Path) -> None:
    report = chaos("writes", str(tmp_path))
    assert report["points"] >= 8 and held(report), report


def test_the_disk_is_full_at_many_sizes(tmp_path: Path) -> None:
    report = chaos("full", str(tmp_path))
    assert report["refused"] >= 8 and held(report), report
