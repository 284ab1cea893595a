"""What every stage that trains has in common: the trainer's settings, going on from a checkpoint, and what is kept at the end."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gepa_atlas.handoff.workspace import StageResult, Workspace
from gepa_atlas.train import weights
from gepa_atlas.train.config import TrainConfig

CHECKPOINTS, ADAPTER = "checkpoints", "adapter"


def process() -> int:
    """Which of the training processes this is; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def common(work: Workspace, config: TrainConfig, save_steps: int, save_total_limit: int) -> dict[str, Any]:
    """What every trainer of trl is given."""
    torch: Any = importlib.import_module("torch")
    cuda = torch.cuda.is_available() and not config.launch.cpu
    return {
        "output_dir": str(work.folder / CHECKPOINTS), "seed": config.seed, "use_cpu": not cuda,
        "bf16": cuda and config.model.dtype == "bfloat16", "fp16": cuda and config.model.dtype == "float16",
        "logging_steps": 1, "report_to": list(config.tracking.report_to), "run_name": config.tracking.run_name, "disable_tqdm": True,
        "save_strategy": "steps", "save_steps": save_steps, "save_total_limit": save_total_limit,
        "gradient_checkpointing": False, "project": config.tracking.project or config.name,
    }  # fmt: skip


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint: the trainer writes trainer_state.json last."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):  # a kill fell into the saving of it
            continue
        return path
    return None


def fitted(work: Workspace, trainer: Any) -> tuple[Any, dict[str, Any]]:
    """Train to the end, from the last checkpoint where there is one; the model and its losses."""
    transformers: Any = importlib.import_module("transformers")
    trainer.remove_callback(transformers.PrinterCallback)
    checkpoint = last_checkpoint(work.folder / CHECKPOINTS)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    figures = {"steps": trainer.state.global_step, "loss_first_and_last": [losses[0], losses[-1]] if losses else [None, None]}
    return trainer.accelerator.unwrap_model(trainer.model), figures


def keep(
    work: Workspace, config: TrainConfig, base: Path, tokenizer: Any, trained: Any, figures: Mapping[str, Any], *beside: str
) -> StageResult:
    """Save what was trained as the stage's adapter, drop the checkpoints, and say what is there. `beside`: further files of the stage."""
    adapter = work.folder / ADAPTER
    hashes = {"base_sha256": weights.base_sha256(base)}
    if process() == 0:
        weights.save_adapter(trained, tokenizer, adapter, base=base, model=config.model)
        shutil.rmtree(work.folder / CHECKPOINTS, ignore_errors=True)
        hashes["adapter_sha256"] = weights.adapter_sha256(adapter)
    return StageResult((*weights.adapter_files(adapter, work.folder), *beside), {**figures, **hashes})
