"""Cells that fail: what the command says, and how they are run again when the cause is mended."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.sweep.config import Sweep
from gepa_atlas.sweep.report import read_findings, table
from gepa_atlas.sweep.runner import run_sweep

from .conftest import Made
from .test_running import ROOT, command


def test_a_sweep_that_finishes_nothing_says_so_in_one_line(made: Made, tmp_path: Path) -> None:
    path, out, bad = (
        made("picky", {"log": str(tmp_path / "log"), "bad": str(tmp_path / "bad")}, space={"x": [1, 3]}, seeds=2),
        tmp_path / "out",
        tmp_path / "bad",
    )
    bad.touch()
    failed = subprocess.run(command(path, out), capture_output=True, text=True, cwd=ROOT)
    assert failed.returncode == 4 and failed.stderr.count("\n") == 1 and (out / "report.html").exists()
    assert failed.stderr.startswith(
        "error: sweep sweep: 3 of 4 cells failed and no combination is finished; the first: world/0: ValueError"
    )
    again = subprocess.run(command(path, out, "--resume"), capture_output=True, text=True, cwd=ROOT)
    assert (again.returncode, again.stderr, again.stdout) == (4, failed.stderr, failed.stdout)  # what failed is not run again unasked
    bad.unlink()
    mended = subprocess.run(command(path, out, "--resume", "--retry-failed"), capture_output=True, text=True, cwd=ROOT)
    assert (mended.returncode, mended.stderr) == (0, "")
    assert set(Counter((tmp_path / "log").read_text().splitlines()).values()) == {1}  # and what was finished is not run twice


@pytest.mark.parametrize("search", [{"method": "matrix"}, {"method": "tpe", "trials": 4, "startup": 4}, {"method": "random", "cells": 8}])
def test_what_failed_and_is_run_again_ends_as_if_it_had_not(sweep_of: Callable[..., Sweep], tmp_path: Path, search: dict[str, Any]) -> None:
    bad = tmp_path / "bad"
    keys: dict[str, Any] = {"space": {"x": [1, 2, 3, 4]}, "seeds": 2, "search": search}
    sweep = sweep_of("picky", {"log": str(tmp_path / "log"), "bad": str(bad)}, **keys)
    run_sweep(sweep, tmp_path / "plain")
    bad.touch()
    with pytest.raises(ConfigError, match="add --resume"):
        run_sweep(sweep, tmp_path / "out", retry_failed=True)
    run_sweep(sweep, tmp_path / "out")
    run_sweep(sweep, tmp_path / "out", resume=True, retry_failed=True)  # the cause is still there
    assert read_findings(tmp_path / "out").counts["failed"] == 4
    bad.unlink()
    run_sweep(sweep, tmp_path / "out", resume=True, retry_failed=True)
    assert table(read_findings(tmp_path / "out")) == table(read_findings(tmp_path / "plain"))


def test_a_cell_that_passes_a_limit_fails_alone(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    run_sweep(sweep_of("greedy", space={"x": [0, 4]}), tmp_path / "plain")
    run_sweep(sweep_of("greedy", space={"x": [0, 2, 3, 4]}, limits={"megabytes": 2000}), tmp_path / "out")
    found = read_findings(tmp_path / "out")
    assert [t.errors for t in found.trials] == [[], ["world/0: MemoryError"], ["world/0: its process ended with exit code 7: the end"], []]
    ends = [line.split("\t")[2:] for line in table(found).splitlines()]
    assert [ends[0], ends[1], ends[4]] == [line.split("\t")[2:] for line in table(read_findings(tmp_path / "plain")).splitlines()]


def test_a_cell_that_hangs_is_ended_with_what_it_started(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    began = tmp_path / "began"
    run_sweep(sweep_of("hanging", {"began": str(began)}, space={"x": [1]}, limits={"seconds": 5}), tmp_path / "out")
    assert read_findings(tmp_path / "out").trials[0].errors == ["world/0: it was not done after 5 seconds (limits.seconds)"]
    while began.exists() and running(int(began.read_text())):
        time.sleep(0.02)


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
