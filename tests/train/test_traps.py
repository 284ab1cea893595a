"""Ways in which training goes wrong without a word. Each test shows it with the plain trainer first, and then that ours refuses it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.errors import ConfigError, Outage, Unhealthy
from gepa_atlas.ship import adapter as shipped
from gepa_atlas.train import baseline, grpo, sft, weights
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.reward import Judged
from tests.train import room

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model, built once."""
    weights.quiet()
    tmp = tmp_path_factory.mktemp("base")
    room.handoff(tmp)
    return weights.base_folder(room.workspace(tmp, "train"), room.config())


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    weights.quiet()
    yield


def trainer(base: Path, tmp_path: Path, *rewards: Any, kind: Any = None, model: Any = None, **given: Any) -> Any:
    """A GRPO trainer on one prompt with four completions a step; `kind` is trl's own unless given. It records its advantages."""
    seen: list[Any] = []
    kind = kind or trl.GRPOTrainer

    class Recording(kind):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            out = super()._generate_and_score_completions(inputs)
            seen.append(out["advantages"].clone())
            return out

    more = {name: given.pop(name) for name in ("reward", "clamp", "anchor", "front", "callbacks") if name in given}
    if rewards:
        more["reward_funcs"] = list(rewards)
    args = {
        "output_dir": str(tmp_path / "trl"), "use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "max_steps": 1,
        "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 4, "learning_rate": 1e-2, "logging_steps": 1,
        "gradient_checkpointing": False, "disable_tqdm": True, "loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.0,
    } | given  # fmt: skip
    made = Recording(
        model=model or transformers.AutoModelForCausalLM.from_pretrained(base),
        args=trl.GRPOConfig(**args),
        train_dataset=datasets.Dataset.from_list([{"prompt": [{"role": "user", "content": "Find the gap"}], "task_id": "train-0"}] * 8),
        processing_class=weights.load_tokenizer(base, room.config().model),
        **more,
    )
    made.remove_callback(transformers.PrinterCallback)
    made.seen = seen
    return made


class Fixed:
    """A reward that is what the test says: the shape that the trainer knows of RimDeltaReward."""

    __name__ = "rim_delta"

    def __init__(self, *rows: Judged, outage: str | None = None) -> None:
        self.last = list(rows)
        self.outage = outage

    async def __call__(self, **given: Any) -> list[float | None]:
        return [row.value for row in self.last]


def ours() -> Any:
    from gepa_atlas.train.trainer import NoHarmGRPOTrainer

    return NoHarmGRPOTrainer


def finite(model: Any) -> bool:
    return all(torch.isfinite(p).all() for p in model.parameters())


HARMFUL = tuple(Judged("ok", 3 * d, d, True, reward=1 + d) for d in (-0.9, -0.5, -0.4, -0.3))


@pytest.mark.parametrize("scale", ["none", "group"])
def test_the_least_harmful_of_an_all_degrading_group_is_not_reinforced(base: Path, tmp_path: Path, scale: str) -> None:
    plain = trainer(base, tmp_path, lambda **_: [row.value for row in HARMFUL], scale_rewards=scale)
    plain.train()
    assert plain.seen[0].max() > 0.3, "plain GRPO teaches the least harmful"
    guarded = trainer(base, tmp_path, kind=ours(), reward=Fixed(*HARMFUL), scale_rewards=scale)
    guarded.train()
    assert guarded.seen[0].max() <= 0 and guarded.seen[0].min() < 0
    anchored = trainer(base, tmp_path, kind=ours(), reward=Fixed(*HARMFUL), anchor=1.0)
    anchored.train()
    assert (anchored.seen[0] < 0).sum() > (guarded.seen[0] < 0).sum(), "with an anchor the whole group is pushed down"


def test_a_gain_beside_harm_keeps_its_advantage(base: Path, tmp_path: Path) -> None:
    rows = (*HARMFUL[:3], Judged("ok", 0.5, 0.5, reward=1.0))
    guarded = trainer(base, tmp_path, kind=ours(), reward=Fixed(*rows))
    guarded.train()
    assert guarded.seen[0][3] > 0 and (guarded.seen[0][:3] <= 0).all()


