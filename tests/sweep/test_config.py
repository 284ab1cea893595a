"""What a sweep's file may say. Everything else is one line that names the value, the rule and the next step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError
from gepa_atlas.sweep.config import Sweep, load_sweep
from gepa_atlas.sweep.study import opened

from .conftest import Made

ROOT = Path(__file__).parents[2]
TOY = {"suites": {"toy": str(ROOT / "configs/examples/toyworld.yaml")}}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"space": {"minibach": [1, 2]}, **TOY}, "minibach: unknown key; did you mean 'minibatch'"),
        ({"space": {"minibatch": [0]}, **TOY}, "minibatch: Input should be greater than or equal to 1"),
        ({"space": {"x": []}}, "space.x: has no values"),
        ({"space": {"x": [1, 2, 1]}}, "space.x: a value is listed twice"),
        ({"space": {"x": [False, 0, 0.1]}}, "a value is listed twice (1, 1.0 and true are one to optuna)"),
        ({"space": {"x": {"low": 3, "high": 3}}}, "low must be below high"),
        ({"space": {"x": {"low": 0, "high": 3, "log": True}}}, "a log range starts above 0"),
        ({"space": {"x": {"low": 0.5, "high": 3}}, "suites": None}, "suites"),
        ({"space": {"x": {"lo": 1, "high": 3}}}, "space.x.lo: unknown key; did you mean 'low'"),
        ({"space": {"x": {"choices": {"a": 1}}}}, "choices is a mapping of a name to the keys that it sets"),
        ({"space": {"seed": [1]}}, "list them under `seeds`"),
        ({"space": {"p": {"choices": {"a": {"x": 1}}}, "x": [1]}}, "both assign x"),
        ({"space": {}, "search": {"method": "tpe", "trials": 3}}, "there is nothing to search"),
        ({"search": {"method": "tpe"}}, "method tpe needs one of `trials`"),
        ({"search": {"method": "tpe", "trials": 3, "cells": 9}}, "method tpe needs one of `trials`"),
        ({"search": {"method": "gp", "cells": 5}, "seeds": 6}, "search.cells: 5 pays for no combination, which takes 6"),
        ({"search": {"method": "matrix"}, "space": {"x": {"low": 0.5, "high": 3}}}, "space.x: has no end; give a list, or a range"),
        ({"search": {"method": "gp", "trials": 3}, "space": {"x": {"low": 0.5, "high": 3}}}, "space.x: has no end"),
        ({"search": {"method": "gp", "trials": 3, "pruner": "wilcoxon"}}, "remove pruner"),
        ({"search": {"method": "gp", "trials": 3, "startup": 3}}, "startup is not read with method gp"),
        ({"search": {"method": "gp", "trials": 3}, "space": {"x": {"low": 1, "high": 5001}}}, "5,001 combinations, and gp takes 5,000"),
        ({"search": {"method": "gp", "trials": 3}, "objectives": ["gain", "harm"]}, "gp needs a single objective"),
        ({"search": {"method": "matrix", "trials": 3}}, "a matrix runs every combination"),
        ({"search": "grid"}, "search.method"),
        ({"search": {"method": "matrix", "startup": 3}}, "startup is not read with method matrix"),
        ({"search": {"method": "matrix", "seed": 7}}, "seed is not read with method matrix"),
        ({"search": {"method": "random", "trials": 3, "startup": 3}}, "startup is not read with method random"),
        ({"objectives": ["win"]}, "'win' is none; there are gain, score"),
        ({"objectives": ["gain", "harm"], "search": {"method": "tpe", "trials": 2, "pruner": "wilcoxon"}}, "needs a single objective"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "named twice"),
        ({"backend": {"name": "loky", "address": "x:1"}}, "loky runs on this machine and has no address"),
        ({"backend": "spark"}, "backend.name"),
        ({"suites": {}}, "suites"),
        ({"suites": {"a": {"config": "x.yaml", "function": "y.py:f"}}}, "give one of the two"),
        ({"suites": {"a": "missing.yaml"}}, "no such file"),
        ({"suites": {"a": {"function": "missing.py:f"}}}, "there is no file"),
        ({"suites": {"a": {"function": "worlds.py"}}}, "must read `path/to/file.py:function`"),
        ({"jobs": 3}, "jobs: unknown key"),
        ({"space": {"x": {"low": 1, "high": 10**9}}}, "1,000,000,000 combinations, and matrix takes 100,000"),
        ({"space": {"x": {"low": 1, "high": float("inf")}}}, "finite"),
        ({"storage": "postgresql+psycopg://me:hunter22@127.0.0.1:9/x"}, "write ${NAME} in its place"),
        ({"name": "../../elsewhere"}, "without slashes"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(made: Made, keys: dict[str, Any], said: str) -> None:
    path = made(**keys)
    with pytest.raises(ConfigError, match=r"\A[^\n]+\Z") as error:
        load_sweep(path)
    assert said in str(error.value)


def test_a_command_that_cannot_begin_leaves_nothing(made: Made, tmp_path: Path) -> None:
    path = made(space={"x": []})
    done = subprocess.run(
        [sys.executable, "-c", "from gepa_atlas.start import main; main()", "sweep", str(path), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "is no address of a database"),
        ("sqlite://", "names no file; write sqlite:///PATH"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql+psycopg://me:${SWEEP_PASSWORD}@127.0.0.1:9/x", "cannot be reached"),
        ("postgresql+psycopg://me:${NO_SUCH_PASSWORD}@127.0.0.1:9/x", "NO_SUCH_PASSWORD"),
    ],
)
def test_a_storage_that_is_none(
    sweep_of: Callable[..., Sweep], tmp_path: Path, url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_PASSWORD", "hunter22")
    with pytest.raises(ConfigError, match=said) as error, opened(sweep_of(storage=url), tmp_path):
        pass
    assert "hunter22" not in str(error.value) and "\n" not in str(error.value)


def test_labels_that_look_alike_are_different(made: Made) -> None:
    sweep = load_sweep(made(space={"x": [2, "2", True, 1.5, None, [1, 2], {"a": 1}]}))
    assert sweep.planned() == 7 and len({sweep.cell(p, "world", 0).id for p in sweep.combinations()}) == 7
    assert [sweep.assigned(sweep.cell(p, "world", 0))["x"] for p in sweep.combinations()] == [2, "2", True, 1.5, None, [1, 2], {"a": 1}]


def test_a_range_is_of_whole_numbers_where_it_is_written_so(made: Made) -> None:
    search = {"method": "tpe", "trials": 50}
    ranges = ({"low": 0, "high": 9}, {"low": 0.0, "high": 9.0}, {"low": 0, "high": 9.0}, {"low": 1, "high": 8, "log": True})
    sizes = [load_sweep(made(space={"x": given}, search=search)).size() for given in ranges]
    assert sizes == [10, None, None, 8]


def test_a_stepped_range_has_both_ends(made: Made) -> None:
    sweep = load_sweep(made(space={"x": {"low": 0.0, "high": 0.3, "step": 0.1}, "y": {"low": 2, "high": 8, "step": 3}}))
    assert [s.labels() for s in sweep.space] == [[0.0, 0.1, 0.2, 0.3], [2, 5, 8]]


@pytest.mark.parametrize(("name", "cells"), [("toyworld", 24), ("local", 6)])
def test_the_shipped_sweeps(name: str, cells: int) -> None:
    sweep = load_sweep(ROOT / "configs" / "sweeps" / f"{name}.yaml")
    assert sweep.planned() * len(sweep.instances) == cells
