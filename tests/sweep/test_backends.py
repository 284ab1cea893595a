"""The table of one machine comes from a Ray cluster of two nodes and a Dask cluster too, though a worker is killed half-way."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.same import BACKENDS, Killer, dask_cluster, ray_cluster, same
from gepa_atlas.sweep.cell import parcel, run_cell
from gepa_atlas.sweep.config import Sweep, load_sweep
from gepa_atlas.sweep.report import read_findings, table
from gepa_atlas.sweep.runner import run_sweep

from .conftest import Made

ROOT = Path(__file__).parents[2]
TOY = ROOT / "configs" / "sweeps" / "toyworld.yaml"
SMALL = ["suites.toyworld.set.max_metric_calls=60"]  # its 24 cells, and a fifth of their rollouts


LOKY = "{name: loky, jobs: 2}"


def small(backend: str) -> Sweep:
    return load_sweep(TOY, [*SMALL, f"backend={backend}"])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("loky") / "out"
    run_sweep(small(LOKY), folder)
    return table(read_findings(folder))


@pytest.fixture(scope="module")
def dask() -> Iterator[str]:
    pytest.importorskip("distributed")
    with dask_cluster() as backend:
        yield backend


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    pytest.importorskip("ray")
    with ray_cluster() as backend:
        yield backend


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """The `backend` of a sweep on a cluster of the fixture's name."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.mark.chaos
def test_the_command_that_compares_back_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On loky: undisturbed, and with a worker killed."""
    monkeypatch.setattr("benchmarks.same.BACKENDS", {"loky": BACKENDS["loky"]})
    rows = same(tmp_path, TOY, 0.0, SMALL)
    assert [(row["figure"], row["unit"]) for row in rows] == 2 * [(24, "of 24 cells equal")]
    assert "worker killed" in rows[1]["key"] and len(capsys.readouterr().err.splitlines()) == 2  # and no line that differs


@pytest.mark.chaos
@pytest.mark.filterwarnings("ignore")  # of ray and distributed
@pytest.mark.parametrize("backend", ["dask", "ray"], indirect=True)
def test_a_worker_killed_half_way_changes_nothing(backend: str, expected: str, tmp_path: Path) -> None:
    with Killer(tmp_path / "out", begun=8) as killer:
        run_sweep(small(backend), tmp_path / "out")
    assert killer.killed and table(read_findings(tmp_path / "out")) == expected


@pytest.mark.chaos
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["dask", "ray"], indirect=True)
def test_a_cell_that_kills_its_workers_fails_alone_on_a_cluster(backend: str, made: Made, tmp_path: Path) -> None:
    run_sweep(load_sweep(made("poisoned", space={"x": [1, 2, 3, 4]}), [f"backend={backend}"]), tmp_path / "out")
    found = read_findings(tmp_path / "out")
    errors = {t.settings["x"]: t.errors for t in found.trials if t.errors}
    assert found.counts["complete"] == 2 and "its worker was lost 3 times" in errors[2][0] and errors[4] == ["world/0: ValueError: x is 4"]


@pytest.mark.chaos
def test_a_sweep_killed_half_way_goes_on_to_the_same_table(expected: str, tmp_path: Path) -> None:
    words = ["sweep", str(TOY), "--out", str(tmp_path / "out"), "--set", f"backend={LOKY}"]
    command = [sys.executable, "-c", "from gepa_atlas.start import main; main()", *words, *(w for s in SMALL for w in ("--set", s))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    assert process.stderr is not None
    for _ in range(1 + 9):  # what is planned, and nine cells
        assert process.stderr.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert read_findings(tmp_path / "out").counts["complete"] < 8
    ran: list[dict[str, Any]] = []
    run_sweep(small(LOKY), tmp_path / "out", resume=True, progress=ran.append)
    assert table(read_findings(tmp_path / "out")) == expected and 0 < len(ran) <= 24 - 9


def test_a_cell_runs_on_another_disk_from_what_it_carries(expected: str, tmp_path: Path) -> None:
    """The configuration and its data are taken away; a fresh process has the parcel alone."""
    home = tmp_path / "home"
    shutil.copytree(ROOT / "configs", home / "configs")
    (home / "configs/examples/orders.yaml").write_text(
        "agents: {student: {provider: python.callable, params: {callable: 'code/agent.py:answer'}}}\n"
        "data: {path: data/mine.jsonl}\noperators: [edit]\nmax_metric_calls: 40\n"
    )
    code = home / "configs/examples/code"
    code.mkdir()
    (code / "agent.py").write_text("import words\ndef answer(question: str, guidance: str) -> str:\n    return words.last(question)\n")
    (code / "words.py").write_text("def last(text: str) -> str:\n    return text.split()[-1]\n")
    rows = "".join(f'{{"id": "q{i}", "question": "say w{i}", "answer": "w{i}"}}\n' for i in range(40))
    (home / "configs/examples/data/mine.jsonl").write_text(rows)
    (home / "sweep.yaml").write_text("suites: {mine: configs/examples/orders.yaml}\n")
    sweep = load_sweep(home / "sweep.yaml")
    cell = sweep.cell({}, "mine", 0)
    packed = parcel(sweep, cell, tmp_path / "out", "no such mark", travels=True)
    assert {name for name, _ in packed.files} == {"code/agent.py", "code/words.py", "data/mine.jsonl"}
    shutil.rmtree(home)
    (tmp_path / "parcel").write_bytes(pickle.dumps(packed))
    program = (
        "import json, pickle, sys; from gepa_atlas.sweep.cell import run_cell\n"
        "print(json.dumps(run_cell(pickle.loads(open(sys.argv[1], 'rb').read()))))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "parcel")], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and '"error": null' in done.stdout and '"score": 1.0' in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


_EACH = """
import json, pickle, sys
from gepa_atlas.sweep.cell import run_cell
print(json.dumps([run_cell(packed) for packed in pickle.loads(open(sys.argv[1], 'rb').read())]))
"""


def test_code_travels_with_what_it_imports_and_is_not_taken_for_other_code(tmp_path: Path) -> None:
    """A file, a module beside the sweep, and a file of a package; each has a `words` of its own, and one process runs all of them."""
    home = tmp_path / "home"
    sources = {"": "import words", "other": "import words", "pack/inner": "from pack import words", "away": "import away.words as words"}
    for value, (place, source) in enumerate(sources.items(), 1):
        folder = home / place
        folder.mkdir(parents=True, exist_ok=True)
        words = folder if place != "pack/inner" else folder.parent
        (words / "words.py").write_text(f"value = {value}\n")
        (folder / "cells.py").write_text(
            f"{source}\ndef measure(settings, seed):\n    words.value += 10\n    return {{'gain': words.value}}\n"
        )
    for package in ("pack", "pack/inner", "away"):
        (home / package / "__init__.py").touch()
    named = {
        "one": "cells.py:measure",
        "two": "other/cells.py:measure",
        "three": "pack/inner/cells.py:measure",
        "four": "away.cells:measure",
    }
    (home / "sweep.json").write_text(json.dumps({"suites": {name: {"function": at} for name, at in named.items()}, "seeds": 2}))
    sweep = load_sweep(home / "sweep.json")
    cells = [sweep.cell({}, name, seed) for seed in (0, 1) for name in named]
    packed = [parcel(sweep, cell, tmp_path / "out", "no such mark", travels=True) for cell in cells]
    shutil.rmtree(home)
    (tmp_path / "parcels").write_bytes(pickle.dumps(packed))
    done = subprocess.run([sys.executable, "-c", _EACH, str(tmp_path / "parcels")], capture_output=True, text=True, cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert [(row["error"], row["gain"]) for row in rows] == 2 * [(None, 11), (None, 12), (None, 13), (None, 14)]


def test_a_secret_stays_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "canary-4f7a9c1d")
    (tmp_path / "run.yaml").write_text(
        "agents: {student: {provider: http.api, params: {endpoint: 'http://127.0.0.1:9/${MY_API_KEY}', headers: {A: '${MY_API_KEY}'}}}}\n"
        "data: {toyworld: {seed: 1}}\n"
    )
    (tmp_path / "sweep.yaml").write_text("suites: {mine: run.yaml}\n")
    sweep = load_sweep(tmp_path / "sweep.yaml")
    packed = parcel(sweep, sweep.cell({}, "mine", 0), tmp_path / "out", "", travels=True)
    assert b"canary" not in pickle.dumps(packed) and "${MY_API_KEY}" in str(packed.tree)
    monkeypatch.delenv("MY_API_KEY")
    assert "MY_API_KEY, which is not set" in run_cell(replace(packed, folder=str(tmp_path / "none")))["error"]


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_an_address_where_nobody_is(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[name])
    address = {"dask": "tcp://127.0.0.1:9", "ray": "127.0.0.1:9"}[name]
    words = ["sweep", str(TOY), "--out", str(tmp_path / "out"), "--set", f'backend={{name: {name}, address: "{address}"}}']
    program = "from gepa_atlas.start import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 2 and f"no {name} cluster answers at" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
