"""Evaluations drawn from known truths, and training runs and bundles made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gepa_atlas.handoff.workspace import Workspace, sha256_file
from gepa_atlas.ship import bundle, gate
from gepa_atlas.ship.cells import Evaluation, Row, evaluation
from gepa_atlas.ship.config import GateConfig, PackageConfig
from gepa_atlas.ship.contents import Contents, prompt_files
from gepa_atlas.ship.gate import decide, document_of
from gepa_atlas.store.exports import write_json, write_jsonl

BASE_SHA = "b" * 64
# Few tasks must be enough where a test is not about that: what is left are the claims on means.
EASY = {"min_ndr": 0.0, "min_ndr_lcb": 0.0, "bootstrap": 2000}


@dataclass(frozen=True)
class Config:
    gate: GateConfig = field(default_factory=GateConfig)
    package: PackageConfig = field(default_factory=PackageConfig)


def rows_of(cell: str, rewards: np.ndarray, **more: Any) -> list[Row]:
    """`rewards` by task and sample; NaN is unscored."""
    rewards = rewards if rewards.ndim == 2 else rewards[:, None]
    found = []
    for task, values in enumerate(rewards):
        for sample, value in enumerate(values):
            scored = {"why_unscored": "rate_limited"} if np.isnan(value) else {"reward": float(value)}
            found.append(Row(cell=cell, task_id=f"t{task:04d}", sample=sample, **{"tokens": 50.0, "format_valid": True} | scored | more))
    return found


def effects(means: Mapping[str, float], n: int, *, seed: int = 0, samples: int = 1, noise: float = 0.05, spread: float = 0.0) -> Evaluation:
    """Cells with a mean reward each, task difficulty shared by all of them, and noise of their own."""
    random = np.random.default_rng(seed)
    difficulty = random.normal(0, spread, n)[:, None]
    rows: list[Row] = []
    for cell, mean in means.items():
        rows += rows_of(cell, np.clip(mean + difficulty + random.normal(0, noise, (n, samples)), 0, 1))
    return evaluation(rows)


GAIN = {"student": 0.3, "base+seed": 0.4, "base+evolved": 0.5, "adapter+seed": 0.6, "adapter+evolved": 0.8}


def safetensors(tensors: Mapping[str, np.ndarray], dtype: str = "F32") -> bytes:
    """A file in the safetensors format, written as its documentation says."""
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def make_adapter(folder: Path, value: float = 0.5, base: str = BASE_SHA) -> Path:
    folder.mkdir(parents=True)
    tensors = {"a.lora_A.weight": np.full((4, 8), value, np.float32), "a.lora_B.weight": np.full((8, 4), value, np.float32)}
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    write_json(folder / "adapter_config.json", {"r": 4, "lora_alpha": 8, "base_model_name_or_path": "some/base", "peft_type": "LORA"})
    write_json(folder / "atlas.json", {"kind": "lora", "base": "some/base", "revision": None, "base_sha256": base})
    return folder


PROMPT = {
    "prompt_hash": "sha256:1", "candidate_id": "c1", "system": "Say {which} units are meant.\n", "texts": {"guidance": "units"},
    "demos_json": "[]", "settings_json": "{}", "parent_hashes": ["sha256:0"], "origin": "reflect", "generation": 2, "role": "best",
    "val_delta": 0.2, "val_delta_low": 0.1, "val_tasks": 20,
}  # fmt: skip


def training_run(
    directory: Path,
    found: Evaluation,
    *,
    adapter: bool = True,
    figures: Mapping[str, Any] | None = None,
    mode: str = "system",
    value: float = 0.5,
) -> Workspace:
    """The folder of a training run whose stages up to eval are done; returns the gate's workspace."""
    work = Workspace(directory, "gate", 3, directory)
    write = directory / "handoff"
    write.mkdir(parents=True)
    write_jsonl(write / "prompts.jsonl", [{**PROMPT, "role": "seed", "system": "seed"}, PROMPT])
    write_json(write / "manifest.json", {"rows": {"sft.jsonl": 10}, "prompt": {"mode": mode, "choice": "best"}})
    inputs = {}
    if adapter:
        for file in make_adapter(directory / "train" / "adapter", value).iterdir():
            inputs[f"train/adapter/{file.name}"] = sha256_file(file)
    (directory / "eval").mkdir()
    write_jsonl(directory / "eval" / "cells.jsonl", [row.model_dump() for row in found.rows])
    record = {
        "stage": "eval", "status": "done", "inputs": inputs, "config_sha256": "", "outputs": {}, "figures": dict(figures or {}), "seed": 3,
        "versions": {}, "started": "", "ended": "2026-11-01T00:00:00.000+00:00",
    }  # fmt: skip
    write_json(directory / "eval" / "stage.json", record)
    (directory / "gate").mkdir()
    return work


def packaged(directory: Path, config: Config, found: Evaluation | None = None, *, adapter: bool = True, value: float = 0.5) -> Path:
    """A bundle made by the stages gate and package; 12 tasks and lenient bounds do unless told otherwise."""
    work = training_run(directory, found or effects(GAIN, 40), adapter=adapter, value=value)
    gate.run(work, config)
    package = Workspace(directory, "package", 3, directory)
    package.folder.mkdir()
    bundle.run(package, config)
    return package.folder


def small_bundle(target: Path, config: Config, *, text: str, found: Evaluation | None = None, verdict_seed: int = 0) -> Path:
    """A bundle with a prompt only, of a few files: for tests that make many."""
    found = found or effects({k: v for k, v in GAIN.items() if "adapter" not in k} | {"base+evolved": 0.9}, 40)
    contents = Contents(None, prompt_files({**PROMPT, "system": text}))
    decided = decide(found, gate.PROMPT, config.gate, seed=verdict_seed)
    cells = target.with_suffix(".jsonl")
    write_jsonl(cells, [row.model_dump() for row in found.rows])
    document = document_of(decided, gate.PROMPT, contents, config, inputs={}, seed=verdict_seed, reads=1, cells_sha=sha256_file(cells))
    files: dict[str, Callable[[], Any]] = {"decision": lambda: document, "evaluation": lambda: decided.figures}
    paths = {}
    for name, value in files.items():
        paths[name] = target.with_suffix(f".{name}.json")
        paths[name].write_bytes(gate.pretty(value()))
    bundle.build(target, contents, cells=cells, operation=config.package.operation, **paths)
    return target


def easy(operation: str = "teacher", registry: Path | str = "registry", **gate_fields: Any) -> Config:
    return Config(GateConfig(**{**EASY, **gate_fields}), PackageConfig(operation=operation, registry=str(registry)))


def suite(found: Evaluation, base: float, adapter: float, n: int = 500) -> Evaluation:
    rows = rows_of("base", np.full(n, base), kind="regression") + rows_of("adapter", np.full(n, adapter), kind="regression")
    return evaluation([*found.rows, *rows])


def with_values(found: Evaluation, cell: str, **values: Any) -> Evaluation:
    return evaluation([row.model_copy(update=values) if row.cell == cell else row for row in found.rows])
