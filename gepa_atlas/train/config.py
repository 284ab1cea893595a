"""The configuration of a training run: one YAML file, every key with its unit. Unknown keys are errors with the nearest known one.

Order, later wins: files in `defaults:`, the file itself, the flags of the command, `--set`, in the order given. Imports no torch:
names below `trl:` are checked against the installed trainers by `gepa_atlas.train.fields`, when a stage is about to run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from gepa_atlas.config import ProviderConfig
from gepa_atlas.configfile import Tree, assign, escape, expand, merge, put, read_with_defaults
from gepa_atlas.errors import ConfigError
from gepa_atlas.handoff.config import ExportConfig, ValidateConfig
from gepa_atlas.settings import Settings, load
from gepa_atlas.ship.config import GateConfig, PackageConfig

SCHEMA = "gepa-atlas.grpo/1"


class LoraConfig(Settings):
    """Low-rank adapters. `r` is the rank, `alpha` its scale (often 2 r)."""

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"  # names of modules; lm_head is refused by trl


class TinyConfig(Settings):
    """A random Llama with a word-level vocabulary of the hand-off's own texts, built on the spot: for tests and a first look."""

    hidden: int = Field(default=64, ge=8, multiple_of=4)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    vocabulary: int = Field(default=256, ge=16)  # words at most
    spaces: bool = False  # spaces and line breaks are part of the words: it can write demonstrations, which are told by their lines
    pretrain_steps: int = Field(default=0, ge=0)  # steps of next-word training on the hand-off's prompts before anything else


class ModelConfig(Settings):
    """The trainee: the teacher."""

    source: Literal["pretrained", "embedded", "tiny"] = "pretrained"  # a hub id or folder; the packaged SmolLM2, dequantised; random
    id: str | None = None  # of a pretrained model: hub id or folder (relative to the configuration)
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    context: int = Field(default=2048, ge=16)  # tokens of prompt and completion together
    trust_remote_code: bool = False
    attn_implementation: str | None = None  # as transformers names it; None: its choice
    lora: LoraConfig | None = LoraConfig()  # None: all weights are trained
    tiny: TinyConfig = TinyConfig()

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.source == "pretrained") != (self.id is not None):
            raise ValueError("id: source pretrained needs one, embedded and tiny have none")
        return self


class BaselineConfig(Settings):
    """The student alone: what guidance is measured against."""

    samples: int = Field(default=4, ge=1)  # runs of the student per task, judged each; cached


class RewardConfig(Settings):
    """Shaping of delta = reward with guidance - baseline, both in [0, 1]."""

    tau: float = Field(default=0.02, ge=0, lt=1)  # a loss up to this is noise; raised to the judges' own noise where that is larger
    degradation_multiplier: float = Field(default=3.0, ge=1, allow_inf_nan=False)  # lambda: weight of a loss beyond tau
    efficiency: float = Field(default=0.1, ge=0, allow_inf_nan=False)  # bonus on a gain for tokens that the student saved
    format_penalty: float = Field(default=0.5, ge=0, allow_inf_nan=False)  # guidance in no valid form; the judges are not asked
    leak_penalty: float = Field(default=1.0, ge=0, allow_inf_nan=False)  # guidance that says the gold answer; the judges are not asked
    max_reward: float = Field(default=2.0, gt=0, allow_inf_nan=False)  # shaped rewards are clipped to [-degradation_multiplier, this]
    concurrency: int = Field(default=32, ge=1)  # student and judge calls at once
    timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)  # wall clock of one student run with its judging
    retries: int = Field(default=3, ge=0)
    cache: bool = True  # answers by (student, task, guidance, judges), in output_dir/cache
    holdout: dict[str, Any] | None = None  # a `rim:` of another family, asked beside the first: the gap shows rewards being gamed
    holdout_share: float = Field(default=0.1, gt=0, le=1)  # of the samples


