"""The run of gepa's own tests: which tests count, on which side they pass, and why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.compat.__main__ import main

TESTS = """
import gepa
from gepa import EvaluationBatch, optimize


class Adapter:
    propose_new_texts = None

    def evaluate(self, batch, candidate, capture_traces=False):
        return EvaluationBatch(outputs=batch, scores=[0.5] * len(batch), trajectories=batch)

    def make_reflective_dataset(self, candidate, batch, components):
        return {c: [{"x": 1}] for c in components}


def run(**given):
    fixed = {"seed_candidate": {"s": "x"}, "trainset": [1, 2, 3], "max_metric_calls": 9}
    return optimize(adapter=Adapter(), reflection_lm=lambda p: "y", **fixed, **given)


def test_plain():
    assert run().candidates[0] == {"s": "x"}


def test_overshoots():
    assert run(valset=[1, 2, 3, 4]).total_metric_calls > 9


def test_strategy():
    assert gepa.optimize and run(candidate_selection_strategy="current_best")


def test_of_something_else():
    assert run


def test_cannot_run():
    import no_such_module

    optimize()
"""


def test_the_table_says_who_passes_and_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(TESTS)
    assert main([str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    rows = {row["test"].partition("::")[2]: row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert {name: (row["gepa"], row["atlas"]) for name, row in rows.items()} == {
        "test_plain": ("passed", "passed"),
        "test_overshoots": ("passed", "failed"),
        "test_strategy": ("passed", "failed"),
        "test_cannot_run": ("cannot run", "cannot run"),
    }
    assert "candidate_selection_strategy='current_best' is not supported" in rows["test_strategy"]["why"]
    assert "no_such_module" in rows["test_cannot_run"]["why"]
    assert capsys.readouterr().out.endswith("1 of 3 tests that pass with gepa itself pass with gepa_atlas.compat.gepa\n")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "tests")])
