"""Several machines share a sweep by a database. The other machine is a process here that has another host name."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import Outage
from gepa_atlas.sweep.config import Sweep, load_sweep
from gepa_atlas.sweep.report import read_findings, table
from gepa_atlas.sweep.runner import run_sweep
from gepa_atlas.sweep.study import opened

from .conftest import Made
from .test_running import ROOT, command

_ELSEWHERE = "import socket; socket.gethostname = lambda: 'another-machine'; from gepa_atlas.start import main; main()"


def test_what_a_machine_that_is_gone_had_begun_is_taken_over_when_asked(made: Made, tmp_path: Path) -> None:
    log, gate, url = tmp_path / "log", tmp_path / "gate", f"sqlite:///{tmp_path}/shared.db"
    keys = {"space": {"x": [0, 1, 2, 3]}, "search": {"method": "matrix", "batch": 2}}
    path = made("gated", {"log": str(log), "gate": str(gate)}, storage=url, **keys)
    words = command(path, tmp_path / "there")
    words[words.index("-c") + 1] = _ELSEWHERE
    gone = subprocess.Popen(words, cwd=ROOT, start_new_session=True)
    while not log.exists() or len(log.read_text().splitlines()) < 2:
        assert gone.poll() is None
        time.sleep(0.02)
    os.killpg(gone.pid, signal.SIGKILL)
    gone.wait()
    gate.touch()
    here = subprocess.run(command(path, tmp_path / "here"), cwd=ROOT, capture_output=True, text=True)
    assert here.returncode == 0 and "4 combinations: 2 running, 2 complete." in here.stdout
    assert "--take-over" in here.stdout  # it may be at work on them: only the user knows
    run_sweep(load_sweep(path), tmp_path / "here", resume=True, take_over=True)
    assert read_findings(tmp_path / "here").counts["complete"] == 4
    assert sorted(Counter(log.read_text().splitlines()).values()) == [1, 1, 2, 2]  # those that died with it are run again, no other
    run_sweep(load_sweep(path, ["storage=null"]), tmp_path / "plain")
    assert table(read_findings(tmp_path / "here")) == table(read_findings(tmp_path / "plain"))


def test_a_database_that_fails_on_the_way_is_one_line(made: Made, tmp_path: Path) -> None:
    database = tmp_path / "shared.db"
    path = made("bowl", storage=f"sqlite:///{database}")

    def break_it(row: dict[str, Any]) -> None:
        with sqlite3.connect(database) as connection:
            connection.execute("ALTER TABLE trial_user_attributes RENAME TO gone")

    with pytest.raises(Outage, match=r"\Astorage: sqlite://\.\.\. failed on the way \([^\n]+--resume goes on when it answers again\Z"):
        run_sweep(load_sweep(path), tmp_path / "out", progress=break_it)
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE gone RENAME TO trial_user_attributes")
    run_sweep(load_sweep(path), tmp_path / "out", resume=True)
    assert read_findings(tmp_path / "out").counts["complete"] == 5


@pytest.mark.parametrize("storage", ["journal", "database"])
def test_a_machine_that_was_not_gone_is_told_so(sweep_of: Callable[..., Sweep], tmp_path: Path, storage: str) -> None:
    url = None if storage == "journal" else f"sqlite:///{tmp_path}/shared.db"
    keys = {"search": {"method": "matrix", "batch": 2}, "storage": url, "backend": {"name": "loky", "jobs": 1}}
    one, two = sweep_of(space={"x": [1]}, name="one", **keys), sweep_of(space={"x": [1, 2]}, name="two", **keys)

    def other(sweep: Sweep, folder: Path) -> Callable[[Any], None]:
        def finishes(row: Any) -> None:
            with opened(sweep, folder) as study:
                for trial in study.get_trials():
                    study.tell(trial.number, 0.5)

        return finishes

    run_sweep(one, tmp_path / "one", progress=other(one, tmp_path / "one"))  # it had every row already
    assert read_findings(tmp_path / "one").counts["complete"] == 1
    with pytest.raises(Outage, match=r"\Aa trial of this process was ended by another one with --take-over, [^\n]+\Z"):
        run_sweep(two, tmp_path / "two", progress=other(two, tmp_path / "two"))