class SftConfig(Settings):
    """Warm-up on the best guidance."""

    enabled: bool = True
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)  # None: by epochs
    learning_rate: float = Field(default=1e-4, gt=0)
    batch_size: int = Field(default=4, ge=1)  # rows a device
    gradient_accumulation: int = Field(default=1, ge=1)
    max_length: int | None = Field(default=None, ge=8)  # tokens of a row; None: the longest measured. A row that is longer is an error
    prompt_dropout: float = Field(default=0.0, ge=0, lt=1)  # share of rows without the evolved prompt
    mini_gate: bool = True  # held-out delta not below the base model's by more than reward.tau, or the warm-up is dropped
    save_steps: int = Field(default=50, ge=1)
    trl: dict[str, Any] = Field(default_factory=dict)  # further fields of trl's SFTConfig


class PreferenceConfig(Settings):
    """Off-line preference training between SFT and GRPO: DPO on pairs, or KTO on single lessons."""

    enabled: bool = False
    method: Literal["dpo", "kto"] = "dpo"
    beta: float = Field(default=0.1, gt=0)
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=1e-5, gt=0)
    batch_size: int = Field(default=4, ge=1)
    undesirable_weight: float = Field(default=2.0, gt=0)  # of KTO: a lesson that degraded weighs this much
    trl: dict[str, Any] = Field(default_factory=dict)  # further fields of DPOConfig or KTOConfig


