"""Stage `preference`: off-line training on pairs (DPO) or single lessons (KTO) between the warm-up and GRPO.

Both are held to the weights they start from. Lessons that degraded weigh more than those that helped (`undesirable_weight`), which is the
asymmetry of the reward without a student in the loop.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from gepa_atlas.errors import ConfigError
from gepa_atlas.handoff.workspace import StageResult, Workspace
from gepa_atlas.train import weights
from gepa_atlas.train.config import TrainConfig
from gepa_atlas.train.fit import ADAPTER, common, fitted, keep
from gepa_atlas.train.school import read_rows
from gepa_atlas.train.stages import adapter_before

_COLUMNS = {"dpo": ("prompt", "chosen", "rejected"), "kto": ("prompt", "completion", "label")}
_SAVE_STEPS = 50


def run(work: Workspace, config: TrainConfig) -> StageResult:
    """Raises ConfigError: no rows, a row that does not fit, only one kind of lesson for KTO."""
    weights.quiet()
    method = config.preference.method
    base = weights.base_folder(work, config)
    tokenizer = weights.load_tokenizer(base, config.model)
    rows = [{name: row[name] for name in _COLUMNS[method]} for row in read_rows(work.folder_of("export") / f"{method}.jsonl")]
    _check(rows, method)
    longest = _longest(tokenizer, rows, config)
    before = adapter_before(config, "preference")
    model = weights.load_trainee(base, config.model, work.folder_of(before) / ADAPTER if before else None, trainable=True)
    trained, figures = _trained(work, config, model, tokenizer, rows)
    return keep(work, config, base, tokenizer, trained, {"rows": len(rows), "max_length": longest, **figures})


def _check(rows: Sequence[Mapping[str, Any]], method: str) -> None:
    if not rows:
        raise ConfigError(f"preference.method: {method}.jsonl has no row; lower handoff.pair_gap, take another method, or switch it off")
    if method == "kto" and len({row["label"] for row in rows}) == 1:
        raise ConfigError("preference.method: every row of kto.jsonl has the same label, and kto needs good and bad ones; take dpo")


def _longest(tokenizer: Any, rows: Sequence[Mapping[str, Any]], config: TrainConfig) -> int:
    """Tokens of the longest prompt with an answer; nothing is ever cut."""
    longest = 0
    for at, row in enumerate(rows):
        for name in ("chosen", "rejected", "completion"):
            if name in row:
                count = len(tokenizer.apply_chat_template([*row["prompt"], *row[name]], return_dict=True)["input_ids"])
                longest = max(longest, count)
                if count > config.model.context:
                    raise ConfigError(f"model.context: row {at + 1} has {count} tokens and the context is {config.model.context}; raise it")
    return longest


def _trained(
    work: Workspace, config: TrainConfig, model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]]
) -> tuple[Any, dict[str, Any]]:
    datasets: Any = importlib.import_module("datasets")
    trl: Any = importlib.import_module("trl")
    p = config.preference
    given: dict[str, Any] = {
        **common(work, config, _SAVE_STEPS, 2),
        "num_train_epochs": p.epochs, "max_steps": p.max_steps or -1, "learning_rate": p.learning_rate,
        "per_device_train_batch_size": p.batch_size, "beta": p.beta, "max_length": None,
    }  # fmt: skip
    if p.method == "kto":
        given["undesirable_weight"] = p.undesirable_weight
    settings, kind = (trl.DPOConfig, trl.DPOTrainer) if p.method == "dpo" else (trl.KTOConfig, trl.KTOTrainer)
    data = datasets.Dataset.from_list([dict(row) for row in rows])
    trainer = kind(model=model, args=settings(**given | p.trl), train_dataset=data, processing_class=tokenizer)
    if len(trainer.train_dataset) != len(rows):
        raise ConfigError(f"preference: {len(rows)} rows were given and the trainer kept {len(trainer.train_dataset)}")
    return fitted(work, trainer)
