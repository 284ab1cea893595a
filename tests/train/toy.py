"""Stages without any training in them: files in, files out, and a count of how often each ran."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from gepa_atlas.errors import DataError, Outage
from gepa_atlas.handoff.workspace import StageResult, Workspace
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.stages import Stage

HERE = "tests.train.toy"
STAGES = (
    Stage("export", f"{HERE}:export", (), ("handoff",), (f"{HERE}:inputs",)),
    Stage("validate", f"{HERE}:validate", ("export",), ("validation",)),
    Stage("train", f"{HERE}:train", ("export",), ("model", "grpo"), launched=True),
    Stage("gate", f"{HERE}:gate", ("train",), ("gate",)),
)


def inputs(work: Workspace, config: TrainConfig) -> dict[str, str]:
    assert config.handoff.path is not None
    return {"traces": hashlib.sha256(work.input_path(config.handoff.path).read_bytes()).hexdigest()}


def _ran(work: Workspace) -> None:
    with (work.output_dir.parent / "ran.txt").open("a") as file:
        file.write(work.stage + "\n")


def export(work: Workspace, config: TrainConfig) -> StageResult:
    _ran(work)
    assert config.handoff.path is not None
    text = work.input_path(config.handoff.path).read_text()
    (work.folder / "traces.jsonl").write_text(text.upper())
    if "empty" in text:
        raise DataError("the traces are empty after filters; lower handoff.min_delta")
    return StageResult(("traces.jsonl",), {"rows": len(text)})


def validate(work: Workspace, config: TrainConfig) -> StageResult:
    _ran(work)
    (work.folder / "validation.json").write_text("{}")
    return StageResult(("validation.json",))


def train(work: Workspace, config: TrainConfig) -> StageResult:
    """Goes on from a checkpoint where there is one; fails at the step that the environment names, or dies at once."""
    with (work.output_dir / "ranks").open("a") as file:
        file.write(f"{os.environ.get('RANK', 0)}/{os.environ.get('WORLD_SIZE', 1)}\n")
    if os.environ.get("TOY_OUTAGE") == "dies":
        os._exit(9)
    if int(os.environ.get("RANK", 0)) == 0:
        _ran(work)
        checkpoint = work.folder / "checkpoint"
        begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for step in range(begin, config.grpo.max_steps):
            work.progress.step("steps", step, config.grpo.max_steps)
            if str(step) == os.environ.get("TOY_OUTAGE"):
                del os.environ["TOY_OUTAGE"]
                raise Outage(f"the judges are out at step {step}; run again")
            checkpoint.write_text(str(step + 1))
        (work.folder / "weights").write_text(json.dumps([config.seed, config.grpo.learning_rate, begin]))
    return StageResult(("weights",), {"adapter_sha256": "aa", "kl_step1": 0.0})


def gate(work: Workspace, config: TrainConfig) -> StageResult:
    _ran(work)
    (work.folder / "decision.json").write_text("{}")
    verdict = "pass" if config.gate.min_ndr < 1 else "inconclusive"
    return StageResult(("decision.json",), {"verdict": verdict, "reasons": ["30 of 30 is not enough"], "n_tasks": 30})


def ran(directory: Path) -> list[str]:
    """The stages that ran since this was last asked, in order."""
    path = directory / "ran.txt"
    found = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return found
