"""`--dry-run`: what a training run would do. The export is really made, into a directory that is thrown away; nothing else is run."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gepa_atlas.handoff.workspace import Workspace
from gepa_atlas.rim.config import RimConfig
from gepa_atlas.settings import load
from gepa_atlas.train.config import LoadedTrain, TrainConfig
from gepa_atlas.train.launch import launch_lines
from gepa_atlas.train.runner import resolve
from gepa_atlas.train.size import shown, size_of
from gepa_atlas.train.stages import BY_NAME, chain

FILES = ("traces", "prompts", "tasks", "sft", "dpo", "kto", "grpo_train", "grpo_val")
CELLS = 5  # of the evaluation: {base, adapter} x {seed, evolved} and the student alone


def plan(loaded: LoadedTrain) -> dict[str, Any]:
    """Resolved configuration, counts, calls, cost, memory, command lines. Raises what the export raises."""
    config = loaded.config
    with tempfile.TemporaryDirectory(prefix="gepa-atlas-plan-") as name:
        work = Workspace(Path(name), "export", config.seed, loaded.base_dir)
        work.folder.mkdir()
        resolve(BY_NAME["export"].entry)(work, config)
        rows = {file: read_jsonl(work.folder / f"{file}.jsonl") for file in FILES}
    counts = planned_counts(config, rows)
    size = size_of(config, loaded.base_dir)
    return {
        "config": loaded.resolved,
        "stages": [stage.name for stage in chain(config)],
        "counts": counts,
        "cost": cost(counts, rows["traces"]),
        "memory": {"parameters": size.parameters, "trained": size.trained, "bytes_a_process": size.memory, "disk_bytes": size.disk},
        "launch": launch_lines(config, loaded.base_dir, loaded.output_dir.absolute(), config.model.id or "MODEL"),
    }


def read_jsonl(path: Path) -> list[Any]:
    """The rows of a file; none where it was not written."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def planned_counts(config: TrainConfig, rows: Mapping[str, list[Any]]) -> dict[str, int]:
    """How many of everything. `*_max` are upper bounds: an answer that is known already, or guidance in no valid form, asks nobody."""
    tasks = rows["tasks"]
    measured = [row for row in tasks if row["split"] == config.eval.split][: config.eval.max_tasks]
    a_step = config.grpo.batch_size * config.grpo.gradient_accumulation * config.launch.processes
    grpo_steps = config.grpo.max_steps if config.grpo.enabled else 0
    counts = {f"{name}_rows": len(rows[name]) for name in FILES}
    counts |= {f"tasks_{split}": sum(row["split"] == split for row in tasks) for split in ("train", "val", "test")}
    counts |= {
        "sft_steps": sft_steps(config, len(rows["sft"])) if config.sft.enabled else 0,
        "grpo_steps": grpo_steps,
        "grpo_groups": grpo_steps * a_step // config.grpo.num_generations,
        "grpo_completions": grpo_steps * a_step,
        "baseline_runs": len(tasks) * config.baseline.samples,
        "eval_tasks": len(measured),
        "eval_rows": len(measured) * config.eval.samples * CELLS,
    }
    asked = counts["baseline_runs"] + counts["grpo_completions"] + counts["eval_rows"]
    judges = len(load(RimConfig, config.rim, "rim").judges) if config.rim is not None else 1
    return counts | {"student_runs_max": asked, "judgements_max": asked * judges}


def sft_steps(config: TrainConfig, rows: int) -> int:
    """Optimizer steps, as the trainer counts them: the last batch of an epoch may be smaller."""
    if config.sft.max_steps is not None:
        return config.sft.max_steps
    batches = math.ceil(rows / (config.sft.batch_size * config.launch.processes))
    return math.ceil(math.ceil(batches / config.sft.gradient_accumulation) * config.sft.epochs)


def cost(counts: Mapping[str, int], traces: list[Any]) -> dict[str, Any]:
    """Tokens and dollars of the student, from what its recorded runs took; None where they did not say."""
    del traces
    return {"student_tokens": None, "student_dollars": None, "runs": counts["student_runs_max"]}


def plan_lines(planned: Mapping[str, Any]) -> list[str]:
    """The plan for a reader."""
    counts, memory = planned["counts"], planned["memory"]
    lines = ["", f"Stages:  {', '.join(planned['stages'])}"]
    lines += [f"{name:18} {number}" for name, number in counts.items()]
    lines.append(f"Memory:  {shown(memory['bytes_a_process'])} a process beside activations (estimate); disk {shown(memory['disk_bytes'])}")
    lines += [f"Launch:  {line}" for line in planned["launch"]] or ["Launch:  every stage runs in this process"]
    return lines
