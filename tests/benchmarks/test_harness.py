"""Statistics, result files, the leaderboard, and the two benchmarks of the machinery."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import leaderboard, results
from benchmarks.fake import Task01, Work
from benchmarks.overhead.__main__ import main as overhead
from benchmarks.scheduler.__main__ import main as scheduler
from benchmarks.scheduler.__main__ import measure
from benchmarks.stats import mean_interval, ratio_interval, reach
from gepa_atlas.sweep.config import load_sweep
from gepa_atlas.sweep.report import read_findings, result_rows
from gepa_atlas.sweep.runner import run_sweep


def test_intervals_cover_and_ratios_are_paired() -> None:
    random = np.random.default_rng(0)
    covered = sum(m.low <= 0.3 <= m.high for m in (mean_interval(random.normal(0.3, 1, 60), seed=i) for i in range(100)))
    assert 87 <= covered <= 100
    base = random.normal(0.3, 0.2, 40)
    ratio = ratio_interval(1.5 * base, base)
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.5, 1.5, 1.5))
    assert ratio_interval(base, -base) is None
    with pytest.raises(ValueError, match="40 and 39"):
        ratio_interval(base, base[1:])


def test_reach_is_linear_between_marks() -> None:
    curve, marks = np.array([0.1, 0.1, 0.4]), np.array([100.0, 200.0, 300.0])
    assert reach(curve, marks, 0.25) == pytest.approx(250)
    assert reach(curve, marks, 0.05) == pytest.approx(50)
    assert reach(curve, marks, 0.5) is None
    assert reach(curve, marks, 0.0) == 0.0


def test_the_source_hash_sees_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "ROOT", tmp_path)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.py").write_text("x = 1\n")
    before = results.source_hash("part", "absent.py")
    (tmp_path / "part" / "a.py").write_text("x = 2\n")
    assert results.source_hash("part", "absent.py") != before


def test_the_command_that_a_result_names_holds_no_path_of_one_machine(tmp_path: Path) -> None:
    code = "from benchmarks import results; print(results.meta('x')['command'])"
    (tmp_path / "tried.py").write_text(code)
    given = ["--json", str(tmp_path / "out.json"), f"--tasks={tmp_path}", "--key", "a/b"]
    path = os.pathsep.join([str(results.ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-m", "tried", *given], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"tried --json out.json --tasks={tmp_path.name} --key a/b"


def test_the_leaderboard_is_a_function_of_result_files(tmp_path: Path) -> None:
    row = {"system": "atlas", "concurrency": 16, "stragglers": 0.1, "reflection": "fast", "wall": 1.5, "ideal": 1.0, "ratio": 1.5}
    results.write(tmp_path / "s.json", results.meta("scheduler"), [row])
    (tmp_path / "other.json").write_text('{"meta": {"benchmark": "unknown"}, "rows": []}')
    text = leaderboard.page(tmp_path)
    assert "| atlas | 16 | 0.1 | fast | 1.5 | 1 | 1.5 |" in text
    assert text.count("###") == 1


def test_a_sweep_over_peers_gives_all_the_same_calls_and_is_on_the_leaderboard(tmp_path: Path) -> None:
    pytest.importorskip("gepa")
    small = ["seeds=2", "suites.steady.params.budget=60", "suites.noisy.params.budget=60", "backend={name: loky, jobs: 2}"]
    sweep = load_sweep(results.ROOT / "configs" / "sweeps" / "simland.yaml", small)
    run_sweep(sweep, tmp_path / "out")
    found = read_findings(tmp_path / "out")
    rows = [row for trial in found.trials for row in trial.rows.values()]
    assert len(rows) == 20 and not [row["error"] for row in rows if row["error"]]
    assert {row["rollouts"] for row in rows} <= {59, 60}  # a last slot that needs less than it reserved may leave one over
    results.write(tmp_path / "results" / "sweep.json", {"benchmark": "sweep", "made": "2026-11-27", "versions": {}}, result_rows(found))
    text = leaderboard.page(tmp_path / "results")
    assert all(f"optimizer={name} | gain | 4 |" in text for name in ("atlas", "gepa", "gepa_tuned", "random", "best_of_n"))
    assert "| 0 | - | - |" in text and text.count("###") == 1


def test_work_adds_up_and_stragglers_are_bounded() -> None:
    work = Work(0.01, stragglers=0.5)
    took = [work.take(i) for i in range(400)]
    assert work.seconds == pytest.approx(sum(took)) and work.calls == 400
    assert min(took) == 0.01 and 0.05 < max(took) <= 0.09
    assert 120 < sum(t > 0.01 for t in took) < 280
    assert 0.05 <= Task01().quality("seed\na\nb") <= 0.95


@pytest.mark.parametrize("system", ["atlas", "gepa", "gepa_tuned"])
def test_every_system_does_the_work_it_is_measured_on(system: str) -> None:
    row = measure(system, 0.002, 0.1, 8, False, 150)
    assert row["rollouts"] >= 120
    assert row["wall"] >= row["ideal"] > 0


def test_scheduler_command(tmp_path: Path) -> None:
    out = tmp_path / "s.json"
    arguments = ["--calls", "1ms", "--stragglers", "0.1", "--concurrency", "4", "--rollouts", "130", "--systems", "atlas,gepa_tuned"]
    assert scheduler([*arguments, "--reflection", "fast", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 4
    assert {"system", "concurrency", "stragglers", "reflection", "wall", "ideal", "ratio"} <= rows[0].keys()


def test_overhead_command(tmp_path: Path) -> None:
    out = tmp_path / "o.json"
    assert overhead(["--candidates", "20", "--valset", "20", "--bytes-candidates", "10", "--limit", "20", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    wanted = {"system", "candidates", "valset", "ms_per_proposal", "growth_exponent", "peak_mb", "bytes_written_ratio"}
    assert all(wanted <= r.keys() for r in rows)
    assert [(r["system"], r["reached"]) for r in rows] == [("atlas", 20), ("gepa", 20)]
    assert all(r["bytes_written"] >= r["bytes_final"] > 0 for r in rows)
    assert rows[0]["bytes_written_ratio"] <= 2 < rows[1]["bytes_written_ratio"]
