"""Stage `distill` (prompt_mode: distil): the trainee learns to write without the evolved prompt what it writes with it.

On-policy self-distillation: the model writes with the bare prompt and is drawn towards its own word probabilities under the evolved one.
That saves the prompt's tokens in every call; the evaluation asks the adapter with and without the prompt.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.handoff.workspace import StageResult, Workspace
from gepa_atlas.train import weights
from gepa_atlas.train.baseline import baselines_of
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.fit import ADAPTER, common, fitted, keep
from gepa_atlas.train.prompts import asked, check_lengths, prompts_of, with_system
from gepa_atlas.train.school import read_rows, tasks_of
from gepa_atlas.train.stages import adapter_before

_SAVE_STEPS = 25


def run(work: Workspace, config: TrainConfig) -> StageResult:
    """Raises ConfigError: no rows, or a prompt that does not fit: trl would cut its beginning, which is the evolved prompt."""
    weights.quiet()
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    base = weights.base_folder(work, config)
    tokenizer = weights.load_tokenizer(base, config.model)
    evolved = prompts_of(work, config).evolved
    tasks, baselines = tasks_of(work), baselines_of(work)
    rows = []
    for row in read_rows(work.folder_of("export") / "grpo_train.jsonl"):
        prompt = with_system(asked(row, tasks, baselines, config), "")
        rows.append({"prompt": prompt, "privileged_context": evolved, "task_id": row["task_id"]})
    if not rows:
        raise ConfigError("grpo_train.jsonl has no task to distil the prompt on; see handoff/manifest.json for what was removed")
    limit = _limit(tokenizer, rows, config)
    before = adapter_before(config, "distill")
    model = weights.load_trainee(base, config.model, work.folder_of(before) / ADAPTER if before else None, trainable=True)
    trained, figures = _trained(work, config, model, tokenizer, rows, limit)
    return keep(work, config, base, tokenizer, trained, {"rows": len(rows), "prompt_tokens_max": limit, **figures})


def _limit(tokenizer: Any, rows: Sequence[Mapping[str, Any]], config: TrainConfig) -> int:
    """Tokens of the longest prompt with the evolved one in front of it."""
    full = {row["task_id"]: with_system(row["prompt"], row["privileged_context"]) for row in rows}
    longest = check_lengths(tokenizer, full, config.grpo.max_completion_length, config.model.context)
    wanted = config.distill.max_prompt_length
    if wanted is not None and wanted < longest:
        raise ConfigError(
            f"distill.max_prompt_length: {wanted} tokens, and the longest prompt has {longest}: its beginning, the evolved prompt, would "
            "be cut off; raise it, or leave it out"
        )
    return wanted or longest


def _trained(
    work: Workspace, config: TrainConfig, model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]], limit: int
) -> tuple[Any, dict[str, Any]]:
    datasets: Any = importlib.import_module("datasets")
    sdft: Any = importlib.import_module("trl.experimental.sdft")
    d = config.distill
    given: dict[str, Any] = {
        **common(work, config, _SAVE_STEPS, 2),
        "max_steps": d.max_steps, "learning_rate": d.learning_rate, "per_device_train_batch_size": d.batch_size,
        "max_prompt_length": limit, "max_completion_length": config.grpo.max_completion_length, "num_generations": 1,
        "teacher_model_kind": "live", "distillation_topk": min(100, len(tokenizer)),
    } | d.trl  # fmt: skip
    data = datasets.Dataset.from_list([{name: row[name] for name in ("prompt", "privileged_context")} for row in rows])
    trainer = sdft.SDFTTrainer(model=model, args=sdft.SDFTConfig(**given), train_dataset=data, processing_class=tokenizer)
    trainer.teacher_context_builder._compose_teacher_prompt = with_system  # as the trainee is asked in production: in the system message
    return fitted(work, trainer)
