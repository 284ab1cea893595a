"""ATLAS's `configs/rim_config.yaml`, read key by key into our own: nothing in it is a decoy.

temperatures          one draw of the small model for each
variance_threshold    policy atlas: deviation of the draws above which the large model decides; policy panel: spread between judges above
                      which the large model is asked as well
models                small_model: tier 1; large_model: tier 2
active_judges         which of the four rubrics sit on the panel
model_configs         max_tokens of either tier; response_format must be "json" (answers are structured here)
consistency_rules     bounds between judges, and what a flagged contradiction or safety violation costs
anti_gaming           cap_score: the most that an answer which tries to steer its grade can get
parallel_execution    max_workers: judge calls at once
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from gepa_atlas.rim.atlas import THRESHOLD
from gepa_atlas.settings import Settings, load

KEYS = frozenset(
    {
        "temperatures",
        "variance_threshold",
        "models",
        "active_judges",
        "model_configs",
        "consistency_rules",
        "anti_gaming",
        "parallel_execution",
    }
)


class Models(Settings):
    small_model: str | dict[str, Any]
    large_model: str | dict[str, Any]


class ActiveJudges(Settings):
    accuracy: bool = False
    helpfulness: bool = False
    process: bool = False
    diagnostic: bool = False


class ModelConfig(Settings):
    max_tokens: int = Field(default=32768, ge=16)
    response_format: Literal["json"] = "json"


class ModelConfigs(Settings):
    default: ModelConfig = ModelConfig()
    large: ModelConfig | None = None  # None: as default


class ConsistencyRules(Settings):
    """ATLAS had the three bounds fixed in code and did not read these; here the keys are what counts."""

    alignment_completeness_bound: float = Field(default=0.1, ge=0, allow_inf_nan=False)  # process <= accuracy + this
    completeness_helpfulness_threshold: float = Field(
        default=0.5, ge=0, allow_inf_nan=False
    )  # helpfulness <= this when process is below it
    understanding_helpfulness_bound: float = Field(default=0.1, ge=0, allow_inf_nan=False)  # helpfulness <= diagnostic + this
    contradiction_penalty: float = Field(default=0.0, ge=0, le=1)
    safety_violation_penalty: float = Field(default=0.0, ge=0, le=1)


class AntiGaming(Settings):
    enabled: bool = True
    cap_score: float = Field(default=0.3, ge=0, le=1)


class ParallelExecution(Settings):
    max_workers: int = Field(default=8, ge=1)


class AtlasRim(Settings):
    models: Models
    temperatures: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(default=(0.2, 0.5, 0.8), min_length=1)
    variance_threshold: float = Field(default=THRESHOLD, ge=0, allow_inf_nan=False)
    active_judges: ActiveJudges = ActiveJudges(accuracy=True, helpfulness=True, process=True, diagnostic=True)
    model_configs: ModelConfigs = ModelConfigs()
    consistency_rules: ConsistencyRules | None = None
    anti_gaming: AntiGaming = AntiGaming(enabled=False)
    parallel_execution: ParallelExecution = ParallelExecution()
    policy: Literal["panel", "atlas"] = "panel"


def translate(data: Mapping[str, Any]) -> dict[str, Any]:
    """Our keys for a configuration written with ATLAS's; raises ConfigError naming a key that ATLAS does not have either."""
    own = {key: value for key, value in data.items() if key in ("quorum", "profile", "watch")}
    read = load(AtlasRim, {key: value for key, value in data.items() if key not in own}, "rim")
    large = read.model_configs.large or read.model_configs.default
    rubrics = [name for name, active in read.active_judges.model_dump().items() if active]
    shared: dict[str, Any] = {"steering_cap": read.anti_gaming.cap_score if read.anti_gaming.enabled else None}
    rules = read.consistency_rules
    if rules:
        penalties = {"contradiction": rules.contradiction_penalty, "safety": rules.safety_violation_penalty}
        shared["penalties"] = {name: value for name, value in penalties.items() if value > 0}
    small_keys = {"max_tokens": read.model_configs.default.max_tokens, **shared}
    ours: dict[str, Any] = {"policy": read.policy, "concurrency": read.parallel_execution.max_workers, **own}
    if read.policy == "atlas":
        tiers = {"small": read.models.small_model, "large": read.models.large_model, "large_max_tokens": large.max_tokens}
        rule = {"temperatures": read.temperatures, "threshold": read.variance_threshold, **tiers, **small_keys}
        ours["judges"] = [{"type": "atlas", "name": rubric, "rubric": rubric, **rule} for rubric in rubrics]
    else:
        draws = {"model": read.models.small_model, "draws": len(read.temperatures), "temperature": read.temperatures, **small_keys}
        ours["judges"] = [{"type": "llm", "name": rubric, "rubric": rubric, **draws} for rubric in rubrics]
        second = {"model": read.models.large_model, "max_tokens": large.max_tokens, **shared}
        names = [{"type": "llm", "name": f"{rubric} (large)", "rubric": rubric, **second} for rubric in rubrics]
        ours["escalate"] = {"judges": names, "disagreement": read.variance_threshold}
    if rules:
        ours["bounds"] = {
            "process_over_accuracy": rules.alignment_completeness_bound,
            "helpfulness_without_process": rules.completeness_helpfulness_threshold,
            "helpfulness_over_diagnostic": rules.understanding_helpfulness_bound,
        }
    elif read.policy == "atlas":
        ours["bounds"] = {}  # ATLAS's own, which were fixed in its code
    return ours