def test_one_failed_judge_is_not_the_best_sample(base: Path, tmp_path: Path) -> None:
    rim: list[float | None] = [None, -0.3, -0.2, -0.4]
    plain = trainer(base, tmp_path, lambda **_: rim, lambda **_: [0.0] * 4)
    plain.train()
    assert plain.seen[0].argmax() == 0 and plain.seen[0][0] > 0.2, "two functions: the completion nobody judged is reinforced"
    rows = [Judged("unscored", None, why="down") if v is None else Judged("ok", v, v) for v in rim]
    guarded = trainer(base, tmp_path, kind=ours(), reward=Fixed(*rows))
    guarded.train()
    assert guarded.seen[0][0] == 0 and guarded.seen[0][2] > 0


def test_an_infinite_reward_destroys_nothing(base: Path, tmp_path: Path) -> None:
    """The reward itself never lets one out (test_reward.py); gradients that are not finite for any other reason are not applied."""
    from gepa_atlas.train.trainer import FiniteGradients

    def infinite(**_: Any) -> list[float]:
        return [float("inf"), 0.0, 0.1, 0.2]

    plain = trainer(base, tmp_path, infinite)
    plain.train()
    assert not finite(plain.model), "one step of the plain trainer and the weights are gone"
    guard = FiniteGradients(3)
    guarded = trainer(base, tmp_path, infinite, callbacks=[guard], max_steps=2)
    before = [p.clone() for p in guarded.model.parameters()]
    guarded.train()
    assert guard.skipped == 2 and all(torch.equal(a, b) for a, b in zip(before, guarded.model.parameters(), strict=True))
    stopped = trainer(base, tmp_path, infinite, callbacks=[FiniteGradients(3)], max_steps=9)
    with pytest.raises(Unhealthy, match="nonfinite_gradients: the gradients of 3 steps"):
        stopped.train()
    assert stopped.state.global_step == 2 and finite(stopped.model)


def test_training_is_held_to_the_weights_it_starts_from(base: Path, tmp_path: Path) -> None:
    """A model that was warmed up in memory still names its base folder, and trl loads its reference from there."""
    from gepa_atlas.train.trainer import RightReference

    def warmed() -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.add_(0.5)
        return model

    def flat(**_: Any) -> list[float]:
        return [0.0, 1.0, 0.0, 1.0]

    plain = trainer(base, tmp_path, flat, model=warmed(), beta=0.04)
    plain.train()
    assert plain.state.log_history[0]["kl"] > 1e-3, "the plain trainer goes on, held to the wrong model"
    reference = RightReference(1e-3)
    guarded = trainer(base, tmp_path, flat, model=warmed(), beta=0.04, callbacks=[reference])
    reference.trainer = guarded
    before = [p.clone() for p in guarded.model.parameters()]
    with pytest.raises(Unhealthy, match="wrong_reference"):
        guarded.train()
    assert all(torch.equal(a, b) for a, b in zip(before, guarded.model.parameters(), strict=True)), "before the first update"


def test_a_lora_run_is_held_to_the_adapter_of_the_warm_up(base: Path, tmp_path: Path) -> None:
    from gepa_atlas.train.trainer import RightReference

    model_config = room.config(model={"lora": {"r": 4, "dropout": 0.0}}).model
    first = weights.load_trainee(base, model_config, None, trainable=True)
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
    tokenizer, adapter = weights.load_tokenizer(base, model_config), tmp_path / "sft" / "adapter"
    weights.save_adapter(first, tokenizer, adapter, base=base, model=model_config)

    def flat(**_: Any) -> list[float]:
        return [0.0, 1.0, 0.0, 1.0]

    import peft

    merged = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    new = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    plain = trainer(base, tmp_path, flat, model=peft.get_peft_model(merged, new), beta=0.04)
    plain.train()
    plain.save_model(str(tmp_path / "plain"))
    shipped = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "plain")
    ids = torch.tensor([[5, 6, 7, 8]])
    assert not torch.allclose(shipped(ids).logits, plain.model.eval()(ids).logits, atol=1e-3), "merged: what is saved lacks the warm-up"

    reference = RightReference(1e-6)
    guarded = trainer(
        base, tmp_path, flat, model=weights.load_trainee(base, model_config, adapter, trainable=True), beta=0.04, callbacks=[reference],
        disable_dropout=True,
    )  # fmt: skip
    reference.trainer = guarded
    guarded.train()
    assert reference.kl_step1 == 0.0
    weights.save_adapter(guarded.model, tokenizer, tmp_path / "adapter", base=base, model=model_config)
    assert not list((tmp_path / "adapter").rglob("ref")), "the reference is not shipped"
    again = weights.load_trainee(base, model_config, tmp_path / "adapter", trainable=False)
    assert torch.equal(again.eval()(ids).logits, guarded.model.eval()(ids).logits)


