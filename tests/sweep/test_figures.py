"""Intervals hold what they promise, choosing the best is not praised for its luck, and the page shows foreign text as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gepa_atlas.sweep.figures import Interval, TrialRecord, board, effects, elsewhere, interactions, interval
from gepa_atlas.sweep.report import Findings, best_lines, html, markdown, table


def trial(number: int, cells: dict[int, dict[str, float]], **settings: Any) -> TrialRecord:
    rows = {
        f"s/{seed}": {
            "suite": "s", "seed": seed, "settings": settings, "error": None, "gain": float(np.mean(list(values.values()))),
            "harm": settings.get("harm", 0.0), "examples": values, "time": 1.0, "rollouts": 5,
        }
        for seed, values in cells.items()
    }  # fmt: skip
    return TrialRecord(number, settings, "complete", rows)


def drawn(draw: np.random.Generator, mean: float, seeds: int = 3, examples: int = 30) -> dict[tuple[str, int], dict[str, float]]:
    """Cells whose seeds share luck and whose examples share difficulty."""
    luck, difficulty = draw.normal(0, 0.05, seeds), draw.normal(0, 0.3, examples)
    return {("s", s): {f"e{e}": mean + luck[s] + difficulty[e] + draw.normal(0, 0.2) for e in range(examples)} for s in range(seeds)}


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    draw, held = np.random.default_rng(7), 0
    for n in range(150):
        found = interval(drawn(draw, 0.2), seed=n)
        assert found.low is not None and found.high is not None and found.low <= found.mean <= found.high
        held += found.low <= 0.2 <= found.high
    assert held >= 135  # 95 % of 150 is 142; three standard errors below is 134


def test_one_cell_with_one_figure_has_no_interval() -> None:
    assert interval({("s", 0): {"": 0.5}}) == Interval(0.5, None, None)


def test_suites_count_alike_and_missing_examples_are_left_out() -> None:
    cells = {("a", 0): {"x": 1.0, "y": 1.0, "z": 1.0}, ("a", 1): {"x": 1.0}, ("b", 0): {"w": 0.0, "v": 0.0}}
    assert interval(cells).mean == 0.5


def test_the_best_of_many_equals_is_not_praised_for_its_luck() -> None:
    draw, praised, told = np.random.default_rng(3), [], []
    for _ in range(40):
        trials = [trial(i, {0: {f"e{e}": float(draw.normal(0, 0.5)) for e in range(40)}}, x=i) for i in range(20)]
        praised.append(board(trials, ["gain"])[0].objectives["gain"].mean)
        told.append(elsewhere(trials) or 0.0)
    assert np.mean(praised) > 0.1 and abs(float(np.mean(told))) < 0.05


def test_the_front_of_several_objectives() -> None:
    gains = {0: 0.5, 1: 0.4, 2: 0.6, 3: 0.3}
    harms = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.0}
    trials = [trial(i, {0: {"e": gains[i]}}, harm=harms[i]) for i in gains]
    assert {s.trial.number for s in board(trials, ["gain", "harm"]) if s.front} == {0, 2, 3}


def test_effects_and_interactions_find_what_was_planted() -> None:
    trials = []
    for number, (x, y, z) in enumerate((x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)):
        trials.append(trial(number, {0: {"e": 0.2 * x + 0.3 * (x == y) + 0.0 * z}}, x=x, y=y, z=z))
    found = effects(trials, "gain")
    assert abs(found["x"][1][1].mean - found["x"][0][1].mean - 0.2) < 1e-9 and abs(found["z"][1][1].mean - found["z"][0][1].mean) < 1e-9
    size, one, two, means = interactions(trials, "gain")[0]
    assert (one, two) == ("x", "y") and abs(size - 0.15) < 1e-9 and abs(means["1", "1"] - 0.5) < 1e-9


def test_pages_show_foreign_text_as_text(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>|x"
    bad = TrialRecord(1, {"prompt": nasty}, "failed", {"s/0": {"suite": "s", "seed": 0, "settings": {}, "error": nasty, "time": None}})
    trials = [trial(0, {0: {"e": 0.1, "f": 0.2}}, prompt="plain"), bad]
    findings = Findings(nasty, ["gain"], trials, board(trials, ["gain"]), None, None)
    page = html(findings)
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in page.replace("http-equiv", "")
    assert "\\|x" in markdown(findings) and table(findings).count("\n") == 3
    assert best_lines(findings)[0].startswith("trial 0: gain 0.150 [0.100, 0.200]")
