"""Calibration and benchmark on recorded judges' real answers: a panel fitted on one half, scored on the other."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from gepa_atlas.cli import rim_commands as commands
from gepa_atlas.cli.rim import app
from gepa_atlas.errors import ConfigError, DataError
from gepa_atlas.rim.atlas import replay
from gepa_atlas.rim.bank import Bank, load_bank
from gepa_atlas.rim.bench import bench
from gepa_atlas.rim.calibrate import calibrate_bank, fit_points
from gepa_atlas.rim.figures import area, calibration_error, interval, strict, tie_credit
from gepa_atlas.rim.plans import Plan, best_order, play
from gepa_atlas.rim.pooling import fit, means, softmax
from gepa_atlas.rim.profile import Platt, Profile, load_profile

BANK = Path(__file__).parents[1] / "data" / "rb2_judge_bank" / "slice.jsonl.gz"
CALIBRATED = ("claude-haiku-4.5", "claude-sonnet-4.6", "gpt-5.4", "gpt-5.4-mini")


def part(bank: Bank, rows: slice) -> Bank:
    scores = {prompt: table[rows] for prompt, table in bank.scores.items()}
    return dataclasses.replace(bank, keys=bank.keys[rows], scores=scores, row_digests=bank.row_digests[rows])


@pytest.fixture(scope="module")
def halves() -> tuple[Bank, Bank]:
    bank = load_bank(BANK)
    return part(bank, slice(0, 120)), part(bank, slice(120, 240))


@pytest.fixture(scope="module")
def profile(halves: tuple[Bank, Bank]) -> Profile:
    return calibrate_bank(halves[0], judges=CALIBRATED, prompts=["criteria"])


@pytest.mark.parametrize(("cap", "least"), [(2, 0.80), (4, 0.82), (None, 0.82)])
def test_the_panel_beats_atlas_on_the_half_it_was_not_fitted_on(
    halves: tuple[Bank, Bank], profile: Profile, cap: float | None, least: float
) -> None:
    result = bench(halves[1], profile, most_calls=cap)
    rows = {row["policy"]: row for row in result["rows"]}
    panel, atlas = rows["panel"], rows["atlas"]
    assert result["meta"]["held_out"]
    assert cap is None or panel["calls_per_response"] <= cap
    assert panel["strict"] >= least
    assert panel["strict"] > atlas["strict"] + 0.05
    assert panel["strict_low"] <= panel["strict"] <= panel["strict_high"]
    assert panel["tie_credit"] >= panel["strict"]
    assert panel["escalation_auc"] > 0.8 > 0.65 > atlas["escalation_auc"]
    assert panel["ece"] < 0.1  # 120 rows; the whole bank gives .01 to .025
    assert panel["n"] == 120


def test_more_calls_are_only_spent_where_answers_are_close(halves: tuple[Bank, Bank], profile: Profile) -> None:
    contest = profile.contests["criteria"]
    plan = contest.choose(2).plan
    played = play(plan, contest.pooling, halves[1].of("criteria", contest.pooling.judges))
    open_rows = played.calls.max(axis=1) > plan.stages[0]
    gap = np.sort(softmax(played.first), axis=1)
    assert gap[open_rows, -1].mean() < gap[~open_rows, -1].mean()
    assert (played.calls[~open_rows] <= plan.stages[0]).all()


def test_a_profile_survives_its_file(tmp_path: Path, halves: tuple[Bank, Bank], profile: Profile) -> None:
    (tmp_path / "p.json").write_text(json.dumps(profile.to_json()))
    again = load_profile(tmp_path / "p.json")
    assert again.identity == load_profile(tmp_path / "p.json").identity
    assert bench(halves[1], again, most_calls=4)["rows"] == bench(halves[1], load_profile(tmp_path / "p.json"), most_calls=4)["rows"]
    assert bench(halves[1], again, most_calls=4)["rows"][0]["strict"] == bench(halves[1], profile, most_calls=4)["rows"][0]["strict"]
    assert not bench(halves[0], again)["meta"]["held_out"]


def test_bad_profiles_are_one_line(tmp_path: Path) -> None:
    for content in ("", "{}", "[]", '{"kind": "x", "schema_version": 1}', '{"kind": "gepa_atlas.rim.profile", "schema_version": 1}'):
        (tmp_path / "p.json").write_text(content)
        with pytest.raises(ConfigError, match="calibrate again"):
            load_profile(tmp_path / "p.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_profile(tmp_path / "none.json")


def test_a_cap_below_the_cheapest_plan_is_refused(profile: Profile) -> None:
    assert profile.contests["criteria"].choose(1).plan.stages == (1,)
    with pytest.raises(ConfigError, match="raise the cap"):
        profile.contests["criteria"].choose(0.5)


def test_without_a_profile_the_plain_mean_is_scored(halves: tuple[Bank, Bank]) -> None:
    rows = bench(halves[1], most_calls=4, judges=CALIBRATED)["rows"]
    panel = next(row for row in rows if row["prompt"] == "criteria" and row["policy"] == "panel")
    assert panel["calls_per_response"] <= 4
    assert panel["ece"] is None  # a mean is no probability
    assert panel["strict"] > 0.8


def test_a_missing_judge_and_unread_draws_are_absent_not_zero(halves: tuple[Bank, Bank]) -> None:
    scores = halves[0].of("criteria", CALIBRATED)
    model = fit(CALIBRATED, scores)
    gone = scores.copy()
    gone[:, :, 0] = np.nan
    wanted = np.ones(scores.shape[:3], dtype=np.int64)
    without = model.log_posterior(*means(gone, wanted))
    three = wanted.copy()
    three[:, :, 0] = 0
    assert np.allclose(without, model.log_posterior(*means(scores, three)))
    assert np.allclose(softmax(model.log_posterior(*means(np.full_like(scores, np.nan), wanted))), 0.25)


def test_permuting_the_responses_permutes_the_posterior(halves: tuple[Bank, Bank]) -> None:
    scores = halves[0].of("criteria", CALIBRATED)
    model = fit(CALIBRATED, scores)
    wanted = np.random.default_rng(0).integers(0, 3, scores.shape[:3])
    order = [2, 0, 3, 1]
    one = model.log_posterior(*means(scores, wanted))
    other = model.log_posterior(*means(scores[:, order], wanted[:, order]))
    assert np.allclose(one[:, order], other)


def test_the_order_of_draws_takes_other_families_before_repeats(profile: Profile) -> None:
    order = best_order(profile.contests["criteria"].pooling, 8, 8)
    assert len(set(order[:2])) == 2
    assert len(order) == 8


def test_atlas_rule_by_hand() -> None:
    small = np.array([[[6.0, 7.0, 8.0], [2.0, 9.0, 9.0], [np.nan] * 3, [5.0, np.nan, 5.0]]])
    large = np.array([[[1.0], [4.0], [np.nan], [9.0]]])
    said = replay(small, large)
    assert said.score.tolist() == [[0.7, 0.4, 0.0, 0.5]]
    assert said.calls.tolist() == [[3, 4, 0, 3]]


def test_figures_by_hand() -> None:
    score = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert strict(score).tolist() == [True, False, False]
    assert tie_credit(score).tolist() == [1.0, 0.5, 0.0]
    assert area(np.array([1.0, 2.0, 3.0, 3.0]), np.array([False, False, True, True])) == 1.0
    assert area(np.array([1.0, 1.0]), np.array([False, True])) == 0.5
    assert calibration_error(np.array([0.8] * 10), np.array([1.0] * 8 + [0.0] * 2)) == pytest.approx(0.0)
    low, high = interval(np.array([0.0, 1.0] * 50))
    assert low < 0.5 < high
    assert Platt(2.0, 0.0)(0.0) == 0.5


def test_one_response_is_a_calibrated_probability(halves: tuple[Bank, Bank]) -> None:
    scores = halves[0].of("criteria", CALIBRATED)
    rows, responses = scores.shape[:2]
    label = np.tile(np.arange(responses) == 0, rows).astype(float)
    points, figures = fit_points(CALIBRATED, scores.reshape(rows * responses, 4, -1), label, groups=np.repeat(np.arange(rows), responses))
    assert figures["auc"] > 0.85 and figures["ece"] < 0.06
    good, bad = ({name: (score, 8) for name in CALIBRATED} for score in (9.0, 2.0))
    assert points.value(good)[0] > 0.8 > 0.2 > points.value(bad)[0]
    assert points.value({CALIBRATED[0]: (9.0, 1)})[1] > points.value({CALIBRATED[0]: (9.0, 8)})[1]


def test_length_is_taken_off() -> None:
    rng = np.random.default_rng(0)
    label, lengths = rng.integers(0, 2, 400).astype(float), 2.0 ** rng.integers(4, 12, 400)
    scores = (0.3 + 0.3 * label + 0.04 * (np.log2(lengths) - 8) + rng.normal(0, 0.1, 400)).clip(0, 1)[:, None, None]
    plain, _ = fit_points(("j",), scores, label)
    controlled, figures = fit_points(("j",), scores, label, lengths=lengths)
    assert figures["length_slope"] > 0.3
    gap = [p.value({"j": (0.5, 1)}, 2000)[0] - p.value({"j": (0.5, 1)}, 20)[0] for p in (plain, controlled)]
    assert gap[0] == 0.0 and gap[1] < -0.1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "a row is a JSON object"),
        ("{", "not a JSON object"),
        ('{"id": 1}', "a bank's row has `scores`"),
        ('{"id": 1, "chosen": 0, "scores": {"base": {"a": [[1], ["x"]]}}}', "a score is a finite number or null"),
        ('{"id": 1, "chosen": true, "scores": {"base": {"a": [[1], [2]]}}}', "a bank's row has `scores`"),
        ('{"id": 1, "chosen": 0, "scores": {"base": 5}}', ":1: the scores of 'base' are not"),
        ('{"id": 1, "chosen": 0, "scores": {"base": {"a": [5, 4]}}}', ":1: the scores of 'a' under 'base' are not"),
        ('{"id": 1, "chosen": 0, "scores": {"base": {"a": {"x": 1}}}}', ":1: the scores of 'a' under 'base' are not"),
        ('{"id": 1, "chosen": 0, "scores": {"base": {"a": [[5]]}}}', "two or more responses"),
        ('{"id": 1, "chosen": 0, "scores": {"base": {}}}', "no judge scored anything"),
        ('{"id": 1, "chosen": 0, "scores": {"base": {"a": [[], []]}}}', "no judge scored anything"),
        ('{"id": 1, "chosen": 5, "scores": {"base": {"a": [[1], [2]]}}}', "has 2 responses"),
    ],
)
def test_bad_banks_name_the_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "bank.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        load_bank(tmp_path / "bank.jsonl")


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bank.jsonl.gz").write_bytes(BANK.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read"):
        load_bank(tmp_path / "bank.jsonl.gz")


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_commands(tmp_path: Path) -> None:
    with gzip.open(BANK, "rt") as text:
        rows = [json.loads(line) for line in text]
    for row in rows:
        row["scores"] = {"criteria": {j: s for j, s in row["scores"]["criteria"].items() if j in CALIBRATED[:3]}}
    dev, held_out = lines(tmp_path / "dev.jsonl", rows[:120]), lines(tmp_path / "held.jsonl", rows[120:])
    out, result = tmp_path / "profile.json", tmp_path / "out.json"
    run = CliRunner()
    assert run.invoke(app, ["calibrate", "--bank", str(dev), "--out", str(out)]).exit_code == 0
    said = run.invoke(
        app, ["bench", "--bank", str(held_out), "--profile", str(out), "--max-calls-per-response", "2", "--json", str(result)]
    )
    assert said.exit_code == 0, said.output
    written = json.loads(result.read_text())
    assert [row["policy"] for row in written["rows"]] == ["panel", "atlas"]
    columns = {"policy", "prompt", "calls_per_response", "n", "strict", "strict_low", "strict_high", "tie_credit", "escalation_auc", "ece"}
    assert columns <= written["rows"][0].keys()
    assert written["meta"]["held_out"] is True
    again = run.invoke(app, ["bench", "--bank", str(dev), "--profile", str(out)])
    assert "used to fit the profile" in again.output

    config = tmp_path / "rim.yaml"
    config.write_text("rim: {judges: [{type: recorded, table: dev.jsonl, judge: gpt-5.4, prompt: criteria}]}")
    with pytest.raises(ConfigError, match="calibrate with the same --config"):
        commands.bench(bank=held_out, profile=out, config=config)
    with pytest.raises(ConfigError, match="--bank FILE"):
        commands.calibrate(out=out)
    assert isinstance(app, typer.Typer)


def test_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for i in range(200):
        right = bool(rng.integers(0, 2))
        draws = [float(np.clip(0.4 + 0.3 * right + rng.normal(0, 0.15), 0, 1)) for _ in range(2)]
        rows.append({"id": i, "output": "x" * int(rng.integers(1, 90)), "label": right, "scores": {"a": draws, "b": float(rng.random())}})
    out = tmp_path / "profile.json"
    said: list[str] = []
    assert commands.calibrate(labels=lines(tmp_path / "labels.jsonl", rows), out=out, say=said.append) == 0
    points = load_profile(out).points["labels"]
    p, error = points.value({"a": (0.9, 2), "b": (0.5, 1)})
    assert p > 0.7 and error is None  # b was never asked twice about the same output
    once, often = (points.value({"a": (0.7, n), "b": (0.5, 1)}, exact=frozenset("b"))[1] for n in (1, 8))
    assert once is not None and often is not None and 0.5 > once > often > 0
    figures = load_profile(out).figures["labels"]
    assert abs(figures["weights"]["a"]) > 5 * abs(figures["weights"]["b"])
    assert 0.1 < figures["noise_of_one_draw"]["a"] < 0.2
    for bad in ({"label": 2, "scores": {}}, {"label": 1, "scores": {"a": 3}}, {"label": True}):
        with pytest.raises((DataError, ConfigError)):
            commands.calibrate(labels=lines(tmp_path / "bad.jsonl", [bad]), out=out)


def test_a_plan_is_plain_data() -> None:
    plan = Plan((0, 1, 0), (1, 3), 0.05)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
