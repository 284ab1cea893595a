"""The `rim:` section of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from gepa_atlas.errors import ConfigError
from gepa_atlas.rim.compare import CompareSettings
from gepa_atlas.rim.judges.base import JudgeSettings
from gepa_atlas.rim.registry import read_judge
from gepa_atlas.settings import Settings

AnyJudge = SerializeAsAny[JudgeSettings]


def _judges(value: Any, where: str) -> tuple[JudgeSettings, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: give a list of judges, for example [exact], not {value!r}"[:200])
    judges = tuple(read_judge(entry, f"{where}.{i}") for i, entry in enumerate(value))
    names = [judge.called for judge in judges]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(f"{where}.{i}.name: {name!r} is taken by an earlier judge; give each judge its own `name`")
    return judges


class Escalate(Settings):
    """Tier 2: judges added to the mean, never put in its place, where tier 1 disagrees or the two sides of a delta are close.

    Programs and models disagree like any other judges. One side of a delta is never escalated alone.
    """

    judges: tuple[AnyJudge, ...] = Field(min_length=1)
    disagreement: float = Field(
        default=0.3, ge=0, allow_inf_nan=False
    )  # spread (highest minus lowest) of tier 1 above which tier 2 is asked
    margin: float = Field(default=0.1, ge=0, allow_inf_nan=False)  # |after - before| below which it is asked on both sides

    @field_validator("judges", mode="before")
    @classmethod
    def _read(cls, value: Any) -> tuple[JudgeSettings, ...]:
        return _judges(value, "rim.escalate.judges")


class Bounds(Settings):
    """ATLAS's consistency rules between its four judges; applied where both judges of a rule have scored."""

    process_over_accuracy: float = Field(default=0.1, ge=0, allow_inf_nan=False)  # process <= accuracy + this
    helpfulness_without_process: float = Field(default=0.5, ge=0, allow_inf_nan=False)  # helpfulness <= this when process is below it
    helpfulness_over_diagnostic: float = Field(default=0.1, ge=0, allow_inf_nan=False)  # helpfulness <= diagnostic + this


class RimConfig(Settings):
    """Which judges sit on the panel, and when their word counts. ATLAS's own `rim:` section is read as well (`rim.atlas_config`).

    `quorum` is the share (by weight) of the active judges that must have scored. The default asks for all of them: a mean over
    other judges before than after would be a delta between two instruments.
    """

    judges: tuple[AnyJudge, ...] = Field(min_length=1)
    policy: Literal["panel", "atlas"] = "panel"  # atlas: every judge follows ATLAS's own rule, for comparison
    quorum: Annotated[float, Field(gt=0, le=1)] = 1.0
    escalate: Escalate | None = None
    profile: str | None = None  # what `rim calibrate --labels` wrote: weights, bias and noise by judge, and the map to a probability
    watch: AnyJudge | None = None  # scored and recorded beside the panel, never pooled: the gap to it shows rewards being gamed
    compare: CompareSettings | None = None  # also compares the two sides of a delta, in both orders
    bounds: Bounds | None = None
    concurrency: int = Field(default=64, ge=1)  # judge calls at once, where the panel is used on its own (RIMReward)

    @model_validator(mode="before")
    @classmethod
    def _from_atlas(cls, data: Any) -> Any:
        from gepa_atlas.rim.atlas_config import KEYS, translate

        if not isinstance(data, Mapping) or not KEYS & data.keys():
            return data
        if "judges" in data:
            key = sorted(KEYS & data.keys())[0]
            raise ConfigError(f"rim.{key}: a key of ATLAS's configuration beside `judges`; write one or the other")
        return translate(data)

    @field_validator("judges", mode="before")
    @classmethod
    def _read(cls, value: Any) -> tuple[JudgeSettings, ...]:
        return _judges(value, "rim.judges")

    @field_validator("watch", mode="before")
    @classmethod
    def _read_watch(cls, value: Any) -> JudgeSettings | None:
        return None if value is None else read_judge(value, "rim.watch")

    @model_validator(mode="after")
    def _fits(self) -> RimConfig:
        if self.policy == "atlas" and any(judge.type != "atlas" for judge in self.judges):
            raise ConfigError("rim.policy: atlas is the rule of judges of type atlas (or of ATLAS's own keys); give such, or take panel")
        names = [j.called for j in (*self.judges, *(self.escalate.judges if self.escalate else ()), *([self.watch] if self.watch else []))]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"rim: two judges are called {name!r}; give each its own `name`")
        return self
