"""grpo_report.json: what a training run came to, from the records of its stages. Written whatever the end; what is unknown is null."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gepa_atlas.handoff.workspace import StageRecord, Workspace, read_record
from gepa_atlas.store.exports import write_json
from gepa_atlas.train.config import LoadedTrain
from gepa_atlas.train.stages import chain

REPORT = "grpo_report.json"
# Figures of the gate, under its own names for them.
GATE = ("base_delta", "trained_delta", "gain", "gain_low", "gain_high", "non_degradation", "n_tasks", "verdict", "reasons")


def records(directory: Path, loaded: LoadedTrain) -> dict[str, StageRecord]:
    """The stages of this configuration that have a record, in order."""
    found: dict[str, StageRecord] = {}
    for stage in chain(loaded.config):
        work = Workspace(directory, stage.name, loaded.config.seed, loaded.base_dir)
        if (record := read_record(work.record_path(stage.name))) is not None:
            found[stage.name] = record
    return found


def build_report(directory: Path, loaded: LoadedTrain) -> dict[str, Any]:
    known = records(directory, loaded)
    gate = _figures(known, "gate")
    trained = next(
        (known[n] for n in ("distill", "train", "preference", "sft") if n in known and "adapter_sha256" in known[n].figures), None
    )
    return {
        "name": loaded.config.name,
        **{name: gate.get(name) for name in GATE},
        "kl_step1": _figures(known, "train").get("kl_step1"),
        "adapter_sha256": trained.figures["adapter_sha256"] if trained else None,
        "seed": loaded.config.seed,
        "counts": counts(loaded, known),
        "stages": {name: _stage(record) for name, record in known.items()},
    }


def counts(loaded: LoadedTrain, known: Mapping[str, StageRecord]) -> dict[str, int | None]:
    """How many of everything there were, by the names that --dry-run uses; None: that stage has not ended."""
    config, baseline = loaded.config, _figures(known, "baseline")
    steps = _figures(known, "train").get("steps") if config.grpo.enabled else 0
    a_step = config.grpo.batch_size * config.grpo.gradient_accumulation * config.launch.processes
    rows = {name: count for name, count in _figures(known, "export").items() if isinstance(count, int)}
    return rows | {
        "baseline_runs": baseline["tasks"] * baseline["samples"] if baseline else None,
        "sft_steps": _figures(known, "sft").get("steps") if config.sft.enabled else 0,
        "grpo_steps": steps,
        "grpo_completions": None if steps is None else steps * a_step,
        "eval_rows": _figures(known, "eval").get("rows"),
    }


def write_report(loaded: LoadedTrain, directory: Path) -> None:
    """Write grpo_report.json, unless no stage has begun."""
    if records(directory, loaded):
        write_json(directory / REPORT, build_report(directory, loaded))


def _figures(known: Mapping[str, StageRecord], stage: str) -> Mapping[str, Any]:
    record = known.get(stage)
    return record.figures if record is not None and record.status == "done" else {}


def _stage(record: StageRecord) -> dict[str, Any]:
    return {
        "status": record.status,
        "started": record.started,
        "ended": record.ended,
        "error": record.error,
        "figures": dict(record.figures),
        "versions": dict(record.versions),
    }
