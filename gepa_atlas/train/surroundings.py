"""What the libraries of training are told before they are imported: no progress bars and warnings between our lines, no look-ups on the
network for a model that lies here, one thread for a model that is too small for two."""

from __future__ import annotations

import importlib
import os
import random
import warnings
from pathlib import Path
from typing import Any

from gepa_atlas.train.config import TrainConfig

_QUIET = {
    "TQDM_DISABLE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


def prepare(config: TrainConfig, base_dir: Path) -> None:
    """Call it before the first import of torch. What the user has set in the environment stays."""
    wanted = _QUIET | {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    if config.model.id is None or (base_dir / config.model.id).is_dir():
        wanted["HF_HUB_OFFLINE"] = "1"
    if config.model.source == "tiny":
        wanted["OMP_NUM_THREADS"] = "1"
    if config.tracking.project is not None:
        wanted["WANDB_PROJECT"] = config.tracking.project
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    for kind in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=kind, module=r"(trl|transformers|peft|torch|accelerate|datasets)\b")


def seed(number: int) -> None:
    """Every generator of this process. A stage begins with it, so that what ran before in the process, or did not, changes nothing."""
    torch: Any = importlib.import_module("torch")
    numpy: Any = importlib.import_module("numpy")
    random.seed(number)
    numpy.random.seed(number % 2**32)
    torch.manual_seed(number)
