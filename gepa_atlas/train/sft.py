"""Stage `sft`: a warm-up on the guidance of the best lessons (rejection sampling), so that GRPO starts from a teacher that can teach.

A row that does not fit is an error before training: trl cuts a row that is too long and drops one with nothing left to learn from, with a
warning at most. The warm-up is dropped again where it makes held-out guidance worse (the mini-gate), and figures say so.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.evolve.rng import rng
from gepa_atlas.handoff.prompts import task_prompt
from gepa_atlas.handoff.workspace import StageResult, Workspace
from gepa_atlas.loops import gathered
from gepa_atlas.train import weights
from gepa_atlas.train.baseline import Baseline, baselines_of
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.fit import common, fitted, keep, process
from gepa_atlas.train.generate import write
from gepa_atlas.train.prompts import Prompts, asked, prompts_of, with_system
from gepa_atlas.train.school import Outcome, School, read_rows, tasks_of
from gepa_atlas.types import Example

GATE_TASKS = 64  # held-out tasks that the mini-gate asks at most


def run(work: Workspace, config: TrainConfig) -> StageResult:
    """The adapter of the warm-up; of a dropped or skipped one, an adapter that changes nothing. Raises ConfigError."""
    weights.quiet()
    base = weights.base_folder(work, config)
    tokenizer = weights.load_tokenizer(base, config.model)
    tasks, baselines = tasks_of(work), baselines_of(work)
    rows = rows_of(work, config, tasks, baselines)
    figures: dict[str, Any] = {"rows": len(rows), "skipped": None}
    model = weights.load_trainee(base, config.model, None, trainable=True)
    if rows:
        limit = longest_row(tokenizer, rows, config)
        figures |= {"max_length": limit}
        model, losses = train_on(work, config, model, tokenizer, rows, limit)
        figures |= losses
    else:
        figures["skipped"] = "no lesson in sft.jsonl: training starts from the base model"
    if rows and config.sft.mini_gate:
        gate = _mini_gate(work, config, base, model, tokenizer, prompts_of(work, config))
        figures |= gate
        if gate["skipped"] is not None:
            model = weights.load_trainee(base, config.model, None, trainable=True)
    if figures["skipped"] is not None:
        work.progress.note(f"sft: {figures['skipped']}")
    return keep(work, config, base, tokenizer, model, figures)


def rows_of(work: Workspace, config: TrainConfig, tasks: Mapping[str, Example], baselines: Mapping[str, Baseline]) -> list[dict[str, Any]]:
    """Prompt and completion of each row, with the first attempt of the baseline; a share of them without the evolved prompt."""
    rows = []
    for at, row in enumerate(read_rows(work.folder_of("export") / "sft.jsonl")):
        prompt = asked(row, tasks, baselines, config)
        if rng(config.seed, at, "prompt dropout").random() < config.sft.prompt_dropout:
            prompt = with_system(prompt, "")
        rows.append({"prompt": prompt, "completion": row["completion"]})
    return rows


def longest_row(tokenizer: Any, rows: Sequence[Mapping[str, Any]], config: TrainConfig) -> int:
    """Tokens of the longest row. Raises ConfigError where one is longer than `sft.max_length` or the context."""
    limit = config.sft.max_length or config.model.context
    name = "sft.max_length" if config.sft.max_length else "model.context"
    longest = 0
    for at, row in enumerate(rows):
        count = len(tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=True)["input_ids"])
        longest = max(longest, count)
        if count > limit:
            raise ConfigError(
                f"{name}: row {at + 1} of sft.jsonl has {count} tokens and the limit is {limit}; raise it, or export shorter ones"
            )
    return longest


def train_on(
    work: Workspace, config: TrainConfig, model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]], limit: int
) -> tuple[Any, dict[str, Any]]:
    """The trained model and its losses. Raises ConfigError when the trainer has lost a row."""
    datasets: Any = importlib.import_module("datasets")
    trl: Any = importlib.import_module("trl")
    s = config.sft
    given = {
        **common(work, config, s.save_steps, 2),
        "num_train_epochs": s.epochs, "max_steps": s.max_steps or -1, "learning_rate": s.learning_rate,
        "per_device_train_batch_size": s.batch_size, "gradient_accumulation_steps": s.gradient_accumulation,
        "max_length": limit, "completion_only_loss": True, "packing": False,
    } | s.trl  # fmt: skip
    trainer = trl.SFTTrainer(
        model=model, args=trl.SFTConfig(**given), train_dataset=datasets.Dataset.from_list(list(rows)), processing_class=tokenizer
    )
    check_rows(trainer.train_dataset, len(rows))
    return fitted(work, trainer)


def check_rows(dataset: Any, count: int) -> None:
    """Raise ConfigError unless the trainer kept every row, each with something to learn from."""
    learnt = sum(any(row["completion_mask"]) if "completion_mask" in row else True for row in dataset)
    if len(dataset) != count or learnt != count:
        raise ConfigError(
            f"sft: {count} rows were given and the trainer learns from {min(len(dataset), learnt)} after tokenisation; "
            "raise sft.max_length, or see which rows have an empty completion"
        )


def _mini_gate(work: Workspace, config: TrainConfig, base: Path, model: Any, tokenizer: Any, prompts: Prompts) -> dict[str, Any]:
    """Held-out delta before and after the warm-up, on val tasks; `skipped` says why the warm-up is dropped, where it is."""
    tasks = list(tasks_of(work, ("val",)).values())[:GATE_TASKS]
    if not tasks:
        return {"skipped": None, "mini_gate": "not held: the hand-off has no val tasks"}
    with School(work, config, prompts.candidate, part=process()) as school:
        untrained = weights.placed(weights.load_trainee(base, config.model, None, trainable=False), config)
        before = _delta(work, config, school, untrained, tokenizer, tasks, prompts)
        after = _delta(work, config, school, model, tokenizer, tasks, prompts)
    found: dict[str, Any] = {"delta_before": before, "delta_after": after, "gate_tasks": len(tasks), "skipped": None}
    if before is not None and after is not None and after < before - config.reward.tau:
        found["skipped"] = f"the warm-up took the held-out delta from {before:+.3f} to {after:+.3f}; training starts from the base model"
    return found


def _delta(
    work: Workspace, config: TrainConfig, school: School, model: Any, tokenizer: Any, tasks: Sequence[Example], prompts: Prompts
) -> float | None:
    baselines = baselines_of(work)
    asked = [task_prompt(prompts.evolved, task, baselines[task.id].attempt, config.handoff.teacher) for task in tasks]
    written = write(
        model, tokenizer, asked, max_tokens=config.grpo.max_completion_length, temperature=config.eval.temperature, seed=work.seed,
        batch_size=config.eval.batch_size,
    )  # fmt: skip
    outcomes: list[Outcome] = school.loop.wait(
        gathered(school.taught(task, baselines[task.id].attempt, w.text) for task, w in zip(tasks, written, strict=True))
    )
    deltas = []
    for task, outcome in zip(tasks, outcomes, strict=True):
        mean = baselines[task.id].mean
        if outcome.reward is not None and mean is not None:
            deltas.append(outcome.reward - mean)
    return statistics.fmean(deltas) if deltas else None


__all__ = ["check_rows", "longest_row", "rows_of", "run", "train_on"]
