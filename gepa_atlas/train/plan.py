"""`--dry-run`: what a training run would do. The export is really made, into a directory that is thrown away; nothing else is run."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.rim.judges.base import JudgeSettings
from gepa_atlas.settings import load
from gepa_atlas.train import school, suites
from gepa_atlas.train.config import LoadedTrain, TrainConfig
from gepa_atlas.train.launch import launch_lines
from gepa_atlas.train.runner import resolve
from gepa_atlas.train.sft import GATE_TASKS
from gepa_atlas.train.size import shown, size_of
from gepa_atlas.train.stages import BY_NAME, adapter_before, chain

FILES = ("traces", "prompts", "baselines", "tasks", "sft", "dpo", "kto", "grpo_train", "grpo_val")
MODEL_JUDGES = ("llm", "atlas")


def plan(loaded: LoadedTrain) -> dict[str, Any]:
    """Resolved configuration, counts, calls, cost, memory, command lines. Raises what the export raises."""
    config = loaded.config
    with tempfile.TemporaryDirectory(prefix="gepa-atlas-plan-") as name:
        work = Workspace(Path(name), "export", config.seed, loaded.base_dir)
        work.folder.mkdir()
        resolve(BY_NAME["export"].entry)(work, config)
        rows = {file: read_jsonl(work.folder / f"{file}.jsonl") for file in FILES}
        judging = load(RimConfig, school.source_of(work, config).rim, "rim")
        asked = {name: len(suites.asked(work, config, name)) for name in suites.NAMES}
    counts = planned_counts(config, rows, asked)
    size = size_of(config, loaded.base_dir)
    return {
        "config": loaded.resolved,
        "stages": [stage.name for stage in chain(config)],
        "counts": counts,
        "cost": cost(counts["student_runs_max"], judge_calls(judging.judges), rows["traces"]),
        "memory": {"parameters": size.parameters, "trained": size.trained, "bytes_a_process": size.memory, "disk_bytes": size.disk},
        "launch": launch_lines(config, loaded.base_dir, loaded.output_dir.absolute(), config.model.id or "MODEL"),
    }


def read_jsonl(path: Path) -> list[Any]:
    """The rows of a file; none where it was not written."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def planned_counts(config: TrainConfig, rows: Mapping[str, list[Any]], asked: Mapping[str, int]) -> dict[str, int]:
    """How many of everything, by the names that `counts` of grpo_report.json has too. `*_max` are upper bounds: who has the answer
    already, or is given guidance in no valid form, is not asked. `asked`: questions of the files that `eval` names."""
    tasks = rows["tasks"]
    measured = len([row for row in tasks if row["split"] == config.eval.split][: config.eval.max_tasks]) + asked["underspecified"]
    per_question = config.eval.samples * (1 + len(guided_cells(config)))  # the student alone is a cell too
    a_step = config.grpo.batch_size * config.grpo.gradient_accumulation * config.launch.processes
    steps = config.grpo.max_steps if config.grpo.enabled else 0
    counts = {name: len(rows[name]) for name in FILES}
    counts |= {f"tasks_{split}": sum(row["split"] == split for row in tasks) for split in ("train", "val", "test")}
    counts |= {
        "baseline_runs": len(tasks) * config.baseline.samples,
        "sft_steps": sft_steps(config, len(rows["sft"])) if config.sft.enabled else 0,
        "grpo_steps": steps,
        "grpo_groups": steps * a_step // config.grpo.num_generations,
        "grpo_completions": steps * a_step,
        "eval_rows": measured * per_question + asked["regression"] * models(config),
    }
    warm = config.sft.enabled and config.sft.mini_gate and counts["sft"] > 0
    gate = 2 * min(GATE_TASKS, counts["tasks_val"]) if warm else 0
    runs = counts["baseline_runs"] + counts["grpo_completions"] + counts["eval_rows"] + gate + asked["underspecified"]
    return counts | {"student_runs_max": runs}


def models(config: TrainConfig) -> int:
    """How many models the evaluation asks: the base, and what was trained."""
    return 1 if adapter_before(config, "eval") is None else 2


def guided_cells(config: TrainConfig) -> list[str]:
    """Cells of the evaluation in which a model writes guidance."""
    prompts = ["seed", "evolved"]
    if config.eval.base_without_prompt or config.handoff.prompt_mode == "distil":
        prompts.append("none")
    return [f"{who}+{prompt}" for who in ("base", "adapter")[: models(config)] for prompt in prompts]


def sft_steps(config: TrainConfig, rows: int) -> int:
    """Optimizer steps, as the trainer counts them: the last batch of an epoch may be smaller."""
    if not rows:
        return 0
    if config.sft.max_steps is not None:
        return config.sft.max_steps
    batches = math.ceil(rows / (config.sft.batch_size * config.launch.processes))
    return math.ceil(math.ceil(batches / config.sft.gradient_accumulation) * config.sft.epochs)


def judge_calls(judges: Sequence[JudgeSettings]) -> int:
    """Calls of judging models for one attempt, escalation apart; programs make none."""
    return sum(judge.draw_count for judge in judges if judge.type in MODEL_JUDGES)


def cost(runs: int, judged: int, traces: list[Any]) -> dict[str, Any]:
    """Calls, and what the student's recorded runs say that one takes; None is unknown, never zero."""
    usage = [json.loads(row["usage_json"]) for row in traces]

    def mean(value: Callable[[Mapping[str, Any]], float | None]) -> float | None:
        known = [found for row in usage if (found := value(row)) is not None]
        return sum(known) / len(known) if known and len(known) == len(usage) else None

    tokens = mean(lambda u: None if None in (u["input_tokens"], u["output_tokens"]) else u["input_tokens"] + u["output_tokens"])
    dollars = mean(lambda u: u["dollars"])
    return {
        "student_runs_max": runs,
        "judge_calls_max": runs * judged,
        "student_tokens_max": None if tokens is None else round(runs * tokens),
        "student_dollars_max": None if dollars is None else round(runs * dollars, 4),
        "judge_dollars_max": 0.0 if judged == 0 else None,
    }


def plan_lines(planned: Mapping[str, Any]) -> list[str]:
    """The plan for a reader."""
    counts, memory = planned["counts"], planned["memory"]
    lines = ["", f"Stages:  {', '.join(planned['stages'])}"]
    lines += [f"{name:18} {number}" for name, number in counts.items()]
    lines += [f"{name:18} {'unknown' if number is None else number}" for name, number in planned["cost"].items() if name not in counts]
    lines.append(f"Memory:  {shown(memory['bytes_a_process'])} a process beside activations (estimate); disk {shown(memory['disk_bytes'])}")
    lines += [f"Launch:  {line}" for line in planned["launch"]] or ["Launch:  every stage runs in this process"]
    return lines