def test_an_adapter_is_refused_on_other_weights(base: Path, tmp_path: Path) -> None:
    import peft

    model = room.config(model={"lora": {"r": 4}}).model
    trained = weights.load_trainee(base, model, None, trainable=True)
    weights.save_adapter(trained, None, tmp_path / "adapter", base=base, model=model)
    other = tmp_path / "other"
    shutil.copytree(base, other)
    changed = transformers.AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        changed.model.norm.weight.add_(1.0)
    changed.save_pretrained(other)
    peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(other), tmp_path / "adapter")  # not a word
    with pytest.raises(ConfigError, match="it was trained on tiny with hash"):
        weights.load_trainee(other, model, tmp_path / "adapter", trainable=False)
    (tmp_path / "adapter" / shipped.CARD).unlink()
    with pytest.raises(ConfigError, match=r"no readable atlas\.json"):
        weights.load_trainee(base, model, tmp_path / "adapter", trainable=False)


def test_an_adapter_that_is_not_finite_is_refused(base: Path, tmp_path: Path) -> None:
    model = room.config(model={"lora": {"r": 4}}).model
    trained = weights.load_trainee(base, model, None, trainable=True)
    with torch.no_grad():
        next(p for n, p in trained.named_parameters() if "lora_B" in n)[0, 0] = float("nan")
    weights.save_adapter(trained, None, tmp_path / "adapter", base=base, model=model)
    with pytest.raises(ConfigError, match="not finite"):
        weights.check_adapter(tmp_path / "adapter", base)


def test_a_row_that_does_not_fit_is_an_error_and_not_dropped(base: Path, tmp_path: Path) -> None:
    tokenizer = weights.load_tokenizer(base, room.config().model)
    turn = [{"role": "user", "content": "Find the gap of 3 and 2 " * 4}]
    rows = [{"prompt": turn, "completion": [{"role": "assistant", "content": "Add them."}]}] * 8
    args = trl.SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], max_length=16, completion_only_loss=True)
    lossy = trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(base), args=args, processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(rows),
    )  # fmt: skip
    assert len(lossy.train_dataset) == 0, "the plain trainer cuts the completions off, drops the rows, and says so in a warning"
    with pytest.raises(ConfigError, match="8 rows were given and the trainer learns from 0"):
        sft.check_rows(lossy.train_dataset, 8)
    with pytest.raises(ConfigError, match=r"sft\.max_length: row 1 of sft\.jsonl has \d+ tokens and the limit is 16"):
        sft.longest_row(tokenizer, rows, room.config(sft={"max_length": 16}))


def test_a_prompt_that_does_not_fit_is_an_error(base: Path) -> None:
    from gepa_atlas.train.prompts import check_lengths

    tokenizer = weights.load_tokenizer(base, room.config().model)
    long = {"train-7": [{"role": "user", "content": "Find the gap of 3 and 2 " * 12}]}
    with pytest.raises(ConfigError, match=r"the prompt of task 'train-7' has \d+ tokens, and with 8"):
        check_lengths(tokenizer, long, 8, 64)
    assert check_lengths(tokenizer, long, 8, 96) <= 88


def test_different_prompts_in_one_group_do_not_reach_a_vllm_server(tmp_path: Path) -> None:
    generation = pytest.importorskip("trl.generation.vllm_generation")

    class Client:
        prompts: tuple[Any, ...] = ()

        def generate(self, prompts: Any, **_: Any) -> dict[str, Any]:
            self.prompts = prompts
            return {"prompt_ids": prompts, "completion_ids": [[1]] * 4, "logprobs": [[[0.0]]] * 4}

    plain = generation.VLLMGeneration.__new__(generation.VLLMGeneration)
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length", "logprobs"):
        setattr(plain, name, 1)
    plain.structured_outputs_regex, plain.generation_kwargs, plain.mode = None, {}, "server"
    import accelerate

    plain.accelerator, plain.vllm_client = accelerate.PartialState(), Client()
    plain.generate([[1], [2], [3], [4]], None, 4)
    assert plain.vllm_client.prompts == [[1]], "three of four system prompts were replaced by the first"
    with pytest.raises(ValueError, match="population needs different prompts in one group"):
        room.config(handoff={"prompt_mode": "population"}, vllm={"mode": "server"})