class GrpoConfig(Settings):
    """On-policy training with the delta as reward. Defaults: trl's own where rl.md gives no reason for another."""

    enabled: bool = True
    beta: float = Field(default=0.04, ge=0)  # weight of KL to the adapter that training starts from
    num_generations: int = Field(default=8, ge=2)  # completions of one prompt: a group
    max_steps: int = Field(default=250, ge=1)
    batch_size: int = Field(default=8, ge=1)  # completions a device and step
    gradient_accumulation: int = Field(default=1, ge=1)
    max_completion_length: int = Field(default=512, ge=1)  # tokens; dr_grpo divides by it, so keep it near what completions need
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    learning_rate: float = Field(default=1e-5, gt=0)
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant_with_warmup"
    warmup_steps: int = Field(default=0, ge=0)
    max_grad_norm: float = Field(default=0.2, gt=0)
    loss_type: Literal["dr_grpo", "grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dr_grpo"
    scale_rewards: Literal["none", "batch", "group"] = "none"
    allow_erased_asymmetry: bool = False  # take scale_rewards other than none although it erases the weight of losses
    no_harm: bool = True  # delta < -tau gives an advantage of at most 0
    anchor: float = Field(default=0.0, ge=0)  # weight of the shaped reward itself in the advantage: pushes an all-worse group down
    epsilon: float = Field(default=0.2, gt=0)
    epsilon_high: float = Field(default=0.28, gt=0)
    mask_truncated: bool = True
    curriculum: bool = True  # sample tasks by the spread of their rewards over the optimizer's candidates
    eval_steps: int | None = Field(default=None, ge=1)  # None: no evaluation during training, the last weights are kept
    save_steps: int = Field(default=10, ge=1)
    save_total_limit: int = Field(default=3, ge=1)
    gradient_checkpointing: bool = False
    trl: dict[str, Any] = Field(default_factory=dict)  # further fields of trl's GRPOConfig

    @model_validator(mode="after")
    def _asymmetric(self) -> Self:
        if self.scale_rewards != "none" and not self.allow_erased_asymmetry:
            raise ValueError(
                "scale_rewards: dividing by the group's deviation erases the weight of losses; set none, or allow_erased_asymmetry: true"
            )
        return self


class DistillConfig(Settings):
    """Prompt distillation (prompt_mode: distil): the weights learn what the evolved prompt says."""

    max_steps: int = Field(default=50, ge=1)
    learning_rate: float = Field(default=1e-5, gt=0)
    batch_size: int = Field(default=4, ge=1)
    max_prompt_length: int | None = Field(default=None, ge=8)  # tokens; None: the longest measured
    trl: dict[str, Any] = Field(default_factory=dict)  # further fields of SDFTConfig


class VllmConfig(Settings):
    """Generation by vLLM. `colocate` shares the training GPUs; `server` is a process of its own (`grpo launch` starts it)."""

    mode: Literal["off", "colocate", "server"] = "off"
    gpu_memory_utilization: float = Field(default=0.3, gt=0, le=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    sleep: bool = True  # colocate: free its memory during the optimizer step
    gpus: int = Field(default=1, ge=1)  # server: GPUs it gets, the first ones
    port: int | None = Field(default=None, ge=1, le=65535)  # server; None: a free one
    url: str | None = None  # server: one that runs already; `launch` then starts none
    start_timeout_s: float = Field(default=600.0, gt=0)  # how long /health may take


class GuardsConfig(Settings):
    """When training is stopped (exit 4), or saved and left for later (exit 75: the judges or the student are out)."""

    judge_failed_rate: float = Field(default=0.2, gt=0, le=1)  # unscored share of a step above which the breaker counts
    judge_backoff_s: tuple[float, ...] = (30.0, 120.0, 600.0)  # waits before the breaker opens
    kl_step1: float = Field(default=1e-3, gt=0)  # KL at step 1 above this: the reference is the wrong model
    kl_max: float = Field(default=0.5, gt=0)
    kl_patience: int = Field(default=3, ge=1)  # logs in a row
    entropy_min: float = Field(default=0.0, ge=0)  # nats a token; 0: warn only at exactly none
    collapse_delta: float = Field(default=0.0, ge=-3, le=1)  # moving mean of delta below this ...
    collapse_patience: int = Field(default=50, ge=1)  # ... for this many logs in a row
    zero_std_max: float = Field(default=0.9, gt=0, le=1)  # share of groups without any spread, for zero_std_patience logs: a warning
    zero_std_patience: int = Field(default=20, ge=1)
    clipped_ratio_max: float = Field(default=0.3, gt=0, le=1)  # completions cut at the limit
    length_growth_max: float = Field(default=2.0, gt=1)  # mean length over its start
    length_patience: int = Field(default=10, ge=1)
    holdout_drop: float = Field(default=0.05, gt=0)  # held-out judge falls by this while reward rises
    nonfinite_max: int = Field(default=3, ge=1)  # steps with gradients that are not finite


class EvalConfig(Settings):
    """The 2 x 2 of {base, adapter} x {seed prompt, evolved prompt} on untouched tasks."""

    split: Literal["test", "val"] = "test"
    samples: int = Field(default=4, ge=1)  # guidances (and student runs) a task
    max_tasks: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0)  # of the trainee; 0: greedy
    batch_size: int = Field(default=16, ge=1)
    underspecified: str | None = None  # JSONL {question} that cannot be answered: share of refusals
    regression: str | None = None  # JSONL {question, answer} asked of the model without the teacher prompt
    base_without_prompt: bool = False  # also adapter x none, as prompt_mode distil needs it


class LaunchConfig(Settings):
    """Who starts the training stages. `inline`: this process. `accelerate`: `accelerate launch`, with as many processes as asked for."""

    backend: Literal["inline", "accelerate"] = "inline"
    config: str | None = None  # accelerate's own YAML file, relative to this configuration; None: what accelerate finds
    processes: int = Field(default=1, ge=1)  # training processes; asserted against what was started
    cpu: bool = False


class TrackingConfig(Settings):
    """metrics.jsonl is always written. wandb and trackio are used when named, and must be installed."""

    report_to: tuple[Literal["wandb", "trackio", "tensorboard"], ...] = ()
    project: str | None = None
    run_name: str | None = None


class TrainConfig(Settings):
    """One file, one training run. docs/training.md says each key in a sentence."""

    name: str = Field(default="teacher", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    output_dir: str | None = None  # relative to the current directory; default: runs/<name of the file>-grpo
    seed: int = Field(default=0, ge=0)
    student: ProviderConfig | None = None  # who is taught; None: the agent of the optimization run
    rim: dict[str, Any] | None = None  # the judges; None: those of the optimization run
    optimize: str | None = None  # configuration of `gepa-atlas optimize` whose run is made first, where handoff.path names no traces
    handoff: ExportConfig = ExportConfig()
    validation: ValidateConfig = ValidateConfig()
    model: ModelConfig
    baseline: BaselineConfig = BaselineConfig()
    reward: RewardConfig = RewardConfig()
    sft: SftConfig = SftConfig()
    preference: PreferenceConfig = PreferenceConfig()
    grpo: GrpoConfig = GrpoConfig()
    distill: DistillConfig = DistillConfig()
    vllm: VllmConfig = VllmConfig()
    guards: GuardsConfig = GuardsConfig()
    eval: EvalConfig = EvalConfig()
    gate: GateConfig = GateConfig()
    package: PackageConfig = PackageConfig()
    launch: LaunchConfig = LaunchConfig()
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("rim", mode="before")
    @classmethod
    def _list_of_judges(cls, value: Any) -> Any:
        return {"judges": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.optimize is not None and self.handoff.path is not None:
            raise ValueError("optimize: makes the traces that handoff.path names already; keep one of the two")
        if self.handoff.prompt_mode == "population" and self.vllm.mode == "server":
            raise ValueError(
                "handoff.prompt_mode: population needs different prompts in one group, and a vllm server is sent the first one only; "
                "set vllm.mode: colocate or off"
            )
        if self.vllm.mode == "server" and self.vllm.url is None and self.launch.backend == "inline":
            raise ValueError("vllm.mode: a server gets GPUs of its own, which launch.backend: accelerate shares out; set that, or vllm.url")
        g, world = self.grpo, self.launch.processes
        if g.enabled and (g.batch_size * g.gradient_accumulation * world) % g.num_generations:
            raise ValueError(
                f"grpo.num_generations: {g.num_generations} does not divide the {g.batch_size} x {g.gradient_accumulation} x {world} "
                "completions of a step (batch_size x gradient_accumulation x launch.processes); change one of them"
            )
        if g.enabled and g.max_completion_length >= self.model.context:
            raise ValueError(
                f"grpo.max_completion_length: {g.max_completion_length} tokens leave no room for a prompt in model.context "
                f"{self.model.context}; lower it"
            )
        if not (self.sft.enabled or g.enabled or self.preference.enabled or self.handoff.prompt_mode == "distil"):
            raise ValueError("sft.enabled: nothing would be trained; enable sft, preference or grpo")
        return self


@dataclass(frozen=True)
class LoadedTrain:
    """A validated configuration, where it came from, and the same with defaults filled in and without secrets."""

    config: TrainConfig
    path: Path
    base_dir: Path  # relative input paths start here; output paths start at the current directory
    resolved: Tree

    @property
    def output_dir(self) -> Path:
        return Path(self.config.output_dir or Path("runs") / f"{self.path.stem}-grpo")


def load_train_config(
    path: Path | str,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    over: Sequence[Path] = (),
) -> LoadedTrain:
    """Read, merge, override, expand and validate.

    `over` are files laid over this one; then come `flags`, values by dotted key, and then `overrides`. Raises ConfigError, one line.
    """
    path = Path(path)
    env = os.environ if env is None else env
    tree: Any = read_with_defaults(path, lambda own, _: own)
    for file in over:
        tree = merge(tree, read_with_defaults(file, lambda own, _: own))
    if (flags or {}).get("handoff.path") is not None:
        tree = put(tree, ("optimize",), None, "--export-path")  # the traces are there: none need to be made
    for key, value in (flags or {}).items():
        if value is not None:
            tree = put(tree, tuple(key.split(".")), value, f"--{key}")
    for assignment in overrides:
        tree = assign(tree, assignment, lambda at: at)
    if (schema := tree.pop("schema", SCHEMA)) != SCHEMA:
        raise ConfigError(f"{path}: schema: this reads {SCHEMA} (got {schema!r}); write that, or remove the key")
    return _loaded(tree, path, env)


def from_resolved(tree: Tree, path: Path, env: Mapping[str, str] | None = None) -> LoadedTrain:
    """The configuration that a directory of a run keeps; `path` names it in messages. Variables of secrets are read again."""
    source = tree.pop("source", None)
    if not isinstance(source, str):
        raise ConfigError(f"{path}: does not name the configuration it was made from; use `gepa-atlas grpo run --config FILE` instead")
    found = _loaded(tree, path, os.environ if env is None else env)
    return LoadedTrain(found.config, Path(source), Path(source).resolve().parent, found.resolved)


def _loaded(tree: Tree, path: Path, env: Mapping[str, str]) -> LoadedTrain:
    expanded = expand(tree, env, str(path))
    try:
        config = load(TrainConfig, expanded.tree, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix(': ')}") from None
    resolved: Tree = escape(config.model_dump(mode="json"))
    for at, written in expanded.masked.items():
        resolved = put(resolved, at, written, str(path))
    return LoadedTrain(config, path, path.resolve().parent, resolved)
