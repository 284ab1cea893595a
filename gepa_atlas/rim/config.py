"""The `rim:` section of a configuration."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, field_validator

from gepa_atlas.errors import ConfigError
from gepa_atlas.rim.judges.base import JudgeSettings
from gepa_atlas.rim.registry import read_judge
from gepa_atlas.settings import Settings


class RimConfig(Settings):
    """Which judges sit on the panel, and when their word counts.

    `quorum` is the share (by weight) of the active judges that must have scored. The default asks for all of them: a mean over
    other judges before than after would be a delta between two instruments.
    """

    judges: tuple[SerializeAsAny[JudgeSettings], ...] = Field(min_length=1)
    quorum: Annotated[float, Field(gt=0, le=1)] = 1.0

    @field_validator("judges", mode="before")
    @classmethod
    def _read(cls, value: Any) -> tuple[JudgeSettings, ...]:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"rim.judges: give a list of judges, for example [exact], not {value!r}"[:200])
        judges = tuple(read_judge(entry, f"rim.judges.{i}") for i, entry in enumerate(value))
        names = [judge.called for judge in judges]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ConfigError(f"rim.judges.{i}.name: {name!r} is taken by an earlier judge; give each judge its own `name`")
        return judges