def test_prompts_of_the_front_take_turns_within_a_group(base: Path, tmp_path: Path) -> None:
    rows = tuple(Judged("ok", v, v) for v in (0.0, 1.0, 0.0, 1.0))
    front = ("Add them.", "Subtract them.", "Be brief.")
    guarded = trainer(base, tmp_path, kind=ours(), reward=Fixed(*rows), front=front)
    guarded.train()
    systems = [prompt[0]["content"] for prompt in guarded._logs["prompt"]]
    assert len(systems) == 4 and set(systems) == set(front)
    assert {prompt[1]["content"] for prompt in guarded._logs["prompt"]} == {"Find the gap"}


def test_an_outage_is_not_a_step_without_reward(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(**_: Any) -> list[None]:
        return [None] * 4

    plain = trainer(base, tmp_path, down, max_steps=2, beta=0.04)
    plain.train()
    logs = [row for row in plain.state.log_history if "reward" in row]
    assert len(logs) == 2 and logs[0]["reward"] is None and logs[0]["frac_reward_zero_std"] == 0.0, "trl trains on and no metric says why"
    rows = tuple(Judged("unscored", None, why="unreachable: no connection") for _ in range(4))
    guarded = trainer(base, tmp_path, kind=ours(), reward=Fixed(*rows, outage="4 of 4 completions have no score"), max_steps=2)
    before = [p.clone() for p in guarded.model.parameters()]
    with pytest.raises(Outage, match="4 of 4"):
        guarded.train()
    assert guarded.state.global_step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, guarded.model.parameters(), strict=True))


def prepared(tmp_path: Path, config: TrainConfig) -> None:
    room.handoff(tmp_path)
    for name, stage in (("baseline", baseline), ("sft", sft)):
        work = room.workspace(tmp_path, name)
        stage.run(work, config)
        room.done(work)


def weights_of(folder: Path) -> dict[str, Any]:
    import safetensors.torch

    return dict(safetensors.torch.load_file(folder / "adapter" / weights.WEIGHTS))


@pytest.mark.parametrize("save_steps", [2, 4])
def test_a_run_resumes_after_an_outage_to_the_same_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_steps: int) -> None:
    """The student goes down in step 4 of 5; the state of step 3 is kept whatever save_steps says."""
    monkeypatch.setenv("STUDENT_DOWN", str(tmp_path / "down"))
    student = {"student": f"{room.STUDENTS}:fragile", "judge": room.GRADED["judge"]}
    steps = {"max_steps": 5, "save_steps": save_steps}
    config = room.config(**student, grpo=steps)
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        prepared(tmp_path / name, config)
    work = room.workspace(tmp_path / "whole", "train")
    grpo.run(work, config)
    broken = room.workspace(tmp_path / "broken", "train")
    calls = _down_after(monkeypatch, 3, tmp_path / "down")
    with pytest.raises(Outage, match="training is saved at step 3"):
        grpo.run(broken, config)
    assert calls and not (broken.folder / "adapter").exists()
    (tmp_path / "down").unlink()
    result = grpo.run(broken, config)
    first, second = weights_of(work.folder), weights_of(broken.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    metrics = room.lines(broken.folder / grpo.METRICS)
    assert [row["step"] for row in metrics if "reward" in row] == [1, 2, 3, 4, 5], "each step is in the log once"
    assert result.figures["steps"] == 5 and result.figures["kl_step1"] == 0.0


def _down_after(monkeypatch: pytest.MonkeyPatch, steps: int, switch: Path) -> list[int]:
    """From now on the student goes down after `steps` steps of training, once."""
    from gepa_atlas.train import trainer as module

    calls: list[int] = []
    log = module.Watch.on_log

    def spoiled(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        log(self, args, state, control, **more)
        if state.global_step == steps and not calls:
            calls.append(steps)
            switch.touch()

    monkeypatch.setattr(module.Watch, "on_log", spoiled)
    return calls
