"""The gate passes what is better, refuses what is not, and says when it cannot know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gepa_atlas.errors import DataError
from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.ship import bundle, gate, sums
from gepa_atlas.ship.cells import Evaluation, Row, evaluation, read_cells
from gepa_atlas.ship.config import GateConfig
from gepa_atlas.ship.criteria import Criterion, Promoted, verdict
from gepa_atlas.ship.gate import ADAPTER, PROMPT, Decided, decide
from gepa_atlas.ship.registry import Registry
from tests.ship.world import EASY, GAIN, easy, effects, packaged, rows_of, suite, training_run, with_values

LENIENT = GateConfig(**EASY)


def judged(found: Evaluation, config: GateConfig = LENIENT, **more: Any) -> Decided:
    return decide(found, ADAPTER, config, **{"adapter_problems": []} | more)


def of(decided: Decided, name: str) -> Criterion:
    return next(c for c in decided.criteria if c.name == name)


def test_a_true_gain_passes_every_criterion() -> None:
    decided = judged(effects(GAIN, 100), GateConfig(bootstrap=2000))
    assert decided.verdict == "pass", decided.reasons
    assert {c.passed for c in decided.criteria} == {True}


def test_thirty_of_thirty_is_inconclusive_at_the_97_percent_bound() -> None:
    decided = judged(effects(GAIN, 30), GateConfig(bootstrap=2000))
    ndr = of(decided, "non_degradation")
    assert (ndr.value, ndr.passed, ndr.n) == (1.0, None, 30)
    assert ndr.low == pytest.approx(0.8865, abs=1e-4)
    assert decided.verdict == "inconclusive"
    assert "30 of 30" in decided.reasons[0]


def test_a_seeded_regression_fails() -> None:
    decided = judged(effects(GAIN | {"adapter+evolved": 0.1}, 100))
    assert decided.verdict == "fail"
    assert of(decided, "gain_over_student").passed is False and of(decided, "gain_over_base+evolved").passed is False


def test_an_adapter_no_better_than_the_prompt_alone_is_refused() -> None:
    decided = judged(effects(GAIN | {"adapter+evolved": 0.5}, 100))
    assert decided.verdict != "pass"
    assert of(decided, "gain_over_student").passed is True and of(decided, "gain_over_base+evolved").passed is not True


def test_losses_on_a_few_tasks_fail_the_non_degradation_whatever_the_mean() -> None:
    found = effects(GAIN, 200)
    hurt = [
        row.model_copy(update={"reward": 0.0}) if row.cell == "adapter+evolved" and int(row.task_id[1:]) % 8 == 0 else row
        for row in found.rows
    ]
    decided = judged(evaluation(hurt), GateConfig(bootstrap=2000))
    assert of(decided, "gain_over_student").passed is True
    assert of(decided, "non_degradation").passed is False and decided.verdict == "fail"


def test_unscored_answers_decide_nothing_even_for_a_gain() -> None:
    found = effects(GAIN, 100)
    rows = [
        row.model_copy(update={"reward": None, "why_unscored": "rate_limited"})
        if int(row.task_id[1:]) < 9 and row.cell == "student"
        else row
        for row in found.rows
    ]
    decided = judged(evaluation(rows), GateConfig(bootstrap=2000))
    assert of(decided, "scored").passed is None and "rate_limited x 9" in of(decided, "scored").reason
    assert decided.verdict == "inconclusive"


def test_answers_that_are_not_in_the_file_count_as_unscored() -> None:
    rows = [row for row in effects(GAIN, 100).rows if not (row.cell == "adapter+evolved" and int(row.task_id[1:]) < 10)]
    assert "no such row x 10" in of(judged(evaluation(rows)), "scored").reason


def test_a_cell_that_was_not_run_is_inconclusive() -> None:
    rows = [row for row in effects(GAIN, 100).rows if row.cell != "base+evolved"]
    decided = judged(evaluation(rows))
    assert decided.verdict == "inconclusive" and of(decided, "gain_over_base+evolved").passed is None


def test_files_nobody_looked_at_are_inconclusive_and_bad_ones_fail() -> None:
    found = effects(GAIN, 100)
    assert judged(found, adapter_problems=None).verdict == "inconclusive"
    assert judged(found, adapter_problems=["a tensor holds NaN"]).verdict == "fail"


def test_deltas_of_the_cached_baseline_serve_where_the_student_was_not_run() -> None:
    found = effects(GAIN, 100)
    rows = [row.model_copy(update={"delta": row.reward - 0.3}) for row in found.rows if row.cell != "student" and row.reward is not None]
    assert of(judged(evaluation(rows)), "gain_over_student").value == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("theirs", "passed"), [(0.5, True), (0.8, None), (1.0, False)], ids=["worse", "about as good", "better than we are"]
)
def test_it_may_not_be_worse_than_what_serves_now(theirs: float, passed: bool | None) -> None:
    found = effects(GAIN | {"promoted": theirs}, 100)
    assert of(judged(found, promoted=Promoted("f" * 32, "adapter+evolved", None)), "not_worse_than_promoted").passed is passed
    # ... or from its own evaluation, on the tasks that both saw, each against its own run of the student
    old = effects({"student": 0.2, "adapter+evolved": theirs - 0.1}, 100, seed=1)
    mine = effects(GAIN, 100)
    criterion = of(judged(mine, promoted=Promoted("f" * 32, "adapter+evolved", old)), "not_worse_than_promoted")
    assert criterion.passed is passed or (passed is None and criterion.low is not None and criterion.low < 0.02)


def test_a_promoted_bundle_that_cannot_be_compared_is_inconclusive_and_may_be_left_out() -> None:
    found = effects(GAIN, 100)
    unknown = Promoted("f" * 32, "adapter+evolved", None)
    assert judged(found, promoted=unknown).verdict == "inconclusive"
    without = judged(found, GateConfig(**EASY, must_beat=("base+evolved",)), promoted=unknown)
    assert without.verdict == "pass" and any("not compared" in w for w in without.warnings)


def test_general_ability_must_hold() -> None:
    found = effects(GAIN, 100)
    assert of(judged(suite(found, 0.6, 0.6)), "regression_suite").passed is True
    assert of(judged(suite(found, 0.6, 0.4)), "regression_suite").passed is False
    assert of(judged(suite(found, 0.6, 0.6, n=20)), "regression_suite").passed is None


def test_tokens_and_form_are_limits() -> None:
    found = effects(GAIN, 100)
    assert of(judged(with_values(found, "adapter+evolved", tokens=200.0)), "tokens_ratio").passed is False
    assert of(judged(with_values(found, "adapter+evolved", format_valid=False)), "format_valid").passed is False
    assert of(judged(with_values(found, "base+evolved", format_valid=False)), "format_valid").passed is True
    strict = GateConfig(**EASY, min_format_valid=0.9)
    assert of(judged(with_values(found, "base+evolved", format_valid=False), strict), "format_valid").passed is True


def test_refusals_are_a_criterion_where_one_is_asked_for() -> None:
    found = effects(GAIN, 100)
    asked = GateConfig(**EASY, min_refusal=0.8)
    assert of(judged(found, asked), "refusals").passed is None
    rows = rows_of("adapter+evolved", np.full(40, np.nan), kind="underspecified", refused=False)
    assert of(judged(evaluation([*found.rows, *rows]), asked), "refusals").passed is False
    rows = rows_of("adapter+evolved", np.full(40, np.nan), kind="underspecified", refused=True)
    assert of(judged(evaluation([*found.rows, *rows]), asked), "refusals").passed is True


@pytest.mark.parametrize(("after", "passed"), [(0.8, True), (0.1, False)])
def test_the_hold_out_judge_must_agree_in_sign(after: float, passed: bool) -> None:
    found = with_values(with_values(effects(GAIN, 100), "student", holdout_reward=0.4), "adapter+evolved", holdout_reward=after)
    decided = judged(found)
    assert of(decided, "holdout_judge").passed is passed and of(decided, "judge_agreement").passed is passed


def test_a_prompt_alone_is_judged_against_seed_and_student() -> None:
    cells = {"student": 0.3, "base+seed": 0.4, "base+evolved": 0.8}
    good = decide(effects(cells, 100), PROMPT, GateConfig(bootstrap=2000))
    assert good.verdict == "pass"
    assert [c.name for c in good.criteria if c.name.startswith("gain")] == ["gain_over_student", "gain_over_base+seed"]
    assert decide(effects(cells | {"base+evolved": 0.4}, 100), PROMPT, LENIENT).verdict != "pass"
    same = [row.model_copy(update={"cell": "base+evolved"}) for row in effects(cells, 100).rows if row.cell == "base+seed"]
    rest = [row for row in effects(cells, 100).rows if row.cell != "base+evolved"]
    assert decide(evaluation([*rest, *same]), PROMPT, LENIENT).verdict != "pass"  # the seed itself


def test_one_certain_failure_fails_and_doubt_never_passes() -> None:
    yes, no, maybe = (Criterion("x", "", passed) for passed in (True, False, None))
    assert verdict([yes, no, maybe]) == "fail"
    assert verdict([yes, maybe]) == "inconclusive"
    assert verdict([yes, yes]) == "pass"
    assert verdict([]) == "inconclusive"


# -- the stage --------------------------------------------------------------------------------------------------------


def test_the_stage_writes_a_decision_about_exactly_these_files(tmp_path: Path) -> None:
    config = easy(registry=tmp_path / "registry")
    result = gate.run(training_run(tmp_path / "run", effects(GAIN, 60)), config)
    document = json.loads((tmp_path / "run" / "gate" / "decision.json").read_text())
    assert (document["verdict"], document["operation"], document["subject"]["kind"]) == ("pass", "teacher", "adapter")
    assert result.outputs == ("decision.json", "eval_2x2.json")
    figures = result.figures
    assert figures["trained_delta"] - figures["base_delta"] == pytest.approx(figures["gain"], abs=1e-9)
    assert figures["gain_low"] < figures["gain"] < figures["gain_high"] and figures["n_tasks"] == 60
    assert {"adapter/adapter_model.safetensors", "prompt.txt", "eval/cells.jsonl"} <= document["bundle_sha256s"].keys()


def test_a_distilled_adapter_is_judged_and_ships_without_the_prompt(tmp_path: Path) -> None:
    config = easy(registry=tmp_path / "registry")
    cells = GAIN | {"base+none": 0.3, "adapter+none": 0.6}
    work = training_run(tmp_path / "run", effects(cells, 60), mode="distil")
    gate.run(work, config)
    document = json.loads((work.folder / "decision.json").read_text())
    names = [c["name"] for c in document["criteria"]]
    assert document["verdict"] == "pass" and {"gain_over_base+none", "not_worse_than_base+evolved"} <= set(names)
    package = Workspace(tmp_path / "run", "package", 3, tmp_path)
    bundle.run(package, config)
    assert (package.folder / "prompt.txt").read_text() == ""


def test_a_run_that_serves_is_not_held_against_itself(tmp_path: Path) -> None:
    config = easy(registry=tmp_path / "registry")
    made = packaged(tmp_path / "run", config)
    work = Workspace(tmp_path / "run", "gate", 3, tmp_path)
    before = gate.inputs(work, config)
    Registry(tmp_path / "registry").promote(made)
    assert gate.inputs(work, config) == before
    assert gate.run(work, config).figures["verdict"] == "pass"  # decided again, it has no rival but the base
    other = training_run(tmp_path / "other", effects(GAIN, 60))
    assert gate.inputs(other, config)["promoted"] == sums.bundle_id(made)


def test_a_wrong_base_fails(tmp_path: Path) -> None:
    work = training_run(tmp_path / "run", effects(GAIN, 60), figures={"base_sha256": "c" * 64})
    result = gate.run(work, easy(registry=tmp_path / "registry"))
    assert result.figures["verdict"] == "fail" and "trained on a base" in result.figures["reasons"][0]


def test_reads_of_a_test_set_are_counted_once_an_evaluation(tmp_path: Path) -> None:
    config = easy(registry=tmp_path / "registry")
    reads = []
    for seed in (0, 0, 1, 2, 3):
        work = training_run(tmp_path / f"run{len(reads)}", effects(GAIN, 40, seed=seed))
        result = gate.run(work, config)
        reads.append(result.figures["test_reads"])
    assert reads == [1, 1, 2, 3, 4]
    assert "4 evaluations have read this test set" in result.figures["warnings"][0]


def test_the_same_evaluation_is_decided_alike(tmp_path: Path) -> None:
    one, two = (judged(effects(GAIN, 50), seed=5) for _ in range(2))
    assert [c.to_json() for c in one.criteria] == [c.to_json() for c in two.criteria]


# -- rows that are wrong ----------------------------------------------------------------------------------------------

BAD = [
    '{"cell": "student"}', "[]", "{", "null", '{"cell": "a", "task_id": "t", "reward": NaN}',
    '{"cell": "a", "task_id": "t", "reward": 1.5}',
    '{"cell": "a", "task_id": "t", "reward": true}', '{"cell": "a", "task_id": "t", "reward": "0.5"}', '{"cell": "", "task_id": "t"}',
    '{"cell": "a", "task_id": "t", "kind": "other"}', '{"cell": "a", "task_id": "t", "confidence": -0.1}',
    '{"cell": "a", "task_id": "t"}\n{"cell": "a", "task_id": "t"}', "", '{"cell": "a", "task_id": "t", "tokens": Infinity}',
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_a_row_that_is_none_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_cells(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_line_ends_where_json_lines_end(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text('{"cell": "student", "task_id": "a\u2028b\u0085c", "reward": 1.0}\n', "utf-8")
    assert read_cells(path).rows[0].task_id == "a\u2028b\u0085c"


def test_rows_keep_what_they_do_not_know_out_of_the_mean() -> None:
    rows = [Row(cell="a", task_id="t", sample=0, reward=1.0), Row(cell="a", task_id="t", sample=1, why_unscored="timeout")]
    assert evaluation(rows).rewards("a") == {"t": 1.0}
