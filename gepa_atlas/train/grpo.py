"""Stage `train`: the trainee writes guidance, the frozen student answers with it, and the judges' delta is its reward.

Training is synchronous GRPO, held by KL to the weights it starts from, which are those of the stage before. Checkpoints lie in
train/checkpoints; a run that was killed goes on from the last one and ends with the same weights to the bit.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gepa_atlas.errors import ConfigError, Outage, Unhealthy
from gepa_atlas.evolve.rng import rng
from gepa_atlas.handoff.workspace import StageResult, Workspace
from gepa_atlas.train import alternate, weights
from gepa_atlas.train.baseline import Baseline, baselines_of
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.fit import ADAPTER, CHECKPOINTS, common, keep, last_checkpoint, process
from gepa_atlas.train.prompts import Prompts, asked, check_lengths, prompts_of
from gepa_atlas.train.reward import RimDeltaReward, protocol_name, redact_trainer_log
from gepa_atlas.train.school import School, read_rows, tasks_of
from gepa_atlas.train.stages import adapter_before
from gepa_atlas.types import Example

METRICS = "metrics.jsonl"


def run(work: Workspace, config: TrainConfig) -> StageResult:
    """Raises ConfigError, Unhealthy (a guard, by name) and Outage (a checkpoint is kept)."""
    weights.quiet()
    redact_trainer_log()
    base = weights.base_folder(work, config)
    tokenizer = weights.load_tokenizer(base, config.model)
    prompts = prompts_of(work, config)
    tasks, baselines = tasks_of(work), baselines_of(work)
    train = rows_for(work, config, "grpo_train", tasks, baselines)
    val = rows_for(work, config, "grpo_val", tasks, baselines) if config.grpo.eval_steps else []
    by_id = {row["task_id"]: row["prompt"] for row in (*train, *val)}
    longest = check_lengths(tokenizer, by_id, config.grpo.max_completion_length, config.model.context)
    with School(work, config, prompts.candidate, part=process()) as school:
        reward = RimDeltaReward(
            school, tasks, baselines, config.reward, config.guards, protocol=protocol_name(work, config), ends=ends_of(tokenizer)
        )  # fmt: skip
        front = prompts.front if config.handoff.prompt_mode == "population" else ()
        trained, figures = _trained(work, config, base, tokenizer, reward, (train, val), front)
    figures |= {"prompt_tokens_max": longest, "nonfinite_rewards": reward.nonfinite}
    kept = keep(work, config, base, tokenizer, trained, figures, METRICS)
    return _with_next_round(work, config, base, tokenizer, prompts, kept) if config.handoff.prompt_mode == "alternate" else kept


def _with_next_round(work: Workspace, config: TrainConfig, base: Path, tokenizer: Any, prompts: Prompts, kept: StageResult) -> StageResult:
    """Mode `alternate`: the trained teacher as one model, and the command that searches prompts for it."""
    if process() != 0:
        return kept
    made = alternate.merge(weights.load_trainee(base, config.model, work.folder / ADAPTER, trainable=False), tokenizer, work.folder)
    line = alternate.command(work, config, prompts, made)
    if line:
        work.progress.note(f"after the gate has passed, prompts can be searched again with this teacher: {line}")
    return StageResult(kept.outputs, {**kept.figures, "next_round": line})


def ends_of(tokenizer: Any) -> frozenset[int]:
    """What ends a completion, as trl sees it."""
    return frozenset({int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)})


def rows_for(
    work: Workspace, config: TrainConfig, name: str, tasks: Mapping[str, Example], baselines: Mapping[str, Baseline]
) -> list[dict[str, Any]]:
    """The rows of a set whose task has a baseline, with the prompts that are really asked. Raises ConfigError when none is left."""
    rows = []
    for row in read_rows(work.folder_of("export") / f"{name}.jsonl"):
        known = baselines.get(row["task_id"])
        if known is not None and known.mean is not None:
            rows.append({"prompt": asked(row, tasks, baselines, config), "task_id": row["task_id"], "weight": row["weight"]})
    if not rows:
        raise ConfigError(f"{name}.jsonl: no task in it has a baseline; see baseline/baselines.jsonl for the reasons")
    return rows


def schedule(rows: Sequence[Mapping[str, Any]], count: int, seed: int, *, curriculum: bool) -> list[int]:
    """Which row each of `count` groups takes: each time the one that is owed most by its weight, in an order drawn anew for each round of
    as many groups as there are rows. A longer schedule begins as a shorter one."""
    size = len(rows)
    share = np.array([float(row["weight"]) if curriculum else 1.0 for row in rows])
    share /= share.sum()
    owed, order = np.zeros(size), []
    for turn in range(-(-count // size)):
        chosen = []
        for _ in range(size):
            owed += share
            at = int(owed.argmax())
            owed[at] -= 1.0
            chosen.append(at)
        rng(seed, turn, "curriculum").shuffle(chosen)
        order += chosen
    return order[:count]


def _trained(
    work: Workspace,
    config: TrainConfig,
    base: Path,
    tokenizer: Any,
    reward: RimDeltaReward,
    sets: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    front: Sequence[str],
) -> tuple[Any, dict[str, Any]]:
    trainers: Any = importlib.import_module("gepa_atlas.train.trainer")
    datasets: Any = importlib.import_module("datasets")
    trl: Any = importlib.import_module("trl")
    g = config.grpo
    groups = g.batch_size * g.gradient_accumulation * config.launch.processes // g.num_generations * g.max_steps
    train, val = sets
    plain = [{"prompt": row["prompt"], "task_id": row["task_id"]} for row in train]
    order = schedule(train, groups, config.seed, curriculum=g.curriculum)
    start = adapter_before(config, "train")
    model = weights.load_trainee(base, config.model, work.folder_of(start) / ADAPTER if start else None, trainable=True)
    finite, reference = trainers.FiniteGradients(config.guards.nonfinite_max), trainers.RightReference(config.guards.kl_step1)
    watch = trainers.Watch(work.folder / METRICS, config.guards, work.progress, g.max_steps)
    trainer = trainers.NoHarmGRPOTrainer(
        model=model,
        reward=reward,
        clamp=g.no_harm,
        anchor=g.anchor,
        front=front,
        args=trl.GRPOConfig(**arguments(work, config, bool(val))),
        train_dataset=datasets.Dataset.from_list(plain).select(order),
        eval_dataset=datasets.Dataset.from_list([{"prompt": r["prompt"], "task_id": r["task_id"]} for r in val]) if val else None,
        processing_class=tokenizer,
        callbacks=[finite, reference, watch],
    )
    reference.trainer = trainer
    transformers: Any = importlib.import_module("transformers")
    trainer.remove_callback(transformers.PrinterCallback)
    checkpoint = last_checkpoint(work.folder / CHECKPOINTS)
    if checkpoint is not None:
        work.progress.note(f"going on from {checkpoint.name}")
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Outage as error:
        trainer.save_before_outage()
        raise Outage(f"outage: {error}; training is saved at step {trainer.state.global_step}, run the same command again") from None
    if watch.reason is not None:
        raise Unhealthy(f"{watch.reason}; step {trainer.state.global_step}, checkpoints and {METRICS} are kept in {work.folder}")
    steps = [row for row in trainer.state.log_history if "reward" in row]
    return trainer.accelerator.unwrap_model(trainer.model), _figures(steps, trainer.state, finite, _kl_step1(reference, steps))


def _kl_step1(reference: Any, steps: Sequence[Mapping[str, Any]]) -> float | None:
    """As measured before the first update; of a resumed run, as that step logged it."""
    if reference.kl_step1 is not None:
        return float(reference.kl_step1)
    return next((float(row["kl"]) for row in steps if row.get("kl") is not None), None)


def _figures(steps: Sequence[Mapping[str, Any]], state: Any, finite: Any, kl_step1: float | None) -> dict[str, Any]:
    def ends(name: str) -> list[float | None]:
        values = [row[name] for row in steps if row.get(name) is not None]
        return [values[0], values[-1]] if values else [None, None]

    return {
        "steps": state.global_step,
        "kl_step1": kl_step1,
        "kl": ends("kl")[1],
        "delta_first_and_last": ends("delta_mean"),
        "reward_first_and_last": ends("reward"),
        "skipped_steps": finite.skipped,
        "best_checkpoint": Path(state.best_model_checkpoint).name if state.best_model_checkpoint else None,
    }


def arguments(work: Workspace, config: TrainConfig, evaluates: bool) -> dict[str, Any]:
    """The fields of trl's GRPOConfig. Raises ConfigError where a resumed run could not be the same to the bit."""
    torch: Any = importlib.import_module("torch")
    g, v, cuda = config.grpo, config.vllm, torch.cuda.is_available() and not config.launch.cpu
    given: dict[str, Any] = {
        **common(work, config, g.save_steps, g.save_total_limit),
        "per_device_train_batch_size": g.batch_size, "gradient_accumulation_steps": g.gradient_accumulation,
        "num_generations": g.num_generations, "max_steps": g.max_steps, "max_completion_length": g.max_completion_length,
        "temperature": g.temperature, "top_p": g.top_p, "learning_rate": g.learning_rate, "lr_scheduler_type": g.lr_scheduler,
        "warmup_steps": g.warmup_steps, "max_grad_norm": g.max_grad_norm, "beta": g.beta, "loss_type": g.loss_type,
        "scale_rewards": g.scale_rewards, "epsilon": g.epsilon, "epsilon_high": g.epsilon_high,
        "mask_truncated_completions": g.mask_truncated, "gradient_checkpointing": g.gradient_checkpointing,
        "use_bias_correction_kl": True, "importance_sampling_level": "token", "disable_dropout": True, "shuffle_dataset": False,
        "log_completions": False, "num_completions_to_print": 0, "use_vllm": v.mode != "off",
    }  # fmt: skip
    if evaluates:
        given |= {
            "eval_strategy": "steps", "eval_steps": g.eval_steps, "per_device_eval_batch_size": g.batch_size, "num_generations_eval": 1,
            "load_best_model_at_end": True, "metric_for_best_model": "eval_reward", "greater_is_better": True,
        }  # fmt: skip
        if g.save_steps % (g.eval_steps or 1):
            raise ConfigError(
                f"grpo.save_steps: {g.save_steps} is no multiple of grpo.eval_steps {g.eval_steps}, which the best checkpoint needs"
            )
    if v.mode != "off" and not cuda:
        raise ConfigError(f"vllm.mode: {v.mode} needs an accelerator, and there is none here; set vllm.mode: off")
    if v.mode == "colocate":
        given |= {
            "vllm_mode": "colocate", "vllm_gpu_memory_utilization": v.gpu_memory_utilization,
            "vllm_tensor_parallel_size": v.tensor_parallel_size, "vllm_enable_sleep_mode": v.sleep,
        }  # fmt: skip
    if v.mode == "server":
        given |= {"vllm_mode": "server", "vllm_server_base_url": v.url}
    given |= g.trl
    period = given.get("steps_per_generation", g.gradient_accumulation) * given.get("num_iterations", 1)
    if (g.save_steps * g.gradient_accumulation) % period:
        raise ConfigError(
            f"grpo.save_steps: completions are used for {period} passes, and a checkpoint after {g.save_steps} steps would fall between; "
            "a resumed run would not be the same; change grpo.save_steps, or grpo.trl.steps_per_generation and num_iterations"
        )
    return given
