"""Names below `trl:` against the fields of the installed trainers: an unknown one is an error with the nearest name."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from gepa_atlas.errors import ConfigError, MissingExtra
from gepa_atlas.train.config import TrainConfig

# Fields that a key of ours sets. Two places for one value would leave a reader guessing which one holds.
OURS: dict[str, dict[str, str]] = {
    "grpo": {
        "beta": "grpo.beta", "num_generations": "grpo.num_generations", "max_steps": "grpo.max_steps",
        "per_device_train_batch_size": "grpo.batch_size", "gradient_accumulation_steps": "grpo.gradient_accumulation",
        "max_completion_length": "grpo.max_completion_length", "temperature": "grpo.temperature", "top_p": "grpo.top_p",
        "learning_rate": "grpo.learning_rate", "lr_scheduler_type": "grpo.lr_scheduler", "warmup_steps": "grpo.warmup_steps",
        "max_grad_norm": "grpo.max_grad_norm", "loss_type": "grpo.loss_type", "scale_rewards": "grpo.scale_rewards",
        "epsilon": "grpo.epsilon", "epsilon_high": "grpo.epsilon_high", "mask_truncated_completions": "grpo.mask_truncated",
        "eval_steps": "grpo.eval_steps", "save_steps": "grpo.save_steps", "save_total_limit": "grpo.save_total_limit",
        "gradient_checkpointing": "grpo.gradient_checkpointing", "use_vllm": "vllm.mode", "vllm_mode": "vllm.mode",
        "vllm_gpu_memory_utilization": "vllm.gpu_memory_utilization", "vllm_tensor_parallel_size": "vllm.tensor_parallel_size",
        "vllm_enable_sleep_mode": "vllm.sleep", "vllm_server_base_url": "vllm.url", "report_to": "tracking.report_to",
        "output_dir": "output_dir", "seed": "seed", "run_name": "tracking.run_name",
    },
    "sft": {
        "num_train_epochs": "sft.epochs", "max_steps": "sft.max_steps", "learning_rate": "sft.learning_rate",
        "per_device_train_batch_size": "sft.batch_size", "gradient_accumulation_steps": "sft.gradient_accumulation",
        "max_length": "sft.max_length", "save_steps": "sft.save_steps", "output_dir": "output_dir", "seed": "seed",
        "report_to": "tracking.report_to",
    },
    "preference": {
        "beta": "preference.beta", "num_train_epochs": "preference.epochs", "max_steps": "preference.max_steps",
        "learning_rate": "preference.learning_rate", "per_device_train_batch_size": "preference.batch_size",
        "undesirable_weight": "preference.undesirable_weight", "output_dir": "output_dir", "seed": "seed",
    },
    "distill": {
        "max_steps": "distill.max_steps", "learning_rate": "distill.learning_rate",
        "per_device_train_batch_size": "distill.batch_size", "max_prompt_length": "distill.max_prompt_length",
        "output_dir": "output_dir", "seed": "seed",
    },
}  # fmt: skip
# Names of older releases of trl and transformers.
MOVED = {
    "max_prompt_length": "trl 0.28 removed it: prompts are never cut; model.context is checked before training",
    "torch_dtype": "it is model.dtype",
    "use_liger_loss": "it is use_liger_kernel",
    "vllm_guided_decoding_regex": "it is vllm_structured_outputs_regex",
    "wandb_log_unique_prompts": "it is log_unique_prompts",
    "vllm_importance_sampling_cap": "it is vllm_importance_sampling_clip_max",
    "tokenizer": "the trainer is given the tokenizer of model",
    "max_seq_length": "it is sft.max_length",
    "evaluation_strategy": "it is eval_strategy",
}


NEEDED = ("torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "datasets")


def require_extra() -> None:
    """Raise MissingExtra unless every package of the extra [train] is there. Imports none of them."""
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise MissingExtra("training", "train")


def trainer_fields(config: TrainConfig) -> dict[str, tuple[str, str]]:
    """section -> (module, class) of the trainer configuration whose fields may stand below its `trl:`."""
    preference = {"dpo": "DPOConfig", "kto": "KTOConfig"}[config.preference.method]
    return {
        "sft": ("trl", "SFTConfig"),
        "preference": ("trl", preference),
        "grpo": ("trl", "GRPOConfig"),
        "distill": ("trl.experimental.sdft", "SDFTConfig"),
    }


def check_fields(config: TrainConfig) -> None:
    """Raise ConfigError for the first name below `trl:` that its trainer does not have. Imports trl when there is any such name."""
    tree = config.model_dump(include=set(OURS))
    for section, (module, name) in trainer_fields(config).items():
        given: Mapping[str, Any] = tree[section]["trl"]
        for key in given:
            if key in OURS[section]:
                raise ConfigError(f"{section}.trl.{key}: set {OURS[section][key]} instead")
            if key in MOVED:
                raise ConfigError(f"{section}.trl.{key}: {MOVED[key]}; remove it here")
        if not given:
            continue
        known = fields_of(module, name)
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, sorted(known - OURS[section].keys()), 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"see {name} of the installed trl"
                raise ConfigError(f"{section}.trl.{key}: {name} has no such field; {hint}")


def fields_of(module: str, name: str) -> set[str]:
    """The names a trainer's configuration takes."""
    try:
        found = vars(importlib.import_module(module))
        kind = found[name] if name in found else importlib.import_module(module).__getattr__(name)
    except ImportError:
        raise MissingExtra("training", "train") from None
    return {f.name for f in dataclasses.fields(kind) if f.init}
