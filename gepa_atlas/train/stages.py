"""The stages of a training run in order: which function each one is, what it needs, and which part of the configuration it reads.

A stage is `run(work: Workspace, config: TrainConfig) -> StageResult` (Workspace and StageResult: `gepa_atlas.handoff.workspace`), imported
on first use. What it reads beside the outputs of earlier stages is named by `inputs` functions `(work, config) -> {name: hash}`:
the stage is skipped when those, its part of the configuration and the outputs of `after` are those of its `stage.json`.
"""

from __future__ import annotations

from dataclasses import dataclass

from gepa_atlas.train.config import TrainConfig


@dataclass(frozen=True)
class Stage:
    """One line of the table. `reads` are sections of the configuration, or keys in them; `launched` stages may need several processes."""

    name: str
    entry: str  # module:function
    after: tuple[str, ...] = ()  # stages whose outputs it reads, those of them that are in the chain
    reads: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()  # module:function
    launched: bool = False

    @property
    def seeded(self) -> bool:
        """Whether its own process draws: models are made, trained or asked in it."""
        return self.launched or self.name == "eval"


_WEIGHTS = "gepa_atlas.train.weights:inputs"  # what the base model is made of
_SCHOOL = "gepa_atlas.train.reward:inputs"  # who is taught and who judges
_TRAINED = ("sft", "preference", "train", "distill")

STAGES: tuple[Stage, ...] = (
    Stage("optimize", "gepa_atlas.train.optimize:run", (), (), ("gepa_atlas.train.optimize:inputs",)),
    Stage("export", "gepa_atlas.handoff.exporter:run", ("optimize",), ("handoff", "sft.enabled"), ("gepa_atlas.handoff.exporter:inputs",)),
    Stage(
        "validate", "gepa_atlas.train.tokens:validate", ("export",),
        ("validation", "model", "grpo.enabled", "grpo.max_completion_length", "sft.enabled", "sft.max_length"),
        ("gepa_atlas.handoff.validator:inputs", _WEIGHTS),
    ),
    Stage("baseline", "gepa_atlas.train.baseline:run", ("export", "validate"), ("baseline", "reward", "student", "rim"), (_SCHOOL,)),
    Stage(
        "sft", "gepa_atlas.train.sft:run", ("export", "validate", "baseline"), ("model", "sft", "reward", "eval", "student", "rim"),
        (_WEIGHTS, _SCHOOL), launched=True,
    ),
    Stage(
        "preference", "gepa_atlas.train.preference:run", ("export", "validate", "sft"), ("model", "preference"), (_WEIGHTS,), launched=True
    ),
    Stage(
        "train", "gepa_atlas.train.grpo:run", ("export", "baseline", "sft", "preference"),
        ("model", "grpo", "reward", "guards", "vllm", "student", "rim", "launch"), (_WEIGHTS, _SCHOOL), launched=True,
    ),
    Stage(
        "distill", "gepa_atlas.train.distill:run", ("export", "sft", "preference", "train"), ("model", "distill"), (_WEIGHTS,),
        launched=True,
    ),
    Stage(
        "eval", "gepa_atlas.train.evaluate:run", ("export", "baseline", *_TRAINED), ("model", "eval", "reward", "student", "rim"),
        (_WEIGHTS, _SCHOOL, "gepa_atlas.train.suites:inputs"),
    ),
    Stage("gate", "gepa_atlas.ship.gate:run", ("export", "eval"), ("gate", "package"), ("gepa_atlas.ship.gate:inputs",)),
    Stage("package", "gepa_atlas.ship.bundle:run", ("export", *_TRAINED, "eval", "gate"), ("package", "model")),
)  # fmt: skip
BY_NAME = {stage.name: stage for stage in STAGES}


def chain(config: TrainConfig) -> tuple[Stage, ...]:
    """The stages that this configuration runs, in order."""
    wanted = {
        "optimize": config.optimize is not None,
        "sft": config.sft.enabled,
        "preference": config.preference.enabled,
        "train": config.grpo.enabled,
        "distill": config.handoff.prompt_mode == "distil",
    }
    return tuple(stage for stage in STAGES if wanted.get(stage.name, True))


def adapter_before(config: TrainConfig, stage: str) -> str | None:
    """The stage whose adapter `stage` starts from or looks at; None: the base model. Its file is <folder>/adapter/."""
    names = [s.name for s in chain(config)]
    earlier = names[: names.index(stage)] if stage in names else names
    return next((name for name in reversed(earlier) if name in _TRAINED), None)
