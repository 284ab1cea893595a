"""The stages that train, on a tiny model: what each leaves, what it skips and says so, and what it refuses before it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError, DataError, Outage, Unhealthy
from gepa_atlas.ship.cells import read_cells
from gepa_atlas.ship.config import GateConfig
from gepa_atlas.ship.gate import ADAPTER, decide
from gepa_atlas.train import baseline, evaluate, grpo, prompts, sft, weights
from gepa_atlas.train.config import TrainConfig
from tests.train import room

pytest.importorskip("trl")


def stage(tmp_path: Path, name: str, module: Any, config: TrainConfig) -> Any:
    work = room.workspace(tmp_path, name)
    result = module.run(work, config)
    assert all((work.folder / file).is_file() for file in result.outputs)
    room.done(work)
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainConfig, dict[str, Any]]:
    """baseline, sft, train and eval, once."""
    tmp = tmp_path_factory.mktemp("whole")
    room.handoff(tmp)
    room.write(tmp / "open.jsonl", [{"question": "Find the total of 3 and something"}])
    room.write(
        tmp / "suite.jsonl", [{"question": "Find the total of 3 and 2", "answer": "5"}, {"question": "Say it", "answer": ["Add them."]}]
    )
    config = room.config(
        grpo={"eval_steps": 2}, reward={"holdout": {"judges": ["exact"]}},
        eval={"samples": 2, "underspecified": "open.jsonl", "regression": "suite.jsonl", "temperature": 1.0},
    )  # fmt: skip
    figures = {}
    for name, module in (("baseline", baseline), ("sft", sft), ("train", grpo), ("eval", evaluate)):
        figures[name] = stage(tmp, name, module, config).figures
    return tmp, config, figures


def test_the_figures_of_each_stage(whole: tuple[Path, TrainConfig, dict[str, Any]]) -> None:
    _, _, figures = whole
    assert figures["baseline"]["tasks"] == 18 and figures["baseline"]["noise"] == 0
    assert figures["sft"]["rows"] == 6 and figures["sft"]["loss_first_and_last"][0] > figures["sft"]["loss_first_and_last"][1]
    assert figures["sft"]["delta_before"] is not None and figures["sft"]["gate_tasks"] == 6
    assert figures["train"]["steps"] == 4 and figures["train"]["kl_step1"] == 0.0 and len(figures["train"]["adapter_sha256"]) == 64
    assert figures["train"]["base_sha256"] == figures["sft"]["base_sha256"]
    assert figures["train"]["best_checkpoint"] in ("checkpoint-2", "checkpoint-4"), "by the reward on val tasks"


def test_the_cells_of_the_evaluation(whole: tuple[Path, TrainConfig, dict[str, Any]]) -> None:
    tmp, _, _ = whole
    rows = room.lines(room.workspace(tmp, "eval").folder / evaluate.CELLS)
    tasks = [row for row in rows if row["kind"] == "task"]
    cells = {"student", "base+seed", "base+evolved", "adapter+seed", "adapter+evolved"}
    for cell in cells:
        mine = [row for row in tasks if row["cell"] == cell]
        assert len(mine) == 12 and {row["task_id"] for row in mine} == {f"test-{n}" for n in range(6)}, "test tasks only, twice each"
        assert all(row["reward"] is not None and -1 <= row["delta"] <= 1 and row["seconds"] >= 0 for row in mine)
    taught = [row for row in tasks if row["cell"] != "student"]
    assert all(0 < row["confidence"] <= 1 and 1 <= row["tokens"] <= 8 and row["format_valid"] in (True, False) for row in taught)
    assert all(row["confidence"] is None and row["delta"] == 0 for row in tasks if row["cell"] == "student")
    assert all(row["holdout_reward"] == (None if row["cell"] == "student" else row["reward"]) for row in tasks)
    names = {c.name for c in decide(read_cells(room.workspace(tmp, "eval").folder / evaluate.CELLS), ADAPTER, GateConfig()).criteria}
    assert {"holdout_judge", "regression_suite", "format_valid", "tokens_ratio"} <= names, "the gate reads what is written here"
    vague = [row for row in rows if row["kind"] == "underspecified"]
    assert {row["cell"] for row in vague} == cells and all(row["reward"] is None for row in vague)
    suite = [row for row in rows if row["kind"] == "regression"]
    assert {row["cell"] for row in suite} == {"base", "adapter"} and all(row["reward"] in (0.0, 1.0) for row in suite)


def test_the_same_seed_ends_with_the_same_weights(whole: tuple[Path, TrainConfig, dict[str, Any]], tmp_path: Path) -> None:
    tmp, config, figures = whole
    room.handoff(tmp_path)
    for name, module in (("baseline", baseline), ("sft", sft), ("train", grpo)):
        found = stage(tmp_path, name, module, config)
    assert found.figures["adapter_sha256"] == figures["train"]["adapter_sha256"]
    kept = room.workspace(tmp, "train").folder
    assert not (kept / grpo.CHECKPOINTS).exists() and {f.name for f in kept.iterdir()} == {"adapter", "metrics.jsonl", "stage.json"}
    card = json.loads((kept / "adapter" / weights.CARD).read_text())
    assert card["kind"] == "full" and card["base"] == "tiny" and str(tmp) not in (kept / "adapter" / "config.json").read_text()


def test_a_guard_ends_training_and_keeps_what_there_is(whole: tuple[Path, TrainConfig, dict[str, Any]], tmp_path: Path) -> None:
    config = room.config(guards={"kl_max": 1e-9, "kl_patience": 2}, grpo={"beta": 0.04}, sft={"enabled": False})
    room.handoff(tmp_path)
    stage(tmp_path, "baseline", baseline, config)
    with pytest.raises(Unhealthy, match=r"kl_ceiling: .* step 3, checkpoints and metrics\.jsonl are kept"):
        stage(tmp_path, "train", grpo, config)
    assert (room.workspace(tmp_path, "train").folder / grpo.CHECKPOINTS / "checkpoint-2").is_dir()


def test_a_warm_up_without_rows_or_that_harms_is_skipped_and_said(tmp_path: Path) -> None:
    config = room.config()
    room.handoff(tmp_path)
    stage(tmp_path, "baseline", baseline, config)
    wrong = [
        {"prompt": [{"role": "system", "content": room.EVOLVED}, {"role": "user", "content": "?"}], "task_id": f"train-{n}",
         "completion": [{"role": "assistant", "content": "Multiply them."}]}
        for n in (0, 1, 3, 4)
    ]  # fmt: skip
    good = [{**row, "completion": [{"role": "assistant", "content": "Add them."}], "task_id": "train-0"} for row in wrong]
    room.write(room.workspace(tmp_path, "export").folder / "sft.jsonl", [])
    empty = stage(tmp_path, "sft", sft, config).figures
    assert empty["skipped"] == "no lesson in sft.jsonl: training starts from the base model"
    base = weights.base_folder(room.workspace(tmp_path, "sft"), config)
    adapter = room.workspace(tmp_path, "sft").folder / "adapter"
    import safetensors.torch

    first, same = (safetensors.torch.load_file(folder / weights.WEIGHTS) for folder in (base, adapter))
    assert all((first[name] == same[name]).all() for name in first), "an adapter that changes nothing"
    fast = room.config(sft={"epochs": 40, "learning_rate": 3e-2}, reward={"retries": 0, "tau": 0.0})
    deltas = {}
    for name, rows in (("good", good), ("wrong", wrong)):
        room.write(room.workspace(tmp_path, "export").folder / "sft.jsonl", rows)
        deltas[name] = stage(tmp_path, "sft", sft, fast).figures
    for figures in deltas.values():
        worse = figures["delta_after"] < figures["delta_before"]
        assert (figures["skipped"] is not None) == worse, "dropped where it harms, and only there"


def test_what_is_refused_before_training(tmp_path: Path) -> None:
    config = room.config()
    work = room.workspace(tmp_path, "train")
    with pytest.raises(ConfigError, match="save_steps: completions are used for 4 passes"):
        grpo.arguments(work, room.config(grpo={"save_steps": 2, "trl": {"steps_per_generation": 2, "num_iterations": 2}}), False)
    with pytest.raises(ConfigError, match=r"no multiple of grpo\.eval_steps"):
        grpo.arguments(work, room.config(grpo={"save_steps": 3, "eval_steps": 2}), True)
    with pytest.raises(ConfigError, match=r"vllm\.mode: colocate needs an accelerator"):
        grpo.arguments(work, room.config(vllm={"mode": "colocate"}, launch={"cpu": True}), False)
    room.handoff(tmp_path)
    with pytest.raises(ConfigError, match="baseline"):
        grpo.run(work, config)
    stage(tmp_path, "baseline", baseline, config)
    none = [row for row in room.lines(room.workspace(tmp_path, "export").folder / "tasks.jsonl") if row["split"] != "test"]
    room.write(room.workspace(tmp_path, "export").folder / "tasks.jsonl", none)
    with pytest.raises(DataError, match="the hand-off has no test tasks"):
        evaluate.run(room.workspace(tmp_path, "eval"), room.config(sft={"enabled": False}, grpo={"enabled": True}))


def test_an_evaluation_in_which_too_much_is_missing_is_no_verdict(tmp_path: Path) -> None:
    config = room.config()
    rows = [{"kind": "task", "reward": None if n < 3 else 1.0, "why_unscored": "unreachable: no connection"} for n in range(10)]
    with pytest.raises(Outage, match="3 of 10 runs of the evaluation have no score"):
        evaluate._refuse_outage(rows, config)
    evaluate._refuse_outage(rows[2:], config)


def test_prompts_hold_the_attempt_of_the_baseline(tmp_path: Path) -> None:
    config = room.config(handoff={"teacher": {"system": "{prompt}", "user": "{question}\n\nIt said:\n{attempt}"}})
    room.handoff(tmp_path)
    stage(tmp_path, "baseline", baseline, config)
    work = room.workspace(tmp_path, "train")
    found = prompts.prompts_of(work, config)
    assert (found.seed, found.evolved, found.front) == (room.SEED, room.EVOLVED, (room.EVOLVED, room.TEXTS[0]))
    from gepa_atlas.train.school import tasks_of

    rows = grpo.rows_for(work, config, "grpo_train", tasks_of(work), baseline.baselines_of(work))
    assert rows[0]["prompt"] == [
        {"role": "system", "content": room.EVOLVED}, {"role": "user", "content": "Find the total of 3 and 2\n\nIt said:\n3"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "refuses"),
    [
        ("I cannot say without the second number.", True), ("There is not enough information.", True), ("It is unclear.", True),
        ("Could you clarify which order you mean?", True), ("I don't know", True), ("5", False), ("The total is 7.", False),
        ("You can not only add but multiply.", False),
    ],
)  # fmt: skip
def test_what_counts_as_a_refusal(said: str, refuses: bool) -> None:
    assert bool(evaluate._REFUSES.search(said)) == refuses
