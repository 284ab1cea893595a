"""A sweep ends with the same table, whatever happens to its workers, and to itself."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.sweep.config import Sweep
from gepa_atlas.sweep.report import best_lines, read_findings, table
from gepa_atlas.sweep.runner import run_sweep
from gepa_atlas.sweep.storage import JOURNAL
from gepa_atlas.sweep.study import Ledger, opened

from .conftest import Made

ROOT = Path(__file__).parents[2]


def run(sweep: Sweep, folder: Path, **keys: Any) -> str:
    run_sweep(sweep, folder, **keys)
    return table(read_findings(folder))


def command(path: Path, folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", "from gepa_atlas.start import main; main()", "sweep", str(path), "--out", str(folder), "--quiet", *more]


def test_a_matrix_runs_every_cell_once(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    log = tmp_path / "log"
    sweep = sweep_of("counted", {"log": str(log)}, seeds=[0, 1], space={"x": [0, 3, 5], "kind": ["a", "b"]})
    run_sweep(sweep, tmp_path / "out")
    assert Counter(log.read_text().splitlines()).most_common(1)[0][1] == 1
    found = read_findings(tmp_path / "out")
    assert len(log.read_text().splitlines()) == 12 and found.counts["complete"] == 6
    assert found.board[0].trial.settings == {"x": 3, "kind": "b"}
    before = table(found)
    assert run(sweep, tmp_path / "out", resume=True) == before and len(log.read_text().splitlines()) == 12  # nothing is run again


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_poisoned_cell_fails_alone(sweep_of: Callable[..., Sweep], tmp_path: Path, jobs: int) -> None:
    backend = {"name": "loky", "jobs": jobs}
    run_sweep(sweep_of("poisoned", space={"x": [0, 1, 2, 3, 4, 5]}, backend=backend), tmp_path / "out")
    found = read_findings(tmp_path / "out")
    errors = {t.settings["x"]: t.errors for t in found.trials if t.errors}
    assert found.counts["complete"] == 4 and found.counts["failed"] == 2
    assert "its worker was lost 3 times" in errors[2][0] and errors[4] == ["world/0: ValueError: x is 4"]


def test_values_that_are_nearly_equal_are_combinations_of_their_own(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    run_sweep(sweep_of(space={"x": [1.0, 1.000001, 2.0]}), tmp_path / "out")
    assert [t.settings["x"] for t in read_findings(tmp_path / "out").trials] == [1.0, 1.000001, 2.0]


def test_a_lost_worker_changes_nothing(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    plain = run(sweep_of("lost_once", {"mark": str(tmp_path)}), tmp_path / "one")  # the mark exists: nothing is lost
    assert run(sweep_of("lost_once", {"mark": str(tmp_path / "mark")}), tmp_path / "two") == plain
    assert (tmp_path / "mark").exists()


def test_labels_of_several_lines_stay_on_one(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    labels = ["a\tb", "c\nd", "e\u2028f", "plain", [1, [2]], {"k": "v\n"}, "long " * 700]
    text = run(sweep_of(space={"prompt": labels, "x": [3]}), tmp_path / "out")
    rows = [line.split("\t") for line in text.splitlines()]
    assert len(rows) == 1 + len(labels) and len({len(row) for row in rows}) == 1
    assert rows[1][2] == '"a\\tb"' and rows[4][2] == "plain"
    assert all("\n" not in line for line in best_lines(read_findings(tmp_path / "out")))


def test_a_sweep_that_cannot_begin_leaves_nothing(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    url = f"sqlite:///{tmp_path}/x.db"
    run_sweep(sweep_of(space={"x": [1]}, name="taken", storage=url), tmp_path / "one")
    for keys, said in [
        ({"storage": "sqlite:////no/such/folder/x.db"}, "cannot be reached"),
        ({"backend": {"name": "dask", "address": "tcp://127.0.0.1:9"}}, "no dask cluster answers"),
        ({"storage": url, "name": "taken"}, "space is not what this sweep was begun with"),
    ]:
        with pytest.raises(ConfigError, match=said):
            run_sweep(sweep_of(space={"x": [1, 2]}, **keys), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_folder_whose_sweep_is_gone(tmp_path: Path) -> None:
    for content, said in [("{}", "holds no sweep"), ("[1]", "holds no sweep"), ('{"name": "x", "storage": null}', "study.journal is gone")]:
        (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(ConfigError, match=said):
            read_findings(tmp_path)
    (tmp_path / JOURNAL).touch()
    with pytest.raises(ConfigError, match="knows no sweep 'x'"):
        read_findings(tmp_path)


@pytest.mark.chaos
def test_killed_again_and_again_a_search_loses_no_trial_and_none_is_double(made: Made, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    search = {"method": "tpe", "trials": 60, "batch": 4, "startup": 8}
    space = {"x": {"low": 0.0, "high": 9.5}, "kind": ["a", "b"]}
    path = made("counted", {"log": str(log), "pause": 0.02}, space=space, search=search)
    draw = random.Random(5)
    for attempt in range(30):
        process = subprocess.Popen(command(path, out, *(["--resume"] if out.exists() else [])), cwd=ROOT, start_new_session=True)
        try:
            process.wait(timeout=2.0 + 2.0 * draw.random() if attempt < 4 else 100)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if draw.random() < 0.5 and (out / JOURNAL).exists():
                with (out / JOURNAL).open("ab") as file:
                    file.write(b'{"op_code":5,"tri')  # as a power cut leaves it
            continue
        assert process.returncode == 0
        break
    found = read_findings(out)
    assert len(found.trials) == 60 and found.counts["complete"] == 60
    assert sorted(t.number for t in found.trials) == list(range(60)) and all(len(t.rows) == 1 for t in found.trials)
    assert len(log.read_text().splitlines()) <= 60 + 4 * 4  # of a killed batch some cells are run again, of others the row was kept


@pytest.mark.parametrize("storage", ["journal", "postgres"])
def test_two_processes_share_a_sweep(made: Made, tmp_path: Path, storage: str, request: pytest.FixtureRequest) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    url = {} if storage == "journal" else {"storage": request.getfixturevalue("postgres")}
    path = made("counted", {"log": str(log), "pause": 0.05}, space={"x": list(range(16))}, search={"method": "matrix", "batch": 2}, **url)
    folders = [out, out] if storage == "journal" else [out, tmp_path / "elsewhere"]  # a database needs no common folder
    first = subprocess.Popen(command(path, folders[0]), cwd=ROOT)
    while not (folders[0] / "sweep.json").exists():
        assert first.poll() is None
        time.sleep(0.02)
    second = subprocess.Popen(command(path, folders[1], "--resume"), cwd=ROOT)
    assert first.wait() == second.wait() == 0
    lines = Counter(log.read_text().splitlines())
    assert len(lines) == 16 and set(lines.values()) == {1}
    found = read_findings(folders[1])
    assert found.counts["complete"] == 16 and sum(found.counts.values()) == 16


def test_a_search_is_the_same_whoever_runs_it(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    keys: dict[str, Any] = {"space": {"x": {"low": 0.0, "high": 9.5}}, "search": {"method": "tpe", "trials": 16, "batch": 4, "startup": 4}}
    tables = [run(sweep_of(backend={"name": "loky", "jobs": jobs}, **keys), tmp_path / str(jobs)) for jobs in (1, 2)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_two_processes_pay_from_one_purse(sweep_of: Callable[..., Sweep], tmp_path: Path, method: str) -> None:
    sweep = sweep_of(seeds=3, search={"method": method, "cells": 8})
    with (
        opened(sweep, tmp_path) as one,
        opened(sweep, tmp_path) as two,
        Ledger(sweep, one, tmp_path) as a,
        Ledger(sweep, two, tmp_path) as b,
    ):
        assert [len(ledger.batch(1)) for ledger in (a, b, a, b)] == [1, 1, 0, 0]


def test_a_search_tries_nothing_twice_and_ends_with_the_space(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    log = tmp_path / "log"
    search = {"method": "tpe", "trials": 100, "startup": 3, "batch": 2}
    run_sweep(sweep_of("counted", {"log": str(log)}, space={"x": [1, 2, 3], "kind": ["a", "b"]}, search=search), tmp_path / "out")
    assert len(log.read_text().splitlines()) == 6 and read_findings(tmp_path / "out").counts["complete"] == 6


def test_a_range_of_whole_numbers_by_exponent_ends_too(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    search = {"method": "tpe", "trials": 20, "startup": 3, "batch": 2}
    run_sweep(sweep_of(space={"x": {"low": 1, "high": 5, "log": True}}, search=search), tmp_path / "out")
    assert sorted(t.settings["x"] for t in read_findings(tmp_path / "out").trials) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cells", [7, 12])
def test_a_limit_on_cells_is_never_passed(sweep_of: Callable[..., Sweep], tmp_path: Path, cells: int) -> None:
    search = {"method": "tpe", "cells": cells, "startup": 3, "batch": 3, "pruner": "hyperband"}
    run_sweep(sweep_of(space={"x": {"low": 0.0, "high": 9.0}}, seeds=3, search=search), tmp_path / "out")
    found = read_findings(tmp_path / "out")
    assert cells - 3 < sum(len(t.rows) for t in found.trials) <= cells and not found.counts["failed"]


@pytest.mark.parametrize("pruner", ["wilcoxon", "hyperband"])
def test_pruning_saves_cells_and_keeps_the_best(sweep_of: Callable[..., Sweep], tmp_path: Path, pruner: str) -> None:
    if pruner == "wilcoxon":
        pytest.importorskip("scipy")
    search = {"method": "tpe", "trials": 12, "batch": 1, "startup": 4, "pruner": pruner}
    space = {"x": {"low": 0, "high": 9}}
    run_sweep(sweep_of(space=space, seeds=6, search=search, backend={"name": "loky", "jobs": 1}), tmp_path / "out")
    found = read_findings(tmp_path / "out")
    assert found.counts["pruned"] > 0 and sum(len(t.rows) for t in found.trials) < 12 * 6
    assert found.board[0].trial.settings["x"] in (2, 3, 4, 5)


def test_what_a_sweep_refuses_to_go_on_with(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_sweep(sweep_of(space={"x": [1, 2]}), out)
    with pytest.raises(ConfigError, match="--resume"):
        run_sweep(sweep_of(space={"x": [1, 2]}), out)
    with pytest.raises(ConfigError, match="space is not what this sweep was begun with"):
        run_sweep(sweep_of(space={"x": [1, 3]}), out, resume=True)
    with pytest.raises(ConfigError, match=r"suites\.world is not what"):
        run_sweep(sweep_of(params={"centre": 1.0}, space={"x": [1, 2]}), out, resume=True)
    with pytest.raises(ConfigError, match="was begun with another storage"):
        run_sweep(sweep_of(space={"x": [1, 2]}, storage=f"sqlite:///{tmp_path}/x.db"), out, resume=True)
    with pytest.raises(ConfigError, match="holds no sweep"):
        run_sweep(sweep_of(), tmp_path)


def test_a_cell_without_the_figure_that_counts_has_failed(sweep_of: Callable[..., Sweep], tmp_path: Path) -> None:
    run_sweep(sweep_of(objectives=["gain", "cost"], space={"x": [1]}), tmp_path / "out")
    assert "the price of a call is not known" in read_findings(tmp_path / "out").trials[0].errors[0]
    said = {
        "misspelt": "'win'", "nan": "gain=nan", "list": "a list", "nothing": "no gain is known", "true": "gain=True", "huge": "gain=1000",
        "examples": "examples['a']='x'", "no examples": "examples=[1]", "exit": "SystemExit: 3",
    }  # fmt: skip
    run_sweep(sweep_of("nonsense", space={"what": [*said, "numpy"]}), tmp_path / "two")
    *bad, good = read_findings(tmp_path / "two").trials
    assert all(said[str(trial.settings["what"])] in trial.errors[0] for trial in bad) and len(bad) == len(said)
    assert good.state == "complete" and good.rows["world/0"]["gain"] == 0.5 and good.rows["world/0"]["examples"] == {"1": 0.5}
