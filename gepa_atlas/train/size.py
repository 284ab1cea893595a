"""How large a run will be: parameters of the model, bytes of memory and of disk. Estimates, said to be such; no model is loaded."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from gepa_atlas.errors import ConfigError
from gepa_atlas.train.config import ModelConfig, TrainConfig

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_EMBEDDED = 134_515_008  # parameters of SmolLM2-135M, embeddings tied
_RESERVE = 64 * 2**20  # logs, metrics, hand-off: free space that any run wants


@dataclass(frozen=True)
class Size:
    """`parameters` None: cannot be told without the model. Bytes."""

    parameters: int | None
    trained: int | None  # parameters that change
    memory: int | None  # weights, gradients and optimizer state of one training process; activations come on top
    disk: int  # what must be free: save_total_limit + 1 checkpoints and the reserve


def size_of(config: TrainConfig, base_dir: Path) -> Size:
    total = parameters(config.model, base_dir)
    if total is None:
        return Size(None, None, None, _RESERVE)
    width = _BYTES[config.model.dtype]
    lora = config.model.lora
    # Every linear layer of a transformer is about d x d: r (d + d) of d^2 per layer, d estimated from the whole.
    trained = total if lora is None else min(total, int(total * 2 * lora.r / _hidden(config.model, total)))
    state = trained * 4 * 2  # two moments in float32
    memory = total * width + trained * width + state
    if lora is None and config.grpo.enabled and config.grpo.beta > 0:
        memory += total * width  # the reference is a second model
    checkpoint = trained * width + state
    return Size(total, trained, memory, checkpoint * (config.grpo.save_total_limit + 1) + _RESERVE)


def _hidden(model: ModelConfig, total: int) -> int:
    if model.source == "tiny":
        return model.tiny.hidden
    return 576 if model.source == "embedded" else max(256, int((total / 400) ** 0.5))  # 8e9 -> about 4,500


def parameters(model: ModelConfig, base_dir: Path) -> int | None:
    """Parameters of the trainee: exact for tiny and embedded, of a folder by its weight files, of a hub id by the size in its name."""
    if model.source == "tiny":
        t = model.tiny
        per_layer = 4 * t.hidden**2 + 3 * t.hidden * 4 * t.hidden
        return 2 * t.vocabulary * t.hidden + t.layers * per_layer
    if model.source == "embedded":
        return _EMBEDDED
    assert model.id is not None
    folder = base_dir / model.id
    if folder.is_dir():
        return _of_folder(folder)
    named = re.search(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BbMm])(?![A-Za-z0-9])", model.id)
    return int(float(named[1]) * (1e9 if named[2] in "Bb" else 1e6)) if named else None


def _of_folder(folder: Path) -> int | None:
    weights = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    if not weights:
        return None
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return weights // _BYTES.get(stored, 4)


def check_disk(config: TrainConfig, base_dir: Path, directory: Path) -> None:
    """Raise ConfigError before anything is written when the checkpoints cannot fit."""
    need = size_of(config, base_dir).disk
    existing = next(p for p in (directory, *directory.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < need:
        raise ConfigError(
            f"{directory}: {shown(free)} are free and {config.grpo.save_total_limit + 1} checkpoints need about {shown(need)}; "
            "free some, choose another --output-dir, or lower grpo.save_total_limit"
        )


def shown(n: int | None) -> str:
    """Bytes as a person reads them."""
    if n is None:
        return "unknown"
    value = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
