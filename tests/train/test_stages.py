"""The stages that train, on a tiny model: what each leaves, what it skips and says so, and what it refuses before it begins."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.build import build_experiment
from gepa_atlas.config import load_config
from gepa_atlas.errors import ConfigError, DataError, Outage, Unhealthy
from gepa_atlas.ship import adapter as shipped
from gepa_atlas.ship.cells import read_cells
from gepa_atlas.ship.config import GateConfig
from gepa_atlas.ship.gate import ADAPTER, decide
from gepa_atlas.train import baseline, distill, evaluate, fit, grpo, preference, prompts, sft, weights
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
    assert not (kept / fit.CHECKPOINTS).exists() and {f.name for f in kept.iterdir()} == {"adapter", "metrics.jsonl", "stage.json"}
    card = json.loads((kept / "adapter" / shipped.CARD).read_text())
    assert card["kind"] == "full" and card["base"] == "tiny" and str(tmp) not in (kept / "adapter" / "config.json").read_text()


def test_a_guard_ends_training_and_keeps_what_there_is(whole: tuple[Path, TrainConfig, dict[str, Any]], tmp_path: Path) -> None:
    config = room.config(guards={"kl_max": 1e-9, "kl_patience": 2}, grpo={"beta": 0.04}, sft={"enabled": False})
    room.handoff(tmp_path)
    stage(tmp_path, "baseline", baseline, config)
    with pytest.raises(Unhealthy, match=r"kl_ceiling: .* step 3, checkpoints and metrics\.jsonl are kept"):
        stage(tmp_path, "train", grpo, config)
    assert (room.workspace(tmp_path, "train").folder / fit.CHECKPOINTS / "checkpoint-2").is_dir()


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


@pytest.mark.parametrize(("method", "lora"), [("dpo", None), ("kto", {"r": 4, "dropout": 0.0})])
def test_preference_training_moves_towards_what_helped(tmp_path: Path, method: str, lora: Any) -> None:
    config = room.config(
        model={"lora": lora}, sft={"enabled": False},
        preference={"enabled": True, "method": method, "learning_rate": 1e-2, "max_steps": 6, "beta": 0.1},
    )  # fmt: skip
    room.handoff(tmp_path)
    turns = [{"role": "user", "content": "Find the gap of 3 and 2"}]
    good, bad = ([{"role": "assistant", "content": text}] for text in ("Subtract them.", "Be brief."))
    rows = {
        "dpo": [{"prompt": turns, "chosen": good, "rejected": bad}] * 4,
        "kto": [{"prompt": turns, "completion": text, "label": text is good} for text in (good, bad) * 2],
    }
    folder = room.workspace(tmp_path, "export").folder
    room.write(folder / f"{method}.jsonl", [])
    work = room.workspace(tmp_path, "preference")
    with pytest.raises(ConfigError, match=f"{method}.jsonl has no row"):
        preference.run(work, config)
    room.write(folder / f"{method}.jsonl", rows[method])
    figures = stage(tmp_path, "preference", preference, config).figures
    assert figures["rows"] == 4 and figures["steps"] == 6
    assert _odds(work, config, turns, good, bad, work.folder / "adapter") > _odds(work, config, turns, good, bad, None) + 0.1


def _odds(work: Any, config: TrainConfig, turns: Any, good: Any, bad: Any, adapter: Path | None) -> float:
    """Log probability of the good completion over that of the bad one."""
    import torch

    base = weights.base_folder(work, config)
    tokenizer = weights.load_tokenizer(base, config.model)
    model = weights.load_trainee(base, config.model, adapter, trainable=False).eval()

    def log(completion: Any) -> float:
        ids = tokenizer.apply_chat_template([*turns, *completion], return_tensors="pt", return_dict=True)["input_ids"]
        start = len(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])
        chances = model(input_ids=ids).logits.log_softmax(-1)[0, start - 1 : -1]
        return float(chances.gather(-1, ids[0, start:, None]).sum())

    with torch.no_grad():
        return log(good) - log(bad)


def test_distillation_draws_the_bare_prompt_towards_the_evolved_one(tmp_path: Path) -> None:
    how = {"max_steps": 8, "learning_rate": 5e-3, "batch_size": 4}
    config = room.config(handoff={"prompt_mode": "distil"}, sft={"enabled": False}, grpo={"enabled": False}, distill=how)
    room.handoff(tmp_path)
    stage(tmp_path, "baseline", baseline, config)
    work = room.workspace(tmp_path, "distill")
    with pytest.raises(ConfigError, match=r"distill\.max_prompt_length: 9 tokens, and the longest prompt has"):
        distill.run(work, room.config(handoff={"prompt_mode": "distil"}, distill={"max_prompt_length": 9}))
    figures = stage(tmp_path, "distill", distill, config).figures
    assert figures["steps"] == 8 and figures["rows"] == 6
    before, after = (_distance(work, config, adapter) for adapter in (None, work.folder / "adapter"))
    assert after < 0.7 * before, "what it would say first depends less on whether the evolved prompt is there"


def _distance(work: Any, config: TrainConfig, adapter: Path | None) -> float:
    """KL of the first word with the evolved prompt to the one without."""
    import torch

    base = weights.base_folder(work, config)
    tokenizer = weights.load_tokenizer(base, config.model)
    model = weights.load_trainee(base, config.model, adapter, trainable=False).eval()
    logs = []
    for system in (room.EVOLVED, ""):
        turns = prompts.with_system([{"role": "user", "content": "Find the gap of 4 and 2"}], system)
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            logs.append(model(input_ids=ids).logits[0, -1].log_softmax(-1))
    return float((logs[0].exp() * (logs[0] - logs[1])).sum())


def test_alternate_hands_the_trained_teacher_to_the_next_search(tmp_path: Path) -> None:
    """The command it names is one that `optimize` accepts: same agent and data, the trained model as teacher, its prompt as the seed."""
    room.handoff(tmp_path)
    source = room.ROOT / "configs/examples/reckoner.yaml"
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({**load_config(source).resolved, "source": str(source)}))
    config = room.config(
        handoff={"prompt_mode": "alternate", "path": "run"}, sft={"enabled": False}, grpo={"max_steps": 1, "save_steps": 1}
    )
    stage(tmp_path, "baseline", baseline, config)
    line = shlex.split(stage(tmp_path, "train", grpo, config).figures["next_round"])
    assert line[:3] == ["gepa-atlas", "optimize", str(source)] and line[3] == "--run-dir"
    loaded = load_config(source, [value for flag, value in itertools.pairwise(line) if flag == "--set"])
    experiment = build_experiment(loaded)
    assert experiment.protocol.name == "lesson" and room.EVOLVED in experiment.seeds[0].text("teacher_adaptive_template")
    merged = Path(loaded.config.agents.teacher.params["model"]) if loaded.config.agents.teacher else Path()
    assert (merged / "model.safetensors").is_file() and (merged / "tokenizer.json").is_file()


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
